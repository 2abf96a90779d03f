#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""The same bytes at every budget and with any number of threads.

Inputs are chosen to be awkward for a partitioning sort: one key only, two keys, sorted, reversed, nearly sorted, long
common prefixes, rows of very different lengths, many equal rows. Python's stable sort says what is right.
"""
import hashlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

BUDGETS = ("8M", "16M", "64M", "1G") if h.PLAIN else ("8M", "64M")
THREADS = (1, 2, 4) if h.PLAIN else (4,)


def shapes(r, scale):
    n = 100_000 * scale
    prefix = b"p" * 4096
    yield "random", [b"%016x %s\n" % (r.getrandbits(64), b"." * 80) for _ in range(2 * n)]
    yield "one key", [b"the same row every time, whatever happens to the others, ever and ever\n"] * (3 * n)
    yield "two keys", [(b"aaaa" if r.random() < 0.5 else b"bbbb") + b" " * 60 + b"\n" for _ in range(2 * n)]
    yield "sorted", [b"%012d %s\n" % (i, b"." * 80) for i in range(2 * n)]
    yield "reversed", [b"%012d %s\n" % (2 * n - i, b"." * 80) for i in range(2 * n)]
    yield "nearly sorted", [b"%012d %s\n" % (i + r.randrange(-50, 50), b"." * 80) for i in range(50, 2 * n)]
    yield "prefixes of 4 KB", [prefix + b"%06d\n" % r.randrange(10 ** 6) for _ in range(n // 20)]
    yield "lengths from 0 to 60,000", [bytes([97 + r.randrange(26)]) * int(10 ** (r.random() * 4.77)) + b"\n" for _ in range(n // 30)]
    yield "one long row", [b"%d\n" % r.randrange(1000) for _ in range(n)] + [b"5" * 200_000 + b"\n"]
    yield "empty rows", [b"\n"] * n + [b"%d\n" % (i % 7) for i in range(n)]


class Determinism(h.Case):
    def test_whole_rows(self):
        for name, rows in shapes(self.random, 3 if h.LONG else 1):
            source = self.write("in", b"".join(rows))
            want = hashlib.sha256(b"\n".join(sorted(x[:-1] for x in rows)) + b"\n").hexdigest()
            for memory in BUDGETS:
                for threads in THREADS if memory in ("8M", "64M") or h.LONG else (2,):
                    with self.subTest(shape=name, memory=memory, threads=threads):
                        result = self.sort("--memory", memory, "-j", threads, "-o", self.path("out"), source)
                        self.assertEnded(result, 0)
                        self.assertEqual(hashlib.sha256(self.read("out")).hexdigest(), want)
        self.assertNothingLeft()

    def test_equal_keys_stay_in_input_order_even_when_all_are_equal(self):
        count = 400_000 if h.LONG else 200_000
        for distinct in (1, 3, 1000):
            rows = [b"%04d\t%07d%s\n" % (self.random.randrange(distinct), i, b"-" * 70) for i in range(count)]
            source = self.write("in.tsv", b"k\tv\n" + b"".join(rows))
            want = b"k\tv\n" + b"".join(sorted(rows, key=lambda x: x[:4]))
            for memory, threads in (("8M", 1), ("8M", 4), ("16M", 2), ("64M", 2), ("1G", 4)):
                with self.subTest(distinct=distinct, memory=memory, threads=threads):
                    result = self.sort("--memory", memory, "-j", threads, "-k", "k", "-o", self.path("out"), source)
                    self.assertEnded(result, 0)
                    self.assertSameBytes(self.read("out"), want)

    def test_file_stream_and_several_files_give_the_same(self):
        data = h.records(200_000)
        source = self.write("in", data)
        cut = data.index(b"\n", len(data) // 3) + 1
        parts = [self.write("1", data[:cut]), self.write("2", data[cut:])]
        want = b"".join(sorted(data.splitlines(True)))
        for memory in ("8M", "32M", "256M"):
            with open(source, "rb") as f:
                streamed = self.sort("--memory", memory, stdin=f)
            piped = self.sort("--memory", memory, stdin=data)
            several = self.sort("--memory", memory, *parts)
            for name, result in (("redirected", streamed), ("piped", piped), ("two files", several)):
                with self.subTest(memory=memory, way=name):
                    self.assertEnded(result, 0)
                    self.assertSameBytes(result.out, want)

    def test_spill_compression_changes_nothing(self):
        data = h.records(150_000)
        source = self.write("in", data)
        want = b"".join(sorted(data.splitlines(True)))
        for codec in ("none", "lz4", "auto"):
            result = self.sort("--memory", "8M", "--spill-compress", codec, "-o", self.path("out"), source)
            self.assertEnded(result, 0)
            self.assertSameBytes(self.read("out"), want, codec)

    def test_a_run_repeated_gives_the_same(self):
        rows = [b"%03d %07d\n" % (self.random.randrange(100), i) for i in range(150_000)]
        source = self.write("in", b"".join(rows))
        want = b"".join(sorted(rows, key=lambda x: x[:3]))
        for _ in range(30 if h.LONG else 6 if h.PLAIN else 2):
            self.assertEnded(self.sort("--memory", "8M", "-j", 4, "-t", " ", "-k1,1", "-o", self.path("out"), source), 0)
            self.assertSameBytes(self.read("out"), want)

    def test_machines_without_wide_instructions_give_the_same(self):
        """CARBIDE_CPU lowers what the CPU may use."""
        data = h.records(100_000)
        source = self.write("in", data)
        want = b"".join(sorted(data.splitlines(True)))
        for cpu in ("baseline", "avx2"):
            result = self.sort("--memory", "8M", source, env={**h.C_LOCALE, "CARBIDE_CPU": cpu})
            self.assertEnded(result, 0)
            self.assertSameBytes(result.out, want, cpu)


if __name__ == "__main__":
    h.main()
