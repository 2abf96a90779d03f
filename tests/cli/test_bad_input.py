#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input and bad luck: each ends in the right bytes or in a clear error, with its exit code and message.

What every error has to keep: nothing on standard output, no output file (or the old one untouched), nothing in
the folder for temporary files, and a message that names the place.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h


class BadInput(h.Case):
    def refused(self, code, *arguments, said=(), **kw):
        out = self.write("old", b"what was there before\n")
        result = self.sort("-o", out, *arguments, **kw)
        self.assertEnded(result, code)
        self.assertEqual(self.read("old"), b"what was there before\n", "the old output was touched")
        self.assertEqual(result.out, b"")
        self.assertSaid(result, *said)
        self.assertNothingLeft()
        self.assertEqual(sorted(x for x in os.listdir(self.dir) if x.startswith((".", "old"))), ["old"], "something lies beside the output")
        return result

    # ---- odd, but right ----

    def test_an_empty_file_gives_an_empty_file(self):
        result = self.sort("-o", self.path("out"), self.write("in", b""))
        self.assertEnded(result, 0)
        self.assertEqual(self.read("out"), b"")
        self.assertEqual(self.sort("-k", "a", self.write("in.csv", b"a,b\n")).out, b"a,b\n")
        self.assertEnded(self.sort(self.write("in.csv", b"")), 0)

    def test_a_missing_final_newline_is_added(self):
        self.assertEqual(self.sort(self.write("in", b"b\na")).out, b"a\nb\n")

    def test_nul_bytes_and_invalid_utf8_are_bytes_like_others(self):
        rows = [b"\0b\n", b"\xff\xfe\n", b"a\0a\n", b"a\n", b"\xc3\x28\n", b"\0\n", b"\n"]
        self.assertEqual(self.sort(self.write("in", b"".join(rows))).out, b"".join(sorted(rows, key=lambda x: x[:-1])))

    def test_a_line_of_100_mb(self):
        size = (100 if h.LONG else 20) << 20
        source = self.write("in", b"c\n" + b"b" * size + b"\na\n")
        result = self.sort("--memory", "512M", "-o", self.path("out"), source)
        self.assertEnded(result, 0)
        self.assertSameBytes(self.read("out"), b"a\n" + b"b" * size + b"\nc\n")

    def test_a_long_line_among_many_while_spilling(self):
        rows = [b"%08d %s\n" % (self.random.randrange(10 ** 8), b"." * 80) for _ in range(500_000)]
        rows.insert(300_000, b"5" * (6 << 20) + b"\n")
        source = self.write("in", b"".join(rows))
        result = self.sort("--memory", "32M", "-o", self.path("out"), source)
        self.assertEnded(result, 0)
        self.assertSameBytes(self.read("out"), b"".join(sorted(rows)))

    def test_many_equal_prefixes_of_4_kb(self):
        count = 1_000_000 if h.LONG else 8_000 if h.PLAIN else 3_000
        source = self.path("in")
        with open(source, "wb") as f:
            for i in range(count):
                f.write(b"q" * 4096 + b"%07d\n" % ((i * 7919) % count))
        result = self.sort("--memory", "16M", "-o", self.path("out"), source, timeout=600 if h.LONG else 60)
        self.assertEnded(result, 0)
        self.assertEnded(h.gnu_sort("-C", self.path("out"), timeout=600), 0)
        self.assertEqual(os.path.getsize(self.path("out")), os.path.getsize(source))

    # ---- refused with a reason ----

    def test_a_row_larger_than_the_budget_ends_with_5_and_says_what_it_takes(self):
        source = self.write("in", b"a\n" + b"b" * (40 << 20) + b"\nc\n")
        result = self.refused(h.BUDGET, "--memory", "16M", source, said=("--memory",))
        self.assertRegex(result.text, r"\d+(\.\d+)? ?(M|MiB|bytes)", "the smallest budget that will do has to be named")

    def test_the_budget_that_is_named_will_do(self):
        """What the message says has to be true: the second try has to work."""
        h.need_plain_build()
        source = self.write("in", b"a\n" + b"b" * (20 << 20) + b"\nc\n")
        result = self.sort("--memory", "16M", "-o", self.path("out"), source)
        self.assertEnded(result, h.BUDGET)
        words = result.text.replace(",", " ").replace("=", " ").split()
        sizes = []
        for i, word in enumerate(words):
            for unit, bytes_of in (("MiB", 1 << 20), ("M", 1 << 20), ("GiB", 1 << 30), ("bytes", 1), ("KiB", 1024)):
                number = word.removesuffix(unit).strip("().;:") if word.endswith(unit) else None
                if word.strip("().;:") == unit and i:
                    number = words[i - 1].strip("().;:")
                try:
                    sizes.append(float(number) * bytes_of)
                    break
                except (TypeError, ValueError):
                    continue
        self.assertTrue(sizes, result.text)
        again = self.sort("--memory", str(int(max(sizes)) + (1 << 20)), "-o", self.path("out"), source)
        self.assertEnded(again, 0)

    def test_a_budget_below_the_smallest_ends_with_5(self):
        h.need_plain_build()
        source = self.write("in", h.records(1000))
        for memory in ("1M", "100K", "1"):
            with self.subTest(memory=memory):
                self.refused(h.BUDGET, "--memory", memory, source)

    def test_a_quote_never_closed_ends_with_3_and_the_place_where_it_opened(self):
        rows = ["a,b\n"] + [f"{i},x\n" for i in range(50_000)]
        rows[30_001] = '30000,"never closed\n'
        source = self.write("in.csv", "".join(rows).encode())
        for memory in ("8M", "256M"):
            self.refused(h.BAD_DATA, "--memory", memory, "-k", "a", source, said=("in.csv", "30002"))

    def test_a_ragged_row_ends_with_3_and_its_line(self):
        rows = [b"a,b,c\n"] + [b"%d,x,y\n" % i for i in range(80_000)]
        rows[60_000] = b"59999,x\n"
        source = self.write("in.csv", b"".join(rows))
        for memory in ("8M", "256M"):
            self.refused(h.BAD_DATA, "--memory", memory, "-k", "a:int", source, said=("in.csv", "60001"))

    def test_lines_inside_quotes_are_counted_in_the_place(self):
        source = self.write("in.csv", b'a,b\n"x\ny\nz",1\nragged\n')
        self.refused(h.BAD_DATA, "-k", "a", source, said=("in.csv", "5"))

    def test_bad_rows_can_be_skipped_or_kept_in_a_file(self):
        source = self.write("in.csv", b"a,b\n3,x\nragged\n1,y\n2,z,more\n")
        result = self.sort("--bad-rows", "skip", "-k", "a:int", source)
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"a,b\n1,y\n3,x\n")
        result = self.sort("--bad-rows", self.path("bad"), "-k", "a:int", source)
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"a,b\n1,y\n3,x\n")
        self.assertEqual(sorted(self.read("bad").split(b"\n")), [b"", b"2,z,more", b"ragged"])

    def test_missing_unreadable_and_folder(self):
        good = self.write("in", b"b\na\n")
        self.refused(h.USAGE_OR_IO, self.path("missing"), said=("missing", "no such file"))
        self.refused(h.USAGE_OR_IO, good, self.path("missing"), said=("missing",))
        self.refused(h.USAGE_OR_IO, self.temp, said=("temp", "directory"))
        secret = self.write("secret", b"x\n")
        os.chmod(secret, 0)
        if os.geteuid() != 0:
            self.refused(h.USAGE_OR_IO, secret, said=("secret", "permission"))

    def test_the_folder_of_the_output_does_not_exist(self):
        result = self.sort("-o", self.path("no/such/out"), self.write("in", b"b\na\n"))
        self.assertEnded(result, h.USAGE_OR_IO)
        self.assertSaid(result, "no/such")

    def test_an_output_that_is_a_folder(self):
        result = self.sort("-o", self.temp, self.write("in", b"b\na\n"))
        self.assertEnded(result, h.USAGE_OR_IO)
        self.assertSaid(result, "temp")
        self.assertTrue(os.path.isdir(self.temp))

    def test_a_missing_folder_for_temporary_files(self):
        source = self.write("in", h.records(200_000))
        result = h.sort("--memory", "8M", "-T", self.path("no/such"), "-o", self.path("out"), source)
        self.assertIn(result.exit, (h.USAGE_OR_IO, h.TEMP_SPACE), repr(result))
        self.assertSaid(result, "no/such")
        self.assertFalse(os.path.exists(self.path("out")))

    def test_wrong_words_on_the_command_line_end_with_2(self):
        source = self.write("in", b"b\na\n")
        for arguments in (["--memory", "lots"], ["-j", "0x"], ["-j", "-1"], ["--format", "parquet"], ["--format", "fixed:0"], ["--nonsense"], ["-k", "a:nonsense"],
                          ["-t", "ab"], ["-c", "-C", "-m"], ["--spill-compress", "rot13"], ["--progress", "maybe"]):
            with self.subTest(arguments=arguments):
                result = self.sort(*arguments, source)
                self.assertEnded(result, h.USAGE_OR_IO)
                self.assertNotEqual(result.err, b"")
                self.assertEqual(result.out, b"")

    # ---- a world that moves ----

    def test_a_symbolic_link_as_output_keeps_pointing(self):
        target = self.write("target", b"old\n")
        os.symlink(target, self.path("link"))
        result = self.sort("-o", self.path("link"), self.write("in", b"b\na\n"))
        self.assertEnded(result, 0)
        with open(self.path("link"), "rb") as f:
            self.assertEqual(f.read(), b"a\nb\n")

    def test_an_output_that_is_no_regular_file_is_written_to_as_it_is(self):
        source = self.write("in", b"b\na\n")
        os.mkfifo(self.path("fifo"))
        reader = subprocess.Popen(["cat", self.path("fifo")], stdout=subprocess.PIPE)
        result = self.sort("-o", self.path("fifo"), source)
        self.assertEnded(result, 0)
        self.assertEqual(reader.communicate(timeout=10)[0], b"a\nb\n")
        self.assertEnded(self.sort("-o", "/dev/null", source), 0)
        self.assertTrue(os.path.exists("/dev/null") and not os.path.isfile("/dev/null"))

    def test_a_fifo_as_input(self):
        os.mkfifo(self.path("fifo"))
        writer = subprocess.Popen(["sh", "-c", f"printf 'b\\na\\n' > {self.path('fifo')}"])
        result = self.sort(self.path("fifo"))
        writer.wait(timeout=10)
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"a\nb\n")

    def moving_input(self, change):
        """Sorts while `change(file)` is done again and again; never a hang, never half a result."""
        data = h.records(300_000)
        for delay in (0.005, 0.03, 0.08, 0.15):
            source = self.write("in", data)
            out = self.path("out")
            if os.path.exists(out):
                os.unlink(out)
            timer = threading.Timer(delay, change, [source])
            timer.start()
            result = self.sort("--memory", "8M", "-o", out, source)
            timer.join()
            self.assertFalse(result.timed_out)
            self.assertIn(result.exit, (0, h.USAGE_OR_IO, h.BAD_DATA), repr(result))
            self.assertEqual(os.path.exists(out), result.exit == 0)
            if result.exit == 0:
                rows = self.read("out").splitlines(True)
                self.assertEqual(rows, sorted(rows))
                yield rows, data
            self.assertNothingLeft()

    def test_an_input_that_grows_meanwhile(self):
        def grow(path):
            with open(path, "ab") as f:
                for _ in range(50):
                    f.write(b"zzzzzzzzzz added later\r\n" * 100)
                    f.flush()
                    time.sleep(0.001)
        for rows, data in self.moving_input(grow):
            before = set(data.splitlines(True))
            self.assertTrue(before <= set(rows), "rows that were there from the start are missing")

    def test_an_input_that_shrinks_meanwhile(self):
        for rows, data in self.moving_input(lambda path: os.truncate(path, len(h.records(10)) * 5000)):
            whole = set(data.splitlines(True))
            odd = [row for row in rows if row not in whole]
            self.assertLessEqual(len(odd), os.cpu_count(), "rows that were never there")  # one that each worker read the first part of

    def test_an_input_that_is_unlinked_meanwhile(self):
        for rows, data in self.moving_input(os.unlink):
            self.assertEqual(len(rows), 300_000)

    def test_an_input_that_is_the_output_and_fails_stays_as_it_was(self):
        data = b"a,b\n" + b"".join(b"%d,x\n" % (9 - i % 10) for i in range(50_000)) + b"ragged\n"
        source = self.write("in.csv", data)
        result = self.sort("--memory", "8M", "-k", "a", "-o", source, source)
        self.assertEnded(result, h.BAD_DATA)
        self.assertSameBytes(self.read("in.csv"), data)

    def test_temporary_files_on_a_memory_file_system_are_refused_or_warned_of(self):
        if not os.path.ismount("/dev/shm"):
            h.skip_loudly("there is no /dev/shm")
        folder = tempfile.mkdtemp(prefix="carbide-test.", dir="/dev/shm")
        try:
            source = self.write("in", h.records(200_000))
            result = h.sort("--memory", "8M", "-T", folder, "-o", self.path("out"), source)
            self.assertIn(result.exit, (0, h.TEMP_SPACE, h.USAGE_OR_IO))
            self.assertSaid(result, "/dev/shm", "memory")
            self.assertEqual(os.listdir(folder), [])
        finally:
            shutil.rmtree(folder)

    def test_the_disk_limit_is_kept(self):
        source = self.write("in", h.records(300_000))
        result = self.refused(h.TEMP_SPACE, "--memory", "8M", "--temp-limit", "4M", source)
        self.assertRegex(result.text, r"\d")


if __name__ == "__main__":
    h.main()
