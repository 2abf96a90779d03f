#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 420
"""`carbide simulate` against the classes of Spark 4.2, Spark 2.4.8 and Flink 1.9.3: random traces, equal line by line.

50,000 operations for each kind of manager and for the memory of tasks, and more than a million of each with --long, with
22 seeds. What fails is kept: build/test-work/failures has the trace, both answers, and the command that makes them again.
"""
import itertools
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

BUILD = os.environ.get("CARBIDE_BUILD") or os.path.dirname(os.path.dirname(h.CARBIDE))
MAKER = os.path.join(BUILD, "tests/oracle/random_trace")
TASK_MAKER = os.path.join(BUILD, "tests/oracle/task_trace")
ORIGINALS = os.path.join(h.ROOT, "tests/oracle/jvm/run.sh")
TRACES = os.path.join(h.ROOT, "tests/simulate/traces")
KINDS = ("unified", "static", "flink")
OPERATIONS = 50_000
ROUNDS = 22  # with --long
SKIPPED = 77


def originals(*traces):
    """Runs the originals; the reason why it cannot be done here, or None."""
    ended = subprocess.run([ORIGINALS, *traces], capture_output=True, text=True)
    if ended.returncode == SKIPPED:
        return ended.stderr.strip()
    if ended.returncode != 0:
        raise AssertionError(f"the originals failed: {ended.stdout[-2000:]} {ended.stderr[-4000:]}")
    return None


class Originals(h.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        why = originals()
        if why is not None:
            h.skip_loudly(f"the original classes cannot be had here: {why}")

    def assertSame(self, trace, made_by):
        ours = trace + ".carbide"
        with open(ours, "wb") as out:
            ended = subprocess.run([h.CARBIDE, "simulate", trace], stdout=out, stderr=subprocess.PIPE)
        self.assertEqual((ended.returncode, ended.stderr), (0, b""), made_by)
        if self.difference(trace) is not None:
            # A JVM may wake a waiting thread for no reason, and Spark's then looks again, and may evict. That does not happen
            # twice at one place.
            print(f"asked again, for the first answers differ: {made_by}{self.difference(trace)}", file=sys.stderr)
            self.assertIsNone(originals(trace))
        return self.assertSameLines(trace, made_by)

    @staticmethod
    def difference(trace):
        """The first line that is not the same in both answers, or None."""
        with open(trace + ".carbide", "rb") as a, open(trace + ".answers", "rb") as b:
            for got, want in itertools.zip_longest(a, b, fillvalue=b"nothing\n"):
                if got != want:
                    return f"\ncarbide:  {got.decode()}original: {want.decode()}"
        return None

    def assertSameLines(self, trace, made_by):
        difference = self.difference(trace)
        if difference is not None:
            self.keep(trace, trace + ".answers", trace + ".carbide")
            self.fail(made_by + difference)
        with open(trace + ".answers", "rb") as f:
            return sum(1 for _ in f)

    @staticmethod
    def keep(*files):
        os.makedirs(h.KEEP_FAILURES, exist_ok=True)
        for file in files:
            shutil.copy(file, h.KEEP_FAILURES)

    def test_the_traces_of_the_source_have_the_originals_answers(self):
        copies = []
        for name in sorted(n for n in os.listdir(TRACES) if n.endswith(".trace")):
            copies.append(shutil.copy(os.path.join(TRACES, name), self.dir))
        self.assertIsNone(originals(*copies))
        for copy in copies:
            with open(copy + ".answers", "rb") as got, open(os.path.join(TRACES, os.path.basename(copy)[:-5] + "expected"), "rb") as want:
                self.assertEqual(got.read(), want.read(), copy)

    def test_random_traces_are_answered_as_by_the_originals(self):
        total = {}
        for turn in range(ROUNDS if h.LONG else 1):
            traces = []
            for kind in KINDS:
                trace = self.path(f"{kind}.trace")
                command = [MAKER, kind, str(h.SEED + turn), str(OPERATIONS), trace]
                made = subprocess.run(command, capture_output=True, text=True)
                self.assertEqual(made.returncode, 0, made.stderr)
                traces.append((kind, trace, " ".join(command) + ": " + made.stdout))
            self.assertIsNone(originals(*(trace for _, trace, _ in traces)))
            for kind, trace, made_by in traces:
                total[kind] = total.get(kind, 0) + self.assertSame(trace, made_by)
        print("equal lines:", total, "from seed", h.SEED)

    def test_memory_of_tasks_is_had_and_spilled_as_in_the_original(self):
        total = 0
        for turn in range(ROUNDS if h.LONG else 1):
            trace = self.path("task.trace")
            command = [TASK_MAKER, str(h.SEED + turn), str(OPERATIONS), trace]
            made = subprocess.run(command, capture_output=True, text=True)
            self.assertEqual(made.returncode, 0, made.stderr)
            made_by = " ".join(command) + ": " + made.stdout
            try:
                ended = subprocess.run([ORIGINALS, trace], capture_output=True, text=True, timeout=240)
            except subprocess.TimeoutExpired:
                ended = None  # it waits where carbide does not: the last line of its answers says so
            total += self.assertSameLines(trace, made_by)
            self.assertTrue(ended is not None and ended.returncode == 0, made_by)
        print("equal lines of tasks:", total, "from seed", h.SEED)


if __name__ == "__main__":
    h.main()
