#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`carbide top --openmetrics` as prometheus_client's own parser reads it: all of it, and the same figures as the JSON has.

The parser comes from PyPI (scripts/setup all); without it the test is skipped.
"""
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

sys.path.append(os.path.join(h.ROOT, "build/oracle-prometheus"))
try:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families
except ImportError:
    print("skipped: there is no prometheus_client in build/oracle-prometheus (scripts/setup all)")
    sys.exit(77)


class OpenMetrics(h.Case):
    def start(self, argv, **more):
        self.page = self.path("page")
        work = subprocess.Popen([*argv, "--status", self.page], stderr=subprocess.DEVNULL, **more)
        self.addCleanup(work.wait)
        self.addCleanup(work.kill)
        return work

    def look(self, work, ready):
        """Both answers of one moment, as soon as `ready` likes the JSON."""
        for _ in range(200):
            time.sleep(0.3)  # a stop interrupts the wait for the next tick
            work.send_signal(signal.SIGSTOP)  # so that the page stays as it is
            looks = [subprocess.run([h.CARBIDE, "top", form, self.page], capture_output=True, text=True, check=False)
                     for form in ("--json", "--openmetrics")]
            work.send_signal(signal.SIGCONT)
            if all(l.returncode == 0 for l in looks) and ready(json.loads(looks[0].stdout)):
                return json.loads(looks[0].stdout), self.samples(looks[1].stdout)
        self.fail("nothing was published")

    def samples(self, text):
        found = {}
        for family in text_string_to_metric_families(text):
            self.assertTrue(family.name.startswith("carbide_"), family.name)
            for s in family.samples:
                key = (s.name, tuple(sorted(s.labels.items())))
                self.assertNotIn(key, found)
                found[key] = s.value
        return found

    def check(self, said, found):
        self.assertEqual(found[("carbide_budget_bytes", ())], said["budget"])
        self.assertEqual(found[("carbide_accounted_bytes", ())], said["accounted"])
        for p in said["pools"]:
            labels = (("mode", p["mode"]), ("region", p["region"]))
            self.assertEqual(found[("carbide_pool_size_bytes", labels)], p["size"])
            self.assertEqual(found[("carbide_pool_used_bytes", labels)], p["used"])
        for e in said["ledger"]:
            self.assertEqual(found[("carbide_ledger_bytes", (("entry", e["name"]),))], e["bytes"])

    def test_a_sort(self):
        read, write = os.pipe()
        os.write(write, b"b\na\n" * 1000)
        argv = h.with_room([h.CARBIDE, "sort", "--memory", "24M", "-o", self.path("out")])
        work = self.start(argv, stdin=read)
        os.close(read)
        said, found = self.look(work, lambda j: True)
        os.close(write)
        self.check(said, found)
        self.assertEqual(found[("carbide_process_info", (("pid", str(work.pid)), ("what", "sort")))], 1)

    def test_a_server_of_blocks(self):
        socket = self.path("s")
        memory = "64M" if h.PLAIN else "800M"
        work = self.start([h.CARBIDE, "serve", "-q", "--socket", socket, "--memory", memory, "-T", self.path("")])
        self.look(work, lambda j: True)
        for level in ("MEMORY_ONLY_SER", "DISK_ONLY", "MEMORY_AND_DISK_SER"):
            ended = subprocess.run([h.CARBIDE, "block", "put", level, "--level", level, "--socket", socket], input=bytes(100_000), check=False)
            self.assertEqual(ended.returncode, 0)
        said, found = self.look(work, lambda j: j["blocks"]["blocks"] == 3)
        self.check(said, found)
        by_place = {place: sum(v for (name, labels), v in found.items() if name == "carbide_block_level_blocks" and ("place", place) in labels)
                    for place in ("memory", "disk")}
        self.assertEqual(by_place, {"memory": 2, "disk": 1})
        work.send_signal(signal.SIGTERM)
        self.assertEqual(work.wait(60), 0)


if __name__ == "__main__":
    h.main()
