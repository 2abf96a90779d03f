#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 600
"""Goal: a browser shows the web pages of `carbide serve` as they are meant, and hostile names in them as text.

Method: headless Chromium, which nothing of ours made, loads both pages of a server whose blocks have such names: what it made of
them (its DOM) and what it shows (a screenshot, decoded here) are looked at. Where Chromium is not there or does not run, the
test is skipped.
"""
import html.parser
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

PATIENCE = 120
EVIL = b"<script>document.title='evil'</script><b onclick=x>"
BAR = (0x2a, 0x6f, 0xb0)  # memory in the pictures


class Dom(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.title, self.tag = {}, [], "", None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.setdefault(tag, []).append(dict(attrs))
        self.tag = tag

    def handle_endtag(self, tag):
        self.tag = None

    def handle_data(self, data):
        self.texts.append(data)
        if self.tag == "title":
            self.title += data


def pixels(path):
    """Colours of a PNG as browsers write it: 8 bits a channel, not interlaced; each once."""
    with open(path, "rb") as f:
        data = f.read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, width, height, channels = 8, b"", 0, 0, 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert depth == 8 and colour in (2, 6) and not interlaced, (depth, colour)
            channels = 3 if colour == 2 else 4
        elif kind == b"IDAT":
            packed += body
        at += 12 + size
    raw, stride = zlib.decompress(packed), width * channels
    above, colours = bytearray(stride), set()
    for y in range(height):
        line = bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        unfilter(raw[y * (stride + 1)], line, above, channels)
        if line != above:
            colours.update(zip(line[0::channels], line[1::channels], line[2::channels]))
        above = line
    return colours


def unfilter(kind, line, above, n):
    for i in range(len(line)):
        left = line[i - n] if i >= n else 0
        up, corner = above[i], above[i - n] if i >= n else 0
        if kind == 1:
            line[i] = (line[i] + left) & 255
        elif kind == 2:
            line[i] = (line[i] + up) & 255
        elif kind == 3:
            line[i] = (line[i] + (left + up) // 2) & 255
        elif kind == 4:
            p = left + up - corner
            a, b, c = abs(p - left), abs(p - up), abs(p - corner)
            line[i] = (line[i] + (left if a <= b and a <= c else up if b <= c else corner)) & 255


class Browser(h.Case):
    def setUp(self):
        super().setUp()
        self.program = shutil.which("chromium")
        if self.program is None:
            h.skip_loudly("chromium is not there")
        if self.look("data:text/html,<p>it%20runs</p>", "--dump-dom") is None:
            h.skip_loudly("chromium does not run here")

    def serve(self, *options):
        """Its port, and where its pages are."""
        argv = [h.CARBIDE, "serve", "--memory", "64M", "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0", *options]
        server = subprocess.Popen(argv, env=h.C_LOCALE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.end, server)
        lines = [server.stderr.readline(), server.stderr.readline()]
        if "libmicrohttpd" in lines[0]:
            h.skip_loudly("carbide was built without libmicrohttpd")
        return int(lines[0].split("127.0.0.1:")[1].split(":")[0]), lines[1].split()[-1]

    def end(self, server):
        server.terminate()
        server.wait(PATIENCE)
        server.stderr.close()

    def look(self, url, *options, makes=None):
        """What Chromium writes, and the file it `makes`; None when it does not get so far, three times."""
        for turn in range(3):
            with tempfile.TemporaryDirectory(prefix="browser-", dir="/tmp") as folder:
                argv = [self.program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                        "--disable-extensions", "--disable-background-networking", "--force-color-profile=srgb", "--hide-scrollbars",
                        "--window-size=1000,700", "--user-data-dir=" + folder, *options, url]
                done = h.run(argv, timeout=60, env={**h.C_LOCALE, "HOME": folder, "XDG_RUNTIME_DIR": folder})
                if done.exit == 0 and not done.timed_out and (makes is None or os.path.exists(makes)):
                    return done.out.decode("utf-8", "replace")
        return None

    def put(self, port, name, value):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as s:
            s.sendall(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(name), name, len(value), value))
            self.assertEqual(s.recv(100), b"+OK\r\n")

    def test_both_pages_are_shown(self):
        port, url = self.serve()
        self.put(port, EVIL, b"v")
        self.put(port, b"rdd_1_0", b"v" * (8 << 20))
        self.check(url, (("storage", ["rdd_1", "rdd_1_0", EVIL.decode()]), ("executors", ["connections", "budget"])))

    def test_executors_of_a_directory_are_shown(self):
        if shutil.which("redis-server") is None or h.built_without("hiredis", "--directory", "x"):
            self.skipTest("no redis-server, or no hiredis")
        folder = tempfile.TemporaryDirectory(prefix="browser-", dir="/tmp")
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "redis")
        redis = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir",
                                  folder.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(redis.wait)
        self.addCleanup(redis.kill)
        executors = {name: self.serve("--directory", "unix://" + path, "--name", name) for name in ("a", EVIL.decode()[:60])}
        for i, (port, _) in enumerate(executors.values()):
            self.put(port, b"rdd_1_%d" % i, b"v" * (8 << 20))
        url = executors["a"][1]
        for _ in range(PATIENCE * 10):
            with urllib.request.urlopen(url + "storage", timeout=PATIENCE) as page:
                text = page.read()
            if b"rdd_1_0" in text and b"rdd_1_1" in text:
                break
            time.sleep(0.1)
        self.check(url, (("storage", ["rdd_1", "rdd_1_0", "rdd_1_1", EVIL.decode()[:60]]), ("executors", [*executors, "budget"])))

    def check(self, url, pages):
        for path, words in pages:
            text = self.look(url + path, "--dump-dom")
            if text is None:
                self.fail("chromium does not show " + path)
            dom = Dom(text)
            self.assertEqual(dom.title, "carbide: " + path.capitalize())
            self.assertNotIn("script", dom.tags)
            self.assertFalse(any("onclick" in a for a in sum(dom.tags.values(), [])))
            for word in words:
                self.assertIn(word, [t.replace(" (this one)", "") for t in dom.texts])
            self.assertTrue(any(a.get("class") == "memory" for a in dom.tags["rect"]))
            shot = self.path(path + ".png")
            if self.look(url + path, "--screenshot=" + shot, makes=shot) is None:
                self.fail("chromium makes no picture of " + path)
            colours = pixels(shot)
            self.assertGreater(len(colours), 8)  # a blank page has one
            self.assertTrue(any(max(abs(a - b) for a, b in zip(c, BAR)) <= 3 for c in colours), "no bar of a picture is to be seen")


if __name__ == "__main__":
    h.main()
