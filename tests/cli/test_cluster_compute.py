#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Goal: what nobody has is computed by one client of all executors, and the others wait for it.

Method: three executors and a redis-server; clients that all ask at once (CARBIDE.COMPUTE), clients and executors that are gone
before they have computed, claims that end. What takes time is waited for; no time is measured.
"""
import os
import signal
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h
import test_cluster as cluster

LONG_MS = 3_600_000


class Compute(cluster.Cluster):
    def setUp(self):
        super().setUp()
        self.executors = [self.executor(name, "--host", "host-" + name) for name in "abc"]
        for p in self.executors:
            self.sees(p, 2)

    def client(self, number):
        peer = cluster.Peer(("127.0.0.1", self.executors[number].port))
        self.addCleanup(peer.close)
        return peer

    def ask(self, peer, name, claim=LONG_MS, wait=LONG_MS):
        return peer.ask("CARBIDE.COMPUTE", name, claim, wait)

    def begin(self, peer, name, claim=LONG_MS):
        """Asks without waiting for the answer."""
        peer.socket.sendall(cluster.request("CARBIDE.COMPUTE", name, claim, LONG_MS))

    def test_one_computes_and_the_others_get_it(self):
        for size in (0, 5, 3000, 700_000):
            name, value = f"computed-{size}", self.random.randbytes(size)
            computed, answers, lock = [], [], threading.Lock()

            def work(number, name=name, value=value, computed=computed, answers=answers, lock=lock):
                peer = self.client(number % 3)
                answer = self.ask(peer, name)
                if isinstance(answer, int):
                    with lock:
                        computed.append(number)
                    assert peer.ask("SET", name, value) == b"+OK"
                    answer = value
                with lock:
                    answers.append(answer)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.assertEqual(len(computed), 1)
            self.assertEqual(answers, [value] * 12)

    def test_who_is_gone_is_followed_by_the_next(self):
        first, same, other = self.client(0), self.client(0), self.client(1)
        token = self.ask(first, "x")
        self.assertGreater(token, 0)
        self.assertEqual(first.ask("CARBIDE.COMPUTE", "x", 60_000, 0, token), token)  # begins anew
        self.assertIsNone(first.ask("CARBIDE.COMPUTE", "x", 60_000, 0, token + 1))
        for peer in (first, same, other):  # one connection may be several's, by turns
            self.assertIsNone(self.ask(peer, "x", wait=0))
            self.assertIsNone(self.ask(peer, "x", wait=80))
        self.begin(same, "x")
        first.close()
        second = same.reply()
        self.assertGreater(second, 0)
        self.assertNotEqual(second, token)
        self.begin(other, "x")
        self.executors[0].send_signal(signal.SIGKILL)  # its lease ends
        self.assertGreater(other.reply(), 0)
        self.assertEqual(other.ask("SET", "x", "at last"), b"+OK")
        self.assertEqual(self.ask(self.client(2), "x"), b"at last")

    def test_a_claim_ends_by_itself_or_is_let_go(self):
        first, same, other = self.client(0), self.client(0), self.client(1)
        self.assertGreater(self.ask(first, "x", claim=30), 0)
        self.assertGreater(self.ask(other, "x", claim=30), 0)
        token = self.ask(same, "x")
        self.assertGreater(token, 0)
        self.assertEqual(first.ask("CARBIDE.UNCLAIM", "x", token + 1), 0)
        self.assertEqual(other.ask("CARBIDE.UNCLAIM", "x", token), 0)  # it is not known there
        self.begin(other, "x")
        self.assertEqual(first.ask("CARBIDE.UNCLAIM", "x", token), 1)
        self.assertEqual(first.ask("CARBIDE.UNCLAIM", "x", token), 0)
        self.assertGreater(other.reply(), 0)
        # What was computed and removed is computed again, by anybody.
        self.assertEqual(other.ask("SET", "x", "1"), b"+OK")
        self.assertEqual(self.ask(first, "x"), b"1")
        self.wait("x is removed", lambda: other.ask("DEL", "x") == 1)
        self.assertGreater(self.ask(first, "x"), 0)

    def test_one_who_takes_all_he_can_leaves_some_to_others(self):
        greedy, other = self.client(0), self.client(0)
        answers = [self.ask(greedy, f"g{i}", wait=0) for i in range(257)]
        self.assertTrue(all(isinstance(a, int) for a in answers[:256]), answers)
        self.assertEqual(answers[256][:5], b"-BUSY")
        self.assertIsInstance(self.ask(other, "mine"), int)
        self.assertEqual(greedy.ask("CARBIDE.UNCLAIM", "g0", answers[0]), 1)
        self.assertIsInstance(self.ask(greedy, "g256"), int)
        for i in range(1, 257):  # those that are stored do not count, though the directory may not know them yet
            self.assertEqual(greedy.ask("SET", f"g{i}", "v"), b"+OK")
        self.assertIsInstance(self.ask(greedy, "more"), int)

    def test_who_waits_and_goes_leaves_nothing(self):
        first = self.client(0)
        self.assertGreater(self.ask(first, "x"), 0)
        for _ in range(40):  # more than it has connections
            peer = self.client(1)
            self.begin(peer, "x")
            peer.close()
        answers, peers = [], []

        def asks():
            try:  # one that is idle may have to give way to those who are still to be let in
                peers.append(self.client(1))
                answers.append(self.ask(peers[-1], "x", wait=0))
            except OSError:
                return False
            return answers[-1] != b""

        self.wait("somebody is let in", asks)
        self.assertIsNone(answers[-1])
        first.close()
        self.wait("somebody is let in", lambda: asks() and answers[-1] is not None)
        self.assertGreater(answers[-1], 0)
        for p in self.executors:
            p.terminate()
        for p in self.executors:
            self.assertEqual(p.wait(cluster.PATIENCE), 0)

    def test_an_executor_ends_though_somebody_waits(self):
        self.assertGreater(self.ask(self.client(0), "x"), 0)
        waits = self.client(1)
        self.begin(waits, "x")
        self.executors[1].terminate()
        try:
            self.assertIn(waits.file.readline()[:5], (b"-BUSY", b""))
        except ConnectionResetError:
            pass
        self.assertEqual(self.executors[1].wait(cluster.PATIENCE), 0)

    def test_words_that_make_no_sense_and_a_directory_that_is_gone(self):
        peer = self.client(0)
        for words in (("x", 0), ("x", "a"), ("x", -1), ("", 10), ("x", 10, "b"), ("x", 86_400_001), ("x" * 256, 10)):
            self.assertEqual(peer.ask("CARBIDE.COMPUTE", *words)[:4], b"-ERR", words)
        for words in (("x",), ("x", 1, 2, "a"), ("x", 1, 2, 3, 4)):
            self.assertEqual(peer.ask("CARBIDE.COMPUTE", *words)[:4], b"-ERR", words)
        self.assertEqual(peer.ask("CARBIDE.UNCLAIM", "x", "a")[:4], b"-ERR")
        self.assertEqual(peer.ask("SET", "here", "1"), b"+OK")
        self.redis_kill()
        self.assertEqual(self.ask(peer, "here"), b"1")
        self.assertEqual(self.ask(peer, "x", wait=0)[:5], b"-BUSY")
        self.begin(peer, "x")
        self.redis_start()
        self.assertGreater(peer.reply(), 0)


for inherited in dir(cluster.Cluster):
    if inherited.startswith("test_"):
        setattr(Compute, inherited, None)  # test_cluster.py runs them

if __name__ == "__main__":
    h.main(skip=cluster.can_run())
