#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 420
"""The store of blocks against the classes it answers to.

Traces of `simulate` run on the real store and are answered as `simulate` answers them, those of the source as Spark did. And random
work (store_trace.c) is answered line by line, evictions in their order, as Spark 4.2's MemoryStore and BlockInfoManager answer it:
30,000 operations, and more than a million with CARBIDE_TEST_LONG=1. What fails is kept in build/test-work/failures.
"""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

BUILD = os.environ.get("CARBIDE_BUILD") or os.path.dirname(os.path.dirname(h.CARBIDE))
TOOLS = os.path.join(BUILD, "tests/oracle")
ORIGINALS = os.path.join(h.ROOT, "tests/oracle/jvm/run.sh")
TRACES = os.path.join(h.ROOT, "tests/simulate/traces")
OF_SPARK = ("t1", "t2", "t4", "t5", "t7")
OPERATIONS = 150_000 if h.LONG else 30_000
ROUNDS = 7 if h.LONG else 1
SIMULATED = 20_000
SKIPPED = 77


def run(*command, out=None):
    return subprocess.run(command, stdout=out or subprocess.PIPE, stderr=subprocess.PIPE)


class Store(h.Case):
    def keep(self, *files):
        os.makedirs(h.KEEP_FAILURES, exist_ok=True)
        for file in files:
            shutil.copy(file, h.KEEP_FAILURES)

    def assertEqualLines(self, ours, want, trace, made_by):
        with open(ours, "rb") as a, open(want, "rb") as b:
            lines = 0
            for got, wanted in zip(a, b):
                lines += 1
                if got != wanted:
                    self.keep(trace, ours, want)
                    self.fail(f"{made_by}\ncarbide:  {got.decode()}original: {wanted.decode()}")
            self.assertEqual((a.read(1), b.read(1)), (b"", b""), made_by)
        return lines

    def on_the_store(self, trace):
        ours = self.path(os.path.basename(trace) + ".store")
        with open(ours, "wb") as out:
            ended = run(os.path.join(TOOLS, "store_simulate"), trace, out=out)
        self.assertEqual((ended.returncode, ended.stderr), (0, b""), trace)
        return ours

    def test_the_traces_of_the_source_run_on_the_store(self):
        for name in OF_SPARK:
            trace = os.path.join(TRACES, name + ".trace")
            self.assertEqualLines(self.on_the_store(trace), os.path.join(TRACES, name + ".expected"), trace, name)

    def test_random_traces_of_simulate_run_on_the_store(self):
        for turn in range(ROUNDS):
            for kind in ("unified", "static"):
                trace = self.path(f"{kind}.trace")
                made = run(os.path.join(TOOLS, "random_trace"), kind, str(h.SEED + turn), str(SIMULATED), trace)
                self.assertEqual(made.returncode, 0, made.stderr)
                want = trace + ".simulate"
                with open(want, "wb") as out:
                    self.assertEqual(run(h.CARBIDE, "simulate", trace, out=out).returncode, 0)
                self.assertEqualLines(self.on_the_store(trace), want, trace, f"random_trace {kind} {h.SEED + turn}")

    def test_evictions_go_as_in_sparks_memory_store(self):
        ended = run(ORIGINALS)
        if ended.returncode == SKIPPED:
            h.skip_loudly(f"the original classes cannot be had here: {ended.stderr.decode().strip()}")
        self.assertEqual(ended.returncode, 0, ended.stdout[-2000:] + ended.stderr[-4000:])
        total = 0
        for turn in range(ROUNDS):
            trace, ours = self.path("store.trace"), self.path("store.ours")
            folder = self.path(f"blocks{turn}")
            os.mkdir(folder)
            command = [os.path.join(TOOLS, "store_trace"), str(h.SEED + turn), str(OPERATIONS), trace, ours, folder]
            made = run(*command)
            self.assertEqual(made.returncode, 0, made.stderr)
            self.assertEqual(os.listdir(folder), [], "the store leaves nothing")
            ended = run(ORIGINALS, trace)
            self.assertEqual(ended.returncode, 0, ended.stderr[-4000:])
            total += self.assertEqualLines(ours, trace + ".answers", trace, " ".join(command))
        print("equal lines:", total, "from seed", h.SEED)


if __name__ == "__main__":
    h.main()
