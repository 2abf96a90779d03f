#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Goal: no block of two copies is lost while executors are killed one after the other under load.

Method: three executors and a redis-server; a thread puts blocks at whoever lives and notes those of which one other executor
has a copy (WAIT). One executor is killed (kill -9), at any moment; then the directory has to name two living executors for each
noted block, each of which gives the bytes that were put. It returns with nothing, and the next one is killed: three times, with
--long 100 times, or as often as CARBIDE_TEST_KILLS says. What takes time is waited for; no time is measured.
"""
import hashlib
import os
import random
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h
import test_cluster as cluster

BLOCKS_MAX = 400


def kills():
    return int(os.environ.get("CARBIDE_TEST_KILLS") or (100 if h.LONG else 3 if h.PLAIN else 2))


class Load(threading.Thread):
    """Puts blocks at whoever is there, and remembers those of which there are two."""

    def __init__(self, seed):
        super().__init__()
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.ports = {}
        self.kept = {}  # name: sum of its bytes
        self.count = 0
        self.failed = None
        self.ending = threading.Event()

    def put(self, peers):
        with self.lock:
            executor, port = self.random.choice(sorted(self.ports.items()))
        if (executor, port) not in peers:
            peers[executor, port] = cluster.Peer(("127.0.0.1", port))
        peer = peers[executor, port]
        self.count += 1
        name = f"block-{self.count}"
        value = self.random.randbytes(self.random.choice((1, 700, 5_000, 40_000, 150_000)))
        said = peer.ask("SET", name, value, "LEVEL", "MEMORY_AND_DISK_SER_2")
        if said == b"":
            raise OSError("the connection has ended")
        if said == b"+OK" and peer.ask("WAIT", 1, 0) == 1:
            with self.lock:
                self.kept[name] = hashlib.sha256(value).digest()
        elif said is not None and said[:1] == b"-":
            self.failed = said

    def run(self):
        peers = {}
        while not self.ending.wait(0.002):
            with self.lock:
                full = len(self.kept) >= BLOCKS_MAX
            try:
                if full:
                    self.ending.wait(0.02)
                else:
                    self.put(peers)
            except (OSError, ValueError, IndexError):  # it was killed; nobody was told that this block is there
                self.close(peers)
        self.close(peers)

    @staticmethod
    def close(peers):
        for peer in peers.values():
            peer.close()
        peers.clear()


class Kill(cluster.Cluster):
    def alive(self):
        """Lives of those that the directory knows, with their addresses."""
        found = {}
        for name in self.executors:
            view = self.directory("HMGET", "cb:exec:" + name, "generation", "address")
            if isinstance(view, list) and view[0] is not None:
                found[view[0] + b":" + name.encode()] = name
        return found

    def holders(self, block):
        alive = self.alive()
        return [alive[life] for life in self.directory("SMEMBERS", "cb:where:" + block) or [] if life in alive]

    def check(self):
        """Each noted block is at two living executors, as it was put."""
        with self.load.lock:
            kept = dict(self.load.kept)
        for block, digest in kept.items():
            self.wait(f"{block} is at two", lambda block=block: len(set(self.holders(block))) >= 2)
            for name in sorted(set(self.holders(block))):
                value = self.executors[name].peer.ask("CARBIDE.GET", block, self.known(block, name)[3])
                self.assertIsNotNone(value, f"{block} at {name}")
                self.assertEqual(hashlib.sha256(value).digest(), digest, f"{block} at {name}")
        return len(kept)

    def forget_some(self):
        """So that there is room for new ones."""
        with self.load.lock:
            names = list(self.load.kept)[:BLOCKS_MAX // 3]
            for block in names:
                del self.load.kept[block]
        for block in names:
            self.wait(f"{block} is removed", lambda block=block: all(
                self.executors[name].peer.ask("DEL", block) in (0, 1) for name in self.executors))

    def start(self, name):
        self.executors[name] = self.executor(name, "--host", "host-" + name)
        with self.load.lock:
            self.load.ports[name] = self.executors[name].port

    def stop(self, name):
        process = self.executors.pop(name)
        with self.load.lock:
            del self.load.ports[name]
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.peer.close()

    def test_nothing_is_lost_by_killing_one_after_the_other(self):
        self.executors = {}
        self.load = Load(h.SEED)
        for name in "abc":
            self.start(name)
        self.load.start()
        self.addCleanup(self.load.join)
        self.addCleanup(self.load.ending.set)
        checked = 0
        for turn in range(kills()):
            for p in self.executors.values():
                self.sees(p, 2)
            goal = self.load.count + 60
            self.wait("blocks are put", lambda goal=goal: self.load.count >= goal or len(self.load.kept) >= BLOCKS_MAX)
            time.sleep(self.random.random() * 0.5)
            name = "abc"[turn % 3]
            self.stop(name)
            checked += self.check()
            self.start(name)
            self.forget_some()
            self.assertIsNone(self.load.failed)
        print(f"{kills()} executors killed, {self.load.count} blocks put, {checked} checks", file=sys.stderr)


for inherited in dir(cluster.Cluster):
    if inherited.startswith("test_"):
        setattr(Kill, inherited, None)  # test_cluster.py runs them

if __name__ == "__main__":
    h.main(skip=cluster.can_run())
