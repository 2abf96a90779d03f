#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 400
"""The budget holds, measured from outside: peak RSS at every budget, and memory cgroups whose limit IS the budget.

Inputs are several times the budget. Outputs are judged by bench/tool (order and sum of all rows), which knows nothing of carbide.
"""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h


class Budget(h.Case):
    def setUp(self):
        super().setUp()
        h.need_plain_build()
        self.tool = h.compiled("tool", os.path.join(h.ROOT, "bench/tool.c"))

    def generate(self, kind, rows, name):
        subprocess.run([self.tool, f"gen-{kind}", str(rows), "7", self.path(name)], check=True)
        return self.path(name)

    def judge(self, kind, path):
        return json.loads(subprocess.run([self.tool, "check", kind, path], capture_output=True, check=True).stdout)

    def keeps(self, memory, arguments, kind="lines", source=None, stdin=None, cgroup=False, judge=True, timeout=300):
        out = self.path("out")
        if os.path.exists(out):
            os.unlink(out)
        budget = memory * h.MIB
        command = [h.CARBIDE, "sort", "--memory", f"{memory}M", "-T", self.temp, "-o", out, *arguments] + ([source] if source else [])
        got = h.measure(command, cgroup=budget if cgroup else None, stdin=stdin, timeout=timeout)
        where = f"{memory} MiB{' in a cgroup' if cgroup else ''} {arguments}"
        self.assertEqual((got["exit"], got["signal"], got["oom_kills"]), (0, 0, 0), f"{where}: {got}")
        self.assertLessEqual(got["rss_peak"], budget + h.DEBUG_BYTES, f"{where}: peak RSS {got['rss_peak'] / h.MIB:.1f} MiB")
        if judge:
            before, after = self.judge(kind, source or stdin), self.judge(kind, out)
            self.assertTrue(after["ordered"], f"{where}: row {after['disorder_row']} is out of order")
            self.assertEqual((after["rows"], after["sum"]), (before["rows"], before["sum"]), f"{where}: other rows")
        self.assertNothingLeft()
        return got

    def test_files_at_every_budget(self):
        source = self.generate("lines", 1_000_000, "in")
        table = []
        for memory in (8, 12, 16, 24, 32, 48, 64, 96, 128):
            got = self.keeps(memory, [], source=source)
            table.append(f"{memory}: {got['rss_peak'] / h.MIB:.1f}")
        print(f"[budget: peak RSS, MiB: {', '.join(table)}] ", end="", file=sys.stderr, flush=True)

    def test_larger_budgets_than_input_are_no_reason_to_take_more(self):
        source = self.generate("lines", 500_000, "in")
        got = self.keeps(1024, [], source=source)
        self.assertLessEqual(got["rss_peak"], 200 * h.MIB, "50 MB of input should not take more than that")

    def test_large_budgets(self):
        if not h.LONG:
            self.skipTest("2 GB of input, --long only")
        source = self.generate("lines", 20_000_000, "in")
        for memory in (64, 256, 1024, 4096):
            self.keeps(memory, [], source=source)

    def test_the_index_of_what_is_spilled_stays_in_the_budget(self):
        """Hundreds of times the budget: what is remembered of each piece on disk must not add up."""
        source = self.generate("lines", 20_000_000 if h.LONG else 12_000_000, "in")
        for memory in (8, 16) if h.LONG else (8,):
            self.keeps(memory, [], source=source)

    def test_a_cold_input_in_a_container(self):
        """What is read from disk is charged to the container as well, and disks read far ahead by default."""
        if h.cgroup_kind() == "none":
            h.skip_loudly("no memory cgroup can be made here")
        source = self.generate("lines", 2_000_000, "in")
        for memory in (16, 32, 128):
            with open(source, "rb+") as f:
                os.fsync(f.fileno())
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self.keeps(memory, [], source=source, cgroup=True, judge=memory == 16)

    def test_streams(self):
        source = self.generate("lines", 600_000, "in")
        for memory in (8, 16, 64):
            self.keeps(memory, [], stdin=source)
            self.keeps(memory, ["-"], stdin=source)

    def test_csv_keys(self):
        source = self.generate("csv", 1_000_000, "in.csv")
        for memory in (8, 16, 64):
            self.keeps(memory, ["-k", "id3", "-k", "v3:num:desc"], kind="csv", source=source)

    def test_fixed_records(self):
        source = self.generate("fixed", 600_000, "in")
        for memory in (8, 16, 64):
            self.keeps(memory, ["--format", "fixed:100", "-k", "str@0+10"], kind="fixed", source=source)

    def test_gnu_keys_and_merges(self):
        source = self.generate("lines", 500_000, "in")
        self.keeps(8, ["--gnu", "-k1.3,1.9"], source=source, judge=False)
        self.keeps(8, ["--gnu", "-f"], source=source, judge=False)
        self.keeps(8, ["-u"], source=source)
        parts = []
        for i in range(8):
            subprocess.run(["sort", "-o", self.path(f"part{i}"), self.generate("lines", 40_000, f"raw{i}")], env=h.C_LOCALE, check=True)
            parts.append(self.path(f"part{i}"))
        self.keeps(8, ["-m", *parts], judge=False)

    def test_many_threads(self):
        source = self.generate("lines", 600_000, "in")
        for memory, threads in ((8, 1), (8, 4), (16, 8), (16, 16), (64, 16)):
            self.keeps(memory, ["-j", str(threads)], source=source)

    def test_checking_takes_no_more_either(self):
        source = self.generate("lines", 500_000, "in")
        subprocess.run(["sort", "-o", source, source], env=h.C_LOCALE, check=True)
        got = h.measure([h.CARBIDE, "sort", "-c", "--memory", "8M", source])
        self.assertEqual(got["exit"], 0, got)
        self.assertLessEqual(got["rss_peak"], 8 * h.MIB + h.DEBUG_BYTES)

    def test_the_truth_line_tells_the_truth(self):
        source = self.generate("lines", 500_000, "in")
        got = h.measure([h.CARBIDE, "sort", "--memory", "16M", "-T", self.temp, f"--stats={self.path('stats')}", "-o", self.path("out"), source])
        self.assertEqual(got["exit"], 0, got)
        with open(self.path("stats")) as f:
            stats = json.load(f)
        flat = json.dumps(stats)
        self.assertIn("rss", flat)
        peak = next(v for k, v in walk(stats) if "rss" in k and isinstance(v, (int, float)))
        self.assertAlmostEqual(peak, got["rss_peak"], delta=h.MIB)
        accounted = next(v for k, v in walk(stats) if "accounted" in k and isinstance(v, (int, float)))
        self.assertLessEqual(accounted, 16 * h.MIB)
        self.assertGreaterEqual(accounted, got["rss_peak"] - 2 * h.MIB, "more is resident than the ledger knows")

    # ---- cgroups ----

    def test_a_cgroup_of_the_budget(self):
        h.need_cgroup()
        source = self.generate("lines", 3_000_000 if h.LONG else 1_500_000, "in")
        table = []
        for memory in (16, 32, 64, 256):
            got = self.keeps(memory, [], source=source, cgroup=True)
            table.append(f"{memory}: {got['rss_peak'] / h.MIB:.1f}, {got['wall_s']:.2f} s")
        print(f"[cgroup {h.cgroup_kind()}: peak RSS MiB, time: {'; '.join(table)}] ", end="", file=sys.stderr, flush=True)

    def test_a_cgroup_of_the_budget_for_streams_csv_and_compressed_files(self):
        h.need_cgroup()
        source = self.generate("lines", 600_000, "in")
        table = self.generate("csv", 800_000, "in.csv")
        for memory in (32, 64):
            self.keeps(memory, [], stdin=source, cgroup=True)
            self.keeps(memory, ["-k", "id3", "-k", "v3:num:desc"], kind="csv", source=table, cgroup=True)
        subprocess.run(["zstd", "-q", "-f", source], check=True)
        self.keeps(32, [], source=source + ".zst", cgroup=True, judge=False)
        self.assertTrue(self.judge("lines", self.path("out"))["ordered"])

    def test_automatic_budget_in_a_cgroup_finishes(self):
        h.need_cgroup()
        source = self.generate("lines", 1_500_000, "in")
        for limit in (32, 64, 128):
            got = h.measure([h.CARBIDE, "sort", "-T", self.temp, "-o", self.path("out"), source], cgroup=limit * h.MIB)
            self.assertEqual((got["exit"], got["oom_kills"]), (0, 0), f"{limit} MiB: {got}")
            self.assertTrue(self.judge("lines", self.path("out"))["ordered"])

    def test_standard_output_to_a_pipe_in_a_cgroup(self):
        h.need_cgroup()
        source = self.generate("lines", 600_000, "in")
        got = h.measure(["sh", "-c", f"{h.CARBIDE} sort --memory 28M -T {self.temp} {source} | cat > /dev/null"], cgroup=32 * h.MIB)
        self.assertEqual((got["exit"], got["oom_kills"]), (0, 0), got)


def walk(tree, name=""):
    if isinstance(tree, dict):
        for k, v in tree.items():
            yield from walk(v, f"{name}.{k}")
    elif isinstance(tree, list):
        for i, v in enumerate(tree):
            yield from walk(v, f"{name}[{i}]")
    else:
        yield name, tree


if __name__ == "__main__":
    h.main()
