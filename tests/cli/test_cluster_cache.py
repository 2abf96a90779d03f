#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Goal: blocks that were read at other executors stay where they were read (--cache-remote), and nothing else changes by that.

Method: two executors with blocks, one that reads them, a redis-server. What takes time is waited for; no time is measured.
"""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h
import test_cluster as cluster


class Cache(cluster.Cluster):
    def begin(self):
        self.a, self.b = self.executor("a"), self.executor("b")
        self.c = self.executor("c", "--cache-remote")
        for p in (self.a, self.b, self.c):
            self.sees(p, 2)

    def figure(self, executor, name):
        return int(re.search(name.encode() + rb":(\d+)", executor.peer.ask("INFO"))[1])

    def hits(self):
        return self.figure(self.c, "remote_cached_hits")

    def at_a(self, name, value):
        self.assertEqual(self.a.peer.ask("SET", name, value, "LEVEL", "MEMORY_ONLY_SER"), b"+OK")
        self.known(name, "a")

    def test_what_was_read_is_read_here(self):
        for turn in range(2):
            self.begin()
            for size in (0, 1, 1024, 1025, 70_000, 3_000_001):
                name, value = f"{turn}-{size}", self.random.randbytes(size)
                self.at_a(name, value)
                self.reads(self.c, name, value)
                before = self.hits()
                for _ in range(3):
                    self.assertEqual(self.c.peer.ask("GET", name), value)
                    self.assertEqual(self.c.peer.ask("GETRANGE", name, 1, 1500), value[1:1501])
                self.assertEqual(self.c.peer.ask("CARBIDE.COMPUTE", name, 1000), value)
                self.assertEqual(self.hits(), before + 7)
                # nobody is told of it, and by its name it is not here
                self.assertEqual(len(self.directory("SMEMBERS", "cb:where:" + name)), 1)
                self.assertEqual(self.c.peer.ask("EXISTS", name), 0)
                self.assertEqual(self.c.peer.ask("STRLEN", name), 0)
                self.assertEqual(self.c.peer.ask("DEL", name), 0)
                self.assertEqual(self.c.peer.ask("GET", name), value)
            self.assertEqual(self.c.peer.ask("SCAN", 0, "COUNT", 200), [b"0", []])
            self.assertEqual(self.b.peer.ask("DBSIZE"), 0)
            for p in (self.a, self.b, self.c):
                self.assertEqual(self.end(p), 0)

    def test_what_is_newer_or_gone_is_not_read_here(self):
        self.begin()
        last = 0
        for turn in range(10):
            value = b"%d" % turn * 5000
            self.at_a("x", value)
            self.wait("the directory has heard", lambda last=last: self.have("x", "a")[3] > last)
            last = self.have("x", "a")[3]
            self.assertEqual(self.c.peer.ask("GET", "x"), value)
            self.assertEqual(self.c.peer.ask("GET", "x"), value)
        self.assertEqual(self.a.peer.ask("DEL", "x"), 1)
        self.unknown("x", "a")
        self.assertIsNone(self.c.peer.ask("GET", "x"))
        # By another one's name: what is put here itself is what is read here.
        self.at_a("y", b"at a" * 1000)
        self.reads(self.c, "y", b"at a" * 1000)
        self.assertEqual(self.c.peer.ask("SET", "y", b"at c", "NX"), b"+OK")
        self.assertEqual(self.c.peer.ask("GET", "y"), b"at c")

    def test_a_removal_reaches_it(self):
        for _ in range(2):
            self.begin()
            for name in ("x", "rdd_7_0", "broadcast_9_piece0"):
                self.at_a(name, name.encode() * 3000)
                self.reads(self.c, name, name.encode() * 3000)
            self.assertEqual(self.c.peer.ask("DBSIZE"), 3)
            self.assertEqual(self.b.peer.ask("CARBIDE.REMOVE", "BLOCK", "x"), b"+OK")
            self.wait("the block is gone", lambda: self.c.peer.ask("DBSIZE") == 2)
            self.assertEqual(self.b.peer.ask("CARBIDE.REMOVE", "DATASET", 7), b"+OK")
            self.wait("the data set is gone", lambda: self.c.peer.ask("DBSIZE") == 1)
            self.assertEqual(self.a.peer.ask("CARBIDE.REMOVE", "BROADCAST", 9), b"+OK")
            self.wait("the broadcast is gone", lambda: self.c.peer.ask("DBSIZE") == 0)
            for p in (self.a, self.b, self.c):
                self.assertEqual(self.end(p), 0)

    def test_it_leaves_before_all_others(self):
        self.begin()
        step = 1 << 20 if h.PLAIN else 16 << 20
        block, own = b"o" * step, []
        read = [f"read{i}" for i in range(4)]
        for name in read:
            self.at_a(name, block)

        def put():
            own.append(f"own{len(own)}")
            self.assertEqual(self.c.peer.ask("SET", own[-1], block, "LEVEL", "MEMORY_ONLY_SER"), b"+OK")

        for _ in range(4):
            put()
        for name in read:
            self.reads(self.c, name, block)
        while self.figure(self.c, "evicted_keys") < len(read):
            put()
        self.assertEqual(self.c.peer.ask("EXISTS", *own), len(own))
        hits = self.hits()
        for name in read:
            self.assertEqual(self.c.peer.ask("GET", name), block)  # from a
        self.assertEqual(self.hits(), hits)

    def test_who_leaves_does_not_move_it(self):
        self.begin()
        self.at_a("x", b"x" * 5000)
        self.reads(self.c, "x", b"x" * 5000)
        self.assertEqual(self.c.peer.ask("CARBIDE.DECOMMISSION"), b"+OK")
        self.wait("c has left", lambda: self.c.poll() is not None)
        self.assertEqual(self.c.returncode, 0)
        self.assertEqual((self.a.peer.ask("DBSIZE"), self.b.peer.ask("DBSIZE")), (1, 0))
        self.assertEqual(self.a.peer.ask("GET", "x"), b"x" * 5000)

    def test_no_client_says_its_name(self):
        self.begin()
        self.at_a("x", b"x" * 5000)
        self.reads(self.c, "x", b"x" * 5000)
        self.assertEqual(self.c.peer.ask("SET", b"\x01remote\x01x", "y")[:4], b"-ERR")
        self.assertIsNone(self.c.peer.ask("GET", b"\x01remote\x01x"))
        self.assertEqual(self.c.peer.ask("DEL", b"\x01remote\x01x"), 0)
        long = "l" * 250  # too long to be kept
        self.at_a(long, b"long")
        self.reads(self.c, long, b"long")
        self.assertEqual(self.c.peer.ask("DBSIZE"), 1)

    def test_without_a_directory_it_is_refused(self):
        done = h.run([h.CARBIDE, "serve", "--memory", cluster.MEMORY, "--listen", "127.0.0.1:0", "--cache-remote"])
        self.assertEqual(done.exit, 2)
        self.assertIn("--directory", done.text)


for inherited in dir(cluster.Cluster):
    if inherited.startswith("test_"):
        setattr(Cache, inherited, None)  # test_cluster.py runs them

if __name__ == "__main__":
    h.main(skip=cluster.can_run())
