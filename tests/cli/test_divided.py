#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 900
"""Partitions that do not fit are divided by further bits of the hash, and nothing of it shows in the result.

A stream's size is not known, so there are few partitions and each is too large: all of them are divided, and none is sorted
in runs. What dividing cannot help (a key with half of the rows) still is. The answer of a large budget says what is right.
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

ROWS = 600_000 if h.PLAIN else 300_000
ALL, SOME, UNKNOWN, NOTHING_SAID = range(4)  # of what does not fit: divided; sorted in runs, the rest divided; either


class Divided(h.Case):
    def rows(self, step, key=lambda i, n: b"%07d" % n, count=ROWS):
        draw = self.random.randrange
        return b"a,b,c\n" + b"".join(b"%s,%d,%s\n" % (key(i, i * step % count), draw(10 ** 6), b"x" * draw(12)) for i in range(count))

    def stats(self, verb, memory, source, more, threads=2):
        result = h.carbide(verb, "--format", "csv", "--memory", memory, "-j", threads, f"--stats={self.path('stats')}",
                           "-o", self.path("out"), *more, stdin=source)
        self.assertEnded(result, 0)
        return json.loads(self.read("stats"))["stats"]

    def check(self, verb, source, *more, divided=ALL, budgets=(("14M", 1), ("16M", 2))):
        """As with memory for all."""
        self.stats(verb, "1G", source, more)
        want = self.read("out")
        for memory, threads in budgets:
            with self.subTest(verb=verb, more=more, memory=memory, threads=threads):
                stats = self.stats(verb, memory, source, more, threads)
                self.assertSameBytes(self.read("out"), want)
                if h.PLAIN and divided != NOTHING_SAID:
                    self.assertGreater(stats["divided"], 0)
                    if divided != UNKNOWN:
                        self.assertEqual(stats["runs"] > 0, divided == SOME)
                    self.assertLessEqual(stats["rss_peak_bytes"], stats["budget_bytes"])

    def test_groups_of_one_row_each(self):
        self.check("group", self.rows(7919), "-k", "a", "median(b)", "first(c)", "-")
        self.check("group", self.rows(7919, count=2 * ROWS), "-k", "a", "sum(b)", "count()", "-")

    def test_rows_stay_in_order_in_pieces_that_are_divided_again(self):
        """So much for so little memory that a partition's pieces do not fit either. Each key comes four times, far apart."""
        h.need_plain_build()
        rows = 4_000_000
        source = b"a,b\n" + b"".join(b"%07d,%d\n" % (n * 7919 % rows // 4, n) for n in range(rows))
        words = ["-k", "a", "collect(b)", "-"]
        self.stats("group", "1G", source, words)
        want = self.read("out")
        first = 13 if h.DEBUG_BYTES else 10
        for memory in range(first << 10, (first + 4) << 10, 256):  # how even partitions are goes by the run's seed
            stats = self.stats("group", f"{memory}K", source, words, 1)
            self.assertSameBytes(self.read("out"), want)
            self.assertLessEqual(stats["rss_peak_bytes"], stats["budget_bytes"] + h.DEBUG_BYTES)
            if stats["divided"] > 100:  # there are no twenty partitions
                return
        h.skip_loudly("no piece was divided again, by luck")

    def test_one_giant_group_among_small_ones(self):
        source = self.rows(7919, lambda i, n: b"0" if i % 2 else b"%07d" % n, 2 * ROWS)
        self.check("group", source, "-k", "a", "median(b)", "first(c)", "-", divided=SOME)

    def test_deduplication(self):
        self.check("dedupe", self.rows(7919, count=2 * ROWS), "-k", "a,b", "--keep", "last", "-", divided=UNKNOWN)

    def test_join_with_rows_that_match_nothing(self):
        right = self.write("right.csv", self.rows(104729, lambda i, n: b"" if i % 5 == 0 else b"%07d" % n, 2 * ROWS))
        source = self.rows(7919, lambda i, n: b"" if i % 7 == 0 else b"%07d" % n, 2 * ROWS)
        self.check("join", source, "-k", "a", "--how", "full", "-", right, divided=UNKNOWN, budgets=(("13M", 1), ("13M", 2)))
        self.check("join", source, "-k", "a", "-", right, divided=NOTHING_SAID, budgets=(("13M", 2),))

    def test_join_of_a_giant_key_among_small_ones(self):
        """A fifth of the right rows and three left ones."""
        right = self.write("right.csv", self.rows(104729, lambda i, n: b"0000007" if i % 5 == 0 else b"%07d" % n, 2 * ROWS))
        self.check("join", self.rows(7919, count=2 * ROWS), "-k", "a", "-", right, divided=NOTHING_SAID, budgets=(("12M", 1), ("14M", 2)))


if __name__ == "__main__":
    h.main()
