#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""`carbide sort --gnu` and a link called `sort` against GNU sort in the C locale.

Thousands of random inputs, option sets and budgets; what counts is the standard output or the output file, byte by
byte, and the exit code; for -c also the message. GNU sort is the oracle, so nothing here knows how to sort. A difference
is made smaller before it is reported, and its files are kept.
"""
import gzip
import os
import random
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

MONTHS = [b"JAN", b"feb", b"Mar", b"APR", b"may", b"JUN", b"Jul", b"AUG", b"sep", b"OCT", b"NOV", b"DEC", b"xyz", b"MA", b"march"]
SEPARATORS = [b",", b":", b"\t", b" ", b"x", b";"]


def number(r):
    kind = r.randrange(10)
    if kind < 4:
        return b"%d" % r.randrange(-50, 50)
    if kind < 6:
        return b"%d.%0*d" % (r.randrange(-9, 9), r.randrange(1, 6), r.randrange(0, 10))
    if kind == 6:
        return b"%d%s" % (r.randrange(-20, 3000), r.choice([b"K", b"M", b"G", b"k", b"T", b"", b"E", b"Y", b"Ki"]))
    if kind == 7:
        return r.choice([b"0", b"-0", b"00", b".5", b"-.5", b"5.", b"+3", b"-", b".", b"1,000", b"--1", b"0.0", b"1e3", b"-1e-3",
                         b"inf", b"-inf", b"nan", b"0x1F", b"1e400", b"12345678901234567890.123", b"000012"])
    if kind == 8:
        return b"%d.%d.%d" % (r.randrange(3), r.randrange(12), r.randrange(12))
    return b"%d" % r.randrange(10 ** r.randrange(1, 25))


def word(r):
    kind = r.randrange(12)
    if kind < 4:
        return bytes(r.choice(b"abAB") for _ in range(r.randrange(0, 5)))
    if kind < 7:
        return number(r)
    if kind == 7:
        return r.choice(MONTHS) + r.choice([b"", b"", b" 2", b"x"])
    if kind == 8:
        return r.choice([b"file-1.2.tar.gz", b"file-1.10", b"file-1.9~rc1", b"a~", b".hid", b"..", b".", b"", b"v1.0a", b"v1.0", b"foo07", b"foo7",
                         b"foo.c", b"foo-1.c", b"FOO~1", b"a0001", b"a01"])
    if kind == 9:
        return r.randbytes(r.randrange(0, 8)).replace(b"\n", b"").replace(b"\0", b"" if r.random() < 0.5 else b"\0")
    if kind == 10:
        return r.choice([b" ", b"  ", b"\t", b"!", b"a b", b"_-_", b"\xff\xfe", b"\xc3\xa9", b"~", b"\x7f", b"\x01"]) + b"z"
    return b"p" * r.randrange(0, 40) + b"%d" % r.randrange(5)


def content(r, zero, rows):
    separator = r.choice(SEPARATORS + [b" ", b" ", b"\t"])
    shape = r.randrange(10)
    vocabulary = [word(r) for _ in range(r.choice([2, 5, 30, 300]))]
    out = []
    for _ in range(rows):
        if shape < 7:
            row = separator.join(r.choice(vocabulary) for _ in range(r.randrange(0, 6)))
            if r.random() < 0.2:
                row = r.choice([b" ", b"\t", b"   "]) + row
        elif shape == 7:
            row = r.randbytes(r.randrange(0, 30))
        elif shape == 8:
            row = number(r)
        else:
            row = b"same"
        # GNU sort takes the byte 0x80 for a thousands separator, by accident (128 is its "no such character"): not copied.
        row = row.replace(b"\x80", b"\x81")
        out.append(row.replace(b"\0", b"") if zero else row.replace(b"\n", b""))
    end = b"\0" if zero else b"\n"
    if r.random() < 0.15:
        out.sort(reverse=r.random() < 0.3)
    data = end.join(out) + (end if out else b"")
    if data and r.random() < 0.25:
        data = data[:-1]  # the last terminator is missing
    return data


def key_options(r):
    if r.random() < 0.45:
        return ""
    return "".join(r.sample("bdfinrMhgV", r.choice([1, 1, 1, 2, 2, 3]))) if r.random() < 0.4 else \
        r.choice(["n", "r", "nr", "f", "b", "bf", "M", "h", "g", "V", "d", "i", "br", "bn", "fr", "Vr", "hr", "df", "di"])


def keydef(r):
    start = f"{r.randrange(1, 5)}" + (f".{r.randrange(1, 6)}" if r.random() < 0.3 else "") + key_options(r)
    if r.random() < 0.4:
        return start
    end = f"{r.randrange(1, 5)}" + (f".{r.randrange(0, 6)}" if r.random() < 0.3 else "") + (key_options(r) if r.random() < 0.2 else "")
    return start + "," + end


def options(r):
    """Options that both understand in the same way."""
    out = []
    if r.random() < 0.5:
        out += ["-t", r.choice([",", ":", "\t", " ", "x", ";", "\\0"])]
    for _ in range(r.choice([0, 0, 1, 1, 1, 2, 3])):
        out += ["-k", keydef(r)]
    for letter, chance in (("n", .2), ("r", .3), ("b", .15), ("f", .15), ("d", .08), ("i", .08), ("M", .08), ("h", .08), ("g", .08),
                           ("V", .1), ("u", .25), ("s", .2)):
        if r.random() < chance * (0.5 if letter in "dfiMhgV" else 1):
            out.append("-" + letter)
    return out


class Trial:
    """One random question to both sorts."""

    def __init__(self, r, rows):
        self.zero = r.random() < 0.1
        self.options = options(r)
        self.mode = r.choices(["sort", "-c", "-C", "-m"], [76, 9, 5, 10])[0]
        count = 1 if self.mode in ("-c", "-C") else r.choice([1, 1, 1, 2, 3, 5])
        self.files = [content(r, self.zero, r.choice(rows)) for _ in range(count)]
        self.stdin_at = r.choice([None, None, None, 0, count - 1])
        self.no_names = count == 1 and r.random() < 0.1
        self.output = None if self.mode in ("-c", "-C") else r.choice([None, None, None, "new", "first"])
        if self.output == "first" and self.stdin_at == 0:
            self.output = "new"
        self.memory = r.choice(["8M", "8M", "16M", "64M", "1G"])
        self.threads = r.choice(["1", "2", "2", "4"])
        self.as_link = r.random() < 0.5

    def prepare(self):
        """Inputs of a merge are sorted the same way first; what GNU sort refuses stays as it is."""
        if self.mode != "-m":
            return
        done = [h.gnu_sort(*self.arguments([]), stdin=data) for data in self.files]
        if all(d.exit == 0 for d in done):
            self.files = [d.out for d in done]

    def arguments(self, extra):
        return self.options + (["-z"] if self.zero else []) + extra

    def ask(self, folder, ours, program):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder + "/temp")
        names = []
        stdin = b""
        for i, data in enumerate(self.files):
            if self.no_names:
                stdin = data
            elif i == self.stdin_at:
                names.append("-")
                stdin = data
            else:
                names.append(f"in{i}")
                with open(f"{folder}/in{i}", "wb") as f:
                    f.write(data)
        extra = [] if self.mode == "sort" else [self.mode]
        target = {"new": "out", "first": "in0", None: None}[None if self.no_names and self.output == "first" else self.output]
        extra += ["-o", target] if target else []
        if ours:
            extra += ["-S", self.memory, "--parallel=" + self.threads, "-T", "temp"]
        argv = (["sort"] if self.as_link or not ours else [h.CARBIDE, "sort", "--gnu"]) + self.arguments(extra) + names
        result = h.run(argv, program=program if self.as_link or not ours else None, stdin=stdin, cwd=folder, timeout=60)
        result.command = argv
        result.file = None
        if target and os.path.exists(f"{folder}/{target}"):
            with open(f"{folder}/{target}", "rb") as f:
                result.file = f.read()
        result.left = os.listdir(folder + "/temp")
        return result

    def difference(self, folder):
        """What is different, in words; None when nothing is."""
        want = self.ask(folder + "/gnu", False, shutil.which("sort"))
        got = self.ask(folder + "/carbide", True, h.CARBIDE)
        if got.timed_out:
            return "it hangs", want, got
        if got.exit != want.exit:
            return f"exit {got.exit} instead of {want.exit}", want, got
        if got.out != want.out:
            return "other standard output", want, got
        if got.file != want.file:
            return "other output file", want, got
        if got.left:
            return f"left behind: {got.left}", want, got
        if self.mode == "-c" and want.exit == 1 and self.as_link and got.err != want.err and len(want.err) < 500 and b"\0" not in want.err:
            return "another message", want, got
        if want.exit == 0 and self.mode in ("-c", "-C") and got.err:
            return "a message without a reason", want, got
        return None

    def smaller(self, folder):
        """Drops files, options and rows while there is still a difference."""
        tries = 150
        for drop in ("options", "rows"):
            again = True
            while again and tries > 0:
                again = False
                for change in self.option_drops() if drop == "options" else self.row_drops():
                    tries -= 1
                    kept = (self.options, self.files)
                    self.options, self.files = change
                    if tries > 0 and self.difference(folder):
                        again = True
                        break
                    self.options, self.files = kept

    def option_drops(self):
        i = 0
        while i < len(self.options):
            step = 2 if self.options[i] in ("-k", "-t") else 1
            yield self.options[:i] + self.options[i + step:], self.files
            i += step

    def row_drops(self):
        end = b"\0" if self.zero else b"\n"
        for i, data in enumerate(self.files):
            rows = data.splitlines(True) if end == b"\n" else [x + end for x in data.split(end)]
            rows = [x for x in data.split(end)]
            size = max(1, len(rows) // 2)
            while size >= 1:
                for at in range(0, len(rows), size):
                    fewer = rows[:at] + rows[at + size:]
                    if fewer != rows:
                        yield self.options, self.files[:i] + [end.join(fewer)] + self.files[i + 1:]
                if size == 1:
                    break
                size //= 4 if size >= 4 else 2


class Gnu(h.Case):
    def run_trials(self, count, rows, name):
        failures = []
        for i in range(count):
            trial = Trial(random.Random(f"{h.SEED}:{name}:{i}"), rows)
            trial.prepare()
            folder = self.path("trial")
            found = trial.difference(folder)
            if found:
                trial.smaller(folder)
                what, want, got = trial.difference(folder) or found
                kept = f"{h.KEEP_FAILURES}/{name}-{i}"
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(folder, kept)
                inputs = [data if len(data) < 200 else data[:200] + b"..." for data in trial.files]
                failures.append(f"trial {name}:{i} ({kept}): {what}\n  {' '.join(map(repr, got.command))}\n  inputs {inputs}\n"
                                f"  want {want.exit} {(want.file or want.out)[:200]!r} {want.text[:200]!r}\n"
                                f"  got  {got.exit} {(got.file or got.out)[:200]!r} {got.text[:300]!r}")
                if len(failures) >= 10:
                    break
        if failures:
            self.fail(f"{len(failures)} differences to GNU sort (of {count} trials, seed {h.SEED}):\n" + "\n".join(failures))

    def test_small_random_inputs_give_the_bytes_and_exit_codes_of_gnu_sort(self):
        self.run_trials(20000 if h.LONG else int(2000 * h.SHARE), [0, 1, 2, 3, 5, 10, 40, 150], "small")

    def test_middling_random_inputs_give_the_bytes_of_gnu_sort(self):
        self.run_trials(600 if h.LONG else int(60 * h.SHARE), [2000, 8000], "middling")

    def test_inputs_larger_than_the_budget_give_the_bytes_of_gnu_sort(self):
        for i, extra in enumerate([[], ["-r"], ["-u"], ["-s", "-k1.3,1.5"], ["-t", "7", "-k2,2n", "-k1,1r"], ["-n", "-k3"], ["-f"], ["-k2bV,2"]]):
            if i >= (5 if h.PLAIN else 2) and not h.LONG:
                break
            data = h.records(220_000, seed=i)
            if "-u" in extra:
                data = b"".join(bytes([97 + x % 7]) * (x % 50) + b"\n" for x in range(600_000))
            source = self.write("in", data)
            want = h.gnu_sort(*extra, source)
            with open(source, "rb") as pipe:
                streamed = h.sort("--gnu", "-S", "8M", "-T", self.temp, *extra, stdin=pipe, timeout=120)
            self.assertEnded(streamed, 0)
            self.assertSameBytes(streamed.out, want.out, f"stream {extra}")
            named = h.sort("--gnu", "-S", "8M", "-T", self.temp, *extra, "-o", source, source, timeout=120)
            self.assertEnded(named, 0)
            self.assertSameBytes(self.read("in"), want.out, f"file onto itself {extra}")
            self.assertNothingLeft()

    def test_compressed_bytes_are_bytes_whatever_the_name(self):
        source = self.write("in.gz", gzip.compress(b"b\na\n") + b"\nb\na\n")
        want = h.gnu_sort(source).out
        self.assertSameBytes(h.sort("--gnu", source).out, want)
        with open(source, "rb") as file:
            self.assertSameBytes(h.sort("--gnu", stdin=file).out, want)
        self.assertEnded(h.sort("--gnu", "-o", self.path("out.gz"), source), 0)
        self.assertSameBytes(self.read("out.gz"), want)

    def test_what_gnu_sort_refuses_is_refused_with_2(self):
        source = self.write("in", b"b\na\n")
        for arguments in (["-k", "0"], ["-k", "1.0"], ["-k", "x"], ["-t", "ab"], ["-t", ""], ["-k", ""], ["-c", source, source],
                          ["-c", "-o", "x", source], ["/no/such/file"], ["-nM", source], ["-o", "/no/such/folder/x", source], ["--no-such-option"],
                          ["-k", "1,0.0x"], ["-cC", source], ["-S", "x", source], [self.dir]):
            want = h.run(["sort", *arguments], cwd=self.dir)
            got = h.run(["sort", *arguments], program=h.CARBIDE, cwd=self.dir)
            with self.subTest(arguments=arguments):
                self.assertEqual(want.exit, 2)
                self.assertEnded(got, 2)
                self.assertNotEqual(got.err, b"")
                self.assertEqual(got.out, b"")

    def test_another_collation_than_c_is_refused(self):
        source = self.write("in", b"b\na\n")
        for name in ("LC_ALL", "LC_COLLATE"):
            env = {k: v for k, v in h.C_LOCALE.items() if k != "LC_ALL"}
            refused = h.run(["sort", source], program=h.CARBIDE, env={**env, name: "de_DE.UTF-8"})
            with self.subTest(variable=name):
                self.assertEnded(refused, 2)
                self.assertSaid(refused, "LC_ALL")
        for value in ("C", "POSIX", "C.UTF-8"):
            with self.subTest(value=value):
                self.assertEnded(h.run(["sort", source], program=h.CARBIDE, env={**h.C_LOCALE, "LC_ALL": value}), 0)

    def test_a_memory_figure_below_the_smallest_budget_is_raised_as_gnu_sort_does(self):
        """GNU sort raises a small -S silently; scripts rely on it."""
        source = self.write("in", b"b\na\n")
        got = h.run(["sort", "-S", "10K", source], program=h.CARBIDE)
        self.assertEnded(got, 0)
        self.assertEqual(got.out, b"a\nb\n")


if __name__ == "__main__":
    h.main()
