#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Signals: ^C, SIGTERM, SIGHUP, SIGPIPE, SIGUSR1 and kill -9, at moments chosen by chance.

After each the old output has to be as it was, no name may be left beside it or among the temporary files, and no
block or inode of the file system may stay taken: kill -9 is tried on a file system of its own, where nobody else writes.
"""
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

OLD = b"what was there before\n"


class Started(h.Case):
    """A sort that spills and takes `whole` seconds when nobody disturbs it."""

    def setUp(self):
        super().setUp()
        self.source = self.write("in", h.records(250_000))
        started = time.monotonic()
        self.assertEnded(self.sort("--memory", "8M", "-o", self.path("out"), self.source), 0)
        self.whole = time.monotonic() - started
        self.want = self.read("out")

    def start(self, *arguments, folder=None, temp=None, **kw):
        return subprocess.Popen(h.with_room([h.CARBIDE, "sort", "--memory", "8M", "-T", temp or self.temp, *arguments, self.source]), cwd=folder or self.dir,
                                env=h.C_LOCALE, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, **kw)

    def end(self, process, limit=60 if h.PLAIN else 240):
        try:
            return process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.fail(f"it hangs: not ended {limit} s after the signal")
        finally:
            process.stderr.close()


class Signals(Started):
    def stop_by(self, number, times):
        stopped = turns = 0
        window = self.whole
        while turns < times or (stopped == 0 and window > 0.0001):  # the first run was a slow one: sooner, until some are stopped
            turns += 1
            out = self.write("out", OLD)
            process = self.start("-o", out)
            time.sleep(self.random.random() * window)
            process.send_signal(number)
            code = self.end(process)
            if code == 0:
                window *= 0.8
                self.assertSameBytes(self.read("out"), self.want, "finished before the signal")
            else:
                stopped += 1
                self.assertIn(code, (128 + number, -number), "neither 128+n nor ended by the signal")
                if self.read("out") != self.want:  # it may have been in its place before the signal came
                    self.assertSameBytes(self.read("out"), OLD, "the old output")
            self.assertNothingLeft()
            self.assertEqual(sorted(os.listdir(self.dir)), ["in", "out", "temp"])
        self.assertGreater(stopped, 0, "no signal came in time")

    def test_interrupt_ends_it_with_130_and_leaves_nothing(self):
        self.stop_by(signal.SIGINT, 100 if h.LONG else 12 if h.PLAIN else 4)

    def test_terminate_ends_it_with_143_and_leaves_nothing(self):
        self.stop_by(signal.SIGTERM, 100 if h.LONG else 12 if h.PLAIN else 4)

    def test_hang_up_leaves_nothing(self):
        self.stop_by(signal.SIGHUP, 20 if h.LONG else 4)

    def test_two_interrupts_in_a_row_leave_nothing(self):
        for _ in range(5):
            out = self.write("out", OLD)
            process = self.start("-o", out)
            time.sleep(self.random.random() * self.whole * 0.7)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
            code = self.end(process)
            self.assertIn(code, (0, 130, -2))
            if code and self.read("out") != self.want:  # as above
                self.assertSameBytes(self.read("out"), OLD, "the old output")
            self.assertNothingLeft()

    def test_an_interrupt_ignored_by_the_parent_stays_ignored(self):
        """nohup and shells' background jobs rely on it."""
        for number in (signal.SIGINT, signal.SIGHUP):
            process = self.start("-o", self.path("out"), preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
            time.sleep(self.whole * 0.4)
            process.send_signal(number)
            self.assertEqual(self.end(process), 0)
            self.assertSameBytes(self.read("out"), self.want)

    def test_a_reader_that_goes_away_ends_it_by_sigpipe(self):
        for lines in (0, 1, 1000):
            process = self.start(stdout=subprocess.PIPE)
            for _ in range(lines):
                process.stdout.readline()
            process.stdout.close()
            self.assertIn(self.end(process), (-signal.SIGPIPE, 128 + signal.SIGPIPE))
            self.assertNothingLeft()

    def test_a_closed_pipe_with_sigpipe_ignored_is_an_error_with_2(self):
        process = self.start(stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN), restore_signals=False)
        process.stdout.readline()
        process.stdout.close()
        self.assertEqual(self.end(process), h.USAGE_OR_IO)
        self.assertNothingLeft()

    def expects(self, process, number):
        """Waits until it does; false: it has ended."""
        while process.poll() is None:
            with open(f"/proc/{process.pid}/status") as f:
                if any(int(line.split()[1], 16) >> (number - 1) & 1 for line in f if line.startswith(("SigCgt", "SigBlk"))):
                    return True
            time.sleep(0.001)
        return False

    def test_usr1_asks_for_a_progress_line_and_harms_nothing(self):
        said, whole = b"", self.whole
        while b"%" not in said and whole > 0.0001:  # the first run was a slow one: sooner, until one of them was asked in time
            process = self.start("-o", self.path("out"))
            for turn in range(6):
                if self.expects(process, signal.SIGUSR1):
                    time.sleep(whole * (0.05 if turn else 0.3))
                    process.send_signal(signal.SIGUSR1)
            said = process.stderr.read()
            self.assertEqual(self.end(process), 0)
            self.assertSameBytes(self.read("out"), self.want)
            whole *= 0.7
        self.assertIn(b"%", said)

    def test_usr1_ends_nothing_however_late_it_comes(self):
        small = self.write("small", h.records(1000))
        for _ in range(20 if h.PLAIN else 4):
            process = subprocess.Popen([h.CARBIDE, "sort", "-T", self.temp, "-o", self.path("out"), small], env=h.C_LOCALE, stderr=subprocess.DEVNULL)
            if self.expects(process, signal.SIGUSR1):
                while process.poll() is None:
                    process.send_signal(signal.SIGUSR1)
            self.assertEqual(process.wait(timeout=120), 0)

    def test_stopped_and_continued_it_goes_on(self):
        process = self.start("-o", self.path("out"))
        time.sleep(self.whole * 0.3)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        process.send_signal(signal.SIGCONT)
        self.assertEqual(self.end(process), 0)
        self.assertSameBytes(self.read("out"), self.want)


class Kill(Started):
    """kill -9 at random moments on a file system of its own: names, blocks and inodes before and after."""

    def used(self, folder):
        """Blocks and inodes taken. The kernel frees what a killed process held when its last reference goes."""
        s = os.statvfs(folder)
        return s.f_blocks - s.f_bfree, s.f_files - s.f_ffree

    def kill_loop(self, folder, times, arguments=(), feed=None):
        temp = os.path.join(folder, "temp")
        os.makedirs(temp, exist_ok=True)
        out = os.path.join(folder, "out")
        i = killed = finished = between = 0
        window = self.whole
        r = random.Random(f"{h.SEED}:kill")
        while i < times or (killed <= times // 4 and window > 0.0001):
            i += 1
            with open(out, "wb") as f:
                f.write(OLD)
            before = self.used(folder)
            process = self.start("-o", out, *arguments, folder=folder, temp=temp)
            time.sleep(r.random() * window)
            process.kill()
            code = self.end(process)
            with open(out, "rb") as f:
                now = f.read()
            if code == 0:
                finished += 1
                window *= 0.8  # what it takes when nobody else computes is learned on the way
                self.assertSameBytes(now, self.want)
            else:
                killed += 1
                window *= 1.1
                # Killed after the rename the new file is there, whole.
                self.assertTrue(now in (OLD, self.want), f"half an output: {len(now)} of {len(self.want)} bytes")
            self.assertEqual(os.listdir(temp), [], f"temporary files left by kill {i}")
            beside = sorted(x for x in os.listdir(folder) if x not in ("lost+found", "out", "temp"))
            if code != 0 and now == OLD and len(beside) == 1 and beside[0].startswith(".carbide-"):
                between += 1  # linked, not renamed yet: a moment, and what lies there is whole
                with open(os.path.join(folder, beside[0]), "rb") as f:
                    self.assertSameBytes(f.read(), self.want)
                os.unlink(os.path.join(folder, beside.pop()))
            self.assertEqual(beside, [], f"left beside the output by kill {i}")
            if now == OLD:
                for _ in range(50):
                    after = self.used(folder)
                    if after[0] <= before[0] and after[1] <= before[1]:  # fewer: of the run before, some came back late
                        break
                    h.run(["sync", "-f", folder])
                    time.sleep(0.02)
                self.assertTrue(after[0] <= before[0] and after[1] <= before[1], f"blocks or inodes stay taken after kill {i}: {before}, {after}")
        print(f"[{killed} killed, {finished} finished first] ", end="", file=sys.stderr, flush=True)
        self.assertGreater(killed, times // 4)
        self.assertLessEqual(between, 1 + times // 100)

    def test_kill_9_at_random_times_leaves_no_name_no_block_and_no_inode(self):
        with h.mounted("ext4", 300 << 20, self.path("disk")) as folder:
            self.kill_loop(folder, 1000 if h.LONG else 50 if h.PLAIN else 10)

    def test_kill_9_while_streaming_runs_leaves_nothing(self):
        with h.mounted("ext4", 300 << 20, self.path("disk")) as folder:
            source, self.source = self.source, "-"
            original = self.start
            self.start = lambda *a, **kw: self.start_from(source, *a, **kw)
            try:
                self.kill_loop(folder, 200 if h.LONG else 12)
            finally:
                self.start = original

    def start_from(self, source, *arguments, folder=None, temp=None):
        with open(source, "rb") as f:
            feeder = subprocess.Popen(["cat"], stdin=f, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process = subprocess.Popen(h.with_room([h.CARBIDE, "sort", "--memory", "8M", "-T", temp, *arguments, "-"]), cwd=folder, env=h.C_LOCALE,
                                   stdin=feeder.stdout, stderr=subprocess.PIPE)
        feeder.stdout.close()
        self.addCleanup(feeder.wait)
        return process


if __name__ == "__main__":
    h.main()
