#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`carbide top`: a sort that publishes its figures is looked at, as a text, as JSON and OpenMetrics, and on a terminal."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h


# Each reads standard input, which the test keeps open, and so is there to be looked at; join, which reads twice,
# writes to a pipe that is full.
VERBS = {
    "group": ["-t", ",", "-k", "1", "count()", "-"],
    "dedupe": ["-t", ",", "-k", "1", "-"],
    "join": ["--format", "csv", "--no-header", "-k", "1", "LEFT", "RIGHT"],
    "partition": ["-t", ",", "-k", "1", "--template", "out-{}", "-"],
}


class Verbs(h.Case):
    def test_every_verb_publishes_and_takes_its_page_away(self):
        with open(self.path("LEFT"), "wb") as f:
            f.write(b"a,%s\n" % bytes(100).replace(b"\0", b"x") * 5000)
        with open(self.path("RIGHT"), "wb") as f:
            f.write(b"a,x\n")
        for verb, options in VERBS.items():
            for number in (None, signal.SIGTERM):
                self.look_at(verb, options, number)

    def look_at(self, verb, options, number):
        page = self.path("page")
        argv = h.with_room([h.CARBIDE, verb, "--memory", "24M", "--status", page, *options])
        work = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=self.path(""))
        self.addCleanup(work.kill)
        if verb != "join":
            work.stdin.write(b"b,1\na,2\n" * 1000)
            work.stdin.flush()
        said = {}
        end = time.monotonic() + 60
        while not said and work.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
            looked = subprocess.run([h.CARBIDE, "top", "--json", page], capture_output=True, text=True, timeout=60)
            said = json.loads(looked.stdout) if looked.returncode == 0 else {}
        self.assertTrue(said, (verb, work.poll()))
        self.assertEqual((said["what"], said["pid"]), (verb, work.pid))
        total = sum(p["size"] for p in said["pools"]) + sum(e["bytes"] for e in said["ledger"]) - said["debt"]
        self.assertEqual(total, said["budget"])
        began = time.monotonic()
        if number is not None:
            work.send_signal(number)
        work.stdin.close()
        work.stdout.read()
        work.stdout.close()
        at_once = time.monotonic() - began < 0.5  # after a second it does not wait for its input any more, and leaves the page
        self.assertIn(work.wait(60), (0,) if number is None else (0, -number), verb)  # 0: it was done before it saw the signal
        if number is None or at_once:
            self.assertFalse(os.path.exists(page))
        elif os.path.exists(page):
            os.unlink(page)


class Top(h.Case):
    def setUp(self):
        super().setUp()
        self.page = self.path("page")
        argv = h.with_room([h.CARBIDE, "sort", "--memory", "24M", "--status", self.page, "-o", self.path("out")])
        self.budget = int(argv[3][:-1]) << 20
        self.sort = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.sort.stdin.write(b"b\na\n" * 1000)
        self.sort.stdin.flush()
        end = time.monotonic() + 100
        while time.monotonic() < end:
            if os.path.exists(self.page) and self.top("--json").returncode == 0:
                return
            time.sleep(0.02)
        self.fail("nothing was published")

    def tearDown(self):
        if self.sort.poll() is None:
            self.sort.kill()
        self.sort.stdin.close()
        self.sort.wait()
        super().tearDown()

    def top(self, *options, page=None):
        return subprocess.run([h.CARBIDE, "top", *options, page or self.page], capture_output=True, text=True, timeout=60)

    def test_json_has_the_budget_tree(self):
        said = json.loads(self.top("--json").stdout)
        self.assertEqual((said["what"], said["pid"]), ("sort", self.sort.pid))
        self.assertLessEqual(said["budget"], self.budget)
        self.assertGreater(said["budget"], 0.6 * self.budget)
        self.assertLessEqual(said["accounted"], said["budget"])
        self.assertEqual(len(said["pools"]), 4)
        total = sum(p["size"] for p in said["pools"]) + sum(e["bytes"] for e in said["ledger"]) - said["debt"]
        self.assertEqual(total, said["budget"])
        self.assertEqual([t["waiting"] for t in said["task"]], [False])

    def test_open_metrics_is_of_its_grammar(self):
        lines = self.top("--openmetrics").stdout.splitlines()
        self.assertEqual(lines[-1], "# EOF")
        types = {}
        for line in lines[:-1]:
            if line.startswith("# TYPE "):
                name, kind = line.split()[2:]
                self.assertNotIn(name, types)
                types[name] = kind
            elif not line.startswith("#"):
                match = re.fullmatch(r'(\w+)(\{\w+="[^"]*"(,\w+="[^"]*")*\})? (\d+)', line)
                self.assertIsNotNone(match, line)
                family = re.sub("_(total|info)$", "", match[1])
                self.assertIn(family, types, line)
                self.assertEqual(match[1].endswith("_total"), types[family] == "counter", line)
        self.assertIn("carbide_pool_size_bytes", types)

    def test_a_process_is_found_by_its_number(self):
        self.assertEqual(json.loads(self.top("--json", page=str(self.sort.pid)).stdout)["pid"], self.sort.pid)
        mine = self.top(page=str(os.getpid()))
        self.assertEqual(mine.returncode, 2)
        self.assertIn("publishes no figures", mine.stderr)

    def test_the_page_goes_with_the_sort(self):
        self.sort.stdin.close()
        self.assertEqual(self.sort.wait(), 0)
        self.assertFalse(os.path.exists(self.page))
        self.assertEqual(self.top().returncode, 2)
        self.sort.stdin = open(os.devnull, "wb")

    def test_one_that_was_killed_is_shown_as_ended_and_its_page_taken_over(self):
        taken = subprocess.run([h.CARBIDE, "sort", "--status", self.page], input=b"x\n", capture_output=True)
        self.assertEqual(taken.returncode, 2)
        self.assertIn(b"a process that lives", taken.stderr)
        self.sort.kill()
        self.sort.wait()
        self.assertIn("has ended", self.top().stdout)
        again = subprocess.run([h.CARBIDE, "sort", "--status", self.page], input=b"x\n", capture_output=True)
        self.assertEqual((again.returncode, again.stdout), (0, b"x\n"))
        self.assertFalse(os.path.exists(self.page))

    def test_what_is_no_page_is_left_alone(self):
        other = self.path("other")
        for content in (b"precious", b"x" * 9000, b"CBSTAT01", b"CBSTAT01" + bytes(9000)):
            with open(other, "wb") as f:
                f.write(content)
            self.assertEqual(self.top(page=other).returncode, 3, content[:10])
            if not content.startswith(b"CBSTAT"):
                taken = subprocess.run([h.CARBIDE, "sort", "--status", other], input=b"x\n", capture_output=True)
                self.assertEqual(taken.returncode, 2)
                with open(other, "rb") as f:
                    self.assertEqual(f.read(), content)

    def test_usage(self):
        for options in ((), ("--json", "--openmetrics"), ("-d", "0"), ("-n", "x"), ("a", "b")):
            ended = subprocess.run([h.CARBIDE, "top", *options, *([] if options in ((), ("a", "b")) else [self.page])],
                                   capture_output=True, text=True)
            self.assertEqual(ended.returncode, 2, options)

    def test_plain_text_and_counted_looks(self):
        looks = self.top("-n", "3", "-d", "0.05").stdout
        self.assertEqual(looks.count("carbide top: sort"), 3)
        self.assertNotIn("\033", looks)

    def screen(self, fd, lines, columns, until):
        """What the terminal shows, its cursor followed; fd is the master's side."""
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        seen = b""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if select.select([fd], [], [], 0.1)[0]:
                seen += os.read(fd, 65536)
            frames = seen.split(b"\033[H")
            if len(frames) > 2:
                frame = frames[-2].replace(b"\033[K", b"").replace(b"\033[J", b"").decode()
                rows = frame.split("\r\n")
                if until(rows):
                    return rows
        self.fail(f"never seen: {seen[-3000:]!r}")

    def test_a_terminal_is_filled_and_followed(self):
        master, slave = pty.openpty()
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        top = subprocess.Popen([h.CARBIDE, "top", "-d", "0.05", self.page], stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        rows = self.screen(master, 24, 80, lambda r: any(row.startswith("[") and len(row) == 80 for row in r))
        self.assertTrue(rows[0].startswith(f"carbide top: sort, pid {self.sort.pid}"), rows)
        self.assertTrue(any("storage" in row for row in rows))
        rows = self.screen(master, 5, 40, lambda r: len(r) == 5)
        self.assertTrue(all(len(row) <= 40 for row in rows), rows)
        self.screen(master, 30, 120, lambda r: any(row.startswith("[") and len(row) == 120 for row in r))
        os.write(master, b"q")
        self.assertEqual(top.wait(timeout=60), 0)
        rest = b""
        while select.select([master], [], [], 0.2)[0]:
            try:
                rest += os.read(master, 65536)
            except OSError:
                break
        self.assertIn(b"\033[?1049l", rest)  # the screen before is there again
        os.close(master)

    def test_it_ends_with_the_process(self):
        master, slave = pty.openpty()
        top = subprocess.Popen([h.CARBIDE, "top", "-d", "0.05", self.page], stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.sort.send_signal(signal.SIGTERM)
        self.sort.wait()
        end = time.monotonic() + 60
        while top.poll() is None and time.monotonic() < end:
            try:
                if select.select([master], [], [], 0.1)[0]:
                    os.read(master, 65536)
            except OSError:  # the other side is closed: it is ending
                top.wait(timeout=60)
        self.assertEqual(top.poll(), 0)
        os.close(master)


if __name__ == "__main__":
    h.main()
