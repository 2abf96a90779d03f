#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 120
"""What once failed with a budget that was said to do: group, dedupe, join and partition in next to no memory."""
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


if __name__ == "__main__":
    h.main()
