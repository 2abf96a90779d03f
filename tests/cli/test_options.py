#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command's surface: help, man pages and completions say the same; messages are those of GNU sort; made data is
the same however it is made."""
import json
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

VERBS = ("sort", "group", "join", "dedupe", "partition", "gen", "simulate", "top", "doctor")


def long_names(text):
    return set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+)", text))


def help_options(verb):
    """The option lines of --help: {long name} and {letter}."""
    text = h.carbide(verb, "--help").out.decode()
    lines = [line for line in text.splitlines() if re.match(r"  (-\w|    --)", line)]
    names, letters = set(), set()
    for line in lines:
        names |= set(re.findall(r"^  (?:-\w, |    )--([a-z0-9-]+)", line))
        letters |= set(re.findall(r"^  -(\w)", line))
    return names, letters


def man_options(verb):
    """The option lines of the man page's OPTIONS chapter."""
    with open(os.path.join(h.ROOT, f"docs/man/carbide-{verb}.1.scd"), encoding="utf-8") as f:
        chapter = re.search(r"^# OPTIONS$(.*?)^# ", f.read(), re.M | re.S).group(1)
    names, letters = set(), set()
    for line in chapter.splitlines():
        if line.startswith("*-"):
            names |= set(re.findall(r"\*--([a-z0-9-]+)\*", line))
            letters |= set(re.findall(r"\*-(\w)\*", line))
    return names, letters


class Documents(h.Case):
    def test_help_and_man_page_have_the_same_options(self):
        for verb in VERBS:
            with self.subTest(verb=verb):
                self.assertEqual(help_options(verb), man_options(verb))

    def test_help_begins_with_examples_and_fits_100_columns(self):
        for verb in (*VERBS, "completions"):
            result = h.carbide(verb, "--help")
            self.assertEnded(result, 0)
            self.assertEqual(result.err, b"")
            lines = result.out.decode().splitlines()
            self.assertEqual(lines[2], "Examples:")
            self.assertLessEqual(max(map(len, lines)), 100)
            self.assertEqual(h.carbide("help", verb).out, result.out)

    def test_the_examples_use_options_that_exist(self):
        for verb in VERBS:
            used = long_names(h.carbide(verb, "--help").out.decode())
            self.assertEqual(used - help_options(verb)[0] - {"option"}, set(), verb)

    def test_man_pages_can_be_made(self):
        if shutil.which("scdoc") is None:
            h.skip_loudly("scdoc is not there: man pages cannot be made")
        for page in ("carbide", *(f"carbide-{verb}" for verb in VERBS)):
            with open(os.path.join(h.ROOT, f"docs/man/{page}.1.scd"), "rb") as source:
                made = subprocess.run(["scdoc"], stdin=source, capture_output=True)
            self.assertEqual((made.returncode, made.stderr), (0, b""), page)
            # troff takes a line that begins with a dot and is no macro of scdoc's for an unknown request and drops it
            for line in made.stdout.decode().splitlines():
                self.assertNotRegex(line, r"^\.(zst|lz4|gz|csv|tsv)", page)

    def test_completions_are_understood_by_their_shells(self):
        for shell in ("bash", "zsh", "fish"):
            result = h.carbide("completions", shell)
            self.assertEnded(result, 0)
            for verb in VERBS:
                names = help_options(verb)[0]
                self.assertEqual({n for n in names if n.encode() not in result.out}, set(), f"{shell} {verb}")
            if shutil.which(shell):
                check = subprocess.run([shell, "-n"], input=result.out, capture_output=True)
                self.assertEqual((check.returncode, check.stderr), (0, b""), shell)

    def complete(self, *words):
        """What bash offers at the end of these words."""
        script = h.carbide("completions", "bash").out.decode() + """
            compopt() { :; }
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _carbide; printf '%s\\n' "${COMPREPLY[@]}" """
        out = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, cwd=self.dir)
        self.assertEqual(out.stderr, b"")
        return out.stdout.decode().split()

    def test_bash_completes_commands_options_values_and_files(self):
        self.write("data.csv", b"")
        self.assertEqual(self.complete("carbide", "so"), ["sort"])
        self.assertEqual(self.complete("carbide", "sort", "--spill"), ["--spill-compress="])
        self.assertEqual(self.complete("carbide", "sort", "--progress", "=", "j"), ["json"])
        self.assertEqual(self.complete("carbide", "sort", "--format", "c"), ["csv"])
        self.assertEqual(self.complete("carbide", "sort", "-T", "te"), ["temp"])
        self.assertEqual(self.complete("carbide", "sort", "da"), ["data.csv"])
        self.assertEqual(self.complete("carbide", "gen", "re"), ["records"])
        self.assertEqual(self.complete("carbide", "completions", "f"), ["fish"])


class Usage(h.Case):
    def test_no_or_an_unknown_command_ends_with_2(self):
        for arguments in ([], ["nonsense"], ["help", "nonsense"], ["gen"], ["gen", "records"], ["gen", "nonsense", "-n1"],
                          ["completions"], ["completions", "csh"], ["doctor", "x"], ["simulate"], ["simulate", "a", "b"], ["gen", "group", "-n", "1", "-K", "0"]):
            result = h.carbide(*arguments)
            self.assertEnded(result, h.USAGE_OR_IO)
            self.assertEqual(result.out, b"")
            self.assertSaid(result, "--help")
        self.assertIn(b"carbide ", h.carbide("version").out)
        self.assertIn(b"carbide ", h.carbide("--version").out)

    def test_a_slip_of_the_pen_is_answered_with_the_option_that_was_meant(self):
        self.assertSaid(h.sort("--memroy", "5"), "--memory")
        self.assertSaid(h.sort("--for", "csv", "--formt", "csv"), "did you mean '--format'")

    def test_messages_of_usage_errors_are_those_of_gnu_sort(self):
        if b"GNU" not in h.gnu_sort("--version").out:
            h.skip_loudly("there is no GNU sort here")
        source = self.write("in", b"b\na\n")
        names = self.write("names", b"in\0\0in\0")
        for arguments in (["-t", "ab", source], ["-t", "", source], ["-t", "a", "-t", "b", source], ["-nM", source], ["-di", "-n", source],
                          ["-cC", source], ["-c", source, source], ["-C", "-o", "x", source], ["-o", "x", "-o", "y", source], ["-S", "x", source],
                          ["-S", "5Q", source], ["--buffer-size=99999999999999999999", source], ["--batch-size=1", source], ["--batch-size=x", source],
                          ["--parallel=0", source], ["no-such-file"], ["-o", "no/such/file", source], [self.dir], ["-Q", source],
                          ["--stable=1", source], ["-k"], ["--key"], ["--files0-from=/dev/null"],
                          ["--files0-from", names], ["--files0-from", names, source], ["--files0-from=no-such-file"]):
            with self.subTest(arguments=arguments):
                want = h.run(["sort", *arguments], cwd=self.dir)
                got = h.run(["sort", *arguments], cwd=self.dir, program=h.CARBIDE)
                self.assertEqual((got.exit, got.text), (want.exit, want.text.replace("\u2018", "'").replace("\u2019", "'")))

    def test_abbreviations_of_gnu_options_keep_their_meaning(self):
        source = self.write("in", b"a 2\nb 10\n")
        for arguments in (["--num", "--k=2"], ["--rev"], ["--sor=num", "--key=2"], ["--me"], ["--uniq"], ["--chec=q"], ["--st"], ["--hum"], ["--ver"]):
            with self.subTest(arguments=arguments):
                want = h.run(["sort", *arguments, source])
                got = h.run(["sort", *arguments, source], program=h.CARBIDE)
                self.assertEqual((got.exit, got.out), (want.exit, want.out) if arguments != ["--ver"] else (2, b""))

    def test_operands_may_stand_before_options_unless_posix_is_asked_for(self):
        source = self.write("in", b"a\nb\n")
        self.assertEqual(self.sort(source, "-r").out, b"b\na\n")
        strict = self.sort(source, "-r", env={**h.C_LOCALE, "POSIXLY_CORRECT": "1"}, cwd=self.dir)
        self.assertEnded(strict, h.USAGE_OR_IO)

    def test_the_environment_gives_a_budget_and_an_option_another(self):
        source = self.write("in", b"b\na\n")
        env = {**h.C_LOCALE, "CARBIDE_MEMORY": "99M"}
        for arguments, want in (([], 99 << 20), (["-S", "78848K"], 77 << 20), (["--memory", "78643K"], 78643 << 10)):
            result = self.sort(*arguments, "--stats=stats", source, env=env, cwd=self.dir)
            self.assertEnded(result, 0)
            self.assertEqual(json.loads(self.read("stats"))["stats"]["budget_bytes"], want)
        self.assertSaid(self.sort(source, env={**h.C_LOCALE, "CARBIDE_MEMORY": "much"}), "CARBIDE_MEMORY")

    def test_explain_says_the_plan_and_writes_nothing(self):
        source = self.write("in", h.records(1000))
        result = self.sort("--explain", "--stats=stats", "-S", "65536K", "-o", "out", source, cwd=self.dir)
        self.assertEnded(result, 0)
        self.assertFalse(os.path.exists(self.path("out")))
        plan = json.loads(self.read("stats"))["plan"]
        self.assertEqual(plan["budget_bytes"], 64 << 20)
        self.assertEqual(plan["input_bytes"], 100_000)
        self.assertIn(b"memory", result.out)

    def test_json_of_a_run_holds_every_figure(self):
        source = self.write("in", h.records(1000))
        self.assertEnded(self.sort("--stats=stats", "-q", "-o", "out", source, cwd=self.dir), 0)
        told = json.loads(self.read("stats"))
        self.assertEqual(told["status"], "CB_OK")
        self.assertEqual((told["stats"]["rows_in"], told["stats"]["rows_out"]), (1000, 1000))
        self.assertEqual((told["stats"]["bytes_in"], told["stats"]["bytes_out"]), (100_000, 100_000))
        inline = self.sort("--stats", "-q", source)
        self.assertEqual(json.loads(inline.err)["stats"]["rows_out"], 1000)

    def test_progress_as_json_lines_is_json(self):
        source = self.write("in", h.records(100_000))
        result = self.sort("--progress=json", "-S", "8M", "-o", "out", source, cwd=self.dir)
        self.assertEnded(result, 0)
        lines = [json.loads(line) for line in result.text.splitlines()]
        self.assertEqual(lines[-1]["phase"], "done")

    def test_the_closing_line_is_told_when_asked_for_and_not_by_gnu(self):
        source = self.write("in", b"b\na\n")
        self.assertSaid(self.sort("-v", source), "budget", "accounted", "peak RSS")
        self.assertEqual(self.sort(source).err, b"")
        self.assertEqual(h.run(["sort", source], program=h.CARBIDE).err, b"")


class Gen(h.Case):
    def gen(self, *arguments):
        result = h.carbide("gen", *arguments)
        self.assertEnded(result, 0)
        return result.out

    def test_threads_parts_and_targets_change_nothing(self):
        for kind in (["records"], ["records", "--binary"], ["records", "--skew"], ["lines"], ["lines", "--length", "7", "--keys", "50"],
                     ["group", "--no-header"], ["join", "--no-header"], ["join", "--table", "right"]):
            with self.subTest(kind=kind):
                count = ["-n", "50K"] if kind[0] != "group" else ["-n", "50K", "-K", "10"]
                whole = self.gen(*kind, *count, "-j1")
                self.assertEqual(self.gen(*kind, *count, "-j3"), whole)
                self.gen(*kind, *count, "-o", self.path("out"))
                self.assertEqual(self.read("out"), whole)
                self.gen(*kind, *count, "-o", self.path("out"))  # in the place of the old one
                self.assertEqual(self.read("out"), whole)
                self.assertEqual(sorted(os.listdir(self.dir)), ["out", "temp"])
                if kind[0] not in ("group", "join"):
                    parts = self.gen(*kind, "-n", "20K") + self.gen(*kind, "--start", "20K", "-n", "30K")
                    self.assertEqual(parts, whole)
                self.assertNotEqual(self.gen(*kind, *count, "--seed", "2"), whole)

    def test_records_have_the_shape_of_the_sort_benchmark(self):
        data = self.gen("records", "-n", "1000")
        self.assertEqual(len(data), 100_000)
        for i, row in enumerate(data[n:n + 100] for n in range(0, len(data), 100)):
            self.assertRegex(row, rb"^[ -~]{10}  %032X  ([0-9A-F])\1{3}[0-9A-F]{48}\r\n$" % i)
        binary = self.gen("records", "--binary", "-n", "1000")
        self.assertEqual(len(binary), 100_000)
        self.assertEqual(len({binary[n:n + 10] for n in range(0, len(binary), 100)}), 1000)

    def test_bytes_end_at_a_whole_row(self):
        for kind in (["records"], ["records", "--binary"], ["lines"], ["group"]):
            for size in (1, 33, 100, 5000, 1_500_001):
                data = self.gen(*kind, "--bytes", size)
                self.assertLessEqual(len(data), max(size, 33))
                self.assertGreater(len(data), size - 160)
                if "--binary" not in kind:
                    self.assertTrue(data == b"" or data.endswith(b"\n"))

    def test_keys_and_skew_limit_how_many_there_are(self):
        def counts(*arguments):
            data = self.gen("records", "-n", "100K", *arguments)
            seen = {}
            for n in range(0, len(data), 100):
                seen[data[n:n + 10]] = seen.get(data[n:n + 10], 0) + 1
            return sorted(seen.values(), reverse=True)

        even = counts("--keys", "100")
        self.assertEqual(len(even), 100)
        self.assertLess(even[0], 2 * even[-1])
        skewed = counts("--keys", "1000", "--skew")
        self.assertLessEqual(len(skewed), 1000)
        self.assertGreater(skewed[0], 50 * skewed[-1])

    def test_groups_have_as_many_values_as_asked_for(self):
        rows = [line.split(b",") for line in self.gen("group", "-n", "20K", "-K", "50").splitlines()]
        self.assertEqual(rows[0], b"id1,id2,id3,id4,id5,id6,v1,v2,v3".split(b","))
        columns = list(zip(*rows[1:]))
        self.assertEqual(len(rows), 20_001)
        self.assertEqual([len(set(c)) for c in columns[:8]], [50, 50, 400, 50, 50, 400, 5, 15])
        for value in columns[8]:
            self.assertRegex(value, rb"^\d{1,2}(\.\d{0,5}[1-9])?$|^[1-9](\.[1-9])?e-0[456]$")

    def test_missing_values_are_as_many_as_asked_for(self):
        for kind, columns in ((["group"], range(9)), (["join"], (2, 5, 6))):
            rows = [line.split(b",") for line in self.gen(*kind, "-n", "20K", "--missing", "5").splitlines()][1:]
            for column in columns:
                self.assertAlmostEqual(sum(row[column] == b"" for row in rows) / len(rows), 0.05, delta=0.01)

    def test_joins_have_the_keys_of_the_benchmark(self):
        def table(name, n="20K"):
            lines = self.gen("join", "-n", n, "--table", name).splitlines()
            return lines[0], [line.split(b",") for line in lines[1:]]

        header, x = table("x")
        self.assertEqual(header, b"id1,id2,id3,id4,id5,id6,v1")
        sizes = {"small": (10, 0, b"id1,id4,v2"), "medium": (20, 1, b"id1,id2,id4,id5,v2"),
                 "big": (20_000, 2, b"id1,id2,id3,id4,id5,id6,v2")}
        self.assertEqual([len({row[c] for row in x}) for c in range(3)], [10, 20, 20_000])
        for row in x:
            self.assertEqual([b"id" + key for key in row[:3]], row[3:6])
        for name, (count, key, names) in sizes.items():
            header, rows = table(name)
            self.assertEqual((header, len(rows)), (names, count))
            keys = {row[key] for row in rows}
            self.assertEqual(len(keys), count)
            common = keys & {row[key] for row in x}
            self.assertEqual(len(common), count * 9 // 10)
        header, right = table("right")
        self.assertEqual(len({row[0] for row in right}), 20_000)
        header, left = table("left")
        matched = {row[0] for row in right}
        self.assertAlmostEqual(sum(row[0] in matched for row in left) / 20_000, 0.9, delta=0.02)

    def test_what_cannot_be_written_ends_with_2(self):
        result = h.carbide("gen", "records", "-n", "10", "-o", self.path("no/such"))
        self.assertEnded(result, h.USAGE_OR_IO)
        with open("/dev/full", "wb") as full:
            self.assertEnded(h.carbide("gen", "lines", "-n", "100K", stdout=full), h.USAGE_OR_IO)


class Doctor(h.Case):
    def test_doctor_tells_the_same_to_people_and_machines(self):
        said = h.carbide("doctor", "-T", self.dir, "--disk-size", "4M")
        self.assertEnded(said, 0)
        for word in (b"memory", b"cgroup", b"CPU", b"temp", b"budget"):
            self.assertIn(word, said.out)
        told = h.carbide("doctor", "-T", self.dir, "--disk-size", "4M", "--json")
        self.assertEnded(told, 0)
        figures = json.loads(told.out)
        self.assertGreater(figures["memory_total_bytes"], 1 << 20)
        self.assertGreaterEqual(figures["cpus_allowed"], 1)
        self.assertGreater(figures["budget_auto_bytes"], figures["budget_min_bytes"])
        self.assertEqual(os.listdir(self.dir), ["temp"])

    def test_a_folder_that_does_not_exist_ends_with_2(self):
        self.assertEnded(h.carbide("doctor", "-T", self.path("none"), "--disk-size", "0"), h.USAGE_OR_IO)


if __name__ == "__main__":
    h.main()
