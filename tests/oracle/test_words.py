#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 200
"""Text that people wrote, against GNU sort: a dictionary's words and every text file under /usr/share/doc."""
import gzip
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

WORDS = ("/usr/share/dict/american-english-insane", "/usr/share/dict/words")
# No -g over words: "Nan" and "nana" are not-a-numbers to it, and the order GNU sort gives those depends on its threads.
OPTIONS = ([], ["-r"], ["-f"], ["-u"], ["-fu"], ["-d"], ["-df"], ["-i"], ["-n"], ["-s", "-k1.2"], ["-V"], ["-b"], ["-t", "'", "-k2", "-k1"], ["-k1.3,1.5r"], ["-h"],
           ["-M"], ["-k2,2"], ["-k", "2n", "-k", "1"], ["-bf", "-k3"], ["-u", "-k2,2"])


class Words(h.Case):
    def same(self, source, options, memory):
        want = h.gnu_sort(*options, source, timeout=120)
        got = h.sort("--gnu", "-S", memory, "-T", self.temp, *options, source, timeout=120)
        with self.subTest(options=options, memory=memory):
            self.assertEnded(got, want.exit)
            self.assertSameBytes(got.out, want.out)
            self.assertNothingLeft()

    def test_words(self):
        source = next((w for w in WORDS if os.path.exists(w)), None)
        if source is None:
            h.skip_loudly("no dictionary is installed (Debian: wamerican-insane)")
        with open(source, "rb") as f:
            words = f.read().splitlines(True)
        self.random.shuffle(words)
        shuffled = self.write("words", b"".join(words))
        several = self.write("several", b"".join(words) * 3)
        for options in OPTIONS if h.LONG else OPTIONS[:5] + OPTIONS[5::2]:
            self.same(shuffled, options, "16M")
        for options in ([], ["-u"], ["-fs"]):
            self.same(several, options, "8M")

    def test_the_lines_of_all_text_under_usr_share_doc(self):
        lines = bytearray()
        for folder, _, names in os.walk("/usr/share/doc"):
            for name in sorted(names):
                path = os.path.join(folder, name)
                try:
                    with (gzip.open if name.endswith(".gz") else open)(path, "rb") as f:
                        text = f.read(4 << 20)
                except (OSError, EOFError):
                    continue
                if b"\0" in text:
                    continue  # a picture, an archive
                # GNU sort before 9.7 takes the byte 0x80 for a separator of thousands; nobody else does.
                text = text.replace(b"\x80", b"")
                lines += text + (b"" if text.endswith(b"\n") else b"\n")
            if len(lines) > (30 << 20) and not h.LONG:
                break
        if len(lines) < 100_000:
            h.skip_loudly("there is hardly anything under /usr/share/doc")
        source = self.write("doc", bytes(lines))
        print(f"[{len(lines) >> 20} MiB, {lines.count(10)} lines] ", end="", file=sys.stderr, flush=True)
        for options in OPTIONS if h.LONG else OPTIONS[:4] + OPTIONS[-4:]:
            self.same(source, options, "8M" if "-u" in options or not options else "32M")


if __name__ == "__main__":
    h.main()
