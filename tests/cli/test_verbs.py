#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Group, join, dedupe and partition from outside: bad input and bad luck, each verb in the same ways. Every error has its exit
code and a message that names the place; the old output stays, nothing else is left; the budget is kept, in a container of it, too."""
import csv
import io
import os
import resource
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

OLD = b"what was there before\n"
# A run of each verb over a file that spills at 8 MiB: key k, columns i and t.
VERBS = {
    "group": ["group", "-k", "k", "sum(i)", "last(t)"],
    "giant": ["group", "median(i)", "countdistinct(t)"],
    "join": ["join", "-k", "k", "--how", "full"],
    "dedupe": ["dedupe", "-k", "k", "--keep", "max:i", "--sorted-output"],
    "partition": ["partition", "-k", "k", "-n", "7"],
}


class Verbs(h.Case):
    def table(self, rows, name="in.csv"):
        r = self.random
        return self.write(name, b"k,i,t\n" + b"".join(b"%d,%d,%s\n" % (r.randrange(rows), r.randrange(-999, 999), b"t" * r.randrange(60)) for _ in range(rows)))

    def command(self, verb, source, out=None):
        out = out or self.path("out")
        to = out + ".d/{}.csv" if verb == "partition" else out
        return [*VERBS[verb], "-T", self.temp, "-o", to, *([source] * (2 if verb == "join" else 1))]

    def outcome(self, out=None):
        out = out or self.path("out")
        found = b""
        for name in sorted(os.listdir(out + ".d")) if os.path.isdir(out + ".d") else []:
            if name.startswith("carbide-"):  # the private folder of one that was killed; the next run removes it
                continue
            with open(f"{out}.d/{name}", "rb") as f:
                found += name.encode() + b":" + f.read()
        if os.path.exists(out):
            with open(out, "rb") as f:
                found += f.read()
        return found

    def refused(self, code, *arguments, said=(), **kw):
        out = self.write("old", OLD)
        partition = arguments[0] == "partition"
        result = h.carbide(*arguments, "-T", self.temp, "-o", self.path("new/{}") if partition else out, **kw)
        self.assertEnded(result, code)
        self.assertEqual((self.read("old"), result.out), (OLD, b""), "something was written")
        self.assertSaid(result, *said)
        self.assertNothingLeft()
        left = [x for x in os.listdir(self.dir) if x.startswith(".")] + (os.listdir(self.path("new")) if os.path.isdir(self.path("new")) else [])
        self.assertEqual(left, [])
        return result

    # ---- input ----

    def test_malformed_rows_are_named_by_every_verb(self):
        rows = [b"k,i\n"] + [b"%d,1\n" % i for i in range(80_000)]
        good = self.write("good.csv", b"".join(rows))
        rows[60_000] = b"59999\n"
        bad = self.write("bad.csv", b"".join(rows))
        for verb in (["group", "-k", "k", "count()", bad], ["dedupe", "-k", "k", bad], ["dedupe", bad], ["partition", "-k", "k", bad],
                     ["join", "-k", "k", bad, good], ["join", "-k", "k", good, bad]):
            for memory in ("9M", "256M"):
                self.refused(h.BAD_DATA, *verb, "-S", memory, said=("bad.csv", "60001"))

    def test_bad_rows_are_left_out_or_kept_by_every_verb(self):
        bad = self.write("bad.csv", b"k,i\n1,2\nragged\n1,x\n3,4,5\n2,7\n")
        right = self.write("right.csv", b"k,z\n1,a\n2,b,c\n2,d\n")
        kept = self.path("kept")
        for verb, want in ((["group", "-k", "k", "sum(i)"], b"k,sum(i)\n1,2\n2,7\n"), (["dedupe", "-k", "k"], b"k,i\n1,2\n2,7\n"),
                           (["dedupe", "-k", "k", "--keep", "max:i"], b"k,i\n1,2\n2,7\n"), (["join", "-k", "k"], b"k,i,z\n1,2,a\n1,x,a\n2,7,d\n")):
            files = [bad, right] if verb[0] == "join" else [bad]
            for what in ("skip", kept):
                result = h.carbide(*verb, "--bad-rows", what, *files)
                self.assertEnded(result, 0)
                self.assertEqual(result.out, want, verb)
            rows = set(self.read("kept").splitlines())
            self.assertLessEqual({b"ragged", b"3,4,5"}, rows)
            self.assertEqual(b"1,x" in rows, "sum(i)" in verb or "max:i" in verb, verb)
            self.assertEqual(b"2,b,c" in rows, verb[0] == "join", verb)

    def test_an_input_never_takes_bad_rows_and_one_file_not_two_results(self):
        left, right = self.write("left.csv", b"k,i\n1,2\n"), self.write("right.csv", b"k,z\n1,a\n")
        for path in (left, right):
            self.refused(h.USAGE_OR_IO, "join", "-k", "k", "--bad-rows", path, left, right, said=(path, "input"))
        self.assertEqual((self.read("left.csv"), self.read("right.csv")), (b"k,i\n1,2\n", b"k,z\n1,a\n"))
        self.assertEnded(h.carbide("dedupe", "-o", right, "--duplicates", right, left), h.USAGE_OR_IO)
        self.assertEqual(self.read("right.csv"), b"k,z\n1,a\n")

    def test_columns_that_are_missing_are_named_with_those_there_are(self):
        source = self.write("in.csv", b"carrier,delay\nUA,3\n")
        for verb in (["group", "-k", "carier", "count()"], ["group", "-k", "carrier", "sum(carier)"], ["dedupe", "-k", "carier"],
                     ["dedupe", "-k", "carrier", "--keep", "max:carier"], ["partition", "-k", "carier"], ["join", "-k", "carier", source]):
            self.refused(h.USAGE_OR_IO, *verb, source, said=("carier", "carrier"))
        self.refused(h.USAGE_OR_IO, "join", "--left-key", "carrier", "--right-key", "code", source, source, said=("code",))

    def test_a_value_that_is_no_number_is_named_with_its_place(self):
        source = self.write("in.csv", b"k,i\n1,2\n1,2\n1,many\n")
        for verb in (["group", "-k", "k", "sum(i)"], ["group", "median(i)"], ["dedupe", "-k", "k", "--keep", "max:i"]):
            self.refused(h.BAD_DATA, *verb, source, said=("in.csv", "4", "many", "'i'"))

    def test_a_sum_that_128_bits_do_not_hold_names_the_group(self):
        huge = b"9" * 38
        source = self.write("in.csv", b"k,i\n" + b"a,1\n" + b"b," + huge + b"\nb," + huge + b"\n")
        self.refused(h.BAD_DATA, "group", "-k", "k", "sum(i)", source, said=("'i'", "'b'", "128"))
        result = h.carbide("group", "-k", "k", "max(i)", "mean(i)", source)
        self.assertEqual(result.out.splitlines()[2], b"b,%s,%s" % (huge, b"1" + b"0" * 38))
        source = self.write("in.csv", b"k,i\na," + huge + b"\na,0." + b"1" * 20 + b"\n")
        self.refused(h.BAD_DATA, "group", "-k", "k", "sum(i)", source, said=("'i'", "128", "decimal places"))  # no matter which groups
        for words in (["-k", "k", "last(k)"], ["-k", "k:num"], ["-k", "k:num", "--sorted-output"], ["-k", "k", "-k", "i", "top2(i)"]):
            for threads in ("1", "2"):
                source = self.write("typed.csv", b"k,i\n" + b"".join(b"%d.0,1\n" % n for n in range(90)) + b"7.0," + huge + b"\n" + b"7.0," + huge + b"\n")
                self.refused(h.BAD_DATA, "group", *words, "sum(i)", "-j", threads, source, said=("'i'", "'7.0" + ("," + huge.decode())[:40 if "i" in words else 0]))
        giant = self.write("giant.csv", b"k,i\na,1\n" + b"b,5\n" * 400_000 + (b"b," + huge + b"\n") * 2)
        for aggregate in ("last(k)", "median(i)", "count()"):
            self.refused(h.BAD_DATA, "group", "-k", "k", "sum(i)", aggregate, "-S", "7M", giant, said=("'i'", "'b'"))
        self.refused(h.BAD_DATA, "group", "sum(i)", self.write("in.csv", b"i\n1\n" + b"9" * 39 + b"\n"), said=("in.csv", "3", "38"))

    def test_numbers_are_quoted_where_the_separator_stands_in_them(self):
        rows = b"k;i\n" + b"a;1\n" * 60_000 + b"a;-2,5\na;-2.5\nb;7\n"
        for separator, rows, budget in ((";", rows.replace(b"-2,5", b"3"), "64M"), (";", rows.replace(b"-2,5", b"3"), "6M"), (".", b'k.i\na.1\na."3"\na."-2.5"\nb.7\n', "64M")):
            source = self.write("in.csv", rows)
            aggregates = ["top2(i)", "bottom2(i)", "top2(i:str)", "sum(i)", "min(i)"]
            if len(rows) > 1000:
                aggregates += ["collect(k)"]
            result = h.carbide("group", "-t", separator, "-k", "k", *aggregates, "-S", budget, source)
            self.assertEnded(result, 0)
            out = list(csv.reader(io.StringIO(result.out.decode()), delimiter=separator))
            total = str(60_000 + 0.5) if len(rows) > 1000 else "1.5"
            self.assertEqual([row[:6] for row in out[1:]], [["a", "3;1", "-2.5;1", "3;1", total, "-2.5"], ["b", "7", "7", "7", "7", "7"]])
            result = h.carbide("group", "-t", separator, "-k", "k", "sum(i)", "mean(i)", source)
            self.assertEqual([len(row) for row in csv.reader(io.StringIO(result.out.decode()), delimiter=separator)], [3, 3, 3])

    def test_empty_inputs_give_empty_results(self):
        none, header = self.write("none.csv", b""), self.write("header.csv", b"k,i\n")
        for source in (none, header):
            self.assertEnded(h.carbide("dedupe", source), 0)
            self.assertEqual(h.carbide("group", "count()", "sum(i)" if source == header else "count()", source).exit, 0)
            self.assertEnded(h.carbide("partition", "-n", "2", "-o", self.path("p/{}.csv"), source), 0)
        self.assertEqual(h.carbide("group", "count()", "sum(i)", "median(i)", "max(i)", header).out, b"count(),sum(i),median(i),max(i)\n0,,,\n")
        self.assertEqual(h.carbide("group", "-k", "k", "count()", header).out, b"k,count()\n")
        self.assertEqual(h.carbide("dedupe", "-k", "k", header).out, b"k,i\n")
        full = self.write("full.csv", b"k,i\n1,2\n")
        for how, left, right, want in (("inner", header, full, b""), ("left", full, header, b"1,2,\n"), ("full", header, full, b"1,,2\n"),
                                       ("anti", full, header, b"1,2\n"), ("semi", header, header, b"")):
            result = h.carbide("join", "-k", "k", "--how", how, left, right)
            self.assertEnded(result, 0)
            self.assertEqual(result.out.split(b"\n", 1)[1], want, how)

    def test_about_how_many_different_values_is_about_right(self):
        """Nothing of it is chance: the hash has no seed. One standard deviation is 1.6 %."""
        source = self.write("in.csv", b"k,i\n" + b"".join(b"%d,%d\n" % (n < 1000, n) for n in range(60_000)) + b"0,7\n" * 60_000)
        outs = {h.carbide("group", "-k", "k", "approxdistinct(i)", "approxdistinct(i:num)", "-S", memory, source).out for memory in ("9M", "256M")}
        self.assertEqual(len(outs), 1)
        for line, exact in zip(outs.pop().splitlines()[1:], (1000, 59_001)):
            for value in line.split(b",")[1:]:
                self.assertLess(abs(int(value) - exact), 0.05 * exact, line)

    def test_headers_that_differ_between_inputs_are_an_error(self):
        one, other = self.write("one.csv", b"k,i\n1,2\n"), self.write("other.csv", b"i,k\n1,2\n")
        for verb in (["group", "-k", "k", "count()"], ["dedupe"], ["partition", "-k", "k"]):
            self.refused(h.BAD_DATA, *verb, one, other, said=("other.csv", "header"))

    def test_a_hundred_thousand_columns(self):
        names = [b"c%d" % i for i in range(100_000)]
        rows = [b",".join(b"%d" % ((i * 7 + row) % 10) for i in range(100_000)) for row in range(4)]
        source = self.write("in.csv", b"\n".join([b",".join(names), *rows, rows[0]]) + b"\n")
        result = h.carbide("group", "-k", "c99999", "sum(c50000)", "count()", "-S", "64M", source)
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"c99999,sum(c50000),count()\n3,0,2\n4,1,1\n5,2,1\n6,3,1\n")
        result = h.carbide("dedupe", "-S", "64M", source)
        self.assertEqual(result.out, b"\n".join([b",".join(names), *rows]) + b"\n")
        result = h.carbide("join", "-k", "c0", "--how", "semi", "-S", "64M", source, source)
        self.assertEqual(result.out.count(b"\n"), 6)
        self.assertEnded(h.carbide("partition", "-k", "c7", "-S", "64M", "-o", self.path("p/{}.csv"), source), 0)
        self.assertEqual(len(os.listdir(self.path("p"))), 4)

    def test_a_thousand_keys_and_aggregates(self):
        names = [b"c%d" % i for i in range(1000)]
        source = self.write("in.csv", b",".join(names) + b"\n" + b",".join([b"1"] * 1000) + b"\n")
        for rows, want in ((source, b"1"), (self.write("empty.csv", b",".join(names) + b"\n"), b"")):
            result = h.carbide("group", *(f"sum(c{i})" for i in range(1000)), *(f"max(c{i})" for i in range(1000)), rows)
            self.assertEnded(result, 0)
            self.assertEqual(result.out.split(b"\n")[1], b",".join([want] * 2000))

    def test_one_giant_group_and_one_giant_key_on_both_sides(self):
        source = self.write("in.csv", b"k,i\n" + b"".join(b"one,%d\n" % i for i in range(300_000)))
        for words, want in ((["count()", "sum(i)", "median(i)"], b"one,300000,44999850000,149999.5\n"), (["countdistinct(i)", "last(i)"], b"one,300000,299999\n")):
            result = h.carbide("group", "-k", "k", *words, "-S", "9M", "-T", self.temp, source)
            self.assertEnded(result, 0)
            self.assertEqual(result.out.split(b"\n", 1)[1], want)
        self.assertEqual(h.carbide("dedupe", "-k", "k", "--keep", "last", "-S", "9M", source).out, b"k,i\none,299999\n")
        both = self.write("both.csv", b"k,i\n" + b"".join(b"one,%d%s\n" % (i, b"." * 2000) for i in range(1200)))
        result = h.carbide("join", "-k", "k", "--select", "left.k", "-S", "9M", "-T", self.temp, "-o", self.path("out"), both, both)
        self.assertEnded(result, 0)
        self.assertEqual(self.read("out"), b"k\n" + b"one\n" * 1_440_000)

    def test_one_giant_row(self):
        huge = b"x" * (3 << 20)
        source = self.write("in.csv", b"k,i\n" + b"".join(b"%d,1\n" % i for i in range(1000)) + b"5," + huge + b"\n" + huge + b",7\n")
        result = h.carbide("dedupe", "-k", "k", "--keep", "last", "-S", "96M", source)
        self.assertEnded(result, 0)
        self.assertEqual(len(result.out), os.path.getsize(source) - 4)
        result = h.carbide("join", "-k", "k", "-S", "96M", source, source)
        self.assertEnded(result, 0)
        result = h.carbide("group", "-k", "k", "count()", "-S", "96M", source)
        self.assertEqual(result.out.count(b"\n"), 1002)
        for verb in (["group", "-k", "k", "max(i:str)"], ["dedupe", "-k", "k"], ["join", "-k", "k", source], ["partition", "-k", "k", "-n", "3"]):
            result = self.refused(h.BUDGET, *verb, "-S", "8M", source, said=("--memory",))

    def test_keys_chosen_against_a_hash_cost_no_more_than_others(self):
        """The seed is another in every run: what floods one table is nothing to the next. Chains of one bit more each."""
        rows = b"k,i\n" + b"".join(b"%s,1\n" % bytes([65 + (n >> 12), 65 + (n >> 6 & 63), 65 + (n & 63)]) * 1 for n in range(1 << 14) if not {n >> 12, n >> 6 & 63, n & 63} & {27})
        source = self.write("in.csv", rows.replace(b'"', b"q"))
        seen = {h.carbide("group", "-k", "k", "count()", "-S", "16M", source).out for _ in range(3)}
        self.assertEqual(len(seen), 1, "the seed shows")

    # ---- luck ----

    def run_all(self, source):
        for verb in VERBS:
            command = self.command(verb, source)
            if os.path.exists(self.path("out")):
                os.unlink(self.path("out"))
            started = time.monotonic()
            self.assertEnded(h.carbide(*command, "-S", "8M", timeout=120), 0)
            yield verb, command, time.monotonic() - started

    def test_signals_leave_nothing_of_any_verb(self):
        source = self.table(120_000)
        for verb, command, whole in self.run_all(source):
            want = self.outcome()
            stopped = 0
            numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL] * (20 if h.LONG else 3 if h.PLAIN else 1)
            while numbers:
                number = numbers.pop()
                if verb != "partition":
                    self.write("out", OLD)
                process = subprocess.Popen(h.with_room([h.CARBIDE, *command, "-S", "8M"]), env=h.C_LOCALE, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(self.random.random() * whole)
                process.send_signal(number)
                code = process.wait(timeout=60)
                stopped += code != 0
                whole *= 1 if code else 0.7  # the first run was a slow one: sooner, until some are stopped
                if not code and not stopped and not numbers and whole > 0.001:
                    numbers.append(number)
                if code:
                    self.assertIn(code, (128 + number, -number), verb)
                now = self.outcome()
                self.assertTrue(now == want or now.startswith(OLD) or verb == "partition", f"{verb}: neither the old output nor the new one")
                self.assertNothingLeft()
                names = set(os.listdir(self.dir)) - {"in.csv", "out", "out.d", "temp"}
                self.assertEqual(names, set(), verb)
            self.assertGreater(stopped, 0, verb)

    def test_kill_9_gives_every_block_back(self):
        with h.mounted("ext4", 200 << 20, self.path("disk")) as folder:
            source = self.table(120_000)
            temp = os.path.join(folder, "temp")
            os.mkdir(temp)
            for verb in ("group", "giant", "join", "dedupe"):
                for i in range(100 if h.LONG else 4):
                    h.run(["sync", "-f", folder])
                    s = os.statvfs(folder)
                    before = (s.f_bfree, s.f_ffree)
                    command = [*VERBS[verb], "-S", "8M", "-T", temp, "-o", os.path.join(folder, "out"), *([source] * (2 if verb == "join" else 1))]
                    process = subprocess.Popen([h.CARBIDE, *command], env=h.C_LOCALE, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    time.sleep(self.random.random() * 0.3)
                    process.kill()
                    process.wait()
                    if os.path.exists(os.path.join(folder, "out")):
                        os.unlink(os.path.join(folder, "out"))
                    for _ in range(50):
                        h.run(["sync", "-f", folder])
                        s = os.statvfs(folder)
                        if s.f_bfree >= before[0] and s.f_ffree >= before[1]:
                            break
                        time.sleep(0.05)
                    self.assertTrue(s.f_bfree >= before[0] and s.f_ffree >= before[1], f"{verb}: blocks or inodes stay taken")
                    self.assertEqual(sorted(os.listdir(folder)), ["lost+found", "temp"])

    def test_a_full_disk_is_an_error_with_4_for_temporary_files_and_2_for_the_output(self):
        with h.mounted("ext4", 8 << 20, self.path("disk")) as folder:
            source = self.table(300_000)
            for verb in VERBS:
                command = self.command(verb, source)
                command[command.index("-T") + 1] = folder
                result = h.carbide(*command, "-S", "8M", timeout=120)
                self.assertEnded(result, h.TEMP_SPACE)
                self.assertRegex(result.text, "full|free", verb)
                self.assertEqual(os.listdir(folder), ["lost+found"], verb)
                self.assertEqual(self.outcome(), b"")
            for verb in ("join", "dedupe", "partition"):
                command = self.command(verb, source, os.path.join(folder, "out"))
                result = h.carbide(*command, "-S", "64M", timeout=120)
                self.assertEnded(result, h.USAGE_OR_IO)
                self.assertRegex(result.text, "full|space", verb)
                self.assertEqual([n for n in os.listdir(folder) if n != "lost+found" and not (n == "out.d" and not os.listdir(f"{folder}/out.d"))], [], verb)

    def test_a_reader_that_goes_away_ends_every_verb_by_sigpipe(self):
        source = self.table(60_000)
        for verb in (["dedupe", "-k", "i,t", source], ["join", "-k", "k", source, source], ["group", "-k", "k", "first(t)", source]):
            process = subprocess.Popen([h.CARBIDE, *verb, "-S", "32M", "-T", self.temp], env=h.C_LOCALE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            process.stdout.readline()
            process.stdout.close()
            self.assertIn(process.wait(timeout=60), (-signal.SIGPIPE, 128 + signal.SIGPIPE), verb)
            self.assertNothingLeft()

    def test_few_descriptors_are_enough(self):
        source = self.table(20_000)
        result = h.carbide("partition", "-k", "k", "-S", "16M", "-T", self.temp, "-o", self.path("p/{}.csv"), source,
                           preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32)))
        self.assertEnded(result, 0)
        self.assertGreater(len(os.listdir(self.path("p"))), 10_000)

    # ---- memory ----

    def test_every_verb_keeps_its_budget_in_a_container_of_it(self):
        h.need_plain_build()
        source = self.table(400_000)
        table = []
        for verb in VERBS:
            for memory in (32, 64):
                command = self.command(verb, source)
                cgroup = memory << 20 if h.cgroup_kind() != "none" else None
                got = h.measure([h.CARBIDE, *command, "-S", f"{memory}M"], cgroup=cgroup, timeout=120)
                self.assertEqual((got["exit"], got["oom_kills"]), (0, 0), f"{verb} in {memory} MiB: {got}")
                self.assertLessEqual(got["rss_peak"], (memory << 20) + h.DEBUG_BYTES, f"{verb} in {memory} MiB")
                table.append(f"{verb} {memory}: {got['rss_peak'] / h.MIB:.1f}")
        print(f"[peak RSS, MiB: {', '.join(table)}] ", end="", file=sys.stderr, flush=True)

    def test_every_verb_keeps_8_MiB(self):
        h.need_plain_build()
        source = self.table(150_000)
        for verb in VERBS:
            got = h.measure([h.CARBIDE, *self.command(verb, source), "-S", "8M"], timeout=120)
            self.assertEqual(got["exit"], 0, f"{verb}: {got}")
            self.assertLessEqual(got["rss_peak"], (8 << 20) + h.DEBUG_BYTES, verb)


if __name__ == "__main__":
    h.main()
