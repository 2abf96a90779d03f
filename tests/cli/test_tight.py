#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""What once failed with a budget that was said to do: group, dedupe, join and partition in next to no memory."""
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h


class Tight(h.Case):
    def setUp(self):
        super().setUp()
        h.need_plain_build()

    def table(self, rows, missing=0.3):
        """Rows whose key s is often empty: one group is a large part of all."""
        r = self.random
        return b"k,s,i,d\n" + b"".join(b"k%d,%s,%d,%.4f\n" % (r.randrange(10 ** 6), b"" if r.random() < missing else b"%x" % r.randrange(1 << 20),
                                                             r.randrange(-999, 999), r.random() * 1e6) for _ in range(rows))

    def test_duplicates_of_a_giant_key_leave_when_its_runs_want_memory(self):
        source = self.write("t.csv", self.table(220_000))
        kept = set()
        for memory in ("6M", "7M", "9M", "12M"):
            for threads in ("1", "2", "3"):
                result = h.carbide("dedupe", "-k", "s", "--keep", "min:i", "-S", memory, "-j", threads, "-T", self.temp, "-o", self.path("o"),
                                   "--duplicates", self.path("twice"), source)
                self.assertEnded(result, 0)
                kept.add((self.read("o"), self.read("twice")))
        self.assertEqual(len(kept), 1, "results differ")

    def test_a_giant_group_shows_texts_as_long_as_they_are_and_names_what_will_do(self):
        """What an aggregate shows has no room of a fixed size: a result of half a megabyte beside five others."""
        for missing in (1, 0.5):
            source = self.write("t.csv", self.table(60_000, missing))
            wanted = ["collect(i)", "last(k)", "argmin(k,d)", "argmax(s,k:str)", "mode(s)", "p95(d)", "p50(k:str)", "countdistinct(k)", "top3(k:str)",
                      "bottom2(i)", "min(k:str)", "approxdistinct(k)", "collect(i:num)", "last(d:num)"]
            want = h.carbide("group", "-k", "s", *wanted, "-S", "500M", source)
            self.assertEnded(want, 0)
            words = ["group", "-k", "s", *wanted, "-T", self.temp, source]
            for memory in ("6M", "8M", "12M"):
                result = h.carbide(*words, "-S", memory)
                if result.exit == h.BUDGET:
                    result = h.carbide(*words, "-S", re.search(r"--memory (\d+[KMG]?)", result.text)[1])
                self.assertEnded(result, 0)
                self.assertSameBytes(result.out, want.out, f"{memory}, {missing}")

    def test_a_result_larger_than_what_a_worker_has_is_put_together_in_pages(self):
        source = self.write("t.csv", b"k,i\n" + b"".join(b"a,%d.50\n" % n for n in range(600_000)))
        want = b"collect(i)\n" + b";".join(b"%d.50" % n for n in range(600_000)) + b"\n"
        result = h.carbide("group", "collect(i)", "-S", "64M", "-T", self.temp, source)
        if result.exit == h.BUDGET:
            result = h.carbide("group", "collect(i)", "-S", re.search(r"--memory (\d+[KMG]?)", result.text)[1], source)
        self.assertEnded(result, 0)
        self.assertSameBytes(result.out, want)
        self.assertSameBytes(h.carbide("group", "collect(i)", "-S", "1G", source).out, want)

    def test_states_larger_than_partitions_are_added_up_or_refused(self):
        """A correlation of floats has two KiB: some hundreds of them are more than a worker has for a partition."""
        draw = self.random.randrange
        source = self.write("in.csv", b"k," + b",".join(b"c%d" % i for i in range(40)) + b"\n" + b"".join(
            b"%s,%s\n" % (b"one" if n % 2 else b"%d" % n, b",".join(b"%d" % draw(10 ** 6) for _ in range(40))) for n in range(8000)))
        done = 0
        for number, memory in ((200, 7), (400, 6), (400, 9), (700, 9), (1000, 12), (400, 24)):
            words = ["-k", "k", *(f"a{i}=corr(c{i % 40}:float,c{(i * 7 + 1 + i // 40) % 40}:float)" for i in range(number)), source]
            want = h.carbide("group", *words, "-S", "2G")
            self.assertEnded(want, 0)
            result = h.carbide("group", *words, "-S", f"{memory}M", f"--stats={self.path('stats')}")
            self.assertIn(result.exit, (0, h.BUDGET), f"{number} in {memory} MiB: {result}")
            if result.exit == 0:
                self.assertSameBytes(result.out, want.out)
                done += 1
            else:
                enough = re.search(r"--memory (\d+)M", result.text)[1]
                self.assertLess(int(enough), 64, result.text)
                self.assertSameBytes(h.carbide("group", *words, "-S", enough + "M").out, want.out)
            if h.PLAIN:
                self.assertLessEqual(json.loads(self.read("stats"))["stats"]["rss_peak_bytes"], (memory << 20) + h.DEBUG_BYTES, f"{number} in {memory} MiB")
        self.assertGreater(done, 0)

    def test_results_of_many_segments_find_them_in_one_piece(self):
        """Three thousand floats a group are rows of eight segments and more, made while the next partitions lie in memory here and there."""
        h.need_plain_build()
        columns = [f"c{i}" for i in range(60)]
        draw = self.random.randrange
        lines = [",".join(["k", *columns])] + [",".join([str(draw(3000)), *(f"{draw(10 ** 6) / 1000}" for _ in columns)]) for _ in range(4000)]
        source = self.write("in.csv", "\n".join(lines).encode() + b"\n")
        functions = ["sum", "min", "max", "mean", "var", "count", "sd"]
        words = ["-k", "k", *(f"a{i}={functions[i % 7]}(c{i % 60}:float)" for i in range(3000)), source]
        want = None
        for memory in ("8M", "16M", "17M"):  # what 8 MiB do more can do, too
            with self.subTest(memory=memory):
                self.assertEnded(h.carbide("group", *words, "--memory", memory, "-j", "2", "-o", self.path("out")), 0)
                want = want or self.read("out")
                self.assertSameBytes(self.read("out"), want)

    def test_keys_larger_than_what_a_worker_has_are_put_together_in_pages(self):
        """Keys of a megabyte, some of them in one partition by chance, which is then more than its worker has room for."""
        source = self.write("in.csv", b"k,v\n" + b"".join(b"%06d%s,%d\n" % (n % 25, b"k" * h.MIB, n) for n in range(50)))
        words = ["-k", "k", "--sorted-output", "count()", "sum(v)", source]
        want = h.carbide("group", *words, "-S", "1G")
        self.assertEnded(want, 0)
        for memory in ("32M", "36M", "40M"):
            result = h.carbide("group", *words, "-S", memory, "-j", "1")
            self.assertEnded(result, 0)
            self.assertSameBytes(result.out, want.out)

    def test_workers_with_results_of_megabytes_do_not_fail_each_other(self):
        """A result lies twice in one piece while it is made: two workers each wanted what the other one had, by chance."""
        source = self.write("in.csv", b"k,v\n" + b"".join(b"%06d%s,%d\n" % (n % 25, b"k" * h.MIB, n) for n in range(50)))
        for words in (["group", "-k", "k", "--sorted-output", "count()", "sum(v)", source], ["dedupe", "-k", "k", "--sorted-output", source],
                      ["group", "-k", "k", "--sorted-output", "median(v)", source]):
            want = h.carbide(*words, "-S", "1G")
            self.assertEnded(want, 0)
            for memory in ("24M", "24M", "24M", "24M", "30M", "36M", "40M"):  # what is whose partition is drawn anew each time
                result = h.carbide(*words, "-S", memory, "-j", "2", "-T", self.temp)
                self.assertEnded(result, 0)
                self.assertSameBytes(result.out, want.out)

    def test_the_budget_named_for_a_giant_key_will_do_and_is_no_multiple_of_it(self):
        source = self.write("in.csv", b"k,v\n" + b"".join(b"%d%s,%d\n" % (n % 2, b"q" * (5 * h.MIB), n) for n in range(4)))
        words = ["group", "-k", "k", "count()", "sum(v)", source, "-T", self.temp]
        want = h.carbide(*words, "-S", "1G")
        for threads in ("1", "2"):
            result = h.carbide(*words, "-S", "16M", "-j", threads)
            self.assertEnded(result, h.BUDGET)
            named = int(re.search(r"--memory (\d+)M", result.text)[1])
            self.assertLessEqual(named, 100, result.text)  # about 45 are needed, 124 were named
            result = h.carbide(*words, "-S", f"{named}M", "-j", threads)
            self.assertEnded(result, 0)
            self.assertSameBytes(result.out, want.out)

    def test_the_least_budget_that_is_named_for_a_compressed_input_will_do(self):
        plain = self.table(60_000)
        for end, tool in (("zst", ["zstd", "-qc1"]), ("gz", ["gzip", "-c"]), ("lz4", ["lz4", "-qcB4"])):
            source = self.write(f"t.csv.{end}", subprocess.run(tool, input=plain, stdout=subprocess.PIPE, check=True).stdout)
            for verb in (["sort", "-k", "s"], ["group", "-k", "s", "sum(i)"], ["dedupe", "-k", "s"]):
                for memory in ("5M", "7M"):
                    words = [*verb, "-T", self.temp, "-o", self.path("o"), source]
                    result = h.carbide(*words, "-S", memory)
                    if result.exit == h.BUDGET:
                        named = re.search(r"--memory (\d+[KMG]?)", result.text)
                        self.assertTrue(named, result)
                        named = named[1]
                        result = h.carbide(*words, "-S", named)
                    self.assertEnded(result, 0)

    def test_a_decoder_that_is_refused_names_a_budget(self):
        """Blocks of 4 MiB and wide windows: at the first frame, and at one further behind."""
        plain = self.table(40_000)
        half = plain.index(b"\n", len(plain) // 2) + 1
        few, wide = ["lz4", "-qcB4"], ["zstd", "-qc1", "--zstd=windowLog=22"]
        for end, frames in (("lz4", [["lz4", "-qcB7"]]), ("lz4", [few, ["lz4", "-qcB7"]]), ("zst", [wide]), ("zst", [["zstd", "-qc1", "--zstd=windowLog=18"], wide])):
            parts = [plain] if len(frames) == 1 else [plain[:half], plain[half:]]
            # from a pipe, so that no frame says how little there is of it
            source = self.write(f"t.csv.{end}", b"".join(subprocess.run(tool, input=part, stdout=subprocess.PIPE, check=True).stdout
                                                         for tool, part in zip(frames, parts)))
            for verb in (["sort", "-k", "s"], ["group", "-k", "s", "sum(i)"]):
                for memory in ("5M", "13M"):
                    words = [*verb, "-T", self.temp, "-o", self.path("o"), source]
                    result = h.carbide(*words, "-S", memory)
                    for _ in range(3):  # what is before the frame may ask for its own
                        if result.exit != h.BUDGET:
                            break
                        named = re.search(r"--memory (\d+)M", result.text)
                        self.assertTrue(named, result)
                        self.assertLess(int(named[1]), 64, result)
                        result = h.carbide(*words, "-S", named[1] + "M")
                    self.assertEnded(result, 0)

    def test_large_keys_of_a_stream_do_not_keep_large_rows_waiting(self):
        """Who holds memory for the key of one row may not wait for a turn to read that is another's who waits for such memory."""
        r = self.random
        rows = [bytes(r.choices(b"abcdef", k=int(2 ** r.uniform(10, 16.9)))) for _ in range(60)]
        data, want = b"\n".join(rows) + b"\n", b"\n".join(sorted(rows)) + b"\n"
        for memory in ("16M", "20M", "24M"):
            for _ in range(3):
                words = ["sort", "-T", self.temp, "--parallel", "6", "-t,", "-k1,1"]
                result = h.carbide(*words, "-S", memory, stdin=data)
                if result.exit == h.BUDGET:
                    result = h.carbide(*words, "-S", "64M", stdin=data)
                self.assertEnded(result, 0)
                self.assertSameBytes(result.out, want, memory)

    def test_a_join_counts_the_decoders_of_both_inputs(self):
        table = self.table(30_000, 0)
        for end, tool in (("zst", ["zstd", "-qc3"]), ("lz4", ["lz4", "-qcB7"])):
            source = self.write(f"t.csv.{end}", subprocess.run(tool, input=table, stdout=subprocess.PIPE, check=True).stdout)
            words = ["join", "-k", "k", "--how", "semi", "-T", self.temp, "-o", self.path("o"), source, source]
            for memory in ("12M", "24M"):
                result = h.carbide(*words, "-S", memory)
                if result.exit != 0:
                    self.assertEqual(result.exit, h.BUDGET, result)
                    memory = re.search(r"--memory (\d+[KMG]?)", result.text)[1]
                got = h.measure([h.CARBIDE, *words, "-S", memory])
                self.assertEqual(got["exit"], 0, (end, got))
                self.assertLessEqual(got["rss_peak"], int(memory[:-1]) * h.MIB + h.DEBUG_BYTES, f"{end} {memory}")
                self.assertSameBytes(self.read("o"), table, f"{end} {memory}")

    def test_rows_of_a_megabyte_in_order_are_in_the_budget(self):
        """What a sorted join keeps of a row and of its key lies in pages; a blank-separated row in the baseline."""
        big = b"x" * 900_000
        rows = [b"%05d%s,%d\n" % (i, big if i % 400 == 7 else b"", i) for i in range(1200)]
        left, right = self.write("a.csv", b"k,v\n" + b"".join(rows)), self.write("b.csv", b"k,w\n" + b"".join(rows[::2]))
        want = h.carbide("join", "-k", "k", left, right)
        self.assertEnded(want, 0)
        got = h.measure([h.CARBIDE, "join", "--sorted", "-k", "k", "-S", "48M", "-T", self.temp, "-o", self.path("o"), left, right])
        self.assertEqual(got["exit"], 0, got)
        self.assertLessEqual(got["rss_peak"], 48 * h.MIB + h.DEBUG_BYTES)
        self.assertSameBytes(self.read("o"), want.out)
        blank = self.write("blank", b"a " + b"y" * 400_000 + b" z\nb 1 z\n")
        got = h.measure([h.CARBIDE, "join", "-1", "1", "-2", "1", "-S", "32M", "-T", self.temp, blank, blank])
        self.assertEqual(got["exit"], 0, got)
        self.assertLessEqual(got["rss_peak"], 32 * h.MIB + h.DEBUG_BYTES)
        result = h.carbide("join", "-1", "1", "-2", "1", "-S", "8M", blank, blank)
        self.assertEnded(result, h.BUDGET)
        self.assertSaid(result, "--memory")  # for the row, or for the program that has to read it


if __name__ == "__main__":
    h.main()
