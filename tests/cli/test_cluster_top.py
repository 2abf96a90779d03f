#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""`carbide top --directory`: the executors of a directory and what their blocks lack, as a text and as JSON."""
import json
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h
import test_cluster as cluster


class Top(cluster.Cluster):
    def top(self, *options, env=None, code=0):
        done = h.run([h.CARBIDE, "top", *options], env={**h.C_LOCALE, **(env or {})})
        self.assertEqual(done.exit, code, done.text)
        return done.out.decode() if code == 0 else done.text

    def url(self):
        return "unix://" + self.socket

    def seen(self):
        return json.loads(self.top("--json", "--directory", self.url()))

    def test_executors_and_blocks_are_seen(self):
        self.assertEqual(self.seen()["executors"], [])
        self.assertIn("0 executors", self.top("--directory", self.url()))
        a = self.executor("a", "--host", "h1", "--rack", "r1")
        b = self.executor("b", "--host", "h2")
        for p in (a, b):
            self.sees(p, 1)
        long = "l" * 200
        for name, bytes_, level in (("rdd_1_0", 1000, "MEMORY_ONLY_SER"), ("rdd_1_1", 3000, "DISK_ONLY"),
                                    (long + "1", 10, "MEMORY_ONLY_SER"), (long + "2", 10, "MEMORY_ONLY_SER")):
            self.assertEqual(a.peer.ask("SET", name, b"x" * bytes_, "LEVEL", level), b"+OK")
        self.put(a, "two", b"x" * 500)
        self.wait("all is known", lambda: self.seen()["copies"] == 6 and self.seen()["short_blocks"] == 0)
        seen = self.seen()
        self.assertEqual([e["name"] for e in seen["executors"]], ["a", "b"])
        self.assertEqual([e["host"] for e in seen["executors"]], ["h1", "h2"])
        self.assertEqual([e["rack"] for e in seen["executors"]], ["r1", ""])
        self.assertEqual([e["blocks"] for e in seen["executors"]], [5, 1])
        self.assertEqual([e["memory"] for e in seen["executors"]], [1520, 500])
        self.assertEqual(seen["executors"][0]["address"], f"127.0.0.1:{a.port}")
        self.assertEqual((seen["blocks"], seen["more"]), (5, False))
        self.assertEqual([(s["name"], s["copies"], s["memory"]) for s in seen["sets"]], [("other blocks", 4, 1020), ("rdd_1", 2, 1000)])
        self.assertGreater(seen["sets"][1]["disk"], 0)
        text = self.top("--directory", self.url())
        for words in ("2 executors", "5 blocks in 6 copies", f"127.0.0.1:{a.port}", "short of copies: 0 blocks", "rdd_1"):
            self.assertIn(words, text)
        self.assertLessEqual(max(map(len, text.splitlines())), 100)
        self.assertEqual(self.top(env={"CARBIDE_DIRECTORY": self.url()}).splitlines()[0], text.splitlines()[0])
        self.assertEqual(len(self.top("-n", "3", "-d", "0.05", "--directory", self.url()).splitlines()), 3 * len(text.splitlines()))
        # Who has died is not there, and what he had is lacking until it is copied again; here nobody takes it.
        b.send_signal(signal.SIGKILL)
        self.wait("b is gone", lambda: [e["name"] for e in self.seen()["executors"]] == ["a"])
        self.wait("a copy is lacking", lambda: (self.seen()["short_blocks"], self.seen()["short_copies"]) == (1, 1))
        text = self.top("--directory", self.url())
        self.assertIn("short of copies: 1 blocks, which lack 1 copies", text)
        self.assertRegex(text, r"two +lacks 1 of 2")

    def test_names_do_not_drive_the_terminal(self):
        a = self.executor("a")
        name = "\x1b]0;title\x07\x1b[31m\x7f\u009b2J\nfake line ä"
        self.assertEqual(a.peer.ask("SET", name, "x", "LEVEL", "MEMORY_ONLY_SER_2"), b"+OK")  # nobody takes the copy
        self.wait("it is short of a copy", lambda: self.seen()["short_blocks"] == 1)
        text = self.top("--directory", self.url())
        self.assertRegex(text, r"\?\]0;title\?\?\[31m\?.?\?2J\?fake line ä +lacks 1 of 2")
        self.assertEqual([c for c in text if c != "\n" and not c.isprintable() and c != "\ufffd"], [])

    def test_what_cannot_be_is_said(self):
        for options, words in ((("--directory", "http://x"), "no address"), (("--directory", self.url(), "1"), "extra operand"),
                               (("--openmetrics", "--directory", self.url()), "/metrics"), ((), "one status page")):
            self.assertIn(words, self.top(*options, code=2))
        self.redis_kill()
        self.assertIn("cannot be reached", self.top("--directory", self.url(), code=2))
        self.assertIn("cannot be reached", self.top("--json", "--directory", self.url(), code=2))


for inherited in dir(cluster.Cluster):
    if inherited.startswith("test_"):
        setattr(Top, inherited, None)  # test_cluster.py runs them

if __name__ == "__main__":
    h.main(skip=cluster.can_run())
