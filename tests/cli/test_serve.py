#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 200
"""Goal: carbide serve and carbide block do what their man pages say, and nothing is left when either is killed at any time.

Method: processes only: two at least, blocks compared byte by byte, kill -9 of both sides, a folder that must be empty.
"""
import json
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

MEMORY = "64M" if h.PLAIN else "800M"


PYTHON = "/usr/bin/python3"  # one that other users may run, too


def request(op, name, flags=0, level=0, size=0):
    return b"CBS1" + struct.pack("<BBHIiQQQ", op, flags, len(name), 1, level, size, 0, 0) + name


class Server:
    def __init__(self, test, *options, memory=MEMORY, disk=True, limit=None):
        folder = test.folder.name
        self.path = os.path.join(folder, "s")
        argv = [h.CARBIDE, "serve", "-q", "--socket", self.path, "--memory", memory, *options]
        if disk:
            argv += ["-T", folder]
        few = None if limit is None else (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
        self.process = subprocess.Popen(argv, env=h.C_LOCALE, stderr=subprocess.PIPE, preexec_fn=few)
        test.addCleanup(self.kill)
        end = time.monotonic() + 100
        while time.monotonic() < end:
            if self.block("stat").exit == 0:
                return
            if self.process.poll() is not None:
                raise AssertionError(self.process.stderr.read())
            time.sleep(0.01)
        raise AssertionError("the server does not answer")

    def block(self, *argv, stdin=b""):
        return h.run([h.CARBIDE, "block", *argv, "--socket", self.path], stdin=stdin)

    def stats(self):
        return json.loads(self.block("stat", "--json").out)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self.process.stderr.close()

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        code = self.process.wait(120)
        self.process.stderr.close()
        return code


class Serve(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="serve-")
        self.addCleanup(self.folder.cleanup)
        self.random = random.Random(h.SEED)

    def test_what_one_process_puts_another_gets(self):
        s = Server(self)
        data = self.random.randbytes(3_000_001)
        self.assertEqual(s.block("put", "a", stdin=data).exit, 0)
        self.assertEqual(s.block("get", "a").out, data)
        out = os.path.join(self.folder.name, "out")
        self.assertEqual(s.block("get", "a", "-o", out).exit, 0)
        with open(out, "rb") as f:
            self.assertEqual(f.read(), data)
        self.assertEqual(s.block("put", "b", out, "--level", "DISK_ONLY").exit, 0)
        self.assertEqual(s.block("get", "b").out, data)
        again = s.block("put", "a", stdin=b"x")
        self.assertEqual(again.exit, 2)
        self.assertIn("There is a block a already", again.text)
        listed = {e["name"]: e for e in json.loads(s.block("ls", "--json").out)}
        self.assertEqual(listed["a"]["memory_bytes"], len(data))
        self.assertEqual(listed["b"]["memory_bytes"], 0)
        self.assertEqual(listed["b"]["level"], "DISK_ONLY")
        self.assertEqual(s.block("rm", "a", "b").exit, 0)
        self.assertEqual(s.block("get", "a").exit, 2)
        self.assertEqual(s.block("ls", "--json").out, b"[]\n")
        os.unlink(out)
        self.assertEqual(s.end(), 0)
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_blocks_leave_for_disk_under_pressure_and_come_back(self):
        s = Server(self, "--compress", "lz4")
        size = s.stats()["storage_max_bytes"] // 6
        blocks = [bytes([i]) * size for i in range(12)]
        for i, data in enumerate(blocks):
            self.assertEqual(s.block("put", f"rdd_{i}_0", stdin=data).exit, 0)
        figures = s.stats()
        self.assertGreater(figures["evicted"], 3)
        self.assertGreater(figures["disk_blocks"], 3)
        self.assertLessEqual(figures["accounted_peak_bytes"], figures["budget_bytes"])
        for i, data in enumerate(blocks):
            self.assertTrue(s.block("get", f"rdd_{i}_0").out == data, i)
        if h.PLAIN:
            with open(f"/proc/{s.process.pid}/status") as f:
                peak = next(int(line.split()[1]) << 10 for line in f if line.startswith("VmHWM"))
            self.assertLessEqual(peak, 65 * h.MIB)  # the system's own counters are exact to some pages a core
        self.assertEqual(s.end(), 0)
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_a_killed_server_leaves_no_hang_and_the_next_one_cleans_up(self):
        for turn in range(5):
            s = Server(self)
            client = subprocess.Popen([h.CARBIDE, "block", "put", "x", "--level", "DISK_ONLY", "--socket", s.path, "/dev/zero"]
                                      if turn % 2 else [h.CARBIDE, "block", "put", "x", "--socket", s.path, "-"],
                                      stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=h.C_LOCALE)
            if turn % 2 == 0:
                client.stdin.write(bytes(1 << 20))
            s.block("put", "y", "--level", "DISK_ONLY", stdin=bytes(300_000))
            time.sleep(self.random.random() * 0.05)
            self.assertEqual(s.end(signal.SIGKILL), -signal.SIGKILL)
            client.kill()
            client.stdin.close()
            client.wait(120)
            self.assertEqual(s.block("ls").exit, 2)
        s = Server(self)  # takes the socket over, and finds what dead ones left
        self.assertEqual(s.stats()["disk_bytes"], 0)
        self.assertEqual(s.end(), 0)
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_killed_clients_leave_nothing_in_the_server(self):
        s = Server(self)
        source = os.path.join(self.folder.name, "source")
        with open(source, "wb") as f:
            f.truncate(20 << 20)
        for i in range(20):
            p = subprocess.Popen([h.CARBIDE, "block", "put", f"x{i}", source, "--socket", s.path], env=h.C_LOCALE,
                                 stderr=subprocess.DEVNULL)
            time.sleep(self.random.random() * 0.01)
            p.kill()
            p.wait()
            s.block("rm", f"x{i}")
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            figures = s.stats()
            if figures["unroll_bytes"] == 0 and figures["leases"] == 0 and figures["connections"] == 1:
                break
            time.sleep(0.01)
        for e in json.loads(s.block("ls", "--json").out):
            self.assertEqual(s.block("rm", e["name"]).exit, 0)
        figures = s.stats()
        self.assertEqual([figures[n] for n in ("unroll_bytes", "memory_bytes", "disk_bytes", "blocks", "leases")], [0] * 5)
        self.assertEqual(s.end(), 0)

    def test_no_descriptors_left_harms_nobody_who_is_there(self):
        s = Server(self, "--connections", "500", limit=80)
        data = self.random.randbytes(300_000)
        for i in range(6):
            self.assertEqual(s.block("put", f"d{i}", "--level", "DISK_ONLY", stdin=data).exit, 0)
        raw = []
        for i in range(300):  # more than it has descriptors; each holds one
            c = socket.socket(socket.AF_UNIX)
            c.settimeout(100)
            c.connect(s.path)
            raw.append(c)
            if i % 50 == 49:
                self.assertEqual(s.block("get", f"d{i // 50}").out, data)
                self.assertEqual(s.block("put", f"m{i}", stdin=data).exit, 0)
        for i in range(6):
            self.assertEqual(s.block("get", f"d{i}").out, data)
        figures = s.stats()
        self.assertEqual([figures["blocks"], figures["leases"]], [12, 0])
        for c in raw:
            c.close()
        self.assertEqual(s.end(), 0)
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_who_never_reads_is_ended_and_others_are_served(self):
        s = Server(self, "--timeout", "1")
        data = self.random.randbytes(2_000_000)
        for name, level in (("m", "MEMORY_ONLY_SER"), ("d", "DISK_ONLY")):
            self.assertEqual(s.block("put", name, "--level", level, stdin=data).exit, 0)
        raw = []
        for i in range(12):  # a copy is asked for, more than once, and none is read
            c = socket.socket(socket.AF_UNIX)
            c.connect(s.path)
            c.sendall(request(3, b"md"[i % 2:i % 2 + 1]) * 3)
            raw.append(c)
        deadline = time.monotonic() + 100
        for name in ("m", "d", "m", "d"):
            got = s.block("get", name)
            while got.exit != 0 and time.monotonic() < deadline:  # a second may be too short for this one, too
                got = s.block("get", name)
            self.assertEqual(got.out, data)
        figures = s.stats()
        while figures["connections"] > 1 and time.monotonic() < deadline:  # who asked before may be there still
            time.sleep(0.1)
            figures = s.stats()
        self.assertEqual([figures["connections"], figures["leases"]], [1, 0])
        for c in raw:
            c.close()
        self.assertEqual(s.end(), 0)

    def test_kept_blocks_outlive_servers_however_they_end(self):
        data = {}
        for turn in range(4):
            s = Server(self, "--keep", "test")
            figures = s.stats()
            self.assertEqual([figures["recovered"], figures["lost"], figures["kept"]], [len(data), 0, len(data)])
            for name, bytes_ in data.items():
                self.assertEqual(s.block("get", name).out, bytes_)
            for i in range(3):
                name = f"k{turn}-{i}"
                data[name] = self.random.randbytes(100 + i * 90_000)
                self.assertEqual(s.block("put", name, stdin=data[name]).exit, 0)
            self.assertEqual(s.block("put", "gone", stdin=b"x").exit, 0)
            self.assertEqual(s.block("keep", *data).exit, 0)
            if turn > 0:
                first = next(iter(data))
                self.assertEqual(s.block("rm", first).exit, 0)
                del data[first]
            if turn % 2:
                self.assertEqual(s.end(), 0)
            else:
                s.kill()
        s = Server(self, "--keep", "test")
        self.assertEqual(s.block("get", "gone").exit, 2)
        self.assertEqual(s.block("rm", *data).exit, 0)
        self.assertEqual(s.end(), 0)
        self.assertEqual(os.listdir(self.folder.name), [])
        s = Server(self)
        self.assertEqual(s.block("put", "a", stdin=b"x").exit, 0)
        refused = s.block("keep", "a")
        self.assertEqual(refused.exit, 2)
        self.assertIn("cannot be kept", refused.text)
        self.assertEqual(s.end(), 0)

    def test_figures_are_published(self):
        page = os.path.join(self.folder.name, "page")
        s = Server(self, "--status", page)
        self.assertEqual(s.block("put", "a", stdin=bytes(200_000)).exit, 0)
        self.assertEqual(s.block("put", "b", "--level", "DISK_ONLY", stdin=bytes(100_000)).exit, 0)
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            r = h.run([h.CARBIDE, "top", "--json", page])
            figures = json.loads(r.out) if r.exit == 0 else {}
            if figures.get("blocks", {}).get("blocks") == 2:
                break
            time.sleep(0.05)
        self.assertEqual(figures["what"], "serve")
        self.assertEqual(figures["pid"], s.process.pid)
        self.assertEqual(figures["blocks"]["memory_bytes"], 200_000)
        self.assertEqual(s.end(), 0)
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_one_server_a_socket_and_its_permissions(self):
        s = Server(self)
        self.assertEqual(os.stat(s.path).st_mode & 0o777, 0o600)
        second = h.run([h.CARBIDE, "serve", "--socket", s.path, "--memory", MEMORY])
        self.assertEqual(second.exit, 2)
        self.assertIn("answers at", second.text)
        self.assertEqual(s.end(signal.SIGINT), 0)
        s = Server(self, "--others", disk=False)
        self.assertEqual(os.stat(s.path).st_mode & 0o777, 0o666)
        if os.geteuid() == 0 and os.access(PYTHON, os.X_OK):
            os.chmod(self.folder.name, 0o755)
            self.assertEqual(s.block("put", "a", stdin=bytes(200_000)).exit, 0)
            copy = ("import socket,struct,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
                    "s.sendall(b'CBS1'+struct.pack('<BBHIiQQQ',3,2,1,7,0,0,0,0)+b'a')\n"
                    "d,fds,_,_=socket.recv_fds(s,40,4)\nop,flags,_,_,code,n,_,_=struct.unpack('<BBHIiQQQ',d[4:])\n"
                    "print(len(fds),flags,code,n)\n")
            for uid, wanted in ((0, "1 3 0 0"), (65534, "0 1 0 200000")):
                p = subprocess.run([PYTHON, "-c", copy, s.path], capture_output=True, text=True, user=uid, check=False)
                self.assertEqual(p.stdout.strip(), wanted, p.stderr)
        self.assertEqual(s.end(), 0)

    @unittest.skipUnless(h.PLAIN, "sanitizers have addresses of their own")
    def test_a_budget_beyond_all_addresses_is_refused_in_words_of_the_command(self):
        r = h.run([h.CARBIDE, "serve", "--socket", os.path.join(self.folder.name, "x"), "--memory", "1000T"])
        self.assertNotEqual(r.exit, 0)
        self.assertIn("a smaller budget", r.text)

    def test_too_small_a_budget_ends_with_5_and_the_smallest(self):
        r = h.run([h.CARBIDE, "serve", "--socket", os.path.join(self.folder.name, "s"), "--memory", "2000000"])
        self.assertEqual(r.exit, 5)
        self.assertIn("the smallest budget that will do is --memory", r.text)
        self.assertEqual(os.listdir(self.folder.name), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
