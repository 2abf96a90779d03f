#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`carbide simulate` from outside: bytes, exit codes, messages, summary and picture."""
import os
import subprocess
import sys
import xml.dom.minidom

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

TRACES = os.path.join(h.ROOT, "tests/simulate/traces")
CROWDED = b"""config manager=unified heap=1000 storageRegion=500
acquireStorage rdd_0_0 800 on
acquireExecution 1 700 on
acquireExecution 2 400 on
"""


class Answers(h.Case):
    def test_every_trace_gives_the_originals_bytes(self):
        for name in sorted(n for n in os.listdir(TRACES) if n.endswith(".trace")):
            with open(os.path.join(TRACES, name[:-5] + "expected"), "rb") as f:
                expected = f.read()
            result = h.carbide("simulate", os.path.join(TRACES, name))
            self.assertEqual((result.exit, result.out, result.err), (0, expected, b""), name)
            with open(os.path.join(TRACES, name), "rb") as f:
                trace = f.read()
            self.assertEqual(h.carbide("simulate", "-", stdin=trace.replace(b"\n", b"\r\n")).out, expected, name)
            self.assertEqual(h.carbide("simulate", "-", stdin=trace.rstrip(b"\n")).out, expected, name)

    def test_a_long_trace_needs_no_memory_for_its_length(self):
        trace = b"config manager=unified heap=1000 storageRegion=500\n" + b"acquireExecution 1 9 on\nreleaseExecution 1 9 on\n" * 50_000
        result = h.carbide("simulate", "-", stdin=trace)
        self.assertEnded(result, 0)
        self.assertEqual(result.out.count(b"\n"), 100_001)

    def test_a_pipe_is_answered_line_by_line(self):
        process = subprocess.Popen([h.CARBIDE, "simulate", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with process:
            for line, answer in ((b"config memory=131072", b"1 config"), (b"allocate a 5", b"2 allocate a 5 -> refused"),
                                 (b"allocate a 4", b"3 allocate a 4 -> 4")):
                process.stdin.write(line + b"\n")
                process.stdin.flush()
                self.assertTrue(process.stdout.readline().startswith(answer))
            process.stdin.close()
        self.assertEqual(process.returncode, 0)

    def test_summary_follows_the_answers_or_stands_alone(self):
        trace = self.write("trace", CROWDED)
        plain = h.carbide("simulate", trace)
        both = h.carbide("simulate", "--summary", trace)
        alone = h.carbide("simulate", "-q", "--summary", trace)
        self.assertEnded(alone, 0)
        self.assertEqual(both.out, plain.out + alone.out)
        self.assertTrue(all(line.startswith(b"# ") for line in alone.out.splitlines()))
        advice = [line[len("# enough: "):] for line in alone.out.decode().splitlines() if line.startswith("# enough: config")]
        self.assertEqual(len(advice), 1)
        again = self.write("again", advice[0].encode() + b"\n" + CROWDED.split(b"\n", 1)[1])
        self.assertIn(b"nothing was refused, evicted or waited for", h.carbide("simulate", "-q", "--summary", again).out)

    def test_picture_is_well_formed_and_appears_whole(self):
        trace = self.write("trace", CROWDED)
        picture = self.path("p.svg")
        result = h.carbide("simulate", "-q", f"--svg={picture}", trace)
        self.assertEqual((result.exit, result.out, result.err), (0, b"", b""))
        document = xml.dom.minidom.parseString(self.read("p.svg"))
        self.assertEqual(document.documentElement.tagName, "svg")
        result = h.carbide("simulate", f"--svg={self.path('none/p.svg')}", trace)
        self.assertEnded(result, h.USAGE_OR_IO)

    def test_what_cannot_be_read_ends_with_3_and_its_place(self):
        trace = self.write("trace", CROWDED + b"  acquireExecution 1 -5 on\nstate\n")
        result = h.carbide("simulate", trace)
        self.assertEnded(result, h.BAD_DATA)
        self.assertEqual(result.out.count(b"\n"), 4)
        self.assertEqual(result.text, f"carbide: {trace}:5:22: a size must not be negative: -5\n")
        for text in (b"state\n", b"config memory=1x\n", b"x" * 200_000, b"config memory=131072\nallocate a 5\0\n", b"\xff\xfe\n"):
            result = h.carbide("simulate", "-", stdin=text)
            self.assertEnded(result, h.BAD_DATA)
            self.assertRegex(result.text, r"^carbide: -:\d+:\d+: ")

    def test_files_that_cannot_be_read_end_with_2(self):
        self.assertEnded(h.carbide("simulate", self.path("none")), h.USAGE_OR_IO)
        self.assertEnded(h.carbide("simulate", self.dir), h.USAGE_OR_IO)

    def test_nothing_is_answered_with_nothing(self):
        result = h.carbide("simulate", "-", stdin=b"\n# only comments\n\n")
        self.assertEqual((result.exit, result.out, result.err), (0, b"", b""))


if __name__ == "__main__":
    h.main()
