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

    def test_keys_larger_than_memory_on_either_side(self):
        def rows(side, many, key):
            return b"k,v\n" + b"".join(b"%s,%s%d%s\n" % (key if i % 3 else b"n%d" % i, side, i, b"p" * 400) for i in range(many))

        for left, right in ((30_000, 3), (3, 30_000)):
            paths = [self.write("l.csv", rows(b"l", left, b"A")), self.write("r.csv", rows(b"r", right, b"A"))]
            for how in ("inner", "full"):
                self.assertSameBytes(self.join("-k", "k", "--how", how, "-S", "9M", *paths),
                                     self.join("-k", "k", "--how", how, "-S", "1G", *paths))

    @unittest.skipUnless(shutil.which("join"), "there is no GNU join")
    def test_gnu_options_give_what_gnu_join_gives(self):
        rng = random.Random(7)

        def table(count):
            rows = sorted((f"{rng.choice('abcdefgh')}{rng.randrange(30):02}", f"x{rng.randrange(9)}", f"y{i}") for i in range(count))
            return "".join(";".join(row) + "\n" for row in rows).encode()

        left, right = self.write("left", table(150)), self.write("right", table(120))
        for options in ([], ["-j", "1"], ["-a", "1"], ["-v", "1"], ["-v", "2"], ["-o", "0,2.3,1.2"], ["-a1", "-e", "none", "-o", "0,1.3,2.2"],
                        ["-i"], ["-a", "1", "--nocheck-order"], ["--header"]):
            with self.subTest(options=options):
                arguments = ["-t", ";", *options] + (["-1", "1"] if not any(o in options for o in ("-j",)) else [])
                want = h.run(["join", *arguments, left, right], program=shutil.which("join"))
                self.assertEqual(want.exit, 0, want)
                self.assertSameBytes(self.join(*arguments, left, right), want.out)

    def test_usage_errors_say_what_is_wrong(self):
        left, right = self.pair(10, 10)
        for arguments in ([left, right], ["-k", "k", left], ["-k", "nothing", left, right], ["--left-key", "k", left, right],
                          ["-k", "k", "--select", "nothing", left, right], ["-k", "k", "--how", "outer", left, right],
                          ["-k", "k", "--how", "semi", "--select", "right.v", left, right], ["-1", "1", left, right]):
            self.join(*arguments, code=h.USAGE_OR_IO)
        self.join("-k", "k", left, self.write("bad.csv", b"k,v\n1,2,3\n"), code=h.BAD_DATA)
        self.assertEqual(self.join("-k", "k", left, self.write("empty.csv", b"k,w\n")), b"k,v,w\n")

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
