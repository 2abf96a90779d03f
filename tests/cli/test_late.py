#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Results that leave their text in the input, and keys that are made brief: whatever keys look like and wherever they stand, the
answer is that of a dozen lines of Python, at any budget, with any number of threads, and the same from a pipe, where nothing can
be read again."""
import csv
import io
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

COLUMNS = ["a", "b", "v", "c", "d"]


class Late(h.Case):
    def odd_text(self, n):
        r = self.random
        kind = r.randrange(40)
        if kind == 0:
            return f'q"uo,te{n}'
        if kind == 1:
            return f"two\nlines {n}"
        if kind == 2:
            return f"{n}" + "é" * r.randrange(40)
        if kind == 3:
            return f"{n:090d}"
        if kind == 4:
            return ""
        if kind == 5:
            return f"other letters {n} ABCDEFGHIJKLM"
        return f"id{n:010d}"

    def table(self, rows, end="\n", last=True, odd=True):
        """Keys of which most are there once, and what Python reads of it."""
        r, out = self.random, []
        for i in range(rows):
            n = r.randrange(rows * 3)
            a = self.odd_text(n) if odd else f"id{n:010d}"
            d = "x" * 6000 if odd and r.randrange(rows) < 20 else str(r.randrange(10))
            out.append([a, f"{n % 1000:03d}", f"{r.randrange(-10**6, 10**6) / 100:.2f}", str(n % 7), d])
        text = io.StringIO()
        writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_MINIMAL)
        writer.writerow(COLUMNS)
        for row in out:
            if odd and r.randrange(30) == 0:  # quotes that need not be there
                text.write(",".join('"' + f.replace('"', '""') + '"' for f in row) + end)
            else:
                writer.writerow(row)
        data = text.getvalue().encode()
        return out, data if last else data[:-len(end)]

    def grouped(self, rows, keys):
        groups = {}
        for row in rows:
            key = tuple(row[COLUMNS.index(k)] for k in keys)
            v = round(float(row[2]) * 100)
            g = groups.setdefault(key, [0, 0])
            g[0] += v
            g[1] += 1
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*keys, "sum(v)", "count()"])
        for key, (total, count) in groups.items():
            writer.writerow([*key, f"{total / 100:.2f}".rstrip("0").rstrip(".").replace("-0", "0") if total == 0 else f"{total / 100:.2f}".rstrip("0").rstrip("."), count])
        return text.getvalue().encode()

    def test_an_empty_key_at_the_very_end_of_the_file(self):
        keys = [f"a key of some length {i:07d}" for i in range(120_000)]
        text = "v,k\n" + "".join(f"1,{k}\n" for k in keys) + "".join(f"2,{k}\n" for k in keys) + "5,"
        want = "k,sum(v)\n" + "".join(f"{k},3\n" for k in keys) + ",5\n"
        self.same_everywhere(want.encode(), ["group", "-k", "k", "sum(v)"], text.encode())

    def same_everywhere(self, want, arguments, data):
        source = self.write("in.csv", data)
        for memory, threads in (("9M", 2), ("24M", 1), ("256M", 2)):
            out = self.path("out")
            result = h.carbide(*arguments, "-S", memory, "-j", str(threads), "-T", self.temp, "-o", out, source)
            self.assertEnded(result, 0)
            self.assertSameBytes(self.read("out"), want, f"{arguments} {memory}")
        result = h.carbide(*arguments, "-S", "24M", "-T", self.temp, "--format", "csv", stdin=data)
        self.assertEnded(result, 0)
        self.assertSameBytes(result.out, want, f"{arguments} from a pipe")
        self.assertNothingLeft()

    def group(self, rows, data, keys):
        self.same_everywhere(self.grouped(rows, keys), ["group", "-k", ",".join(keys), "sum(v)", "count()"], data)

    def test_plain_keys(self):
        rows, data = self.table(25_000, odd=False)
        for keys in (["a", "b"], ["a", "d", "c"], ["b", "v"]):
            self.group(rows, data, keys)

    def test_keys_of_every_look(self):
        rows, data = self.table(12_000)
        for keys in (["a"], ["a", "b"], ["b", "a"], ["c", "d"]):
            self.group(rows, data, keys)

    def test_line_ends(self):
        for end, last in (("\r\n", True), ("\r\n", False), ("\n", False)):
            rows, data = self.table(4_000, end, last, odd=False)
            self.group(rows, data, ["a", "b"])
            self.group(rows, data, ["c", "d"])

    def test_typed_keys_show_their_first_row(self):
        lines = [(f"{'0' * self.random.randrange(3)}{self.random.randrange(90_000)}", self.random.randrange(100)) for _ in range(15_000)]
        first, sums = {}, {}
        for k, v in lines:
            first.setdefault(int(k), k)
            sums[int(k)] = sums.get(int(k), 0) + v
        want = b"k,sum(v)\n" + b"".join(b"%s,%d\n" % (first[k].encode(), v) for k, v in sums.items())
        self.same_everywhere(want, ["group", "-k", "k:num", "sum(v)"], b"k,v\n" + b"".join(b"%s,%d\n" % (k.encode(), v) for k, v in lines))

    def test_dedupe(self):
        rows, data = self.table(15_000, odd=False)
        first, last = {}, {}
        for i, line in enumerate(data.split(b"\n")[1:-1]):
            key = line.split(b",")[0]
            first.setdefault(key, (i, line))
            last[key] = (i, line)
        header = data.split(b"\n")[0]
        for keep, found in (("first", first), ("last", last)):
            want = b"\n".join([header, *(line for _, line in sorted(found.values())), b""])
            self.same_everywhere(want, ["dedupe", "-k", "a", "--keep", keep], data)

    def test_dedupe_of_lines(self):
        lines = [b"line %d " % self.random.randrange(50_000) + b"z" * (self.random.randrange(50) if i % 500 else 5000) for i in range(15_000)]
        want = b"\n".join([*dict.fromkeys(lines), b""])
        self.write("lines.txt", b"\n".join(lines))
        for memory, more in (("9M", []), ("64M", []), ("24M", ["-c"])):
            result = h.carbide("dedupe", *more, "-S", memory, "-T", self.temp, "-o", self.path("out"), self.path("lines.txt"))
            self.assertEnded(result, 0)
            if not more:
                self.assertSameBytes(self.read("out"), want, memory)
        counts = {}
        for line in lines:
            counts[line] = counts.get(line, 0) + 1
        self.assertSameBytes(self.read("out"), b"".join(b"%7d %s\n" % (n, line) for line, n in counts.items()), "with counts")


if __name__ == "__main__":
    h.main()
