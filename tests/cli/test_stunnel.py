#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Goal: TLS as docs/cluster.md has it, and as people do it with Redis: stunnel before executors and before their directory.

Method: the sections of that page, read from it, for machine 1, machine 2 and that of Redis, with certificates made here. The
machines are addresses of loopback that each run chooses, and ports. Between them, where the page has 10.0.0.N, whatever goes by is
kept, so that it can be looked for what was to be secret. What takes time is waited for, up to two minutes; no time is measured.
"""
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h
import test_cluster as cluster

MEMORY = "64M" if h.PLAIN else "800M"
PATIENCE = 120
BLOCKS, TO_DIRECTORY, OF_REDIS, REDIS, EXECUTOR = 7444, 7000, 7443, 6379, 7001
PORTS = (EXECUTOR, TO_DIRECTORY, OF_REDIS, REDIS, BLOCKS, 7101, 7102)


class Wire:
    """What is between two machines: passes bytes on to `goal`, both ways, and keeps them all."""

    def __init__(self, address, goal):
        self.goal, self.lock, self.seen, self.sockets = goal, threading.Lock(), {}, []
        self.listener = socket.create_server(address, backlog=64)
        self.threads = [threading.Thread(target=self.accept, daemon=True)]
        self.threads[0].start()

    def accept(self):
        while True:
            try:
                near = self.listener.accept()[0]
            except OSError:
                return
            try:
                far = socket.create_connection(self.goal)
            except OSError:
                near.close()
                continue
            with self.lock:
                self.sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    self.threads.append(threading.Thread(target=self.carry, args=(len(self.threads), *pair), daemon=True))
                    self.threads[-1].start()

    def carry(self, number, source, target):
        try:
            while data := source.recv(1 << 16):
                with self.lock:
                    self.seen.setdefault(number, bytearray()).extend(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for s in (source, target):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def bytes(self):
        """Of each direction of each connection."""
        with self.lock:
            return [bytes(b) for b in self.seen.values()]

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.threads[0].join(PATIENCE)
        for s in self.sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for t in self.threads[1:]:
            t.join(PATIENCE)
        for s in self.sockets:
            s.close()


class Tls(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tls-", dir="/tmp")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.random = random.Random(h.SEED)
        self.choose_addresses()
        self.make_certificates()
        with open(self.path("password"), "w") as f:
            f.write("secret-of-executors\n")
        self.start(["redis-server", "--bind", self.host("redis"), "--port", str(self.port(REDIS)), "--requirepass", "secret-of-redis",
                    "--save", "", "--appendonly", "no", "--dir", self.folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wires = {}
        for ip, port in (("10.0.0.1", BLOCKS), ("10.0.0.2", BLOCKS), ("10.0.0.9", OF_REDIS)):
            self.wires[ip] = Wire(self.outside(ip, port), self.inside(ip, port))
            self.addCleanup(self.wires[ip].close)
        for machine, text in self.configurations():
            self.start_stunnel(machine, text)

    def path(self, name):
        return os.path.join(self.folder, name)

    # ---- addresses: loopback's of machine M is net.M, 10.0.0.N net.1N before the wire and net.10N behind it ----

    def choose_addresses(self):
        """Of 127.0.0.0/8, which is loopback as a whole: two runs beside each other have not the same."""
        chance = random.SystemRandom()
        for _ in range(100):
            self.net = f"127.{chance.randrange(1, 255)}.{chance.randrange(0, 255)}."
            self.first_port = chance.randrange(10_000, 30_000)
            sockets = []
            try:
                for port in PORTS:  # one that somebody has at all addresses would be in the way
                    sockets.append(socket.create_server((self.net + "1", self.port(port))))
                return
            except OSError:
                continue
            finally:
                for s in sockets:
                    s.close()
        self.skipTest("no ports are free")

    def port(self, number):
        return self.first_port + number % 1000

    def host(self, machine):
        return self.net + str({1: 1, 2: 2, "redis": 9}[machine])

    def outside(self, ip, port):
        return self.net + "1" + ip[-1], self.port(port)

    def inside(self, ip, port):
        return self.net + "10" + ip[-1], self.port(port)

    def real(self, machine, text):
        """Addresses of the page as they are here, of a machine's stunnel."""
        def change(found):
            what, ip, port = found.group(1), found.group(2), int(found.group(3))
            if ip == "127.0.0.1":
                return f"{what} = {self.host(machine)}:{self.port(port)}"
            return "{} = {}:{}".format(what, *(self.inside if what == "accept" else self.outside)(ip, port))
        text, count = re.subn(r"\b(accept|connect) = ([\d.]+):(\d+)", change, text)
        self.assertEqual(count, text.count("\n[") * 2)
        return "foreground = yes\npid =\n" + text.replace("/etc/stunnel/", self.folder + "/")

    def configurations(self):
        with open(os.path.join(h.ROOT, "docs/cluster.md")) as f:
            page = f.read().split("## Passwords and TLS")[1]
        first, command, redis = re.findall(r"^```\n(.*?)^```$", page, re.M | re.S)
        self.assertIn("--advertise 127.0.0.1:7101 ", command)
        # As the page says in words: what machine 2 has instead.
        second = first.replace("10.0.0.2", "10.0.0.M").replace("10.0.0.1", "10.0.0.2").replace("10.0.0.M", "10.0.0.1")
        second = second.replace("[executor-2]", "[executor-1]").replace("127.0.0.1:7102", "127.0.0.1:7101")
        common = first[:first.index("[")]
        return [(m, self.real(m, text)) for m, text in ((1, first), (2, second), ("redis", common + redis))]

    # ---- processes ----

    def wait(self, what, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                self.fail("this did not happen: " + what)
            time.sleep(0.05)

    def start(self, argv, **more):
        process = subprocess.Popen(argv, env=h.C_LOCALE, **more)

        def end():
            if process.poll() is None:
                process.terminate()
            process.wait(PATIENCE)
            if process.stderr is not None:
                process.stderr.close()
        self.addCleanup(end)
        return process

    def make_certificates(self):
        """An authority of our own, and a certificate by it for all ends."""
        def openssl(*words):
            done = subprocess.run(["openssl", *words], cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(done.returncode, 0, done.stderr)
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
        openssl("req", *key, "-keyout", "end.key", "-out", "end.csr", "-subj", "/CN=localhost")
        openssl("x509", "-req", "-in", "end.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "end.pem", "-days", "2")
        with open(self.path("carbide.pem"), "w") as both:
            for name in ("end.pem", "end.key"):
                with open(self.path(name)) as f:
                    both.write(f.read())
        os.chmod(self.path("carbide.pem"), 0o600)

    def start_stunnel(self, machine, text):
        name = f"stunnel-{machine}"
        with open(self.path(name + ".conf"), "w") as f:
            f.write(text)
        with open(self.path(name + ".log"), "w") as log:
            process = self.start([shutil.which("stunnel4") or "stunnel", self.path(name + ".conf")], stdout=log, stderr=log)

        def listens():
            with open(self.path(name + ".log")) as f:
                said = f.read()
            self.assertIsNone(process.poll(), said)
            return "Configuration successful" in said
        self.wait("stunnel listens", listens)

    def executor(self, machine):
        """A plain connection to it, after it has entered the directory through stunnel."""
        name = f"executor-{machine}"
        other = self.host(3 - machine)  # who reaches it at that address of his own loopback
        process = self.start([h.CARBIDE, "serve", "--listen", f"{self.host(machine)}:{self.port(EXECUTOR)}", "--advertise",
                              f"{other}:{self.port(7100 + machine)}", "--password-file", self.path("password"), "--memory", MEMORY,
                              "--directory", f"redis://:secret-of-redis@{self.host(machine)}:{self.port(TO_DIRECTORY)}", "--name", name],
                             stderr=subprocess.PIPE, text=True)
        self.assertIn(self.host(machine), process.stderr.readline())
        self.wait("the directory knows " + name, lambda: self.directory("exists", "cb:exec:" + name).strip() == b"1")
        peer = cluster.Peer((self.host(machine), self.port(EXECUTOR)))
        self.addCleanup(peer.close)
        self.assertEqual(peer.ask("AUTH", "secret-of-executors"), b"+OK")
        return peer

    def cli(self, *words, data=None):
        done = subprocess.run(["redis-cli", *words], input=data, capture_output=True, timeout=PATIENCE, env=h.C_LOCALE)
        return done.stdout

    def directory(self, *words):
        return self.cli("-h", self.host("redis"), "-p", str(self.port(REDIS)), "-a", "secret-of-redis", "--no-auth-warning", *words)

    # ---- tests ----

    def test_a_client_reaches_an_executor_by_tls(self):
        self.executor(1)
        host, port = self.outside("10.0.0.1", BLOCKS)
        tls = ["-h", host, "-p", str(port), "--tls", "--cacert", self.path("ca.pem"), "--sni", "localhost", "--no-auth-warning"]
        mine = ["--cert", self.path("end.pem"), "--key", self.path("end.key")]
        value = self.random.randbytes(1 << 20)
        self.assertEqual(self.cli(*tls, *mine, "-a", "secret-of-executors", "-x", "set", "x", data=value), b"OK\n")
        self.assertEqual(self.cli(*tls, *mine, "-a", "secret-of-executors", "get", "x"), value + b"\n")
        self.assertIn(b"NOAUTH", self.cli(*tls, *mine, "get", "x"))
        # Who has no certificate, or speaks no TLS, gets nothing.
        self.assertNotIn(value[:64], self.cli(*tls, "-a", "secret-of-executors", "get", "x"))
        self.assertNotIn(value[:64], self.cli("-h", host, "-p", str(port), "--no-auth-warning", "-a", "secret-of-executors", "get", "x"))
        self.wait("the directory knows the block", lambda: self.directory("exists", "cb:where:x").strip() == b"1")

    def test_executors_copy_and_read_each_others_blocks_by_tls(self):
        first, second = self.executor(1), self.executor(2)
        for at in (first, second):
            self.wait("the other one is seen", lambda at=at: b"connected_slaves:1\r" in at.ask("INFO"))
        twice, once = self.random.randbytes(700_000), self.random.randbytes(700_000)

        def copied():  # who was without his processor for longer than his lease is nobody's peer for a while
            self.assertEqual(first.ask("SET", "name-of-twice", twice, "LEVEL", "MEMORY_ONLY_SER_2"), b"+OK")
            return first.ask("WAIT", 1, 0) == 1
        self.wait("the other one has a copy", copied)
        self.wait("the directory knows both", lambda: len(self.directory("smembers", "cb:where:name-of-twice").split()) == 2)
        life = self.directory("hget", "cb:exec:executor-2", "generation").strip()
        generation = self.directory("hget", b"cb:have:" + life + b":executor-2", "name-of-twice").split()[3]
        self.assertEqual(second.ask("CARBIDE.GET", "name-of-twice", generation), twice)
        # What is at one alone is read at the other, in both directions.
        for here, there, name in ((first, second, "name-of-once-1"), (second, first, "name-of-once-2")):
            self.assertEqual(here.ask("SET", name, once), b"+OK")
            self.wait("it is read at the other one", lambda there=there, name=name: there.ask("GET", name) == once)
            self.assertEqual(there.ask("EXISTS", name), 0)
        # All that went between the machines, and none of it as it is.
        for ip, least in (("10.0.0.1", len(once)), ("10.0.0.2", len(twice) + len(once)), ("10.0.0.9", 1000)):
            seen = self.wires[ip].bytes()
            self.assertGreaterEqual(sum(map(len, seen)), least, ip)
            for secret in (twice[300_000:300_016], once[300_000:300_016], b"name-of", b"CARBIDE.", b"cb:exec:", b"cb:have:", b"secret-of", b"executor-"):
                self.assertFalse(any(secret in one for one in seen), f"{secret} at {ip}")


def can_run():
    for program in ("redis-server", "redis-cli", "openssl"):
        if shutil.which(program) is None:
            return program + " is not installed"
    if shutil.which("stunnel4") is None and shutil.which("stunnel") is None:
        return "stunnel is not installed"
    if b"--tls" not in subprocess.run(["redis-cli", "--help"], capture_output=True).stdout:
        return "redis-cli was built without TLS"
    return h.built_without("hiredis", "--directory", "x")


if __name__ == "__main__":
    h.main(skip=can_run())
