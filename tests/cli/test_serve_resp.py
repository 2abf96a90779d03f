#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Goal: clients of Redis read and write blocks as they are, and no client harms the server or another client.

Method: a small client of RESP here, that can misbehave; redis-cli, redis-benchmark and redis-py where they are installed; and
a redis-server that is asked the same as carbide, whose answers must be the same bytes.
"""
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

MEMORY = "64M" if h.PLAIN else "800M"
# scripts/setup brings it for this Python: Debian's, or one from PyPI where this is another that cannot use that.
sys.path += [os.path.join(h.ROOT, "build/oracle-redis"), "/usr/lib/python3/dist-packages"]
try:
    import redis
except ImportError:
    redis = None


def request(*words):
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


NUMBERS = ("0", "1", "2", "-1", "-2", "-3", "-4", "3", "-0", "01", "", "x", "1x", "+1", " 1", "999999999999999999", "1000000000000000000",
           "9223372036854775806", "9223372036854775807", "9223372036854775808", "-9223372036854775807", "-9223372036854775808",
           "-9223372036854775809", "18446744073709551615", "18446744073709551616", "99999999999999999999")


class Peer:
    """A connection, and replies as bytes as they came (raw) or as values."""

    def __init__(self, port, receive_bytes=None):
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(100)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", buffering=1 << 16)

    def raw(self):
        line = self.file.readline()
        if line[:1] == b"$" and line != b"$-1\r\n":
            return line + self.file.read(int(line[1:]) + 2)
        if line[:1] == b"*":
            return line + b"".join(self.raw() for _ in range(int(line[1:])))
        return line

    def reply(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b"%":
            return {self.reply(): self.reply() for _ in range(int(rest))}
        if kind == b"_":
            return ()  # nil, as RESP3 has it
        return int(rest) if kind == b":" else line[:-2]

    def ask(self, *words):
        self.socket.sendall(request(*words))
        return self.reply()

    def ended(self):
        """Whether the server ends the connection; what it still says is read."""
        try:
            while self.file.read(65536):
                pass
        except ConnectionError:
            pass
        return True

    def close(self):
        self.file.close()
        self.socket.close()


def info(peer):
    lines = peer.ask("INFO").decode().split("\r\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)


def resident(pid, what="VmRSS"):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith(what + ":"))


class Server:
    def __init__(self, test, *options, memory=MEMORY, unix=False):
        folder = test.folder.name
        argv = [h.CARBIDE, "serve", "--listen", "127.0.0.1:0", "--memory", memory, "-T", folder, *options]
        if unix:
            argv += ["--socket", os.path.join(folder, "s")]
        environment = {k: v for k, v in h.C_LOCALE.items() if k != "CARBIDE_SOCKET"}
        self.process = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True)
        test.addCleanup(self.end)
        line = self.process.stderr.readline()
        if unix:
            line = self.process.stderr.readline()
        if "127.0.0.1:" not in line:
            raise AssertionError(line + self.process.stderr.read())
        self.port = int(line.split("127.0.0.1:")[1].split(":")[0])
        self.test = test

    def peer(self, **options):
        p = Peer(self.port, **options)
        self.test.addCleanup(p.close)
        return p

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(100)
        self.process.stderr.close()
        return code


class Resp(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="resp-")
        self.addCleanup(self.folder.cleanup)
        self.random = random.Random(h.SEED)

    def test_values_come_back_from_memory_and_from_disk(self):
        p = Server(self).peer()
        for level in (b"MEMORY_ONLY_SER", b"DISK_ONLY", b"memory_and_disk_ser"):
            for size in (0, 1, 1023, 1024, 1025, 65535, 65536, 200_000, 3_000_001):
                value = self.random.randbytes(size)
                self.assertEqual(p.ask("SET", "a", value, "LEVEL", level), b"+OK")
                self.assertEqual(p.ask("STRLEN", "a"), size)
                self.assertEqual(p.ask("GET", "a"), value)
                for first, last in ((0, -1), (1, -1), (5, 3), (-100, -1), (size // 2, size // 2 + 70_000), (-9999999, 9)):
                    low = max(first + size if first < 0 else first, 0)
                    high = last + size if last < 0 else last
                    self.assertEqual(p.ask("GETRANGE", "a", first, last), value[low:max(high, 0) + 1])

    def test_a_block_makes_way_for_another_by_its_name(self):
        p = Server(self).peer()
        self.assertEqual(p.ask("SET", "a", b"x" * 100_000), b"+OK")
        self.assertEqual(p.ask("SET", "a", "1", "NX"), None)
        self.assertEqual(p.ask("STRLEN", "a"), 100_000)
        self.assertEqual(p.ask("SET", "a", "2", "LEVEL", "DISK_ONLY"), b"+OK")
        self.assertEqual(p.ask("SET", "a", b"y" * 70_000, "LEVEL", "DISK_ONLY"), b"+OK")
        self.assertEqual(p.ask("GET", "a"), b"y" * 70_000)
        self.assertEqual(p.ask("SET", "a", "3"), b"+OK")
        self.assertEqual(p.ask("GET", "a"), b"3")
        self.assertEqual(p.ask("DBSIZE"), 1)
        self.assertEqual(p.ask("EXISTS", "a", "b", "a"), 2)
        self.assertEqual(p.ask("DEL", "a", "b", "a"), 1)
        self.assertEqual(p.ask("GET", "a"), None)
        self.assertEqual(p.ask("DBSIZE"), 0)
        self.assertEqual(info(p)["blocks_disk"], "0")
        self.assertEqual(info(p)["blocks_memory"], "0")

    def test_what_cannot_be_done_is_refused_and_the_next_request_heard(self):
        p = Server(self, "--temp-limit", "1M").peer()
        for words in (("SET", "a"), ("SET", "a", "b", "EX", "10"), ("SET", "a", "b", "LEVEL", "NOWHERE"),
                      ("SET", "a", b"b" * 5000, "LEVEL"), ("SET", "", b"b" * 5000), ("SET", "n" * 256, "b"),
                      ("SET", b"a\0b", "b"), ("GETRANGE", "a", "x", "1"), ("SELECT", "1"), ("EXPIRE", "a", "1"),
                      ("HELLO", "4"), ("HELLO", "x"), ("SCAN", "x"), ("SCAN", "0", "MATCH"), ("CLIENT", "KILL", "x"), ("SET", "a", "b", "NX", "XX")):
            self.assertEqual(p.ask(*words)[:1], b"-", words)
            self.assertEqual(p.ask("PING"), b"+PONG")
        self.assertEqual(p.ask("SET", "d", self.random.randbytes(3_000_000), "LEVEL", "DISK_ONLY")[:5], b"-OOM ")
        self.assertEqual(p.ask("EXISTS", "d", "a"), 0)
        self.assertEqual(p.ask("GET", "n" * 256), None)

    @unittest.skipUnless(h.PLAIN, "values as large as the memory of a build with sanitizers")
    def test_after_a_value_that_the_disk_refused_comes_the_next_request(self):
        p = Server(self, "--temp-limit", "57M").peer()
        large = b"x" * 60_000_000  # more than there is memory for blocks
        self.assertEqual(p.ask("SET", "b", "old"), b"+OK")
        p.socket.sendall(request("SET", "a", large) + request("SET", "b", "new") + request("GET", "b") + request("EXISTS", "a"))
        self.assertEqual(p.reply()[:5], b"-OOM ")
        self.assertEqual([p.reply(), p.reply(), p.reply()], [b"+OK", b"new", 0])
        self.assertEqual(p.ask("SET", "b", large)[:5], b"-OOM ")
        self.assertEqual(p.ask("GET", "b"), b"new")

    def test_resp3_is_spoken_to_whoever_asks_for_it(self):
        s = Server(self)
        p, q = s.peer(), s.peer()
        said = p.ask("HELLO", "3")
        self.assertEqual((said[b"server"], said[b"proto"], said[b"modules"]), (b"carbide", 3, []))
        self.assertEqual(p.ask("GET", "a"), ())
        self.assertEqual(p.ask("CLIENT", "GETNAME"), ())
        self.assertEqual(p.ask("CONFIG", "GET", "save"), {b"save": b""})
        self.assertEqual(p.ask("CONFIG", "GET", "nothing"), {})
        self.assertEqual(p.ask("SET", "a", "b"), b"+OK")
        self.assertEqual(p.ask("SET", "a", "c", "NX"), ())
        self.assertEqual(p.ask("SCAN", "0"), [b"0", [b"a"]])
        self.assertEqual(p.ask("HELLO", "4")[:8], b"-NOPROTO")
        self.assertEqual(p.ask("HELLO")[b"proto"], 3)
        self.assertEqual(q.ask("GET", "x"), None)  # each connection by itself
        self.assertEqual(p.ask("HELLO", "2")[4:6], [b"proto", 2])
        self.assertEqual(p.ask("GET", "x"), None)

    def test_many_requests_at_once_and_one_byte_at_a_time(self):
        p = Server(self).peer()
        p.socket.sendall(b"".join(request("SET", f"k{i}", f"v{i}" * (i % 300)) for i in range(3000)))
        self.assertEqual([p.reply() for _ in range(3000)], [b"+OK"] * 3000)
        p.socket.sendall(b"".join(request("GET", f"k{i}") for i in range(3000)))
        for i in range(3000):
            self.assertEqual(p.reply(), (f"v{i}" * (i % 300)).encode())
        for size in (1000, 2000, 100_000, 300_000):  # the answer to the first goes out while the value of the second comes in
            p.socket.sendall(b"PING\r\n" + request("SET", "large", b"z" * size) + b"PING\r\n")
            self.assertEqual([p.reply() for _ in range(3)], [b"+PONG", b"+OK", b"+PONG"])
            self.assertEqual(p.ask("GET", "large"), b"z" * size)
        text = request("SET", "a", b"z" * 2000, "LEVEL", "DISK_ONLY") + request("GET", "a") + b"PING\r\n\r\nget k7\n"
        for i in range(len(text)):
            p.socket.sendall(text[i:i + 1])
        self.assertEqual([p.reply() for _ in range(4)], [b"+OK", b"z" * 2000, b"+PONG", b"v7" * 7])
        p.socket.sendall(b"set line words\r\nget line\r\ndel line k1 k2\r\n")
        self.assertEqual([p.reply() for _ in range(3)], [b"+OK", b"words", 3])
        names, cursor = set(), b"0"
        while True:
            cursor, some = p.ask("SCAN", cursor, "MATCH", "k*[05]", "COUNT", "50")
            names.update(some)
            if cursor == b"0":
                break
        self.assertEqual(names, {b"k%d" % i for i in range(3000) if i % 5 == 0})

    def test_a_password_comes_first(self):
        file = os.path.join(self.folder.name, "password")
        with open(file, "w") as f:
            f.write("sesame\n")
        s = Server(self, "--password-file", file)
        p = s.peer()
        self.assertEqual(p.ask("GET", "a")[:7], b"-NOAUTH")
        self.assertEqual(p.ask("AUTH", "sesam")[:10], b"-WRONGPASS")
        self.assertEqual(p.ask("AUTH", "default", "sesame"), b"+OK")
        self.assertEqual(p.ask("SET", "a", "b"), b"+OK")
        q = s.peer()
        self.assertEqual(q.ask("HELLO", "2", "AUTH", "default", "sesame")[:2], [b"server", b"carbide"])
        self.assertEqual(q.ask("GET", "a"), b"b")
        for words in (["AUTH", "x"], ["AUTH", "default", "sesamE"], ["HELLO", "2", "AUTH", "root", "sesame"]):
            r = s.peer()
            for _ in range(3):
                self.assertEqual(r.ask(*words)[:10], b"-WRONGPASS")
            self.assertTrue(r.ended())
        r = s.peer()
        self.assertEqual(r.ask("SET", "a", b"x" * 100_000)[:4], b"-ERR")
        self.assertTrue(r.ended())
        run = h.run([h.CARBIDE, "serve", "--listen", "0.0.0.0:0", "--memory", MEMORY])
        self.assertEqual(run.exit, 2)
        self.assertIn(b"password", run.err)

    def test_without_a_password_no_other_machine_is_heard(self):
        for address in ("0.0.0.0:0", "[::]:0"):
            said = h.run([h.CARBIDE, "serve", "--listen", address, "--memory", "64M"])
            self.assertNotEqual(said.exit, 0)
            self.assertIn(b"needs a password", said.err)
        p = Server(self).peer()
        self.assertEqual(p.ask("CONFIG", "GET", "protected-mode"), [b"protected-mode", b"yes"])

    def test_who_does_not_read_costs_nothing_and_is_ended(self):
        s = Server(self, "--timeout", "5")
        p = s.peer()
        value = self.random.randbytes(1 << 20)
        self.assertEqual(p.ask("SET", "a", value), b"+OK")
        used = int(info(p)["used_memory"])
        slow = [s.peer(receive_bytes=8192) for _ in range(6)]
        for q in slow:
            q.socket.sendall(request("GET", "a") * 200)
        self.assertEqual(p.ask("GET", "a"), value)
        self.assertLess(int(info(p)["used_memory"]), used + (8 << 20))
        new = p.ask("SET", "a", "b")
        self.assertIn(new[:5], (b"-BUSY", b"+OK"))  # OK if this test was slower than they may be
        while info(p)["connected_clients"] != "1":  # this test's time limit is the limit
            time.sleep(0.1)
        self.assertEqual(p.ask("GET", "a"), b"b" if new == b"+OK" else value)
        self.assertEqual(p.ask("SET", "a", "b"), b"+OK")
        self.assertEqual(p.ask("GET", "a"), b"b")

    def test_who_stops_in_the_midst_is_ended(self):
        s = Server(self, "--timeout", "1")
        begun = [s.peer() for _ in range(5)]
        for q, text in zip(begun, (b"*3\r\n$3\r\nSE", b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000\r\nabc", b"PIN",
                                   b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2000\r\n" + b"x" * 2000,
                                   b"PING\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2000\r\n" + b"x" * 2000)):
            q.socket.sendall(text)
        for q in begun:
            self.assertTrue(q.ended())
        self.assertEqual(s.peer().ask("EXISTS", "a"), 0)

    @unittest.skipUnless(h.PLAIN, "a sanitizer's memory is beside the budget")
    def test_preallocated_memory_is_there_at_once_and_within_the_budget(self):
        server = Server(self, "--preallocate", memory="96M")
        p = server.peer()
        self.assertEqual(p.ask("SET", "first", "block"), b"+OK")  # it does not wait for that
        while resident(server.process.pid) < 60 << 20:
            time.sleep(0.02)
        draw = random.Random(7)
        for i in range(400):  # of many sizes, more than there is room for
            size = draw.choice((100, 70_000, draw.randrange(1, 6 << 20), 4 << 20))
            self.assertEqual(p.ask("SET", f"b{i}", bytes([i % 251]) * size, "LEVEL", "MEMORY_ONLY_SER"), b"+OK")
            if i % 7 == 0:
                p.ask("DEL", f"b{i - 3}")
            self.assertLessEqual(resident(server.process.pid), (96 << 20) + h.DEBUG_BYTES)
        value = p.ask("GET", "b399")
        self.assertEqual(value.count(bytes([399 % 251])), len(value))
        self.assertLessEqual(resident(server.process.pid, "VmHWM"), (96 << 20) + h.DEBUG_BYTES)
        self.assertLessEqual(int(info(p)["used_memory_peak"]), 96 << 20)

    @unittest.skipUnless(h.PLAIN, "a sanitizer's memory is beside the budget")
    def test_who_announces_much_and_sends_little_does_not_double_what_is_resident(self):
        server = Server(self, memory="96M")
        p = server.peer()
        for i in range(16):
            self.assertEqual(p.ask("SET", f"b{i}", b"x" * (4 << 20), "LEVEL", "MEMORY_ONLY_SER"), b"+OK")
        for i in range(16):
            p.ask("DEL", f"b{i}")
        announcing = [server.peer() for _ in range(12)]
        for i, a in enumerate(announcing):
            a.socket.sendall(b"*3\r\n$3\r\nSET\r\n$2\r\n%02d\r\n$%d\r\n" % (i, 4 << 20) + b"x")
        time.sleep(0.3)
        for i in range(40):
            self.assertEqual(p.ask("SET", f"c{i}", b"x" * (3 << 20), "LEVEL", "MEMORY_ONLY_SER"), b"+OK")
        self.assertLessEqual(resident(server.process.pid, "VmHWM"), (96 << 20) + h.DEBUG_BYTES)

    def test_who_gives_way_to_others_hears_why(self):
        s = Server(self, "--connections", "16")
        first = s.peer()
        self.assertEqual(first.ask("PING"), b"+PONG")
        others = [s.peer() for _ in range(16)]
        self.assertEqual(others[-1].ask("PING"), b"+PONG")
        # Nobody else has to go: all places are taken, and nobody waits.
        self.assertEqual(first.file.readline(), b"-ERR max number of clients reached\r\n")
        self.assertTrue(first.ended())
        for p in others:
            self.assertEqual(p.ask("PING"), b"+PONG")

    def test_what_is_no_request_ends_the_connection_only(self):
        s = Server(self)
        p = s.peer()
        for text in (b"*x\r\n", b"*1\r\n$-5\r\n", b"*2000\r\n", b"POST / HTTP/1.1\r\n", b"x" * 100_000, b"*1\r\n:1\r\n",
                     b"*2\r\n$3\r\nGET\r\n$999999\r\n", b"ECHO " + b"x" * 8180 + b"\n", b"INFO\n" * 6 + b"ECHO " + b"x" * 8000 + b"\n", b"*2\r\n$3\r\nGET\r\n$1\r\nabc\r\n", self.random.randbytes(20_000) + b"\n"):
            q = s.peer()
            try:
                q.socket.sendall(text)
                q.socket.sendall(b"\n")
            except ConnectionError:
                pass
            self.assertTrue(q.ended())
            self.assertEqual(p.ask("PING"), b"+PONG")

    def test_both_protocols_see_the_same_blocks(self):
        s = Server(self, unix=True)
        p = s.peer()
        path = os.path.join(self.folder.name, "s")
        value = self.random.randbytes(300_000)
        self.assertEqual(p.ask("SET", "a", value), b"+OK")
        self.assertEqual(h.run([h.CARBIDE, "block", "get", "a", "--socket", path]).out, value)
        self.assertEqual(h.run([h.CARBIDE, "block", "put", "b", "--socket", path], stdin=value[::-1]).exit, 0)
        self.assertEqual(p.ask("GET", "b"), value[::-1])
        stats = json.loads(h.run([h.CARBIDE, "block", "stat", "--json", "--socket", path]).out)
        self.assertEqual(p.ask("DBSIZE"), stats["blocks"])
        self.assertEqual(s.end(), 0)

    @unittest.skipUnless(shutil.which("redis-server"), "no redis-server")
    def test_answers_are_those_of_redis(self):
        folder = os.path.join(self.folder.name, "redis")
        os.mkdir(folder)
        path = os.path.join(folder, "r")
        other = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder],
                                 stdout=subprocess.DEVNULL)
        self.addCleanup(lambda: (other.kill(), other.wait()))
        theirs = Peer.__new__(Peer)
        for _ in range(3000):
            theirs.socket = socket.socket(socket.AF_UNIX)
            try:
                theirs.socket.connect(path)
                break
            except OSError:
                theirs.socket.close()
                time.sleep(0.01)
        theirs.file = theirs.socket.makefile("rb")
        self.addCleanup(theirs.close)
        ours = Server(self).peer()
        r = self.random
        names = [f"k{i}" for i in range(8)]
        for turn in range(150):
            if turn == 100:  # the rest in RESP3
                self.assertEqual({k: said[k] for said in (ours.ask("HELLO", "3"),) for k in (b"proto", b"mode", b"role")},
                                 {k: said[k] for said in (theirs.ask("HELLO", "3"),) for k in (b"proto", b"mode", b"role")})
            words = []
            for _ in range(r.randint(1, 20)):
                words.append(r.choice([
                    ("SET", r.choice(names), r.randbytes(r.choice([0, 1, 10, 1000, 1100, 70_000]))),
                    ("SET", r.choice(names), r.randbytes(r.randint(0, 2000)), "NX"),
                    ("GET", r.choice(names)), ("STRLEN", r.choice(names)), ("TYPE", r.choice(names)),
                    ("GETRANGE", r.choice(names), r.randint(-1200, 1200), r.randint(-1200, 1200)),
                    ("GETRANGE", r.choice(names), r.choice(NUMBERS), r.choice(NUMBERS)),
                    ("EXISTS", *r.choices(names, k=r.randint(1, 5))), ("DEL", *r.choices(names, k=r.randint(1, 3))),
                    ("PING",), ("PING", "x\r\ny"), ("ECHO", ""), ("DBSIZE",), ("SELECT", "0"), ("CLIENT", "SETNAME", "me"),
                ]))
            text = b"".join(request(*w) for w in words)
            ours.socket.sendall(text)
            theirs.socket.sendall(text)
            for w in words:
                self.assertEqual(ours.raw(), theirs.raw(), w)
        ours.ask("HELLO", "2")
        theirs.ask("HELLO", "2")
        for p in (ours, theirs):
            p.ask("SET", "k", "abc")
        for a in NUMBERS:  # each with each
            for b in NUMBERS:
                self.assertEqual(ours.ask("GETRANGE", "k", a, b), theirs.ask("GETRANGE", "k", a, b), (a, b))
        for cursor in ("9223372036854775807", "9223372036854775808", "18446744073709551615", "1234567890123456789"):
            for p in (ours, theirs):
                self.assertIsInstance(p.ask("SCAN", cursor), list, cursor)
                self.assertIsInstance(p.ask("SCAN", "0", "COUNT", "9223372036854775807"), list)
        for cursor in ("x", "1x", "99999999999999999999999"):
            for p in (ours, theirs):
                self.assertEqual(p.ask("SCAN", cursor), b"-ERR invalid cursor")
        # Errors where Redis has one, whatever its words; nothing of a section that is not there.
        for words in (("CLIENT", "SETNAME"), ("CLIENT", "SETNAME", "a", "b"), ("CLIENT", "SETINFO", "lib-name"),
                      ("CLIENT", "ID", "x"), ("COMMAND", "BOGUS"), ("CONFIG", "GET")):
            for p in (ours, theirs):
                self.assertEqual(p.ask(*words)[:5], b"-ERR ", words)
        for words in (("CONFIG", "GET", "save", "nothing"), ("CONFIG", "GET", "save", "SAVE", "s?ve"), ("CONFIG", "GET", "nothing", "none"),
                      ("CONFIG", "GET", "protected-mod[ef]", "appendo*"), ("INFO", "nothing")):
            said = [p.ask(*words) for p in (ours, theirs)]
            if words[0] == "CONFIG":
                said = [dict(zip((w.lower() for w in s[::2]), s[1::2])) for s in said]
                said = [{k: v for k, v in s.items() if k != b"protected-mode"} for s in said]
            self.assertEqual(*said, words)
        for words, heads in ((("INFO", "keyspace"), [b"# Keyspace"]), (("INFO", "Server", "CLIENTS"), [b"# Server", b"# Clients"])):
            for p in (ours, theirs):
                self.assertEqual(re.findall(rb"^# \w+", p.ask(*words), re.M), heads)

    @unittest.skipUnless(shutil.which("redis-cli") and shutil.which("redis-benchmark"), "no redis-tools")
    def test_the_tools_of_redis_work_as_they_are(self):
        s = Server(self)
        cli = ["redis-cli", "-p", str(s.port)]
        value = self.random.randbytes(100_000).hex().encode()
        self.assertEqual(h.run([*cli, "-x", "set", "a"], stdin=value).out, b"OK\n")
        self.assertEqual(h.run([*cli, "get", "a"]).out, value + b"\n")
        self.assertEqual(h.run([*cli, "--scan"]).out, b"a\n")
        self.assertIn(b"carbide_version", h.run([*cli, "info"]).out)
        self.assertEqual(h.run([*cli, "--bigkeys"]).exit, 0)
        run = h.run(["redis-benchmark", "-p", str(s.port), "-t", "ping,set,get", "-n", "300", "-c", "8", "-d", "5000", "-P", "3",
                     "--csv"])
        self.assertEqual(run.exit, 0, run.err)
        self.assertIn(b'"GET"', run.out)
        self.assertNotIn(b"rror", run.out + run.err)

    def test_redis_py_works_as_it_is(self):
        if redis is None:
            h.skip_loudly(f"{sys.executable} has no redis-py (scripts/setup test brings it)")
        for told in [{}, {"protocol": 2}, {"protocol": 3}] if int(redis.__version__.split(".")[0]) >= 5 else [{}]:
            with self.subTest(told=told):
                client = redis.Redis(port=Server(self).port, client_name="me", **told)
                self.addCleanup(client.close)
                self.uses(client)

    def uses(self, client):
        value = self.random.randbytes(2_000_000)
        self.assertTrue(client.ping())
        self.assertTrue(client.set("a", value))
        self.assertEqual(client.get("a"), value)
        self.assertEqual(client.getrange("a", 10, 99_999), value[10:100_000])
        self.assertIsNone(client.set("a", "x", nx=True))
        self.assertEqual(client.strlen("a"), len(value))
        self.assertTrue(client.execute_command("SET", "b", "y", "LEVEL", "DISK_ONLY"))
        self.assertEqual(sorted(client.scan_iter(count=1)), [b"a", b"b"])
        self.assertEqual(client.exists("a", "b", "c"), 2)
        pipe = client.pipeline(transaction=False)
        for i in range(100):
            pipe.set(f"k{i}", i)
        for i in range(100):
            pipe.get(f"k{i}")
        self.assertEqual(pipe.execute()[100:], [str(i).encode() for i in range(100)])
        self.assertEqual(client.delete(*[f"k{i}" for i in range(100)], "zz"), 100)
        self.assertEqual(client.info()["db0"]["keys"], 2)
        with self.assertRaises(redis.ResponseError):
            client.set("a", "x", ex=10)


if __name__ == "__main__":
    unittest.main()
