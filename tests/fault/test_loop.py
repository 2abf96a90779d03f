#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 900
"""The fault loop: every allocation, every call to the system and every thread start of a spilling sort fails.

A build of the fault preset counts its calls and lets the n-th fail, once or from then on (src/base/fault.c). Scenario by scenario and kind by kind,
n goes 1, 2, 3 ... to the last call (--long), or over a sample of them that always has the first and the last ones. Each time the result
has to be the right bytes with exit 0, or an error: a message, a fitting exit code, the old output as it was, nothing left behind, no hang.

    CARBIDE=build/fault/bin/carbide tests/fault/test_loop.py [--long]
"""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

OLD = b"what was there before\n"
KINDS = {  # kind -> the errors it can meet
    "alloc": ["ENOMEM"], "open": ["EMFILE", "EACCES"], "read": ["EIO"], "write": ["ENOSPC", "EIO"], "file": ["EIO", "ENOSPC"], "thread": ["EAGAIN"],
}
# Seconds for all of one test in CI; a loop that has used them up stops and says how far it came.
SECONDS = float(os.environ.get("CARBIDE_FAULT_SECONDS") or (7200 if h.LONG else 24))


class Loop(h.Case):
    def setUp(self):
        super().setUp()
        probe = h.carbide("sort", "/dev/null", env=self.environment("alloc:0:once:ENOMEM"))
        if probe.exit != 0 or self.count() is None:
            h.skip_loudly(f"{h.CARBIDE} was not built with faults (preset fault)")

    def environment(self, setting):
        return {**h.C_LOCALE, "CARBIDE_FAULT": setting, "CARBIDE_FAULT_REPORT": self.path("report")}

    def count(self):
        """(calls of the armed kinds, whether one was failed) of the last run; None when there is no report."""
        try:
            words = self.read("report").split()
            os.unlink(self.path("report"))
            return int(words[1]), words[3] == b"1"
        except (FileNotFoundError, IndexError):
            return None

    verb = "sort"
    second = None  # a file that appears before the output does

    def scenario(self, arguments, stdin=None):
        self.arguments, self.stdin = arguments, stdin
        result = self.once("alloc:0:once:ENOMEM")
        self.assertEnded(result, 0)
        self.want = hashlib.sha256(self.result()).digest()
        self.want_second = self.read(self.second) if self.second else None

    def result(self):
        """The output's bytes; of a partition those of all its files, with their names."""
        if self.verb != "partition":
            return self.read("out")
        files = sorted(os.listdir(self.path("parts"))) if os.path.isdir(self.path("parts")) else []
        return b"".join(name.encode() + b"\n" + self.read(f"parts/{name}") for name in files if not name.startswith("carbide-")) or OLD

    def once(self, setting):
        self.write("out", OLD)
        if self.second:
            self.write(self.second, OLD)
        shutil.rmtree(self.path("parts"), ignore_errors=True)
        to = self.path("parts/{}.csv") if self.verb == "partition" else self.path("out")
        command = ["-T", self.temp, "-o", to, *self.arguments]
        if self.stdin:  # by a pipe: a file would be read as one
            with open(self.stdin, "rb") as f:
                return h.carbide(self.verb, *command, env=self.environment(setting), stdin=f.read(), timeout=30)
        return h.carbide(self.verb, *command, env=self.environment(setting), timeout=30)

    def verdict(self, setting, result):
        """None, or what is wrong."""
        if result.timed_out:
            return "it hangs"
        if result.exit < 0:
            return f"it dies of signal {-result.exit}: {result.text[-300:]}"
        out = self.result()
        if self.second and self.read(self.second) not in ([self.want_second] if result.exit == 0 else [OLD, self.want_second]):
            return f"exit {result.exit} with wrong bytes in {self.second}"
        if result.exit == 0:
            if hashlib.sha256(out).digest() != self.want:
                return f"exit 0 with wrong bytes ({len(out)})"
        else:
            if result.exit not in (h.USAGE_OR_IO, h.TEMP_SPACE, h.BUDGET):
                return f"exit {result.exit}: {result.text[-300:]}"
            if not result.text.strip():
                return "an error without a message"
            if out != OLD and not (self.verb == "partition" and "theirs already" in result.text):
                return f"exit {result.exit}, and the old output is gone ({len(out)} bytes now)"
        if os.listdir(self.temp):
            left = os.listdir(self.temp)
            for name in left:
                os.unlink(os.path.join(self.temp, name))
            return f"left among the temporary files: {left}"
        # Where every unlink fails, or no folder can be looked into, nobody can take the unfinished result away.
        helpless = setting.startswith(("file:", "open:") if self.verb == "partition" else "file:") and ":ever:" in setting
        beside = set(os.listdir(self.dir)) - {"in", "in.csv", "in.zst", "right.csv", "out", "twice", "parts", "temp", "report"}
        beside |= {f"parts/{name}" for name in (os.listdir(self.path("parts")) if os.path.isdir(self.path("parts")) else []) if name.startswith("carbide-")}
        if beside:
            for name in beside:
                shutil.rmtree(self.path(name)) if os.path.isdir(self.path(name)) else os.unlink(self.path(name))
            return None if helpless else f"left beside the output: {beside}"
        return None

    def sample(self, calls, most, late=False):
        """Every n when that is affordable; else the first, the last and some at even distances, shifted by the seed."""
        if h.LONG or calls <= (most if not late else 50):
            return list(range(1, calls + 2))
        if late:  # one in four from all of it, the others from its second half
            return [1 + int(calls * (self.random.random() if i % 4 == 0 else 0.5 + self.random.random() / 2)) for i in range(most)]
        edge = most // 4
        step = (calls - 2 * edge) / (most - 2 * edge)
        middle = {edge + 1 + int((i + self.random.random()) * step) for i in range(most - 2 * edge)}
        return sorted({*range(1, edge + 1), *middle, *range(calls - edge + 1, calls + 2)})

    def loop(self, arguments, stdin=None, kinds=KINDS, late=False):
        self.scenario(arguments, stdin)
        started, points, refused, wrong, report = time.monotonic(), 0, 0, [], []
        plan = [(kind, error, how) for kind, errors in kinds.items() for error in (errors if h.LONG else errors[:1]) for how in ("once", "ever")]
        counts = {}
        for kind in kinds:
            self.once(f"{kind}:0:once:EIO")
            counts[kind] = self.count()[0]
        plan.sort(key=lambda step: counts[step[0]])  # the short ones are done whole, the long ones share what is left
        for at, (kind, error, how) in enumerate(plan):
            calls = counts[kind]
            share = (SECONDS - (time.monotonic() - started)) / (len(plan) - at)
            begun = time.monotonic()
            done = 0
            most = 10_000_000 if h.LONG else 200
            numbers = self.sample(calls, most, late)
            if not h.LONG:
                self.random.shuffle(numbers)
            for n in numbers:
                if time.monotonic() - begun > share:
                    break
                setting = f"{kind}:{n}:{how}:{error}"
                result = self.once(setting)
                problem = self.verdict(setting, result)
                done += 1
                refused += result.exit != 0
                if problem:
                    wrong.append(f"CARBIDE_FAULT={setting} carbide {self.verb} {' '.join(map(str, arguments))}: {problem}")
                    if len(wrong) >= 25:
                        break
            points += done
            report.append(f"{kind} {how} {done}/{calls}")
            if len(wrong) >= 25:
                break
        print(f"[{points} points, {refused} refused; {', '.join(report)}] ", end="", file=sys.stderr, flush=True)
        if wrong:
            self.fail(f"{len(wrong)} faults end badly (seed {h.SEED}):\n" + "\n".join(wrong))

    def test_a_spilling_sort_of_a_file(self):
        self.loop(["--memory", "8M", self.write("in", h.records(90_000))])

    def test_a_spilling_sort_of_a_stream(self):
        self.loop(["--memory", "8M"], stdin=self.write("in", h.records(90_000)))

    def test_a_csv_by_a_typed_key_with_compressed_spills(self):
        rows = b"".join(b"%d,%s,%s\n" % (self.random.randrange(10 ** 6), b"x" * 40, b"y" * 40) for _ in range(90_000))
        self.loop(["--memory", "8M", "--spill-compress", "lz4", "-k", "a:num:desc", self.write("in.csv", b"a,b,c\n" + rows)])

    def test_a_compressed_input_in_memory(self):
        packed = subprocess.run(["zstd", "-qc"], input=h.records(3000), stdout=subprocess.PIPE, check=True).stdout
        self.loop(["--memory", "32M", self.write("in.zst", packed)])

    def test_a_small_file(self):
        self.loop(["--memory", "16M", self.write("in", h.records(200))])

    def table(self, rows):
        draw = self.random.randrange
        return self.write("in.csv", b"a,b,c\n" + b"".join(b"%d,%d,%s\n" % (draw(10 ** 6), draw(1000), b"x" * 20) for _ in range(rows)))

    def test_a_spilling_group_by_with_sums(self):
        self.verb = "group"
        self.loop(["--memory", "8M", "-k", "a", "sum(b)", "count()", self.table(150_000)])

    def test_a_spilling_group_by_of_one_giant_group(self):
        self.verb = "group"
        self.loop(["--memory", "10M", "median(a)", "countdistinct(b)", "last(c)", self.table(100_000)])

    def test_a_spilling_deduplication(self):
        self.verb = "dedupe"
        self.loop(["--memory", "8M", "-k", "b,a", "--keep", "last", self.table(120_000)])

    def divided(self, memory, *words, source=None):
        """A stream whose partitions do not fit: they are divided. Tables, workers and requests for pieces come late in the run."""
        rows = 600_000
        source = source or self.write("in.csv", b"a,b,c\n" + b"".join(
            b"%07d,%d,%s\n" % (n * 7919 % rows, n * 31 % 10 ** 6, b"x" * (n % 12)) for n in range(rows)))
        words = ["--memory", memory, "--format", "csv", "--parallel", "2", *words]
        with open(source, "rb") as f:
            result = h.carbide(self.verb, *words, "-o", "/dev/null", f"--stats={self.path('report')}", stdin=f.read(), env=h.C_LOCALE)
        self.assertEnded(result, 0)
        self.assertGreater(json.loads(self.read("report"))["stats"]["divided"], 0)
        self.loop(words, stdin=source, late=True)

    def test_a_group_by_that_divides(self):
        self.verb = "group"
        self.divided("14M", "-k", "a", "median(b)", "first(c)", "-")

    def test_a_deduplication_that_divides(self):
        self.verb = "dedupe"
        self.divided("14M", "-k", "a,b", "--keep", "last", "-")

    def test_a_deduplication_whose_duplicates_go_to_a_file_that_divides(self):
        self.verb, self.second = "dedupe", "twice"
        rows = 700_000  # each twice, far apart
        text = b"".join(b"%d,%d\n" % (n * 7919 % rows // 2, n) for n in range(rows))
        self.divided("14M", "-k", "a", "--duplicates", self.path("twice"), "-", source=self.write("in.csv", b"a,b\n" + text))

    def join_divided(self, how, giant=False):
        """Partitions of both sides are divided by the same bits. With `giant` a fifth of the right rows have one key, which
        goes to sorted runs instead."""
        self.verb = "join"
        rows = 1_000_000
        right = (b"7,%d\n" % (n % 7) if giant and n % 5 == 0 else b"%d,%d\n" % (n * 104729 % rows, n % 7) for n in range(rows))
        self.write("right.csv", b"a,c\n" + b"".join(right))
        left = self.write("in.csv", b"a,b\n" + b"".join(b"%d,%d\n" % (n * 7919 % rows + n % 3, n % 7) for n in range(rows)))
        self.divided("13M", "-k", "a", "--how", how, "-", self.path("right.csv"), source=left)

    def test_a_join_that_divides(self):
        self.join_divided("inner")

    def test_joins_of_other_kinds_that_divide(self):
        kinds = ["left", "right", "semi", "anti"]
        for how in kinds if h.LONG else [self.random.choice(kinds)]:
            with self.subTest(how=how):
                self.join_divided(how)

    def test_a_full_join_that_divides_beside_a_giant_key(self):
        self.join_divided("full", giant=True)

    def test_a_spilling_join(self):
        self.verb = "join"
        left = self.table(60_000)
        os.rename(left, self.path("right.csv"))
        self.loop(["--memory", "8M", "-k", "a", "--how", "full", self.table(60_000), self.path("right.csv")])

    def test_a_join_of_inputs_in_order(self):
        """Right rows of one key that leave, and a result that is written as it comes."""
        self.verb = "join"
        left = b"".join(b"%06d,%s\n" % (n // 3, b"x" * 30) for n in range(6000)) + b"7,l\n" * 3
        right = b"".join(b"%06d,%d\n" % (n // 2, n) for n in range(6000)) + b"7,%s\n" % (b"y" * 5000) * 800
        self.write("right.csv", b"b,d\n" + right)
        source = self.write("in.csv", b"b,c\n" + left)
        kinds = ["full", "inner", "left", "right", "semi", "anti"]
        for how in kinds if h.LONG else [self.random.choice(kinds)]:
            with self.subTest(how=how):
                self.loop(["--memory", "8M", "-k", "b", "--how", how, "--sorted", source, self.path("right.csv")])

    def test_a_join_of_one_giant_key(self):
        self.verb = "join"
        right = b"b,d\n" + b"7,%s\n" % (b"y" * 5000) * 1200
        self.write("right.csv", right)
        self.loop(["--memory", "8M", "-k", "b", "--how", "semi", self.table(60_000), self.path("right.csv")])

    def test_a_spilling_partition(self):
        self.verb = "partition"
        self.loop(["--memory", "8M", "-k", "b", "-n", "9", self.table(120_000)])

    def test_a_partition_into_thousands_of_files(self):
        """A file after the other is opened, written and named; some are left with their rows when that ends half-way."""
        self.verb = "partition"
        text = b"".join(b"%d,%s\n" % (n * 7919 % 2000, b"x" * 12) for n in range(60_000))
        kinds = {kind: KINDS[kind] for kind in ("open", "write", "file")}  # what there is more of than with few files
        self.loop(["--memory", "8M", "-k", "a", self.write("in.csv", b"a,b\n" + text)], kinds=kinds)

    def test_transfers_that_are_one_byte_short_change_nothing(self):
        for arguments, stdin in ((["--memory", "8M", self.write("in", h.records(90_000))], None), (["--memory", "8M"], self.path("in"))):
            self.scenario(arguments, stdin)
            for setting in ("short:1:ever:EIO", "short:2:once:EIO", "short:50:once:EIO"):
                result = self.once(setting)
                self.assertEnded(result, 0)
                self.assertIsNone(self.verdict(setting, result))

    def test_interrupted_calls_change_nothing(self):
        self.scenario(["--memory", "8M", self.write("in", h.records(90_000))])
        for kind in ("read", "write", "open", "file"):
            setting = f"{kind}:1:ever:EINTR"
            result = self.once(setting)
            self.assertIsNone(self.verdict(setting, result))
            if kind in ("read", "write"):
                self.assertEnded(result, 0)


if __name__ == "__main__":
    h.main()
