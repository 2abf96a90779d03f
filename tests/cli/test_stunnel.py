#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Goal: TLS as docs/cluster.md has it, and as people do it with Redis: stunnel before an executor and before its directory.

Method: one stunnel has all three ends, with certificates made here: the directory's, the executor's way to it, and the executor's
own. redis-cli speaks TLS to the last. What takes time is waited for, up to two minutes; no time is measured.
"""
import os
import random
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
PATIENCE = 120
CONFIGURATION = """foreground = yes
pid =
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
cert = {folder}/both.pem
CAfile = {folder}/ca.pem
verifyChain = yes
[redis]
accept = {folder}/redis-tls
connect = {folder}/redis
[directory]
client = yes
accept = {folder}/directory
connect = {folder}/redis-tls
[blocks]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{plain}
"""


class Tls(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tls-", dir="/tmp")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.random = random.Random(h.SEED)

    def path(self, name):
        return os.path.join(self.folder, name)

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
        """An authority of our own, and a certificate by it for both ends."""
        def openssl(*words):
            done = subprocess.run(["openssl", *words], cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(done.returncode, 0, done.stderr)
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
        openssl("req", *key, "-keyout", "end.key", "-out", "end.csr", "-subj", "/CN=localhost")
        openssl("x509", "-req", "-in", "end.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "end.pem", "-days", "2")
        with open(self.path("both.pem"), "w") as both:
            for name in ("end.pem", "end.key"):
                with open(self.path(name)) as f:
                    both.write(f.read())
        os.chmod(self.path("both.pem"), 0o600)

    def start_stunnel(self, plain):
        """Its port: one that was free a moment before; when somebody was faster it ends, and the next one is tried."""
        for _ in range(20):
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = s.getsockname()[1]
            for name in ("redis-tls", "directory"):
                if os.path.exists(self.path(name)):
                    os.unlink(self.path(name))
            with open(self.path("stunnel.conf"), "w") as f:
                f.write(CONFIGURATION.format(folder=self.folder, port=port, plain=plain))
            with open(self.path("stunnel.log"), "w") as log:
                process = self.start([shutil.which("stunnel4") or "stunnel", self.path("stunnel.conf")], stdout=log, stderr=log)

            def said():
                with open(self.path("stunnel.log")) as f:
                    return "Configuration successful" in f.read() or process.poll() is not None
            self.wait("stunnel says whether it listens", said)
            self.wait("stunnel listens or ends",
                      lambda: os.path.exists(self.path("directory")) or process.poll() is not None)
            if process.poll() is None and self.answers(port):
                return port
        with open(self.path("stunnel.log")) as f:
            self.fail("stunnel does not start: " + f.read())

    @staticmethod
    def answers(port):
        try:
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()
            return True
        except OSError:
            return False

    def cli(self, *words, data=None):
        done = subprocess.run(["redis-cli", *words], input=data, capture_output=True, timeout=PATIENCE, env=h.C_LOCALE)
        return done.stdout

    def test_an_executor_and_its_directory_behind_stunnel(self):
        self.make_certificates()
        with open(self.path("password"), "w") as f:
            f.write("secret\n")
        self.start(["redis-server", "--port", "0", "--unixsocket", self.path("redis"), "--save", "", "--appendonly", "no", "--dir",
                    self.folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        argv = [h.CARBIDE, "serve", "--listen", "127.0.0.1:0", "--memory", MEMORY, "--password-file", self.path("password"),
                "--directory", "unix://" + self.path("directory"), "--name", "a"]
        carbide = self.start(argv, stderr=subprocess.PIPE, text=True)
        line = carbide.stderr.readline()
        self.assertIn("127.0.0.1:", line)
        port = self.start_stunnel(line.split("127.0.0.1:")[1].split(":")[0])
        # The executor reaches its directory by TLS.
        self.wait("the directory knows the executor", lambda: self.cli("-s", self.path("redis"), "exists", "cb:exec:a").strip() == b"1")
        # A client reaches the executor by TLS, with a certificate and the password.
        tls = ["-p", str(port), "--tls", "--cacert", self.path("ca.pem"), "--sni", "localhost", "-h", "127.0.0.1", "--no-auth-warning"]
        mine = ["--cert", self.path("end.pem"), "--key", self.path("end.key")]
        value = self.random.randbytes(1 << 20)
        self.assertEqual(self.cli(*tls, *mine, "-a", "secret", "-x", "set", "x", data=value), b"OK\n")
        self.assertEqual(self.cli(*tls, *mine, "-a", "secret", "get", "x"), value + b"\n")
        self.assertIn(b"NOAUTH", self.cli(*tls, *mine, "get", "x"))
        # Who has no certificate, or speaks no TLS, gets nothing.
        self.assertNotIn(value[:64], self.cli(*tls, "-a", "secret", "get", "x"))
        self.assertNotIn(value[:64], self.cli("-p", str(port), "--no-auth-warning", "-a", "secret", "get", "x"))
        self.wait("the directory knows the block", lambda: self.cli("-s", self.path("redis"), "exists", "cb:where:x").strip() == b"1")


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
