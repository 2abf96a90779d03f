#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Goal: who connects to an executor and stops, or vanishes without a word, costs nobody else anything for long.

Method: connections that end without a packet (half-open: TCP_REPAIR, where the test may do that), that ask for blocks of
another executor and do not read them, that begin a SET and vanish; redis-benchmark with sizes around those that buffers
have. The peak of the process is looked at; what takes time is waited for, no time is measured.
"""
import os
import re
import shutil
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h
import test_cluster as cluster

TCP_REPAIR = 19
BUDGET = 64 << 20


class Hostile(cluster.Cluster):
    def connect(self, executor, receive_bytes=None):
        s = socket.socket()
        if receive_bytes:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        s.settimeout(cluster.PATIENCE)
        s.connect(("127.0.0.1", executor.port))
        self.addCleanup(s.close)
        return s

    def vanish(self, s, words=b""):
        """No packet says that it is gone, after those words; it may have had to give way to others by then."""
        try:
            s.sendall(words)
            s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except ConnectionError:
            pass
        except OSError as e:
            self.skipTest(f"no TCP_REPAIR here: {e}")
        s.close()

    def asks(self, executor, *words):
        """By a new connection, as soon as it is let in."""
        answers = []

        def ask():
            try:
                p = cluster.Peer(("127.0.0.1", executor.port))
            except OSError:
                return False
            try:
                answers.append(p.ask(*words))
            except OSError:
                return False
            finally:
                p.close()
            return answers[-1] != b""
        self.wait(f"{words[0]} is answered", ask)
        return answers[-1]

    def figure(self, executor, name):
        return int(re.search(name.encode() + rb":(\d+)", self.asks(executor, "INFO"))[1])

    def peak(self, executor):
        with open(f"/proc/{executor.pid}/status", encoding="ascii") as f:
            return int(re.search(r"VmHWM:\s+(\d+)", f.read())[1]) << 10

    def test_who_vanishes_keeps_nobody_out(self):
        a = self.executor("a", "--connections", "6", "--timeout", "2")
        for _ in range(12):
            s = self.connect(a)
            s.sendall(cluster.request("PING"))
            self.assertEqual(s.recv(100), b"+PONG\r\n")
            self.vanish(s)
        self.assertEqual(self.asks(a, "SET", "x", "1"), b"+OK")
        # In the midst of a SET: nothing of it stays.
        before = self.figure(a, "blocks_memory")
        for size in (100, 5_000_000):
            for _ in range(4):
                self.vanish(self.connect(a), b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$%d\r\n" % size + bytes(size // 2))
        self.assertEqual(self.asks(a, "GET", "x"), b"1")
        self.wait("all of them are gone", lambda: self.figure(a, "connected_clients") <= 2)
        self.assertEqual(self.asks(a, "EXISTS", "half"), 0)
        self.assertEqual(self.figure(a, "blocks_memory"), before)
        # While it is answered, and while it waits for another one who computes.
        self.assertEqual(self.asks(a, "SET", "large", bytes(6_000_000)), b"+OK")
        computes = cluster.Peer(("127.0.0.1", a.port))
        self.assertIsInstance(computes.ask("CARBIDE.COMPUTE", "c", 3_600_000), int)
        for words in (("GET", "large"), ("CARBIDE.COMPUTE", "c", 1000, 3000)):
            for _ in range(4):
                self.vanish(self.connect(a, receive_bytes=8192), cluster.request(*words))
        self.assertEqual(self.asks(a, "GET", "x"), b"1")
        self.assertEqual(self.asks(a, "GET", "large"), bytes(6_000_000))
        computes.file.close()
        self.vanish(computes.socket)
        self.wait("nobody is left", lambda: self.figure(a, "connected_clients") <= 3)

    def test_what_is_removed_goes_behind_who_reads_it(self):
        a, b = self.executor("a"), self.executor("b")
        for p in (a, b):
            self.sees(p, 1)
        value = self.random.randbytes(8 << 20)
        self.assertEqual(a.peer.ask("SET", "rdd_7_0", value), b"+OK")
        self.known("rdd_7_0", "a")
        slow = self.connect(a, receive_bytes=8192)
        slow.sendall(cluster.request("GET", "rdd_7_0"))
        got = bytearray(slow.recv(100))
        for _ in range(3000):  # and again and again
            self.assertEqual(a.peer.ask("CARBIDE.REMOVE", "DATASET", 7), b"+OK")
        self.assertIsNone(a.peer.ask("GET", "rdd_7_0"))
        self.assertEqual(a.peer.ask("EXISTS", "rdd_7_0"), 0)
        self.assertEqual(a.peer.ask("SCAN", 0, "COUNT", 100), [b"0", []])
        self.wait("the others know", lambda: b.peer.ask("GET", "rdd_7_0") is None)
        self.assertGreaterEqual(self.figure(a, "blocks_memory"), len(value))
        # Nothing else waits for that.
        self.assertEqual(a.peer.ask("SET", "x", b"v", "LEVEL", "MEMORY_ONLY_SER_2"), b"+OK")
        self.assertEqual(a.peer.ask("WAIT", 1, 0), 1)
        whole = b"$%d\r\n%s\r\n" % (len(value), value)
        while len(got) < len(whole):
            got += slow.recv(1 << 20)
        self.assertEqual(bytes(got), whole)
        self.wait("its memory is free", lambda: self.figure(a, "blocks_memory") == 1)
        self.assertEqual(a.peer.ask("SET", "rdd_7_0", b"new"), b"+OK")
        self.reads(b, "rdd_7_0", b"new")

    def test_who_does_not_read_others_blocks_makes_nothing_grow(self):
        for options in ((), ("--cache-remote",)):
            a, b = self.executor("a"), self.executor("b", "--timeout", "2", *options)
            for p in (a, b):
                self.sees(p, 1)
            value = self.random.randbytes(8 << 20)
            for i in range(4):
                self.assertEqual(a.peer.ask("SET", f"x{i}", value, "LEVEL", "MEMORY_AND_DISK_SER"), b"+OK")
                self.known(f"x{i}", "a")
            self.reads(b, "x0", value)
            slow = [self.connect(b, receive_bytes=8192) for _ in range(12)]
            for i, s in enumerate(slow):
                s.sendall(cluster.request("GET", f"x{i % 4}") * 20)
            self.assertEqual(self.asks(b, "PING"), b"+PONG")
            for i in range(4):  # who holds the memory is ended; who was refused it may stay
                self.wait("the block is read", lambda b=b, i=i, value=value: self.asks(b, "GET", f"x{i}") == value)
            if h.PLAIN:
                self.assertLessEqual(self.peak(b), BUDGET)
            for p in (a, b):
                p.peer.close()
                self.assertEqual(self.end(p), 0)

    def test_who_offers_copies_and_sends_none_holds_no_room_for_long(self):
        a = self.executor("a", "--timeout", "2", "--temp-limit", "1M")
        sizes, size, offering = [], 1 << 61, []
        while size >= 1 << 20:  # all that there is room for, each by its own connection
            p = cluster.Peer(("127.0.0.1", a.port))
            self.addCleanup(p.close)
            if p.ask("CARBIDE.OFFER", f"x{len(sizes)}", 5, "MEMORY_ONLY_SER_2", 7, size, "somebody") == b"+SEND":
                sizes.append(size)
                offering.append(p)
            else:
                p.close()
                size //= 2
        self.assertTrue(sizes)

        def takes():
            for p in offering:  # and says something else as often as he can
                try:
                    p.ask("PING")
                except OSError:
                    pass
            p = cluster.Peer(("127.0.0.1", a.port))
            answer = p.ask("CARBIDE.OFFER", "y", 5, "MEMORY_ONLY_SER_2", 7, sizes[-1], "somebody")
            p.close()
            return answer == b"+SEND"
        self.wait("there is room again, though nobody has gone", takes)

    def test_sizes_around_those_of_buffers(self):
        if shutil.which("redis-benchmark") is None:
            self.skipTest("no redis-benchmark")
        a = self.executor("a")
        for size in (1, 1023, 1025, 8191, 8193, 65_535, 65_537, 262_145, 1_048_577):
            run = h.run(["redis-benchmark", "-p", str(a.port), "-t", "set,get", "-n", "60", "-c", "5", "-d", str(size), "-P", "2",
                         "--csv"])
            self.assertEqual(run.exit, 0, run.text)
            self.assertIn(b'"GET"', run.out)
            self.assertNotIn(b"rror", run.out + run.err)
            self.assertEqual(a.peer.ask("STRLEN", "key:__rand_int__"), size)


for inherited in dir(cluster.Cluster):
    if inherited.startswith("test_"):
        setattr(Hostile, inherited, None)  # test_cluster.py runs them

if __name__ == "__main__":
    h.main(skip=cluster.can_run())
