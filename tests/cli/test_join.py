#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""`carbide join` from outside: GNU join's options against GNU join, the same bytes at any budget, keys larger than memory,
bad input, kills."""
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness as h


class Join(h.Case):
    def join(self, *arguments, code=0, **kwargs):
        result = h.carbide("join", *arguments, **kwargs)
        self.assertEnded(result, code)
        return result.out

    def pair(self, rows, keys, pad=0):
        rng = random.Random(rows)
        paths = []
        for side in "lr":
            data = "k,v\n" + "".join(f"{rng.randrange(keys)},{side}{i}{'x' * rng.randrange(pad + 1)}\n" for i in range(rows))
            paths.append(self.write(f"{side}.csv", data.encode()))
        return paths

    def test_the_same_bytes_at_any_budget_and_with_any_threads(self):
        left, right = self.pair(60_000, 90_000, 60)
        for how in ("inner", "full"):
            whole = self.join("-k", "k", "--how", how, "-S", "1G", left, right)
            for budget, threads in (("9M", "1"), ("12M", "2"), ("16M", "3")):
                self.assertSameBytes(self.join("-k", "k", "--how", how, "-S", budget, "-j", threads, left, right), whole)
            with open(left, "rb") as f:
                self.assertSameBytes(self.join("-k", "k", "--how", how, "-S", "12M", "--format", "csv", "-", right, stdin=f), whole)

    def test_text_of_few_characters_and_rows_that_have_others(self):
        """What is stored of numbers and codes is packed, half a byte a character; here some rows have other ones."""
        rng = random.Random(5)

        def number(odd):
            return odd if rng.randrange(300) == 0 else "%0*d" % (rng.randrange(1, 60), rng.randrange(4000))

        def key():
            return rng.choice(['""', '"a""b"', "x" * 101, "7" * 150, "é7", '"7"', '"12"']) if rng.randrange(600) == 0 else str(rng.randrange(3000))

        left = self.write("left.csv", ("k,a\n" + "".join(f"{key()},{'text of a row' * rng.randrange(3)}{i}\n" for i in range(12_000))).encode())
        right = self.write("right.csv", ("c,k,d\n" + "".join(
            f"{number('')},{key()},{number(rng.choice(['z', 'ä', '9' * 5000, 'y' * 5000]))}\n" for i in range(9_000))).encode())
        for options in ([], ["--how", "left"], ["--how", "semi"], ["--how", "anti"], ["--how", "full"], ["--select", "d,a,c"],
                        ["--select", "a,c,k,d"], ["--how", "left", "--select", "d,c,a"]):
            with self.subTest(options=options):
                with open(left, "rb") as f:
                    want = self.join("-k", "k", *options, "-S", "1G", "--format", "csv", "-", right, stdin=f)
                for budget, threads in (("1G", "2"), ("20M", "2"), ("9M", "1")):
                    self.assertSameBytes(self.join("-k", "k", *options, "-S", budget, "-j", threads, left, right), want)

    def test_a_left_file_that_is_read_twice_gives_what_a_pipe_gives(self):
        """A file's rows come back for their text, a pipe's bring it along: quotes, blank lines, malformed rows that are left
        out, rows longer than a buffer, CRLF, no end at the end."""
        rng = random.Random(11)

        def field():
            kind = rng.randrange(40)
            if kind == 0:
                return '"' + "a,b\n""x"" " * rng.randrange(1, 4) + '"'
            return "" if kind < 4 else "w" * (rng.randrange(20) if kind < 39 else rng.randrange(9000))

        rows = [f"{field()},{rng.randrange(4000)},{field()}" for _ in range(8000)]
        rows[700:700] = ["", "one,field", "9,7," + "x" * 400_000]
        rows[5000] = f"{field()},1,{'y' * 70_000}\r"
        left = self.write("left.csv", ("a,k,b\n" + "\n".join(rows)).encode())
        right = self.write("right.csv", ("k,c,d\n" + "".join(f"{rng.randrange(4000)},{field()},{i}\n" for i in range(5000))).encode())
        for options in ([], ["--how", "left"], ["--how", "full"], ["--how", "semi"], ["--how", "anti"], ["--how", "right"],
                        ["--how", "left", "--select", "b,d,a,c"], ["--how", "full", "--select", "right.d,b,k", "--missing", "none"]):
            with self.subTest(options=options):
                options = ["-k", "k", "--bad-rows", "skip", *options]
                with open(left, "rb") as f:
                    want = self.join(*options, "-S", "1G", "--format", "csv", "-", right, stdin=f)
                for budget, threads in (("1G", "2"), ("16M", "2"), ("10M", "1")):
                    self.assertSameBytes(self.join(*options, "-S", budget, "-j", threads, left, right), want)
                    self.assertSameBytes(self.join(*options, "-S", budget, "-o", self.path("o.csv"), left, right) or self.read("o.csv"), want)

    def test_a_giant_left_row_finds_memory_beside_the_rights_tables(self):
        some = "".join(f"{i},{i} and some text\n" for i in range(100))
        left = self.write("l.csv", f"k,v\n{some}77,{'x' * 900_000}\n{some}".encode())
        for rows in (250_000, 400_000):
            right = self.write("r.csv", ("k,v\n" + "".join(f"{i},{i}\n" for i in range(rows))).encode())
            for options in ([], ["--select", "v,right.v,k"]):
                self.assertSameBytes(self.join("-k", "k", *options, "-S", "20M", left, right), self.join("-k", "k", *options, "-S", "1G", left, right))

    def test_keys_larger_than_memory_on_either_side(self):
        def rows(side, many, key):
            return b"k,v\n" + b"".join(b"%s,%s%d%s\n" % (key if i % 3 else b"n%d" % i, side, i, b"p" * 400) for i in range(many))

        for left, right in ((30_000, 3), (3, 30_000)):
            paths = [self.write("l.csv", rows(b"l", left, b"A")), self.write("r.csv", rows(b"r", right, b"A"))]
            for how in ("inner", "full"):
                self.assertSameBytes(self.join("-k", "k", "--how", how, "-S", "9M", *paths),
                                     self.join("-k", "k", "--how", how, "-S", "1G", *paths))

    def test_a_hundred_thousand_columns_on_both_sides(self):
        """Names of the right that the left has too get the suffix; comparing each with each would take minutes."""
        many = 100_000
        left = self.write("l.csv", (",".join(["k"] + [f"c{i}" for i in range(many)]) + "\n1" + ",7" * many + "\n").encode())
        right = self.write("r.csv", (",".join(["k"] + [f"c{i}" if i % 2 else f"d{i}" for i in range(many)]) + "\n1" + ",8" * many + "\n").encode())
        got = self.join("-k", "k", "-S", "64M", left, right).decode().split("\n")
        want = ["k"] + [f"c{i}" for i in range(many)] + [f"c{i}_right" if i % 2 else f"d{i}" for i in range(many)]
        self.assertEqual(got[0].split(","), want)
        self.assertEqual(got[1:], ["1" + ",7" * many + ",8" * many, ""])

    def gnu_case(self, rng):
        """Two files and options of GNU join: fields that end with a byte or with blanks, empty ones, NUL at the ends of rows."""
        blank = rng.random() < 0.4
        sep, end = " " if blank else rng.choice(",;\tx"), "\0" if rng.random() < 0.15 else "\n"
        columns = [rng.randrange(1, 5) for _ in "lr"]
        key = [rng.randrange(1, c + 1) for c in columns]
        letters, width, fold = rng.choice(("abc", "aAbB", "0123456789")), rng.randrange(1, 3), rng.random() < 0.3
        paths, disorder, full = [], False, True
        for side, name in enumerate("lr"):
            rows = [["".join(rng.choice(letters) for _ in range(rng.randrange(0 if not blank and rng.random() < 0.3 else 1, width + 1)))
                     for _ in range(columns[side])] for _ in range(rng.choice((0, 1, 5, 30, 80)))]
            rows.sort(key=lambda row: row[key[side] - 1].upper() if fold else row[key[side] - 1])
            if rng.random() < 0.15 and len(rows) > 3:
                rng.shuffle(rows)
                disorder = True
            between, tail = (rng.choice((" ", "  ", "\t")), rng.choice(("", " "))) if blank else (sep, "")
            lead = rng.choice(("", " ", "\t ")) if blank else ""
            paths.append(self.write(name, "".join(lead + between.join(row) + tail + end for row in rows).encode()))
            full = full and len(rows) > 0
        options = [] if blank else ["-t", sep]
        options += ["-1", str(key[0]), "-2", str(key[1])] + ["-i"] * fold + ["-z"] * (end == "\0")
        options += rng.choice(([], [], [], ["-a", "1"], ["-a", "2"], ["-a1", "-a2"], ["-v", "1"], ["-v", "2"], ["-v1", "-v2"]))
        fields = ["0"] + [f"{side + 1}.{i + 1}" for side in (0, 1) for i in range(columns[side])]
        wanted = [rng.choice(fields) for _ in range(rng.randrange(1, 5))]
        options += rng.choice(([], [], ["-o", "auto"], ["-o", ",".join(wanted)], ["-o", " ".join(wanted)]))
        options += rng.choice(([], ["-e", "NA"], ["-e", "-"])) + ["--header"] * (full and rng.random() < 0.2)
        options += ["--check-order" if disorder else rng.choice(("--check-order", "--nocheck-order"))]
        return options, paths

    @unittest.skipUnless(shutil.which("join"), "there is no GNU join")
    def test_random_files_and_options_of_gnu_join_give_what_it_gives(self):
        ended = {0: 0, 1: 0}
        for n in range(4000 if h.LONG else max(20, int(100 * h.SHARE))):
            rng = random.Random(f"{h.SEED} gnu {n}")
            options, paths = self.gnu_case(rng)
            want = h.run(["join", *options, *paths], program=shutil.which("join"))
            got = h.carbide("join", "--sorted", "-S", "32M", *options, *paths)
            with self.subTest(n=n, options=options):
                self.assertEqual(got.exit, want.exit, got)
                if want.exit == 0:
                    self.assertSameBytes(got.out, want.out)
            ended[want.exit] += 1
        self.assertGreater(min(ended.values()), 0)  # files out of order were among them

    def test_gnu_options_need_no_sorted_files(self):
        """The same rows as for the sorted files, in another order."""
        for n in range(20):
            options, paths = self.gnu_case(random.Random(f"{h.SEED} unsorted {n}"))
            options = [o for o in options if o not in ("--header", "--check-order", "--nocheck-order")]
            end = b"\0" if "-z" in options else b"\n"
            want = None
            for order in ("as it is", "shuffled"):
                got = sorted(self.join("-S", "32M", *options, *paths).split(end))
                with self.subTest(n=n, options=options, order=order):
                    self.assertEqual(got, want or got)
                want = got
                for path in paths:
                    with open(path, "rb") as f:
                        rows = f.read().split(end)[:-1]
                    random.Random(n).shuffle(rows)
                    self.write(os.path.basename(path), b"".join(row + end for row in rows))

    def sorted_pair(self, rows=20_000, same=6000):
        rng = random.Random(5)
        paths = []
        for side in "lr":
            keys = sorted([f"{rng.randrange(rows):05}" for _ in range(rows)] + ["00777"] * (3 if side == "l" else same))
            paths.append(self.write(f"{side}.csv", ("k,v\n" + "".join(f"{k},{side}{i}{'p' * rng.randrange(300)}\n" for i, k in enumerate(keys))).encode()))
        return paths

    def test_sorted_files_give_the_same_rows_in_the_order_of_keys(self):
        """Also where the right rows of one key are more than memory holds."""
        left, right = self.sorted_pair()
        for how in ("inner", "left", "right", "full", "semi", "anti", "alone"):
            want = sorted(self.join("-k", "k", "--how", how, "-S", "1G", left, right).splitlines())
            with self.subTest(how=how):
                first = self.join("--sorted", "-k", "k", "--how", how, "-S", "9M", left, right)
                self.assertEqual(sorted(first.splitlines()), want)
                keys = [line.split(b",")[0] for line in first.splitlines()[1:]]
                self.assertEqual(keys, sorted(keys))
                self.assertSameBytes(self.join("--sorted", "-k", "k", "--how", how, "-S", "1G", left, right), first)

    def test_rows_out_of_order_are_named_and_leave_nothing(self):
        left, right = self.sorted_pair(2000, 0)
        with open(right, "ab") as f:
            f.write(b"00001,late\n")
        out = self.path("out.csv")
        result = h.carbide("join", "--sorted", "-k", "k", "-S", "16M", "-o", out, left, right)
        self.assertEnded(result, h.DISORDER)
        self.assertIn("r.csv: row 2002", result.text)
        self.assertFalse(os.path.exists(out))
        self.join("--sorted", "--nocheck-order", "-k", "k", "-S", "16M", "-o", out, left, right)
        self.assertTrue(os.path.exists(out))

    def test_sorted_files_of_pipes_quotes_and_rows_larger_than_buffers(self):
        row = b'a,"x,""y""\n' + b"z" * 500_000 + b'"\n'
        left = self.write("l.csv", b"k,v\n" + row + b"b,1\n")
        right = self.write("r.csv", b"k,w\n" + row + b"b,2\n")
        want = self.join("-k", "k", "-S", "1G", left, right)
        self.assertSameBytes(self.join("--sorted", "-k", "k", "-S", "48M", left, right), want)
        with open(left, "rb") as f:
            self.assertSameBytes(self.join("--sorted", "-k", "k", "-S", "48M", "--format", "csv", "-", right, stdin=f), want)

    def test_usage_errors_say_what_is_wrong(self):
        left, right = self.pair(10, 10)
        for arguments in ([left, right], ["-k", "k", left], ["-k", "nothing", left, right], ["--left-key", "k", left, right],
                          ["-k", "k", "--select", "nothing", left, right], ["-k", "k", "--how", "outer", left, right],
                          ["-k", "k", "--how", "semi", "--select", "right.v", left, right], ["-k", "k", "-", "-"], ["-", "-"]):
            self.join(*arguments, code=h.USAGE_OR_IO)
        self.join("-k", "k", left, self.write("bad.csv", b"k,v\n1,2,3\n"), code=h.BAD_DATA)
        self.assertEqual(self.join("-k", "k", left, self.write("empty.csv", b"k,w\n")), b"k,v,w\n")

    def test_a_row_between_blanks_that_is_too_large_is_refused_before_it_is_read(self):
        right = self.write("r", b"a 1\n")
        got = h.carbide("join", "-j", "1", "-S", "32M", "/dev/zero", right)
        self.assertEnded(got, h.BUDGET)
        self.assertIn(b"-S", got.err)

    def test_a_killed_join_leaves_nothing(self):
        left, right = self.pair(60_000, 90_000, 60)
        for delay in (0.02, 0.1, 0.2):
            p = subprocess.Popen([h.CARBIDE, "join", "-k", "k", "-S", "9M", "-o", self.path("out.csv"), left, right])
            time.sleep(delay)
            p.send_signal(signal.SIGKILL)
            p.wait()
            self.assertLessEqual(set(os.listdir(self.dir)), {"l.csv", "r.csv", "temp", "out.csv"})


if __name__ == "__main__":
    h.main()
