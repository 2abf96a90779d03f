#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""`carbide partition` from outside: files against a partition in plain Python, names that lead nowhere else, and what is
left behind when it fails or is killed."""
import gzip
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness as h


class Partition(h.Case):
    def files(self, folder):
        found = {}
        for place, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)
                with open(path, "rb") as f:
                    found[os.path.relpath(path, folder)] = f.read()
        return found

    def expected(self, data, column, name=lambda value: value):
        header, *rows = data.splitlines(keepends=True)
        wanted = {}
        for row in rows:
            value = row.rstrip(b"\n").split(b",")[column].decode()
            wanted.setdefault(name(value) + ".csv", [header]).append(row)
        return {name: b"".join(rows) for name, rows in wanted.items()}

    def partition(self, *arguments, code=0, **kwargs):
        result = h.carbide("partition", *arguments, **kwargs)
        self.assertEnded(result, code)
        return result

    def test_files_are_the_same_at_any_budget_and_with_any_threads(self):
        data = h.carbide("gen", "group", "-n", "200K", "-K", "100").out
        source = self.write("in.csv", data)
        wanted = self.expected(data, 2)
        self.assertEqual(len(wanted), 2000)
        for budget, threads in (("8M", 1), ("16M", 2), ("1G", 2), ("1G", 1)):
            with self.subTest(budget=budget, threads=threads):
                out = self.path(f"out-{budget}-{threads}")
                self.partition("-k", "id3", "-S", budget, "-j", str(threads), "-o", out + "/{}.csv", source)
                self.assertEqual(self.files(out), wanted)
        self.partition("-k", "id3", "--format", "csv", "-S", "16M", "-o", self.path("piped/{}.csv"), stdin=data)
        self.assertEqual(self.files(self.path("piped")), wanted)

    def test_few_large_files_come_out_in_input_order(self):
        data = h.carbide("gen", "group", "-n", "300K", "-K", "3").out
        source = self.write("in.csv", data)
        for budget in ("8M", "1G"):
            self.partition("-k", "id1", "-S", budget, "-o", self.path(budget) + "/{}.csv", source)
            self.assertEqual(self.files(self.path(budget)), self.expected(data, 0))

    def test_hashes_and_ranges_hold_every_row_once(self):
        data = h.carbide("gen", "group", "-n", "20K", "-K", "100").out
        source = self.write("in.csv", data)
        self.partition("-k", "id6:int", "-n", "16", "-o", self.path("h/{}.csv"), source)
        self.partition("-k", "id6:int", "-n", "16", "-S", "9M", "-j1", "-o", self.path("h2/{}.csv"), source)
        shards = self.files(self.path("h"))
        self.assertEqual(shards, self.files(self.path("h2")))
        self.assertEqual(sorted(shards), [f"{n:02}.csv" for n in range(16)])
        header, *rows = data.splitlines()
        keys = [{row.split(b",")[5] for row in shard.splitlines()[1:]} for shard in shards.values()]
        self.assertEqual(sum(map(len, keys)), len(set().union(*keys)))
        self.assertEqual(sorted(row for shard in shards.values() for row in shard.splitlines()[1:]), sorted(rows))
        self.partition("-k", "v3:num", "--bounds", "10,50,99.5", "-o", self.path("r/{}.csv"), source)
        bounds = [0, 10, 50, 99.5]
        self.assertEqual(self.files(self.path("r")), self.expected(
            data, 8, lambda value: str(sum(float(value) >= bound for bound in bounds) - 1)))
        self.partition("-n", "4", "-o", self.path("l/{}"), "--format", "lines", source)
        self.assertEqual(sum(len(f) for f in self.files(self.path("l")).values()), len(data))

    def test_names_lead_nowhere_else_and_differ(self):
        values = ["..", ".", "../x", "/etc/x", "a/b", "a%2Fb", "", "%empty", "a b", ".hidden", "x" * 300, "x" * 301, "ü", "-"]
        data = "k,n\n" + "".join(f"{value},{i}\n" for i, value in enumerate(values))
        source = self.write("in.csv", data.encode())
        self.partition("-k", "k", "-o", self.path("out/{}"), source)
        found = self.files(self.path("out"))
        self.assertEqual(len(found), len(values))
        self.assertEqual(sorted(os.listdir(self.dir)), ["in.csv", "out", "temp"])
        for name in ("%2E.", "%2E", "%2E./x".replace("/", "%2F"), "%2Fetc%2Fx", "a%2Fb", "a%252Fb", "%empty", "%25empty", "a%20b", "ü"):
            self.assertIn(name, found)
        self.assertLessEqual(max(map(len, found)), 255)

    def test_folders_by_several_keys_and_names_wanted_twice(self):
        source = self.write("in.csv", b"a,b\nx-y,z\nx,y-z\nx,y-z\n")
        self.partition("-k", "a", "-k", "b", "-o", self.path("out/{}.csv"), source)
        self.assertEqual(sorted(self.files(self.path("out"))), ["x-y/z.csv", "x/y-z.csv"])
        self.partition("-k", "a", "-k", "b", "-o", self.path("out/{b}/{1}/{{}}.csv"), source)
        self.assertIn("y-z/x/{}.csv", self.files(self.path("out")))
        result = self.partition("-k", "a", "-k", "b", "-o", self.path("twice/{a}-{b}.csv"), source, code=h.USAGE_OR_IO)
        self.assertIn("x-y-z.csv", result.text)
        self.assertFalse(os.path.exists(self.path("twice")))

    def test_compressed_files_and_replaced_ones(self):
        data = h.carbide("gen", "group", "-n", "20K", "-K", "100").out
        source = self.write("in.csv", data)
        for _ in range(2):
            self.partition("-k", "id1", "-S", "16M", "-o", self.path("out/{}.csv.gz"), source)
        found = {name[:-3]: gzip.decompress(content) for name, content in self.files(self.path("out")).items()}
        self.assertEqual(found, self.expected(data, 0))

    def test_failures_leave_nothing_behind(self):
        source = self.write("in.csv", b"a,b\n1,2\n3,4,5\n")
        self.partition("-k", "a", "-o", self.path("out/{}.csv"), source, code=h.BAD_DATA)
        for bad in (["-o", "x.csv"], ["-o", "{x}.csv"], ["-o", "{.csv"], ["-k", "nothing", "-o", "{}"], ["-o", "{}"][:0]):
            keys = [] if "-k" in bad else ["-k", "a"]
            self.partition(*keys, *bad, source, code=h.USAGE_OR_IO, cwd=self.dir)
        self.partition("-k", "a:int", "--bounds", "5,3", "-o", self.path("out/{}"), source, code=h.USAGE_OR_IO)
        self.assertEqual(sorted(os.listdir(self.dir)), ["in.csv", "temp"])

    def test_what_a_killed_run_leaves_the_next_one_removes(self):
        source = self.write("in.csv", h.carbide("gen", "group", "-n", "400K", "-K", "100").out)
        out = self.path("out")
        os.mkdir(out)
        for delay in (0.05, 0.15, 0.3, 0.45):
            p = subprocess.Popen([h.CARBIDE, "partition", "-k", "id3", "-S", "16M", "-o", out + "/{}.csv", source])
            time.sleep(delay)
            p.send_signal(signal.SIGKILL)
            p.wait()
            self.assertLessEqual(len([n for n in os.listdir(out) if n.endswith(".csv")]), 4000)
        self.partition("-k", "id3", "-o", self.path("want/{}.csv"), source)
        want = self.files(self.path("want"))
        self.assertEqual(len(want), 4000)
        for name, content in self.files(out).items():  # it may have been killed while it gave names
            if "/" not in name:
                self.assertSameBytes(content, want[name], name)
        self.partition("-k", "id1", "-o", out + "/{}.csv", source)
        self.assertEqual([n for n in os.listdir(out) if not n.endswith(".csv")], [])


if __name__ == "__main__":
    h.main()
