#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`--explain` of group, join, dedupe and partition: what they will take, told before anything is done."""
import os
import re
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness as h


class Explain(h.Case):
    def setUp(self):
        super().setUp()
        rows = "".join(f"{i * 7919 % 200_003},{i},{'p' * 60}\n" for i in range(200_000))
        self.table = self.write("t.csv", ("k,v,pad\n" + rows).encode())

    def verbs(self):
        t = self.table
        return {"group": ["-k", "k", "median(v)", t], "dedupe": ["-k", "pad", "-k", "k", t], "join": ["-k", "k", "--how", "full", t, t],
                "partition": ["-k", "k", "-n", "8", "-o", self.path("out/{}.csv"), t]}

    def explain(self, verb, *more, code=h.DONE):
        result = h.carbide(verb, "--explain", *more, *self.verbs()[verb])
        self.assertEnded(result, code)
        return result

    def test_it_is_told_and_nothing_is_done(self):
        for verb in self.verbs():
            with self.subTest(verb=verb):
                before = sorted(os.listdir(self.dir))
                told = self.explain(verb, "-S", "1G").out.decode()
                self.assertRegex(told, r"^method   \S+ partition, in memory")
                self.assertIn("\ntemp     none\n", told)
                self.assertEqual(sorted(os.listdir(self.dir)), before)

    @unittest.skipUnless(h.PLAIN, "a sanitizer has memory of its own")
    def test_a_small_budget_takes_temporary_bytes(self):
        for verb in self.verbs():
            with self.subTest(verb=verb):
                told = self.explain(verb, "-S", "12M").out.decode()
                self.assertRegex(told, r"\nranges   \d+, in segments of ")
                self.assertRegex(told, r"\ntemp     about \S+ \S+ of ")

    @unittest.skipUnless(h.PLAIN, "a sanitizer has memory of its own")
    def test_the_smallest_budget_that_it_names_will_do(self):
        for verb, words in self.verbs().items():
            with self.subTest(verb=verb):
                told = self.explain(verb, "-S", "64M").out.decode()
                least = re.search(r"smallest that will do is (\d+)(?:\.\d+)? MiB", told)[1]
                self.assertEnded(self.explain(verb, "-S", f"{least}M"), h.DONE)
                self.explain(verb, "-S", "2M", code=h.BUDGET)

    @unittest.skipUnless(h.PLAIN, "a sanitizer has memory of its own")
    def test_space_that_is_not_there_is_refused_before_the_work(self):
        for verb, words in self.verbs().items():
            with self.subTest(verb=verb):
                result = h.carbide(verb, "-S", "12M", "--temp-limit", "100K", *words)
                self.assertEnded(result, h.TEMP_SPACE)
                self.assertIn("will be needed", result.text)
                self.assertIn("temp     about", self.explain(verb, "-S", "12M", "--temp-limit", "100K", code=h.TEMP_SPACE).out.decode())

    def test_streams_and_sorted_joins_say_what_is_known(self):
        with open(self.table, "rb") as f:
            told = h.carbide("group", "--explain", "--format", "csv", "-k", "k", "count()", "-S", "16M", stdin=f)
        self.assertEnded(told, h.DONE)
        told = h.carbide("join", "--explain", "--sorted", "-k", "k", self.table, self.table, "-S", "16M")
        self.assertEnded(told, h.DONE)
        self.assertIn("merge of sorted inputs", told.out.decode())


if __name__ == "__main__":
    h.main()
