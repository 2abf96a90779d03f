#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 400
"""The seven causes of other engines' out-of-memory failures, a test each.

Reports of running out of memory in sorts, groups and joins of well-known engines have seven causes, named below. Each test builds the
input that would find it and runs it twice: free, with peak RSS measured from outside, and in a memory cgroup whose limit IS the budget.
"""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h


class Causes(h.Case):
    def setUp(self):
        super().setUp()
        h.need_plain_build()
        self.tool = h.compiled("tool", os.path.join(h.ROOT, "bench/tool.c"))

    def generate(self, kind, rows, name):
        subprocess.run([self.tool, f"gen-{kind}", str(rows), "7", self.path(name)], check=True)
        return self.path(name)

    def holds(self, memory, *arguments, want=None, may_end_with=(0,), cgroups=True, timeout=240):
        """The sort stays inside `memory` MiB, measured both ways; `want` is the file with the right bytes."""
        for limit in (None, memory * h.MIB) if cgroups and h.cgroup_kind() != "none" else (None,):
            out = self.path("out")
            if os.path.exists(out):
                os.unlink(out)
            got = h.measure([h.CARBIDE, "sort", "--memory", f"{memory}M", "-T", self.temp, "-o", out, *map(str, arguments)], cgroup=limit, timeout=timeout)
            where = f"{memory} MiB{' in a cgroup of that' if limit else ''}, {arguments[:4]}"
            self.assertEqual((got["signal"], got["oom_kills"], got["timed_out"]), (0, 0, False), f"{where}: {got}")
            self.assertIn(got["exit"], may_end_with, f"{where}: {got}")
            self.assertLessEqual(got["rss_peak"], memory * h.MIB + h.DEBUG_BYTES, f"{where}: peak RSS {got['rss_peak'] / h.MIB:.1f} MiB")
            if got["exit"] == 0 and want:
                self.assertEqual(subprocess.run(["cmp", out, want], capture_output=True).stdout, b"", where)
            if got["exit"] != 0:
                self.assertTrue(got["err"].strip(), f"{where}: no message")
                self.assertFalse(os.path.exists(out), where)
            self.assertNothingLeft()
        if h.cgroup_kind() == "none":
            print("\n*** NO MEMORY CGROUP HERE: measured by peak RSS only ***", file=sys.stderr, flush=True)
        return got

    def sorted_by_gnu(self, source, *arguments):
        subprocess.run(["sort", "-S", "256M", *arguments, "-o", self.path("want"), source], env=h.C_LOCALE, check=True)
        return self.path("want")

    def test_1_allocations_outside_the_accounts(self):
        """Codecs bring their own tables and windows; the widest ones must not come on top of the budget."""
        source = self.generate("lines", 400_000, "in")
        want = self.sorted_by_gnu(source)
        for suffix, commands in ((".gz", [["gzip", "-c1"]]), (".lz4", [["lz4", "-c", "-BD"]]),
                                 (".zst", [["zstd", "-c1"], ["zstd", "-c", "-19"] if h.LONG else ["zstd", "-c", "-9"]])):
            for command in commands:
                if shutil.which(command[0]) is None:
                    h.skip_loudly(f"{command[0]} is not there")
                with open(self.path("in" + suffix), "wb") as f:
                    subprocess.run([*command, source], stdout=f, stderr=subprocess.DEVNULL, check=True)
                with self.subTest(codec=command):
                    self.holds(24, self.path("in" + suffix), want=want)
        for suffix in (".gz", ".lz4", ".zst"):
            with self.subTest(output=suffix):
                out = self.path("packed" + suffix)
                got = h.measure([h.CARBIDE, "sort", "--memory", "24M", "-T", self.temp, "-o", out, source])
                self.assertEqual(got["exit"], 0, got)
                self.assertLessEqual(got["rss_peak"], 24 * h.MIB + h.DEBUG_BYTES)
        # A window of 128 MiB cannot fit: it has to be refused, not taken.
        with open(self.path("wide.zst"), "wb") as f:
            subprocess.run(["zstd", "-c1", "--long=27", source], stdout=f, stderr=subprocess.DEVNULL, check=True)
        self.holds(24, self.path("wide.zst"), want=want, may_end_with=(0, h.USAGE_OR_IO, h.BAD_DATA, h.BUDGET))

    def test_2_a_table_that_doubles(self):
        """Tiny rows: the table of places is many times the rows. Then all equal and unique, where tables of keys would grow."""
        rows = 4_000_000 if not h.LONG else 40_000_000
        with open(self.path("in"), "wb") as f:
            block = b"".join(b"%c\n" % self.random.choice(b"abcdefghijklmnop") for _ in range(100_000))
            for _ in range(rows // 100_000):
                f.write(block)
        want = self.sorted_by_gnu(self.path("in"))
        self.holds(8, self.path("in"), want=want)
        self.holds(8, "-u", self.path("in"), want=self.sorted_by_gnu(self.path("in"), "-u"))
        with open(self.path("empty"), "wb") as f:
            f.write(b"\n" * 5_000_000)
        self.holds(8, self.path("empty"), want=self.path("empty"))

    def test_3_fan_in_times_buffer(self):
        """A thousand sorted inputs, and a stream that makes as many runs as the budget can."""
        names = []
        for i in range(1000):
            names.append(self.write(f"run{i:04}", b"".join(sorted(b"%08d %s\n" % (self.random.randrange(10 ** 8), b"." * 80) for _ in range(60)))))
        with open(self.path("all"), "wb") as f:
            subprocess.run(["cat", *names], stdout=f, check=True)
        want = self.sorted_by_gnu(self.path("all"))
        self.holds(8, "-m", *names, want=want)
        self.holds(16, "-j", 4, "-m", *names, want=want)
        source = self.generate("lines", 4_000_000 if h.LONG else 1_200_000, "in")
        want = self.sorted_by_gnu(source)
        for limit in (None, 10 * h.MIB + h.DEBUG_BYTES):  # cat and the shell are in it as well
            if limit and h.cgroup_kind() == "none":
                continue
            got = h.measure(["sh", "-c", f"cat '{source}' | '{h.CARBIDE}' sort --memory 8M -T '{self.temp}' -o '{self.path('out')}'"], cgroup=limit)
            self.assertEqual((got["exit"], got["oom_kills"]), (0, 0), got)
            self.assertLessEqual(got["rss_peak"], 8 * h.MIB + h.DEBUG_BYTES)
            self.assertEqual(subprocess.run(["cmp", self.path("out"), want], capture_output=True).stdout, b"")

    def test_4_no_room_kept_for_spilling_itself(self):
        """The smallest budget that is allowed, found by asking, has to do the whole job, spilling included."""
        source = self.generate("lines", 800_000, "in")
        want = self.sorted_by_gnu(source)
        smallest = None
        for memory in range(2, 17):
            got = h.measure([h.CARBIDE, "sort", "--memory", f"{memory}M", "-T", self.temp, "-o", self.path("out"), source])
            self.assertIn(got["exit"], (0, h.BUDGET), f"{memory} MiB: {got}")
            if got["exit"] == 0:
                smallest = memory
                break
        print(f"[smallest budget: {smallest} MiB] ", end="", file=sys.stderr, flush=True)
        self.assertIsNotNone(smallest)
        self.assertLessEqual(smallest, 8)
        for threads in (1, 2, 4):
            self.holds(max(smallest, 8), "-j", threads, source, want=want)
        self.holds(smallest, source, want=want, cgroups=False)

    def test_4b_more_budget_never_fails_where_less_was_enough(self):
        source = self.generate("lines", 300_000, "in")
        want = self.sorted_by_gnu(source)
        for memory in list(range(8, 41, 4 if not h.LONG else 1)) + [80, 100, 200]:
            self.holds(memory, source, want=want, cgroups=False)

    def test_5_threads_that_each_think_the_budget_is_theirs(self):
        source = self.generate("lines", 600_000, "in")
        want = self.sorted_by_gnu(source)
        for memory, threads in ((8, 2), (8, 8), (16, 16), (16, 64), (64, 64)):
            self.holds(memory, "-j", threads, source, want=want, may_end_with=(0, h.BUDGET) if threads > 8 else (0,))

    def test_6_many_partitions_with_a_buffer_each(self):
        """Input of dozens of times the budget wants many ranges; skew puts nearly all rows into one of them."""
        rows = 20_000_000 if h.LONG else 3_000_000
        source = self.generate("lines", rows, "in")
        if h.LONG:
            self.holds(16, source, want=self.sorted_by_gnu(source), timeout=600)
        else:
            got = self.holds(8, source, cgroups=False)
            judged = subprocess.run([self.tool, "check", "lines", self.path("out")], capture_output=True, text=True, check=True).stdout
            self.assertIn('"ordered": true', judged, got)
        os.unlink(source)
        skewed = self.path("skewed")
        with open(skewed, "wb") as f:
            for i in range(500_000):
                f.write(b"k%06d %s\n" % (0 if self.random.random() < 0.97 else self.random.randrange(10 ** 6), b"%07d" % (i * 7919 % 500_000) + b"." * 60))
        self.holds(8, skewed, want=self.sorted_by_gnu(skewed))
        self.holds(8, "-t", " ", "-k", "1,1", skewed, want=self.sorted_by_gnu(skewed, "-s", "-t", " ", "-k", "1,1"))

    def test_7_one_huge_row_or_key(self):
        """A row of a fifth of the budget goes through; keys made of bytes that must be escaped double on the way; too large is refused."""
        filler = [b"%08d %s\n" % (self.random.randrange(10 ** 8), b"." * 80) for _ in range(250_000)]
        rows = list(filler)
        for at, size in ((1000, 3 << 20), (200_000, 3 << 20), (200_001, 2 << 20)):
            rows.insert(at, b"%d" % (at % 10) + b"r" * size + b"\n")
        source = self.write("in", b"".join(rows))
        self.holds(32, source, want=self.sorted_by_gnu(source))
        keys = [b"%d,%d\n" % (self.random.randrange(10 ** 6), i) for i in range(100_000)]
        keys.insert(50_000, b"\0" * (1 << 20) + b",x\n")
        keys.insert(70_000, b"\0" * (1 << 20) + b"a,x\n")
        table = self.write("in.csv", b"k,v\n" + b"".join(keys))
        want = self.write("want", b"k,v\n" + b"".join(sorted(keys, key=lambda x: x.split(b",")[0])))
        self.holds(32, "-k", "k", table, want=want)
        self.holds(16, self.write("huge", b"a\n" + b"x" * (64 << 20) + b"\nb\n"), may_end_with=(h.BUDGET,))
        self.holds(16, "-k", "k", self.write("huge.csv", b"k\na\n" + b"x" * (64 << 20) + b"\nb\n"), may_end_with=(h.BUDGET,))

    def test_7b_a_plan_for_less_than_the_budget_leaves_the_rest_to_giants(self):
        """Far more input than budget is planned for what is enough; a row that needs the whole budget still finds it."""
        block = self.generate("lines", 310_000, "block")
        with open(block, "rb") as f, open(self.path("in"), "wb") as out:
            rows = f.read()
            for i in range(20):
                out.write(rows)
                if i == 12:
                    out.write(b"giant" + b"r" * (24 << 20) + b"\n")
        subprocess.run([h.CARBIDE, "sort", "-S", "2G", "-o", self.path("want"), self.path("in")], check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["sort", "-c", self.path("want")], env=h.C_LOCALE, check=True)
        self.holds(96, self.path("in"), want=self.path("want"))


if __name__ == "__main__":
    h.main()
