#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Goal: executors and a directory in Redis: who has which block, in which generation, whatever dies meanwhile.

Method: a redis-server on a socket in a folder and servers of carbide on ports that the system chose; both are killed. What
takes time is waited for, up to two minutes; no time is measured. A server that lost its processor for longer than its lease
gets it again, so nothing is asserted of the directory that is not waited for.
"""
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

MEMORY = "64M" if h.PLAIN else "800M"
PATIENCE = int(os.environ.get("CARBIDE_TEST_PATIENCE", "120"))


def request(*words):
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


class Peer:
    """A connection that speaks RESP."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rb", buffering=1 << 16)

    def reply(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else line[:-2]

    def ask(self, *words):
        self.socket.sendall(request(*words))
        return self.reply()

    def close(self):
        self.file.close()
        self.socket.close()


class Cluster(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="cluster-", dir="/tmp")
        self.addCleanup(self.folder.cleanup)
        self.random = random.Random(h.SEED)
        self.socket = os.path.join(self.folder.name, "redis")
        self.redis = None
        self.addCleanup(self.redis_kill)
        self.redis_start()

    def redis_start(self):
        self.redis = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", "", "--appendonly", "no",
             "--dir", self.folder.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait("redis-server answers", lambda: self.directory("PING") == b"+PONG")

    def redis_kill(self):
        if self.redis is not None:
            self.redis.kill()
            self.redis.wait()
            self.redis = None
            try:
                os.unlink(self.socket)
            except FileNotFoundError:
                pass

    def directory(self, *words):
        try:
            p = Peer(self.socket)
        except OSError:
            return None
        try:
            return p.ask(*words)
        except OSError:
            return None
        finally:
            p.close()

    def wait(self, what, condition):
        waited, before = 0, time.monotonic()
        while not condition():
            if waited > PATIENCE:
                self.fail("this did not happen: " + what)
            time.sleep(0.02)
            now = time.monotonic()
            waited += min(now - before, 1)  # a machine that stood still is not waited for
            before = now

    def executor(self, name, *options, stderr=subprocess.PIPE):
        argv = [h.CARBIDE, "serve", "--listen", "127.0.0.1:0", "--memory", MEMORY, "-T", self.folder.name, "--directory",
                "unix://" + self.socket, "--name", name, *options]
        environment = {k: v for k, v in h.C_LOCALE.items() if not k.startswith("CARBIDE_")}
        process = subprocess.Popen(argv, env=environment, stderr=stderr, text=True)
        self.addCleanup(self.end, process)
        if stderr is not subprocess.PIPE:
            return process
        line = process.stderr.readline()
        if "127.0.0.1:" not in line:
            raise AssertionError(line + process.stderr.read())
        process.port = int(line.split("127.0.0.1:")[1].split(":")[0])
        process.peer = Peer(("127.0.0.1", process.port))
        self.addCleanup(process.peer.close)
        return process

    def end(self, process):
        if process.poll() is None:
            process.terminate()
        code = process.wait(PATIENCE)
        if process.stderr is not None:
            process.stderr.close()
        return code

    def have(self, block, name):
        """What the directory knows of the block at the executor, as five numbers; None: nothing."""
        generation = self.directory("HGET", "cb:exec:" + name, "generation")
        if not isinstance(generation, bytes) or generation[:1] == b"-":
            return None
        what = self.directory("HGET", b"cb:have:" + generation + b":" + name.encode(), block)
        return [int(n) for n in what.split()] if isinstance(what, bytes) and what[:1].isdigit() else None

    def known(self, block, name):
        """The same, when it does."""
        found = []
        self.wait(f"{block} is known at {name}", lambda: found.append(self.have(block, name)) or found[-1])
        return found[-1]

    def unknown(self, block, name):
        self.wait(f"{block} is not known at {name}", lambda: self.have(block, name) is None)

    def test_blocks_are_known_with_generation_and_checksum(self):
        a, b = self.executor("a", "--host", "h1", "--rack", "r1"), self.executor("b")
        value = self.random.randbytes(100_000)
        self.assertEqual(a.peer.ask("SET", "x", value), b"+OK")
        level, memory, disk, generation, checksum = self.known("x", "a")
        self.assertEqual((level % 256, memory, disk), (4, 100_000, 0))
        self.assertEqual(a.peer.ask("CARBIDE.GET", "x", generation), value)
        self.assertIsNone(a.peer.ask("CARBIDE.GET", "x", generation + 1))
        self.assertIsNone(a.peer.ask("CARBIDE.GET", "y", generation))
        # Another block takes its name: who has the generation of the first never gets it.
        self.assertEqual(a.peer.ask("SET", "x", b"other", "LEVEL", "DISK_ONLY"), b"+OK")
        self.assertIsNone(a.peer.ask("CARBIDE.GET", "x", generation))
        self.wait("the other one is known", lambda: (self.have("x", "a") or [0] * 5)[3] > generation)
        level, memory, disk, newer, _ = self.known("x", "a")
        self.assertEqual((level % 256, memory), (8, 0))
        self.assertGreater(disk, 0)
        self.assertEqual(a.peer.ask("CARBIDE.GET", "x", newer), b"other")
        # The first at another executor: verified before it is there.
        put = ("CARBIDE.PUT", "x", generation, "MEMORY_ONLY_SER")
        self.assertIn(b"did not arrive", b.peer.ask(*put, checksum ^ 1, value))
        self.assertIn(b"did not arrive", b.peer.ask(*put, checksum, value[:-1] + b"?"))
        self.assertEqual(b.peer.ask("EXISTS", "x"), 0)
        self.assertEqual(b.peer.ask(*put, checksum, value), b"+OK")
        self.assertEqual(b.peer.ask(*put, checksum, value), b"+OK")  # it is here already
        self.assertEqual(b.peer.ask("CARBIDE.GET", "x", generation), value)
        self.assertEqual(self.known("x", "b")[3:], [generation, checksum])
        self.wait("a's labels are known",
                  lambda: self.directory("HMGET", "cb:exec:a", "host", "rack") == [b"h1", b"r1"])
        # An older one does not take the place of a newer one, a newer one does.
        self.assertIn(b"newer", a.peer.ask(*put, checksum, value))
        self.assertEqual(a.peer.ask("CARBIDE.PUT", "x", newer + 1, "DISK_ONLY", checksum, value), b"+OK")
        self.assertEqual(a.peer.ask("CARBIDE.GET", "x", newer + 1), value)
        self.assertEqual(a.peer.ask("DEL", "x"), 1)
        self.unknown("x", "a")

    def test_an_executor_says_when_it_cannot_use_its_directory(self):
        self.assertEqual(self.directory("CONFIG", "SET", "requirepass", "secret"), b"+OK")
        for url, words in (
                (f"unix://{self.folder.name}/nosuch", "cannot be reached"), (f"unix://{self.socket}", "wants a password"),
                (f"unix://:terrible@{self.socket}", "WRONGPASS"), (f"unix://joe:secret@{self.socket}", "WRONGPASS")):
            with self.subTest(url=url):
                log = os.path.join(self.folder.name, "log")
                with open(log, "wb") as file:
                    a = self.executor("a", "--directory", url, "--quiet", stderr=file)
                read = pathlib.Path(log).read_text
                self.wait("the failure is told", lambda: read().endswith("\n"))
                time.sleep(1.5)  # three attempts more, which say nothing
                self.assertEqual(len(read().splitlines()), 1, read())
                self.assertIn(words, read())
                self.assertNotIn("terrible", read())
                self.assertEqual(self.end(a), 0)
        a = self.executor("a", "--directory", f"unix://:secret@{self.socket}")
        self.assertIn("carbide: in the directory", a.stderr.readline())
        info = a.peer.ask("INFO", "directory")
        self.assertIn(b"directory:entered\r\n", info)
        self.assertNotIn(b"directory_error", info)
        self.redis_kill()
        self.assertIn("not in the directory", a.stderr.readline())
        info = a.peer.ask("INFO")
        self.assertIn(b"directory:unreachable\r\n", info)
        self.assertIn(b"directory_error:", info)
        self.redis_start()
        self.directory("CONFIG", "SET", "requirepass", "secret")
        while "not in" in (line := a.stderr.readline()):  # the same, with other words
            pass
        self.assertIn("carbide: in the directory", line)

    def test_a_log_that_nobody_reads_holds_up_nothing(self):
        a = self.executor("a")
        self.assertIn("carbide: in the directory", a.stderr.readline())
        log = a.stderr.fileno()
        full = os.open(f"/proc/self/fd/{log}", os.O_WRONLY | os.O_NONBLOCK)  # the same pipe, and only we do not wait
        for piece in (b"x" * 4096, b"x"):
            try:
                while os.write(full, piece):
                    pass
            except BlockingIOError:
                pass
        os.close(full)
        self.redis_kill()
        self.wait("that is noticed", lambda: b"directory:unreachable\r\n" in a.peer.ask("INFO", "directory"))
        self.redis_start()
        self.wait("it is in again", lambda: b"directory:entered\r\n" in a.peer.ask("INFO", "directory"))
        self.assertEqual(a.peer.ask("SET", "x", b"1"), b"+OK")
        self.known("x", "a")
        while set(os.read(log, 1 << 16)) == {ord("x")} and select.select([log], [], [], 0)[0]:
            pass  # it says something at its end, and waits for that

    def test_values_of_all_sizes_are_handed_over(self):
        a, b = self.executor("a"), self.executor("b")
        for size in (0, 1, 1023, 1024, 1025, 65_535, 65_536, 300_000, 3_000_001):
            value = self.random.randbytes(size)
            name = f"rdd_1_{size}"
            self.assertEqual(a.peer.ask("SET", name, value), b"+OK")
            _, _, _, generation, checksum = self.known(name, "a")
            for level in ("MEMORY_ONLY_SER", "DISK_ONLY", "memory_and_disk_ser_2"):
                generation += 1
                self.assertEqual(b.peer.ask("CARBIDE.PUT", name, generation, level, checksum, value), b"+OK")
                self.assertEqual(b.peer.ask("CARBIDE.GET", name, generation), value)

    def test_words_that_make_no_sense_are_refused(self):
        a = self.executor("a")
        for words in (("CARBIDE.GET", "x"), ("CARBIDE.GET", "x", "0"), ("CARBIDE.GET", "x", "-1"), ("CARBIDE.GET", "x", "1x"),
                      ("CARBIDE.GET", "x", "99999999999999999999"), ("CARBIDE.PUT", "x", "1", "NONSENSE", "5", "v"),
                      ("CARBIDE.PUT", "x", "0", "DISK_ONLY", "5", "v"), ("CARBIDE.PUT", "x", "1", "DISK_ONLY", "", "v"),
                      ("CARBIDE.PUT", "", "1", "DISK_ONLY", "5", "v"), ("CARBIDE.PUT", "x", "1", "DISK_ONLY", "5"),
                      ("CARBIDE.PUT", "x", "q", "DISK_ONLY", "5", "v" * 5000)):
            self.assertEqual(a.peer.ask(*words)[:4], b"-ERR", words)
        for words in (("CARBIDE.OFFER", "x", "1", "DISK_ONLY", "5", "6"), ("CARBIDE.OFFER", "x", "0", "DISK_ONLY", "5", "6", "b"),
                      ("CARBIDE.OFFER", "x", "1", "0", "5", "6", "b"), ("CARBIDE.OFFER", "", "1", "4", "5", "6", "b"),
                      ("CARBIDE.OFFER", "x", "1", "260", "5", "6", "b" * 64), ("CARBIDE.BURY", "CAT", "x", "1"),
                      ("CARBIDE.BURY", "BLOCK", "", "1"), ("CARBIDE.BURY", "DATASET", "x", "1"), ("CARBIDE.BURY", "BLOCK", "x", "0"),
                      ("CARBIDE.BURY", "BLOCK", "x", 1 << 62), ("CARBIDE.BURY", "DATASET", "1", (1 << 63) - 1),
                      ("CARBIDE.OFFER", "x", 1 << 62, "DISK_ONLY", "5", "6", "b"), ("CARBIDE.PUT", "x", 1 << 62, "DISK_ONLY", "5", "v")):
            self.assertEqual(a.peer.ask(*words)[:4], b"-ERR", words)
        # An offer whose bytes never come, come otherwise, or come twice.
        offer = ("CARBIDE.OFFER", "x", "7", "MEMORY_ONLY_SER_2", "5", "1", "nobody")
        self.assertEqual(a.peer.ask(*offer), b"+SEND")
        other = Peer(("127.0.0.1", a.port))
        self.assertEqual(other.ask(*offer)[:5], b"-BUSY")
        self.assertIn(b"did not arrive", a.peer.ask("CARBIDE.PUT", "x", "7", "MEMORY_ONLY_SER_2", "5", "v"))
        self.assertEqual(other.ask(*offer), b"+SEND")
        other.close()
        self.wait("the offer is forgotten", lambda: a.peer.ask(*offer) == b"+SEND")
        self.assertEqual(a.peer.ask("CARBIDE.BURY", "BLOCK", "x", "8"), b"+OK")
        self.assertEqual(a.peer.ask(*offer)[:7], b"-BURIED")
        self.assertEqual(a.peer.ask("DBSIZE"), 0)
        long = Peer(("127.0.0.1", a.port))
        self.addCleanup(long.close)
        self.assertIn(b"too long", long.ask("CARBIDE.PUT", "x", "1" * 2000, "DISK_ONLY", "5", "v"))

    def test_a_copy_that_is_here_already_is_looked_after(self):
        a = self.executor("a")
        value = self.random.randbytes(1000)
        self.assertEqual(a.peer.ask("SET", "x", value), b"+OK")
        _, _, _, generation, checksum = self.known("x", "a")
        offer = ("CARBIDE.OFFER", "x", generation, "MEMORY_ONLY_SER_2", checksum, len(value), "nobody")
        self.assertEqual(a.peer.ask(*offer), b"+SEND")  # a block of a single copy is nobody's concern until then
        self.assertEqual(a.peer.ask("CARBIDE.PUT", "x", generation, "MEMORY_ONLY_SER_2", checksum, value), b"+OK")
        other = Peer(("127.0.0.1", a.port))
        self.addCleanup(other.close)
        self.assertEqual(other.ask(*offer), b"+OK")
        self.assertEqual(a.peer.ask("GET", "x"), value)

    def test_what_comes_after_its_removal_does_not_stay(self):
        a = self.executor("a")
        value = self.random.randbytes(1000)
        self.assertEqual(a.peer.ask("SET", "rdd_5_0", value), b"+OK")
        _, _, _, generation, checksum = self.known("rdd_5_0", "a")
        self.assertEqual(a.peer.ask("CARBIDE.REMOVE", "DATASET", 5), b"+OK")
        for level in ("MEMORY_ONLY_SER", "MEMORY_ONLY_SER_2", "DISK_ONLY"):
            answer = a.peer.ask("CARBIDE.PUT", "rdd_5_0", generation, level, checksum, value)
            self.assertEqual(answer[:7], b"-BURIED", answer)
            self.assertEqual(a.peer.ask("EXISTS", "rdd_5_0"), 0)
        self.assertEqual(a.peer.ask("SET", "rdd_5_0", value), b"+OK")  # a new one does
        self.assertEqual(a.peer.ask("GET", "rdd_5_0"), value)

    def test_a_lost_directory_is_told_everything_again(self):
        a = self.executor("a")
        for i in range(50):
            self.assertEqual(a.peer.ask("SET", f"x{i}", b"v" * i), b"+OK")
        for i in range(50):
            self.known(f"x{i}", "a")
        self.redis_kill()
        for i in range(40, 60):  # nobody who puts a block waits for it
            self.assertEqual(a.peer.ask("SET", f"x{i}", b"w" * i), b"+OK")
        self.assertEqual(a.peer.ask("DEL", "x0"), 1)
        self.redis_start()
        for i in range(1, 60):
            self.assertEqual(self.known(f"x{i}", "a")[1], i)
        self.unknown("x0", "a")
        self.assertEqual(self.end(a), 0)  # it leaves
        self.wait("a has left", lambda: self.directory("EXISTS", "cb:exec:a") == 0)

    def test_a_killed_executor_is_gone(self):
        a, b = self.executor("a"), self.executor("b")
        for p in (a, b):
            self.assertEqual(p.peer.ask("SET", "x", b"v"), b"+OK")
        self.known("x", "a")
        self.known("x", "b")
        a.send_signal(signal.SIGKILL)
        a.wait()
        self.unknown("x", "a")
        self.wait("b has cleaned up", lambda: len(self.directory("SMEMBERS", "cb:where:x") or []) == 1)
        self.known("x", "b")

    def sees(self, executor, count):
        """Until it knows so many others."""
        words = b"connected_slaves:%d\r\n" % count
        self.wait(f"{count} others are seen", lambda: words in executor.peer.ask("INFO"))

    def put(self, executor, name, value, level="MEMORY_ONLY_SER_2", copies=1, at=None):
        """Until so many others have it, one of them `at`: who was without its processor for long is nobody's peer for a while."""
        def done():
            self.assertEqual(executor.peer.ask("SET", name, value, "LEVEL", level), b"+OK")
            return executor.peer.ask("WAIT", copies, 0) == copies and (at is None or at.peer.ask("EXISTS", name) == 1)
        self.wait(f"{name} has {copies} copies elsewhere", done)

    def same(self, block, *names):
        """The block at each of them, as soon as that is one and the same."""
        found = []
        def done():
            found[:] = [self.known(block, name)[3:] for name in names]
            return found == found[:1] * len(names)
        self.wait(f"{block} is the same at {names}", done)

    def reads(self, executor, block, value, *words):
        """Through the directory: it may be late."""
        self.wait(f"{block} is read", lambda: executor.peer.ask(*(words or ("GET", block))) == value)

    def test_copies_go_to_other_hosts_and_are_verified(self):
        a, b = self.executor("a", "--host", "h1"), self.executor("b", "--host", "h1")
        c = self.executor("c", "--host", "h2")
        for p in (a, b, c):
            self.sees(p, 2)
        for size in (0, 1, 1000, 70_000, 3_000_001):
            for level in ("MEMORY_ONLY_SER_2", "DISK_ONLY_2", "MEMORY_AND_DISK_SER_2"):
                name, value = f"x{size}{level}", self.random.randbytes(size)
                self.put(a, name, value, level, at=c)
                self.same(name, "c", "a")
                self.assertEqual(self.known(name, "a")[0] >> 8, 2)
                self.assertEqual(c.peer.ask("CARBIDE.GET", name, self.known(name, "c")[3]), value)
        self.put(a, "three", b"v" * 50_000, "772", 2)  # 4 + 3 * 256
        self.assertEqual((b.peer.ask("EXISTS", "three"), c.peer.ask("EXISTS", "three")), (1, 1))
        # Another block takes the name, here and there; and a block that is removed is removed everywhere.
        self.put(a, "three", b"w", "MEMORY_ONLY_SER_2")
        self.wait("the first is gone", lambda: b.peer.ask("EXISTS", "three") + c.peer.ask("EXISTS", "three") == 1)
        self.assertEqual(a.peer.ask("DEL", "three"), 1)
        self.wait("it is removed", lambda: b.peer.ask("EXISTS", "three") + c.peer.ask("EXISTS", "three") == 0)
        # Put where a copy lies of another block by that name, which makes room.
        self.put(a, "y", b"v")
        self.put(c, "y", b"w")
        self.wait("the first is gone", lambda: a.peer.ask("GET", "y") in (b"w", None))
        # Without anybody else it is put all the same, and said.
        for p in (b, c):
            self.end(p)
        self.sees(a, 0)
        self.assertEqual(a.peer.ask("SET", "z", b"v", "LEVEL", "MEMORY_ONLY_SER_2"), b"+OK")
        self.assertEqual(a.peer.ask("WAIT", 1, 0), 0)

    def test_copies_go_to_another_rack_also_when_they_are_made_again(self):
        racks = {"a": "r1", "b": "r1", "c": "r2", "d": "r2"}
        executors = {name: self.executor(name, "--host", "host-" + name, "--rack", rack) for name, rack in racks.items()}
        for p in executors.values():
            self.sees(p, 3)
        names = [f"x{i}" for i in range(24)]

        def places(block):
            return {name for name, p in executors.items() if p.peer.ask("EXISTS", block)}

        def other_rack_alone(block):  # who was without its processor for longer than its lease was nobody's peer: once more
            if places(block) in ({"a", "c"}, {"a", "d"}):
                return True
            self.put(executors["a"], block, block.encode() * 1000)
            return False
        for block in names:
            self.put(executors["a"], block, block.encode() * 1000)
            self.wait(f"{block} has its copy in the other rack", lambda block=block: other_rack_alone(block))
        # One of that rack dies: what it had is copied to the other one there, and not to the neighbour.
        def lives():
            return [self.directory("HGET", "cb:exec:" + name, "generation") for name in "abd"]
        before = lives()
        c = executors.pop("c")
        c.send_signal(signal.SIGKILL)
        c.wait()
        for block in names:
            self.wait(f"{block} has its copies again", lambda block=block: len(places(block)) >= 2)
            if lives() == before:  # else somebody was nobody's peer for a while
                self.assertEqual(places(block), {"a", "d"}, block)
                self.assertEqual(executors["d"].peer.ask("CARBIDE.GET", block, self.known(block, "d")[3]), block.encode() * 1000)

    def test_what_is_elsewhere_is_read_there(self):
        a, b = self.executor("a", "--host", "h1"), self.executor("b", "--host", "h2")
        for p in (a, b):
            self.sees(p, 1)
        blocks = {}
        for size in (0, 1, 1024, 1025, 70_000, 3_000_001):
            for level in ("MEMORY_ONLY_SER_2", "DISK_ONLY_2"):
                blocks[f"x{size}{level}"] = self.random.randbytes(size)
                self.put(a, f"x{size}{level}", blocks[f"x{size}{level}"], level)
        for name in blocks:
            self.same(name, "a", "b")
        c = self.executor("c", "--host", "h1")  # too late to get one of the copies
        self.sees(c, 2)
        for name, value in blocks.items():
            self.assertEqual(c.peer.ask("EXISTS", name), 0)
            self.reads(c, name, value)
            self.reads(c, name, value[1:1501], "GETRANGE", name, 1, 1500)
            self.assertEqual(c.peer.ask("EXISTS", name), 0)  # no copy stays
        self.assertIsNone(c.peer.ask("GET", "nobody's"))
        self.assertIsNone(c.peer.ask("CARBIDE.GET", "x1MEMORY_ONLY_SER_2", self.known("x1MEMORY_ONLY_SER_2", "a")[3]))
        # The next one is asked when the first is dead, whoever was the nearer.
        c.peer.socket.sendall(b"".join(request("GET", name) for name in blocks))
        a.send_signal(signal.SIGKILL)
        for value in blocks.values():
            answer = c.peer.reply()
            self.assertTrue(answer in (value, None) or answer[:5] == b"-BUSY")
        a.wait()
        for name, value in blocks.items():
            self.reads(c, name, value)
        # Who asks for the directory, which has gone, is told that, and not that there is no such block.
        self.redis_kill()
        self.assertEqual(c.peer.ask("GET", "nobody's")[:5], b"-BUSY")

    def test_what_a_death_took_is_copied_again(self):
        executors = {name: self.executor(name) for name in ("a", "b", "c")}
        for p in executors.values():
            self.sees(p, 2)
        blocks = {}
        for i in range(30):
            for name in ("a", "b"):
                blocks[f"{name}{i}"] = self.random.randbytes(20_000)
                self.put(executors[name], f"{name}{i}", blocks[f"{name}{i}"])
        a = executors.pop("a")
        a.send_signal(signal.SIGKILL)
        a.wait()
        for block, value in blocks.items():
            self.same(block, "b", "c")
            self.reads(executors["b"], block, value)
            self.reads(executors["c"], block, value)
        # Who returns has nothing; what he puts is newer than what others have by the same name.
        a = self.executor("a")
        self.sees(a, 2)
        self.put(a, "a0", b"new")
        self.assertEqual(a.peer.ask("GET", "a0"), b"new")
        self.wait("the new one is the only one", lambda: {p.peer.ask("GET", "a0") for p in executors.values()} <= {None, b"new"})

    def test_what_was_removed_here_is_not_read_elsewhere(self):
        a, b = self.executor("a"), self.executor("b")
        for p in (a, b):
            self.sees(p, 1)
        for i in range(40):  # the directory and b hear of it later than the next request comes
            self.put(a, f"x{i}", b"old" * 1000, at=b)
            a.peer.socket.sendall(request("DEL", f"x{i}") + request("GET", f"x{i}"))
            self.assertEqual(a.peer.reply(), 1)
            self.assertIsNone(a.peer.reply())
            self.assertEqual(a.peer.ask("SET", f"x{i}", b"new"), b"+OK")
            self.assertEqual(a.peer.ask("GET", f"x{i}"), b"new")

    def test_an_older_block_is_not_offered_a_newer_ones_place(self):
        a, b = self.executor("a"), self.executor("b")
        for p in (a, b):
            self.sees(p, 1)
        self.assertEqual(a.peer.ask("SET", "x", b"newer"), b"+OK")  # of one copy: none of the machine's blocks
        generation, checksum = self.known("x", "a")[3:]
        for older in (1, generation - 1):
            self.assertEqual(a.peer.ask("CARBIDE.OFFER", "x", older, "MEMORY_ONLY_SER_2", checksum, 5, "nobody")[:7], b"-BURIED")
        self.assertEqual(a.peer.ask("GET", "x"), b"newer")
        # All others hear of it, whoever has such a block.
        offer = ("CARBIDE.OFFER", "x", generation - 1, "MEMORY_ONLY_SER_2", checksum, 5, "nobody")
        self.wait("b has heard of it", lambda: b.peer.ask(*offer)[:7] == b"-BURIED")
        self.assertEqual(a.peer.ask("CARBIDE.OFFER", "x", generation + 1, "MEMORY_ONLY_SER_2", checksum, 5, "nobody"), b"+SEND")

    def test_an_older_block_goes_where_nobody_told_of_the_newer_one(self):
        c = self.executor("c")
        for i in range(8):
            self.assertEqual(c.peer.ask("SET", f"x{i}", b"older", "LEVEL", "MEMORY_ONLY_SER_2"), b"+OK")
        self.assertEqual(c.peer.ask("SET", "one", b"older"), b"+OK")  # of one copy
        a, b = self.executor("a"), self.executor("b")
        for p in (a, b, c):
            self.sees(p, 2)
        for i in range(8):  # some go to c, which has another; and it has copies to give of each
            self.assertEqual(a.peer.ask("SET", f"x{i}", b"newer", "LEVEL", "MEMORY_ONLY_SER_2"), b"+OK")
        for p in (a, b):
            self.assertEqual(p.peer.ask("SET", "one", b"newer"), b"+OK")
        for i in range(8):
            for p in (a, b, c):
                self.reads(p, f"x{i}", b"newer")
        self.wait("c lacks no copies", lambda: b"copies_short:0\r\n" in c.peer.ask("INFO"))
        self.assertEqual(c.peer.ask("GET", "one"), b"older")  # it is asked about nobody else's
        self.assertEqual(c.peer.ask("CARBIDE.DECOMMISSION"), b"+OK")
        self.wait("c has left", lambda: c.poll() is not None)
        self.assertEqual(c.returncode, 0)
        self.assertEqual(a.peer.ask("GET", "one"), b"newer")

    def test_a_generation_of_a_far_future_is_not_believed(self):
        a, b = self.executor("a"), self.executor("b")
        for p in (a, b):
            self.sees(p, 1)
        self.put(a, "x", b"v", at=b)
        generation, checksum = self.known("x", "a")[3:]
        hour = 3600 * 1_000_000 * 1024
        for far in (generation + 25 * hour, (1 << 62) - 1):
            self.assertEqual(a.peer.ask("CARBIDE.OFFER", "y", far, "MEMORY_ONLY_SER_2", checksum, 1, "c")[:6], b"-CLOCK")
            self.assertEqual(a.peer.ask("CARBIDE.BURY", "BLOCK", "x", far)[:6], b"-CLOCK")
            self.assertEqual(a.peer.ask("CARBIDE.BURY", "DATASET", 1, far)[:6], b"-CLOCK")
            answer = a.peer.ask("CARBIDE.PUT", "y", far, "MEMORY_ONLY_SER", checksum, b"v")
            self.assertIn(b"ahead of the clock", answer)
            # nor is it when the directory says so
            place = f"516 1 0 {far} {checksum}".encode()
            life = self.directory("HGET", "cb:exec:b", "generation") + b":b"
            self.directory("HSET", b"cb:have:" + life, "z", place)
            self.directory("SADD", "cb:where:z", life)
            self.assertIn(a.peer.ask("GET", "z")[:5], (b"-BUSY",))
        self.put(a, "w", b"v", at=b)
        self.assertLess(self.known("w", "a")[3], generation + hour)
        self.assertEqual(a.peer.ask("CARBIDE.REMOVE", "BLOCK", "w"), b"+OK")
        self.wait("it is removed everywhere", lambda: self.here(b, "w") == 0)
        # A clock that is ahead by less is one of many.
        self.assertEqual(a.peer.ask("CARBIDE.PUT", "y", generation + 23 * hour, "MEMORY_ONLY_SER", checksum, b"v"), b"+OK")
        self.put(a, "u", b"v", at=b)
        self.assertGreater(self.known("u", "a")[3], generation + 23 * hour)

    def test_a_generation_of_a_far_future_in_the_directory_takes_no_good_copy(self):
        a, b = self.executor("a"), self.executor("b")
        for p in (a, b):
            self.sees(p, 1)
        self.put(a, "x", b"good", at=b)
        far = self.known("x", "a")[3] + 240 * 3600 * 1_000_000 * 1024  # of a clock that was ten days ahead
        self.directory("HSET", "cb:exec:f", "generation", 1)
        self.directory("HSET", "cb:have:1:f", "x", f"516 4 0 {far} 1")
        self.directory("SADD", "cb:where:x", "1:f")
        self.assertIsNotNone(self.have("x", "f"))
        c = self.executor("c")
        self.sees(c, 2)
        self.reads(c, "x", b"good")
        b.kill()  # so x is looked after
        self.wait("x is looked after", lambda: self.here(c, "x") == 1 or self.here(a, "x") == 0)
        self.assertEqual(a.peer.ask("CARBIDE.GET", "x", self.known("x", "a")[3]), b"good")
        self.put(a, "x", b"better", at=c)
        self.reads(c, "x", b"better")

    def test_nobody_counts_a_copy_at_himself(self):
        a = self.executor("a")
        b = self.executor("b", "--advertise", f"127.0.0.1:{a.port}")
        self.sees(a, 1)
        self.assertEqual(a.peer.ask("SET", "x", b"v", "LEVEL", "MEMORY_ONLY_SER_2"), b"+OK")
        self.assertEqual(a.peer.ask("WAIT", 1, 0), 0)
        self.assertEqual(self.here(b, "x"), 0)
        self.assertNotIn(b"copies_short:0\r\n", a.peer.ask("INFO"))

    def here(self, executor, *names):
        return executor.peer.ask("EXISTS", *names)

    def test_a_data_set_and_a_broadcast_are_removed_everywhere(self):
        a, b = self.executor("a"), self.executor("b")
        for p in (a, b):
            self.sees(p, 1)
        for p, names in ((a, ("rdd_5_0", "rdd_55_0", "broadcast_3")), (b, ("rdd_5_1", "broadcast_3_piece0", "broadcast_33", "x"))):
            for name in names:  # of one copy, which no executor looks after
                self.assertEqual(p.peer.ask("SET", name, name.encode() * 100, "LEVEL", "MEMORY_AND_DISK_SER"), b"+OK")
        self.assertEqual(b.peer.ask("SET", "rdd_5_3", b"on disk", "LEVEL", "DISK_ONLY"), b"+OK")
        self.put(a, "rdd_5_2", b"two copies", at=b)
        generation, checksum = self.known("rdd_5_2", "b")[3:]
        b.send_signal(signal.SIGSTOP)  # it hears of it when it is back
        try:
            self.assertEqual(a.peer.ask("CARBIDE.REMOVE", "DATASET", 5), b"+OK")
            self.wait("it is gone here, behind who still reads it", lambda: self.here(a, "rdd_5_0", "rdd_5_2") == 0)
        finally:
            b.send_signal(signal.SIGCONT)
        self.wait("the data set is gone", lambda: self.here(b, "rdd_5_1", "rdd_5_2", "rdd_5_3") == 0)
        self.assertEqual(b.peer.ask("CARBIDE.REMOVE", "BROADCAST", 3), b"+OK")
        self.assertEqual(self.here(b, "broadcast_3_piece0"), 0)
        self.wait("the broadcast is gone", lambda: self.here(a, "broadcast_3") == 0)
        self.assertEqual(a.peer.ask("CARBIDE.REMOVE", "BLOCK", "x"), b"+OK")
        self.wait("the block is gone", lambda: self.here(b, "x") == 0)
        self.assertEqual((self.here(a, "rdd_55_0"), self.here(b, "broadcast_33")), (1, 1))
        # Nobody brings it back, and what is put now is not meant.
        self.assertEqual(b.peer.ask("CARBIDE.OFFER", "rdd_5_2", generation, "MEMORY_ONLY_SER_2", checksum, 10, "a")[:7], b"-BURIED")
        self.assertEqual(b.peer.ask("SET", "rdd_5_1", b"new"), b"+OK")
        self.put(a, "rdd_5_2", b"new", at=b)
        self.reads(a, "rdd_5_1", b"new")
        for words in (("BLOCK", ""), ("DATASET", "x"), ("CAT", "1")):
            self.assertEqual(a.peer.ask("CARBIDE.REMOVE", *words)[:4], b"-ERR", words)

    def test_what_is_put_after_a_removal_stays_where_nobody_knew_of_it(self):
        a, b = self.executor("a"), self.executor("b")
        for p in (a, b):
            self.sees(p, 1)
        self.put(a, "x", b"old", at=b)
        self.assertEqual(b.peer.ask("SET", "rdd_8_0", b"old"), b"+OK")
        generation, checksum = self.known("x", "b")[3:]
        b.send_signal(signal.SIGSTOP)
        try:  # both are said while b is away
            self.assertEqual(a.peer.ask("CARBIDE.REMOVE", "BLOCK", "x"), b"+OK")
            self.assertEqual(a.peer.ask("CARBIDE.REMOVE", "DATASET", 8), b"+OK")
            b.peer.socket.sendall(request("SET", "x", b"new") + request("SET", "rdd_8_0", b"new"))
        finally:
            b.send_signal(signal.SIGCONT)
        for _ in range(2):  # of one copy: before or after it has heard of the removals
            self.assertEqual(b.peer.reply(), b"+OK")
        offer = ("CARBIDE.OFFER", "x", generation, "MEMORY_ONLY_SER_2", checksum, 3, "a")
        self.wait("b has heard of it", lambda: b.peer.ask(*offer)[:7] in (b"-BURIED", b"-CONFLI"))
        offer = ("CARBIDE.OFFER", "rdd_8_1", generation, "MEMORY_ONLY_SER_2", checksum, 3, "a")
        self.wait("b has heard of the other", lambda: b.peer.ask(*offer)[:7] == b"-BURIED")
        self.wait("b says what it has", lambda: (self.have("x", "b") or [0] * 5)[3] > generation)
        for name in ("x", "rdd_8_0"):
            self.assertEqual(b.peer.ask("GET", name), b"new")
            self.reads(a, name, b"new")

    def test_whoever_leaves_moves_his_blocks_first(self):
        a = self.executor("a")
        blocks = {}
        for i in range(60):
            blocks[f"x{i}"] = self.random.randbytes(self.random.choice((1, 3000, 400_000)))
            level = self.random.choice(("MEMORY_ONLY_SER", "DISK_ONLY", "MEMORY_AND_DISK_SER_2"))
            self.assertEqual(a.peer.ask("SET", f"x{i}", blocks[f"x{i}"], "LEVEL", level), b"+OK")
        self.assertEqual(a.peer.ask("CARBIDE.DECOMMISSION"), b"+OK")
        blocks["late"] = b"put while it waits for somebody"
        self.assertEqual(a.peer.ask("SET", "late", blocks["late"]), b"+OK")
        self.assertEqual(a.peer.ask("CARBIDE.OFFER", "y", 7, "MEMORY_ONLY_SER", 5, 5, "b")[:5], b"-FULL")
        self.assertIsNone(a.poll())
        b = self.executor("b")
        self.sees(b, 1)
        self.wait("a has left", lambda: a.poll() is not None)
        self.assertEqual(a.returncode, 0)
        for name, value in blocks.items():
            self.assertEqual(b.peer.ask("GET", name), value, name)
        self.assertEqual(self.directory("EXISTS", "cb:exec:a"), 0)

    def test_what_is_put_and_removed_while_somebody_leaves_stays_so(self):
        a, b = self.executor("a"), self.executor("b")
        self.sees(a, 1)
        self.sees(b, 1)
        begun, there, away, refused = threading.Event(), {}, set(), []

        def write(number, peer, rng):
            for i in range(600):
                name, value = f"w{number}_{i}", rng.randbytes(rng.choice((1, 700, 20_000)))
                level = rng.choice(("MEMORY_ONLY_SER", "MEMORY_AND_DISK_SER_2", "DISK_ONLY"))
                try:
                    answer = peer.ask("SET", name, value, "LEVEL", level)
                    if answer == b"+OK":
                        there[name] = value
                        if rng.random() < 0.3:
                            removed = peer.ask("DEL", name)
                            there.pop(name)
                            if removed == 1:
                                away.add(name)
                    elif answer:
                        refused.append(answer)
                    else:
                        return  # it has ended
                except OSError:
                    there.pop(name, None)  # nothing was said of that
                    return
                if i == 50:
                    begun.set()

        writers = []
        for n in range(3):
            peer = Peer(("127.0.0.1", a.port))
            self.addCleanup(peer.close)
            writers.append(threading.Thread(target=write, args=(n, peer, random.Random(h.SEED + n)), daemon=True))
            writers[-1].start()
        self.assertTrue(begun.wait(PATIENCE))
        self.assertEqual(a.peer.ask("CARBIDE.DECOMMISSION"), b"+OK")
        for w in writers:
            w.join(PATIENCE)
            self.assertFalse(w.is_alive(), "a client was not answered")
        self.wait("a has left", lambda: a.poll() is not None)
        self.assertEqual(a.returncode, 0)
        for answer in refused:
            self.assertEqual(answer[:5], b"-BUSY")
        for name, value in there.items():
            self.assertEqual(b.peer.ask("GET", name), value, name)
        for name in away:
            self.assertIsNone(b.peer.ask("GET", name), name)

    def enter(self, name, address):
        """Somebody who is no executor of carbide's."""
        entered = self.directory("HSET", "cb:exec:" + name, "generation", "7", "address", address, "host", name, "rack", "", "memory_max", 1 << 30,
                                 "memory", "0", "disk", "0", "blocks", "0")
        self.assertIsInstance(entered, int)
        self.directory("PEXPIRE", "cb:exec:" + name, 1_000_000)
        self.directory("SADD", "cb:execs", name)

    def test_who_does_not_answer_is_not_waited_for_by_each(self):
        a = self.executor("a")
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        self.enter("s", "127.0.0.1:%d" % silent.getsockname()[1])
        self.directory("HSET", "cb:have:7:s", "x", "4 1 0 5 5")
        self.directory("SADD", "cb:where:x", "7:s")
        self.sees(a, 1)
        a.peer.socket.sendall(request("GET", "x") * 12)
        for _ in range(12):
            self.assertEqual(a.peer.reply()[:5], b"-BUSY")
        silent.setblocking(False)
        asked = 0
        try:
            while True:
                silent.accept()[0].close()
                asked += 1
        except BlockingIOError:
            pass
        self.assertIn(asked, range(1, 6))

    def test_a_small_copy_does_not_wait_for_a_large_one(self):
        a = self.executor("a")
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        address = "127.0.0.1:%d" % silent.getsockname()[1]
        # Somebody who takes large blocks and says nothing, and answers all else: as a slow one does.
        self.enter("s", address)
        self.sees(a, 1)
        held, heard, connections = {}, [], []

        def waits(connection):
            try:
                connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError:
                pass
            return False  # it was given up

        def answer(connection):
            with connection.makefile("rb") as f:
                while True:
                    line = f.readline()
                    if not line:
                        return
                    words = [f.read(int(f.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:]))]
                    if words[0] == b"CARBIDE.OFFER" and int(words[5]) >= 1 << 18:
                        held[words[1]] = connection  # and no answer
                        return
                    heard.append((words[1], {name for name, c in list(held.items()) if waits(c)}))
                    connection.sendall(b"+SEND\r\n" if words[0] == b"CARBIDE.OFFER" else b"+OK\r\n")

        def accept():
            while True:
                try:
                    connections.append(silent.accept()[0])
                except OSError:
                    return
                threads.append(threading.Thread(target=answer, args=(connections[-1],), daemon=True))
                threads[-1].start()

        threads = [threading.Thread(target=accept, daemon=True)]
        threads[0].start()
        turns = iter(range(1000))

        def small_is_first():
            turn = next(turns)
            other = Peer(("127.0.0.1", a.port))
            other.socket.sendall(request("SET", f"large{turn}", b"l" * (1 << 20), "LEVEL", "MEMORY_ONLY_SER_2"))
            self.wait("the large one is offered", lambda: b"large%d" % turn in held)
            self.assertEqual(a.peer.ask("SET", f"small{turn}", b"s", "LEVEL", "MEMORY_ONLY_SER_2"), b"+OK")
            other.close()
            return any(name == b"small%d" % turn and b"large%d" % turn in waiting for name, waiting in heard)

        try:  # again: when everything stood still for seconds the large one is given up before
            self.wait("a small copy is taken while a large one is on its way", small_is_first)
        finally:
            silent.shutdown(socket.SHUT_RDWR)
            for c in connections:
                try:
                    c.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                c.close()
            for t in threads:
                t.join(PATIENCE)

    def test_what_makes_no_executor_is_said(self):
        base = ["serve", "--memory", MEMORY]
        for options, words in ((["--listen", "127.0.0.1:0", "--directory", "http://x"], "no address of a directory"),
                               (["--socket", "s", "--directory", "unix:///x"], "--listen"),
                               (["--listen", "127.0.0.1:0", "--name", "x"], "--directory"),
                               *((["--listen", "127.0.0.1:0", "--directory", "unix:///x", "--advertise", at], "others reach")
                                 for at in ("foo", "", ":1", "foo:1", "0.0.0.0:5", "[::]:5", "10.0.0.1:0", "10.0.0.1", "10.0.0.1:65536", "10.0.0.1:1x")),
                               (["--listen", "[::]:0", "--password-file", __file__, "--directory", "unix:///x"], "advertise"),
                               (["--listen", "127.0.0.1:0", "--directory", "unix:///x", "--name", "x" * 64], "1 to 63")):
            environment = {k: v for k, v in h.C_LOCALE.items() if not k.startswith("CARBIDE_")}
            done = subprocess.run([h.CARBIDE, *base, *options], env=environment, stderr=subprocess.PIPE, text=True,
                                  timeout=PATIENCE, cwd=self.folder.name)
            self.assertEqual(done.returncode, 2)
            self.assertIn(words, done.stderr)


def can_run():
    if shutil.which("redis-server") is None:
        return "redis-server is not installed"
    return h.built_without("hiredis", "--directory", "x")


if __name__ == "__main__":
    h.main(skip=can_run())
