#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Goal: the web pages of `carbide serve` show what is there, whatever it is called, to whoever may see it.

Method: servers on ports that the system chose, asked by http.client and by sockets; a parser that knows which elements a page
may have reads each page. What takes time is waited for, up to two minutes; no time is measured.
"""
import base64
import html.parser
import http.client
import json
import os
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
NOT_CLOSED = {"meta", "link", "rect"}
KNOWN = {"html", "head", "title", "style", "body", "nav", "main", "b", "a", "h1", "h2", "p", "table", "thead", "tbody", "tr", "th",
         "td", "svg", "text"} | NOT_CLOSED
HOSTILE = [b"<script>alert(1)</script>", b"\"onmouseover=\"x", b"'><img src=x>", b"&lt;b&gt;", b"a\xffb", b"\xe2\x80\xaeevil",
           b"%s%n\\", "Gr\u00fc\u00dfe \U0001f600".encode(), b"\xc0\xbc", b"\xed\xa0\x80", b"tab\there", b"--></style>"]
SHOWN = ["<script>alert(1)</script>", "\"onmouseover=\"x", "'><img src=x>", "&lt;b&gt;", "a\\xffb", "\\u{202e}evil", "%s%n\\",
         "Gr\u00fc\u00dfe \U0001f600", "\\xc0\\xbc", "\\xed\\xa0\\x80", "tab\\x09here", "--></style>"]


class Page(html.parser.HTMLParser):
    """Fails for an element that no page has, and for one that is not closed in its turn. Tables by id, rows of texts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tables, self.table, self.links, self.texts = [], {}, None, [], {}
        self.inside = None
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        assert tag in KNOWN, tag
        attrs = dict(attrs)
        assert not any(name.startswith("on") for name in attrs), attrs
        if tag not in NOT_CLOSED:
            self.open.append(tag)
        if tag == "table":
            self.table = self.tables.setdefault(attrs["id"], [])
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.table[-1].append("")
        elif tag == "a":
            self.links.append(attrs["href"])
        if "id" in attrs:
            self.inside = attrs["id"]
            self.texts[self.inside] = ""

    def handle_endtag(self, tag):
        if tag not in NOT_CLOSED:
            assert self.open and self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data):
        if self.open and any(t in ("td", "th") for t in self.open):
            self.table[-1][-1] += data
        if self.inside is not None:
            self.texts[self.inside] += data

    def column(self, table, number=0):
        return [row[number] for row in self.tables.get(table, [[]])[1:]]


class Server:
    def __init__(self, case, *options, redis=None, name=None):
        argv = [h.CARBIDE, "serve", "--memory", MEMORY, "-T", case.folder.name, "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0",
                *options]
        if redis is not None:
            argv += ["--directory", "unix://" + redis, "--name", name]
        environment = {k: v for k, v in h.C_LOCALE.items() if not k.startswith("CARBIDE_")}
        self.process = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True)
        case.addCleanup(self.end)
        lines = [self.process.stderr.readline(), self.process.stderr.readline()]
        if "web pages at http://127.0.0.1:" not in lines[1]:
            raise AssertionError("".join(lines) + self.process.stderr.read())
        self.port = int(lines[0].split("127.0.0.1:")[1].split(":")[0])
        self.web = int(lines[1].split("127.0.0.1:")[1].split("/")[0])
        self.redis = None

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(PATIENCE)
        self.process.stderr.close()
        return code

    def ask(self, method, path, headers=None):
        """A client that had no processor for seconds was silent for the server, which ended its connection: it asks again."""
        for turn in range(20):
            connection = http.client.HTTPConnection("127.0.0.1", self.web, timeout=PATIENCE)
            try:
                connection.request(method, path, headers=headers or {})
                answer = connection.getresponse()
                return answer, answer.read()
            except (ConnectionError, http.client.HTTPException):
                if turn == 19 or self.process.poll() is not None:
                    raise
            finally:
                connection.close()
        return None

    def page(self, path):
        answer, body = self.ask("GET", path)
        assert answer.status == 200, (answer.status, body)
        return Page(body.decode("utf-8", "strict"))

    def put(self, name, value, *more):
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as s:
            words = [b"SET", name, value, *more]
            s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            got = s.recv(100)
        assert got == b"+OK\r\n", (name, got)


class Web(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="web-", dir="/tmp")
        self.addCleanup(self.folder.cleanup)

    def wait(self, what, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                self.fail("this did not happen: " + what)
            time.sleep(0.05)

    def eventually(self, look):
        """A server that had no processor for a while is not known for a moment: its lease ended."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return look()
            except (AssertionError, IndexError, KeyError):
                if time.monotonic() > end:
                    raise
            time.sleep(0.05)

    def test_one_server_is_shown(self):
        s = Server(self)
        self.assertIn("empty", s.page("/storage").texts)
        s.put(b"rdd_1_0", b"v" * 100_000)
        s.put(b"rdd_1_1", b"v" * 50_000)
        s.put(b"broadcast_7", b"v" * 10)
        s.put(b"x", b"v" * 5000, b"LEVEL", b"DISK_ONLY")
        page = s.page("/storage")
        self.assertEqual(page.column("sets"), ["broadcast_7", "other blocks", "rdd_1"])
        self.assertEqual(page.column("blocks"), ["broadcast_7", "rdd_1_0", "rdd_1_1", "x"])
        self.assertEqual(page.tables["sets"][3][1:4], ["MEMORY_ONLY_SER", "2", "1"])
        self.assertIn("levels", page.texts)  # a picture
        self.assertEqual(s.page("/storage?set=rdd_1").column("blocks"), ["rdd_1_0", "rdd_1_1"])
        self.assertEqual(s.page("/storage?set=nothing").column("blocks"), [])
        for path in ("/", "/executors"):
            page = s.page(path)
            self.assertEqual(page.tables["summary"][1][:2], ["1", "4"])
            self.assertEqual(len(page.column("executors")), 1)
            self.assertIn("(this one)", page.column("executors")[0])
            self.assertIn("budget", page.column("budget"))
            self.assertIn("memory", page.texts)  # a picture
        answer, body = s.ask("GET", "/status.json")
        self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "application/json"))
        self.assertEqual((json.loads(body)["what"], json.loads(body)["pid"]), ("serve", s.process.pid))
        answer, body = s.ask("GET", "/metrics")
        self.assertTrue(answer.headers["Content-Type"].startswith("application/openmetrics-text"))
        self.assertTrue(body.endswith(b"# EOF\n"))
        self.assertEqual(s.end(), 0)

    def test_names_stay_text(self):
        s = Server(self)
        for name in HOSTILE:
            s.put(name, b"v")
        self.assertEqual(sorted(s.page("/storage").column("blocks")), sorted(SHOWN))
        for path in ("/storage?set=%3Cscript%3E", "/storage?executor=%22%3E%3Cimg%20src=x%3E", "/storage?set=%00%ff%zz&set", "/storage?"):
            self.assertIn("sets", s.page(path).tables)

    def test_what_is_asked_wrongly_is_refused(self):
        s = Server(self)
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
            self.assertEqual(s.ask(method, "/storage")[0].status, 405, method)
        answer, body = s.ask("HEAD", "/storage")
        self.assertEqual((answer.status, body), (200, b""))
        for path in ("/x", "/storage/", "/../etc/passwd", "/status.json2", "//storage"):
            self.assertEqual(s.ask("GET", path)[0].status, 404, path)
        # A name for this machine that somebody else made is not answered (DNS rebinding).
        for host in ("evil.example", f"evil.example:{s.web}", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil", "",
                     "[::1].evil", "localhostx", "10.0.0.1"):
            self.assertEqual(s.ask("GET", "/storage", {"Host": host})[0].status, 403, host)
        for host in ("localhost", "127.0.0.1", "127.0.0.1:1", f"localhost:{s.web}", "[::1]:80", "127.1.2.3"):
            self.assertEqual(s.ask("GET", "/storage", {"Host": host})[0].status, 200, host)
        for path in ("/storage", "/executors", "/status.json", "/x"):
            fields = s.ask("GET", path)[0].headers
            self.assertEqual(fields["Cache-Control"], "no-store")
            self.assertIn("default-src 'none'", fields["Content-Security-Policy"])
            self.assertEqual(fields["X-Content-Type-Options"], "nosniff")
            self.assertIsNone(fields["Access-Control-Allow-Origin"])

    def test_a_page_has_an_end_whatever_there_is(self):
        s = Server(self)
        for i in range(260):
            s.put(b"\"" * 250 + b"%05d" % i, b"v")
        answer, body = s.ask("GET", "/storage")
        self.assertLessEqual(len(body), 256 * 1024)
        page = Page(body.decode())
        self.assertIn("of 260 copies", page.texts["more"])
        self.assertGreater(len(page.column("blocks")), 50)

    def test_readers_who_stop_hold_what_they_hold(self):
        s = Server(self)
        for i in range(220):
            s.put(b"'" * 240 + b"%05d" % i, b"v")

        def refused():
            readers = []
            try:
                for _ in range(3):  # a page each, of which the most part waits for its reader
                    r = socket.socket()
                    readers.append(r)
                    r.settimeout(PATIENCE)
                    r.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    r.connect(("127.0.0.1", s.web))
                    r.sendall(b"GET /storage HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    r.recv(1)
                return s.ask("GET", "/storage")[0].status == 503
            except ConnectionError:
                return False  # they were ended for their silence before
            finally:
                for r in readers:
                    r.close()
        self.wait("the fourth is told to come again", refused)
        self.wait("there are pages again", lambda: s.ask("GET", "/storage")[0].status == 200)
        # Half a request, or none, on all connections that there may be: they end by themselves.
        idle = [socket.create_connection(("127.0.0.1", s.web), PATIENCE) for _ in range(8)]
        for i, r in enumerate(idle):
            try:
                r.sendall(b"GET /storage HTTP/1.1\r\nX: " + b"y" * i if i % 2 else b"")
            except ConnectionError:
                pass
        self.assertEqual(s.ask("GET", "/executors")[0].status, 200)
        for r in idle:
            r.close()
        with socket.create_connection(("127.0.0.1", s.web), PATIENCE) as r:  # headers larger than there is room
            try:
                r.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n")
                self.assertNotIn(b" 200 ", r.recv(100))
            except OSError:
                pass
        self.assertEqual(s.ask("GET", "/executors")[0].status, 200)
        self.assertEqual(s.end(), 0)

    def test_a_password_is_asked_for(self):
        path = os.path.join(self.folder.name, "password")
        with open(path, "w") as f:
            f.write("s\u00e9cret:x\n")
        s = Server(self, "--password-file", path)

        def status(text):
            return s.ask("GET", "/executors", {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()})[0].status
        answer, _ = s.ask("GET", "/executors")
        self.assertEqual(answer.status, 401)
        self.assertIn("Basic", answer.headers["WWW-Authenticate"])
        self.assertEqual([status(t) for t in ("me:s\u00e9cret:x", ":s\u00e9cret:x")], [200, 200])
        self.assertEqual([status(t) for t in ("me:s\u00e9cret", "me:s\u00e9cret:xx", "me:", "me", "", "s\u00e9cret:x")], [401] * 6)
        for wrong in ("Basic", "Basic =", "Basic ????", "Bearer x", "Basic " + "A" * 5000):
            self.assertEqual(s.ask("GET", "/x", {"Authorization": wrong})[0].status, 401, wrong)

    def test_where_it_cannot_listen_is_said(self):
        s = Server(self)
        for address, words in ((f"127.0.0.1:{s.web}", "cannot listen"), ("0.0.0.0:0", "need a password"), ("somewhere", "no address"),
                               ("127.0.0.1", "no address")):
            done = subprocess.run([h.CARBIDE, "serve", "--memory", MEMORY, "--listen", "127.0.0.1:0", "--web", address],
                                  stderr=subprocess.PIPE, text=True, timeout=PATIENCE, env=h.C_LOCALE)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(words, done.stderr)

    @unittest.skipIf(shutil.which("redis-server") is None, "redis-server is not installed")
    def test_all_executors_of_the_directory_are_shown(self):
        path = os.path.join(self.folder.name, "redis")
        redis = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir",
                                  self.folder.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(redis.wait)
        self.addCleanup(redis.kill)
        hostile = "b<i>\"&'"
        a = Server(self, "--host", "h<1>", redis=path, name="a")
        b = Server(self, "--rack", "r&1", redis=path, name=hostile)
        a.put(b"rdd_1_0", b"v" * 1000)
        b.put(b"rdd_1_0", b"v" * 1000)
        b.put(b"rdd_1_1", b"v" * 2000)
        for i in range(150):  # more than one part of a walk
            b.put(b"\xff" * 200 + b"%04d" % i, b"v")

        def look(s, mine):
            page = s.page("/executors")
            self.assertNotIn("problem", page.texts)
            self.assertEqual(page.column("executors", 4), ["1", "152"])
            self.assertEqual([n.replace(" (this one)", "") for n in page.column("executors")], ["a", hostile])
            self.assertEqual(["(this one)" in n for n in page.column("executors")], [mine == 0, mine == 1])
            self.assertEqual((page.column("executors", 2)[0], page.column("executors", 3)[1]), ("h<1>", "r&1"))
            links = [u for u in page.links if "executor=" in u]
            self.assertEqual(len(s.page(links[0]).column("blocks")), 1)
            self.assertEqual(len(s.page(links[1]).column("blocks")), 152)
            page = s.page("/storage?set=rdd_1")
            self.assertEqual(list(zip(page.column("blocks"), page.column("blocks", 2))),
                             [("rdd_1_0", "a"), ("rdd_1_0", hostile), ("rdd_1_1", hostile)])
            self.assertEqual(page.tables["sets"][2][2:4], ["3", "2"])
        for s, mine in ((a, 0), (b, 1)):
            self.eventually(lambda s=s, mine=mine: look(s, mine))
        redis.kill()
        redis.wait()
        page = a.page("/storage")
        self.assertIn("does not answer", page.texts["problem"])
        self.assertEqual(page.column("blocks"), ["rdd_1_0"])
        self.assertEqual(a.page("/executors").column("executors"), ["a (this one)"])


if __name__ == "__main__":
    h.main(skip=h.built_without("libmicrohttpd", "--web", "x"))
