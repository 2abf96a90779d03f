#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`carbide sort` in its own personality: CSV, TSV, fixed records, headers, typed keys, compressed files, pipes.

The oracle is Python: rows are made here together with their parsed values, so the expected bytes come from a stable sort of the
rows as they stand, and every CSV output is read back with Python's csv module.
"""
import csv
import decimal
import gzip
import io
import os
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h


def quoted(field, r):
    """The field in CSV: quoted where it must be, and sometimes where it need not be."""
    if any(c in field for c in ",\"\r\n") or r.random() < 0.2:
        return '"' + field.replace('"', '""') + '"'
    return field


def csv_table(r, rows, end="\r\n"):
    """Rows as (text, fields): name (awkward text), price (decimal text), count (int), note (with line ends)."""
    words = ["", "a", "b", "A", "aa", "a,b", 'say "hi"', "line\nbreak", "cr\r\nlf", "é", "\u4e2d", " lead", "trail ", '"', ",", "\n", "zz"]
    out = []
    for i in range(rows):
        fields = [r.choice(words) + r.choice(["", str(r.randrange(30))]), f"{r.randrange(-500, 500)}.{r.randrange(100):02d}",
                  str(r.randrange(-20, 20)), "\n" * r.randrange(3) + f"note {i}" + '"' * r.randrange(2)]
        out.append((",".join(quoted(f, r) for f in fields) + end, fields))
    return out


HEADER = "name,price,count,note\r\n"


class Csv(h.Case):
    def check(self, table, key, arguments, header=HEADER, **kw):
        source = self.write("in.csv", (header + "".join(t for t, _ in table)).encode())
        want = (header + "".join(t for t, _ in sorted(table, key=key))).encode()
        result = self.sort("--memory", "16M", *arguments, "-o", self.path("out.csv"), source, **kw)
        self.assertEnded(result, 0)
        self.assertSameBytes(self.read("out.csv"), want, " ".join(arguments))
        got = list(csv.reader(io.StringIO(self.read("out.csv").decode(), newline="")))
        self.assertEqual(len(got), len(table) + 1)
        self.assertNothingLeft()

    def test_rows_with_quoted_separators_quotes_and_newlines_stay_whole(self):
        for rows in (0, 1, 2, 50, 5000):
            self.check(csv_table(self.random, rows), lambda t: t[1][0].encode(), ["-k", "name"])

    def test_typed_keys_by_name_and_direction(self):
        table = csv_table(self.random, 4000)
        price = lambda t: decimal.Decimal(t[1][1])
        self.check(table, price, ["-k", "price:num"])
        self.check(table, lambda t: -price(t), ["-k", "price:num:desc"])
        self.check(table, lambda t: float(t[1][1]), ["-k", "price:float"])
        self.check(table, lambda t: (int(t[1][2]), -price(t)), ["-k", "count:int", "-k", "price:num:desc"])
        self.check(table, lambda t: (t[1][0].encode(), -price(t)), ["-k", "name", "-k", "price:num:desc"])
        self.check(table, lambda t: (-int(t[1][2]), t[1][0].encode()), ["-k", "count:int:desc", "-k", "name:str"])

    def test_descending_strings_keep_the_input_order_of_equal_rows(self):
        table = csv_table(self.random, 3000)
        want = sorted(table, key=lambda t: t[1][0].encode(), reverse=True)
        # sorted(reverse=True) keeps the order of equal rows, which is what stable means.
        source = self.write("in.csv", (HEADER + "".join(t for t, _ in table)).encode())
        result = self.sort("-k", "name:str:desc", "-o", self.path("out.csv"), source)
        self.assertEnded(result, 0)
        self.assertSameBytes(self.read("out.csv"), (HEADER + "".join(t for t, _ in want)).encode())

    def test_a_spilling_csv_sort_gives_the_same_bytes(self):
        table = csv_table(self.random, 250_000 if h.LONG else 120_000)
        for memory in ("8M", "64M"):
            self.check(table, lambda t: (t[1][0].encode(), -decimal.Decimal(t[1][1])),
                       ["-k", "name", "-k", "price:num:desc", "--memory", memory], timeout=120)

    def test_the_whole_row_is_the_key_when_none_is_given(self):
        table = csv_table(self.random, 500)
        source = self.write("in.csv", (HEADER + "".join(t for t, _ in table)).encode())
        result = self.sort(source)
        self.assertEnded(result, 0)
        got = list(csv.reader(io.StringIO(result.out.decode(), newline="")))
        self.assertEqual(got[0], HEADER.strip().split(","))
        self.assertEqual(sorted(map(tuple, got[1:])), sorted(tuple(f) for _, f in table))

    def test_unique_keeps_the_first_row_of_equal_keys(self):
        table = csv_table(self.random, 3000)
        first = {}
        for text, fields in table:
            first.setdefault(int(fields[2]), text)
        source = self.write("in.csv", (HEADER + "".join(t for t, _ in table)).encode())
        result = self.sort("-u", "-k", "count:int", source)
        self.assertEnded(result, 0)
        self.assertSameBytes(result.out, (HEADER + "".join(first[k] for k in sorted(first))).encode())

    def test_a_missing_final_newline_is_added(self):
        source = self.write("in.csv", b"a,b\nz,1\ny,2")
        result = self.sort("-k", "a", source)
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"a,b\ny,2\nz,1\n")

    def test_the_header_of_several_files_is_written_once(self):
        one, two = self.write("1.csv", b"a,b\nz,1\n"), self.write("2.csv", b"a,b\ny,2\n")
        result = self.sort("-k", "a", one, two)
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"a,b\ny,2\nz,1\n")
        result = self.sort("-k", "a", one, self.write("3.csv", b"a,c\ny,2\n"))
        self.assertEnded(result, h.BAD_DATA)
        self.assertSaid(result, "3.csv", "header")

    def test_no_header_sorts_the_first_row_too(self):
        source = self.write("in.csv", b"z,1\ny,2\n")
        result = self.sort("--no-header", "-k", "1,1", source)
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"y,2\nz,1\n")

    def test_a_header_can_be_asked_for_in_lines(self):
        source = self.write("in.txt", b"zzz title\nc\na\n")
        result = self.sort("--header", source)
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"zzz title\na\nc\n")

    def test_an_unknown_column_is_refused_with_the_names_there_are(self):
        source = self.write("in.csv", b"a,b\nz,1\n")
        result = self.sort("-k", "nope", source)
        self.assertEnded(result, h.USAGE_OR_IO)
        self.assertSaid(result, "nope", "a", "b")

    def test_tsv_and_another_separator(self):
        tsv = self.write("in.tsv", b"k\tv\nb\t\"\na\t2\n")
        result = self.sort("-k", "k", tsv)
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"k\tv\na\t2\nb\t\"\n")
        semicolon = self.write("in.csv", b"k;v\n\"b;x\";1\na;2\n")
        result = self.sort("-t", ";", "-k", "k", semicolon)
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"k;v\na;2\n\"b;x\";1\n")

    def test_empty_fields_go_together_and_first_or_last_as_asked(self):
        source = self.write("in.csv", b"v\n5\n\"\"\n-2\n\n10\n".replace(b"\n\n", b"\n\"\"\n"))
        first = self.sort("-k", "v:num:nulls=first", source)
        last = self.sort("-k", "v:num:nulls=last", source)
        self.assertEnded(first, 0)
        self.assertEnded(last, 0)
        self.assertEqual(first.out, b"v\n\"\"\n\"\"\n-2\n5\n10\n")
        self.assertEqual(last.out, b"v\n-2\n5\n10\n\"\"\n\"\"\n")


class Fixed(h.Case):
    def test_records_by_a_slice_of_bytes(self):
        data = h.records(60_000, shape="fixed")
        rows = [data[i:i + 100] for i in range(0, len(data), 100)]
        source = self.write("in.bin", data)
        for memory in ("8M", "64M"):
            result = self.sort("--format", "fixed:100", "--memory", memory, "-k", "str@0+10", "-o",
                               self.path("out"), source)
            self.assertEnded(result, 0)
            self.assertSameBytes(self.read("out"), b"".join(sorted(rows, key=lambda x: x[:10])), memory)
        self.assertNothingLeft()

    def test_whole_records_with_newlines_and_nuls_inside(self):
        rows = [self.random.randbytes(7) for _ in range(5000)]
        source = self.write("in.bin", b"".join(rows))
        result = self.sort("--format", "fixed:7", source)
        self.assertEnded(result, 0)
        self.assertSameBytes(result.out, b"".join(sorted(rows)))

    def test_integers_in_both_byte_orders(self):
        for kind, code in (("u32le", "<I"), ("u32be", ">I"), ("i64le", "<q"), ("i16be", ">h"), ("u8", "<B"), ("f64le", "<d")):
            size = struct.calcsize(code)
            unpack = lambda row: struct.unpack(code, row[2:2 + size])[0]
            if code == "<d":
                rows = [b"xx" + struct.pack(code, self.random.uniform(-5, 5)) + b"%03d" % (i % 1000) for i in range(3000)]
            else:
                rows = [b"xx" + self.random.randbytes(size) + b"%03d" % (i % 1000) for i in range(3000)]
            source = self.write("in.bin", b"".join(rows))
            with self.subTest(type=kind):
                result = self.sort("--format", f"fixed:{len(rows[0])}", "-k", f"{kind}@2", source)
                self.assertEnded(result, 0)
                self.assertSameBytes(result.out, b"".join(sorted(rows, key=unpack)), kind)

    def test_a_file_that_is_no_multiple_of_the_record_is_malformed(self):
        source = self.write("in.bin", b"x" * 105)
        result = self.sort("--format", "fixed:10", source)
        self.assertEnded(result, h.BAD_DATA)
        self.assertSaid(result, "in.bin", "10")


class Lines(h.Case):
    def test_records_in_the_sort_benchmarks_shape(self):
        data = h.records(50_000)
        source = self.write("in", data)
        result = self.sort("--memory", "8M", "-o", self.path("out"), source)
        self.assertEnded(result, 0)
        self.assertSameBytes(self.read("out"), b"".join(sorted(data.splitlines(True))))

    def test_equal_keys_keep_the_input_order_over_any_budget(self):
        rows = [b"%d %06d %s\n" % (self.random.randrange(5), i, b"x" * self.random.randrange(60)) for i in range(300_000)]
        source = self.write("in", b"".join(rows))
        want = b"".join(sorted(rows, key=lambda x: x[:1]))
        for memory in ("8M", "64M", "1G"):
            result = self.sort("--memory", memory, "-t", " ", "-k", "1,1", "-o", self.path("out"), source)
            self.assertEnded(result, 0)
            self.assertSameBytes(self.read("out"), want, memory)

    def test_check_says_the_place_and_merge_takes_sorted_files(self):
        source = self.write("in", b"a\nc\nb\n")
        result = self.sort("-c", source)
        self.assertEnded(result, h.DISORDER)
        self.assertSaid(result, "in:3")
        self.assertEnded(self.sort("-c", self.write("ok", b"a\nb\n")), 0)
        one, two = self.write("1", b"a\nc\n"), self.write("2", b"b\nd\n")
        result = self.sort("-m", one, two)
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"a\nb\nc\nd\n")

    def test_many_files_are_merged_in_more_than_one_pass(self):
        rows = [[b"%08d %s\n" % (self.random.randrange(10 ** 8), b"y" * 50) for _ in range(300)] for _ in range(400)]
        names = [self.write(f"in{i:03}", b"".join(sorted(x))) for i, x in enumerate(rows)]
        result = self.sort("-m", "--memory", "8M", *names)
        self.assertEnded(result, 0)
        self.assertSameBytes(result.out, b"".join(sorted(x for part in rows for x in part)))


class Compressed(h.Case):
    def setUp(self):
        super().setUp()
        self.rows = [b"%09d some text %d\n" % (self.random.randrange(10 ** 9), i) for i in range(40_000)]
        self.want = b"".join(sorted(self.rows))

    def tool(self, name):
        if shutil.which(name) is None:
            h.skip_loudly(f"{name} is not there")
        return name

    def squeeze(self, suffix, data):
        if suffix == ".gz":
            return gzip.compress(data)
        return subprocess.run([self.tool({".zst": "zstd", ".lz4": "lz4"}[suffix]), "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout

    def expand(self, suffix, data):
        if suffix == ".gz":
            return gzip.decompress(data)
        return subprocess.run([self.tool({".zst": "zstd", ".lz4": "lz4"}[suffix]), "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout

    def test_each_codec_in_and_out(self):
        for suffix in (".gz", ".zst", ".lz4"):
            with self.subTest(codec=suffix):
                source = self.write("in.txt" + suffix, self.squeeze(suffix, b"".join(self.rows)))
                for memory in ("16M", "256M"):
                    result = self.sort("--memory", memory, "-o", self.path("out.txt" + suffix), source)
                    self.assertEnded(result, 0)
                    self.assertSameBytes(self.expand(suffix, self.read("out.txt" + suffix)), self.want, suffix)
                self.assertNothingLeft()

    def test_compressed_members_that_follow_each_other_are_one_input(self):
        half = len(self.rows) // 2
        for suffix in (".gz", ".zst", ".lz4"):
            with self.subTest(codec=suffix):
                source = self.write("in" + suffix, self.squeeze(suffix, b"".join(self.rows[:half])) + self.squeeze(suffix, b"".join(self.rows[half:])))
                result = self.sort(source)
                self.assertEnded(result, 0)
                self.assertSameBytes(result.out, self.want, suffix)

    def test_compressed_output_does_not_depend_on_budget_or_threads(self):
        source = self.write("in", b"".join(self.rows) * 20)
        for suffix in (".gz", ".zst", ".lz4"):
            seen = set()
            for memory, threads in (("16M", 1), ("64M", 2), ("1G", 4)):
                self.assertEnded(self.sort("--memory", memory, "-j", threads, "-o", self.path("out" + suffix), source), 0)
                seen.add(self.read("out" + suffix))
            self.assertEqual(len(seen), 1, suffix)

    def test_a_csv_keeps_its_format_under_a_compression_suffix(self):
        source = self.write("in.csv.gz", gzip.compress(b"a,b\n\"z\n\",1\ny,2\n"))
        result = self.sort("-k", "a", source)
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"a,b\ny,2\n\"z\n\",1\n")

    def test_a_damaged_or_cut_file_is_an_error_and_no_output(self):
        for suffix in (".gz", ".zst", ".lz4"):
            whole = bytearray(self.squeeze(suffix, b"".join(self.rows)))
            cut = self.write("cut" + suffix, bytes(whole[:len(whole) * 2 // 3]))
            for at in range(len(whole) // 2, len(whole) // 2 + 40):
                whole[at] ^= 0x55
            broken = self.write("broken" + suffix, bytes(whole))
            for source in (cut, broken):
                with self.subTest(source=os.path.basename(source)):
                    result = self.sort("-o", self.path("out"), source)
                    self.assertFalse(result.timed_out)
                    self.assertIn(result.exit, (h.USAGE_OR_IO, h.BAD_DATA), repr(result))
                    self.assertSaid(result, os.path.basename(source))
                    self.assertFalse(os.path.exists(self.path("out")))
                    self.assertNothingLeft()


class Pipes(h.Case):
    def test_standard_input_to_standard_output(self):
        data = h.records(120_000)
        want = b"".join(sorted(data.splitlines(True)))
        for memory in ("8M", "64M"):
            source = self.write("in", data)
            feeder = subprocess.Popen(["cat", source], stdout=subprocess.PIPE)
            result = self.sort("--memory", memory, stdin=feeder.stdout)
            feeder.stdout.close()
            feeder.wait()
            self.assertEnded(result, 0)
            self.assertSameBytes(result.out, want, memory)
            self.assertNothingLeft()

    def test_a_dash_stands_for_standard_input_among_files(self):
        source = self.write("in", b"c\na\n")
        result = self.sort(source, "-", stdin=b"b\n")
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"a\nb\nc\n")

    def test_a_slow_trickle_is_read_to_its_end(self):
        writer = subprocess.Popen(["sh", "-c", "for i in 5 3 4 1 2; do printf '%s' $i; sleep 0.05; echo; done"], stdout=subprocess.PIPE)
        result = self.sort(stdin=writer.stdout)
        writer.stdout.close()
        writer.wait()
        self.assertEnded(result, 0)
        self.assertEqual(result.out, b"1\n2\n3\n4\n5\n")

    def test_an_output_file_may_be_an_input(self):
        source = self.write("in", b"c\na\nb\n")
        result = self.sort("-o", source, source)
        self.assertEnded(result, 0)
        self.assertEqual(self.read("in"), b"a\nb\nc\n")

    def test_appending_to_a_file_by_redirection_keeps_what_was_there(self):
        self.write("log", b"kept\n")
        source = self.write("in", b"b\na\n")
        with open(self.path("log"), "ab") as f:
            result = self.sort(source, stdout=f)
        self.assertEnded(result, 0)
        self.assertEqual(self.read("log"), b"kept\na\nb\n")

    def test_the_mode_of_a_new_output_follows_the_umask(self):
        source = self.write("in", b"b\na\n")
        result = self.sort("-o", self.path("out"), source, preexec=lambda: os.umask(0o027))
        self.assertEnded(result, 0)
        self.assertEqual(os.stat(self.path("out")).st_mode & 0o777, 0o640)


if __name__ == "__main__":
    h.main()
