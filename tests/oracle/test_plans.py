#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 600
"""Random group-bys and deduplications: any keys, aggregates, data, formats, budgets and threads, against SQLite and Python's
exact arithmetic. CARBIDE_TEST_LONG=1 (or --long) runs thousands."""
import csv
import gzip
import io
import os
import random
import sqlite3
import sys
from decimal import ROUND_HALF_EVEN, Context, Decimal, getcontext
from fractions import Fraction

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from support import harness as h  # noqa: E402

getcontext().prec = 120
NAMES = ["id", "city", "qty", "price", "note"]


def plans():  # --long is known when tests run, not before
    return 3000 if h.LONG else max(8, int(40 * h.SHARE))


def plain(d):
    """A decimal as carbide writes it."""
    text = format(d, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def quotient(f):
    """A fraction with 17 significant digits, half to even."""
    context = Context(prec=17, rounding=ROUND_HALF_EVEN)
    n, d = f.numerator, f.denominator
    if n == 0:
        return "0"
    return plain(context.divide(Decimal(n), Decimal(d)))


def make_rows(rng, count):
    kinds = rng.choice([3, 30, 3000, count or 1])
    skew = rng.random() < 0.3
    cities = ["Ulm", "a,b", 'say "hi"', "", "ab", "a", "two\nlines", " x ", "Zürich"]
    rows = []
    for _ in range(count):
        k = 0 if skew and rng.random() < 0.7 else rng.randrange(kinds)
        price = rng.choice([str(rng.randrange(-50, 50)), f"{rng.random() * 1000:.{rng.randrange(0, 9)}f}", "",
                            f"{rng.randrange(1, 99)}e-{rng.randrange(1, 9)}", str(rng.randrange(10 ** 17))])
        rows.append([str(k), rng.choice(cities), str(rng.randrange(-5, 5)) if rng.random() < 0.9 else "", price,
                     "".join(rng.choices("abc", k=rng.randrange(6)))])
    return rows


def quantile(values, part):
    values = sorted(values)
    rank = Fraction(part) / 100 * (len(values) - 1)
    low = int(rank)
    rest = rank - low
    if rest == 0:
        return plain(values[low])
    return quotient(Fraction(values[low]) * (1 - rest) + Fraction(values[low + 1]) * rest)


def spread(values, sample, root):
    n = len(values)
    if n < (2 if sample else 1):
        return ""
    f = [Fraction(v) for v in values]
    mean = sum(f) / n
    v = sum((x - mean) ** 2 for x in f) / (n - 1 if sample else n)
    return float(v) ** 0.5 if root else float(v)


AGGREGATES = {
    "count()": lambda g, i: str(len(g)),
    "count(note)": lambda g, i: str(sum(r[4] != "" for r in g)),
    "sum(qty)": lambda g, i: plain(sum(i(g, 2))) if i(g, 2) else "",
    "sum(price)": lambda g, i: plain(sum(i(g, 3))) if i(g, 3) else "",
    "mean(price)": lambda g, i: quotient(Fraction(sum(i(g, 3))) / len(i(g, 3))) if i(g, 3) else "",
    "min(price)": lambda g, i: plain(min(i(g, 3))) if i(g, 3) else "",
    "max(qty)": lambda g, i: plain(max(i(g, 2))) if i(g, 2) else "",
    "sd(qty)": lambda g, i: spread(i(g, 2), True, True),
    "varp(qty)": lambda g, i: spread(i(g, 2), False, False),
    "median(price)": lambda g, i: quantile(i(g, 3), 50) if i(g, 3) else "",
    "p95(qty)": lambda g, i: quantile(i(g, 2), 95) if i(g, 2) else "",
    "countdistinct(note)": lambda g, i: str(len({r[4] for r in g} - {""})),
    "countdistinct(price:num)": lambda g, i: str(len(set(i(g, 3)))),
    "first(city)": lambda g, i: next((r[1] for r in g if r[1]), ""),
    "last(note)": lambda g, i: next((r[4] for r in reversed(g) if r[4]), ""),
    "mode(note)": lambda g, i: mode([r[4] for r in g if r[4]]),
    "collect(qty)": lambda g, i: ";".join(r[2] for r in g if r[2]),
    "top2(price)": lambda g, i: ";".join(plain(v) for v in sorted(i(g, 3), reverse=True)[:2]),
    "bottom3(note:str)": lambda g, i: ";".join(sorted(r[4] for r in g if r[4])[:3]),
    "argmax(note,qty)": lambda g, i: arg(g, 4, 2, max),
    "argmin(city,price)": lambda g, i: arg(g, 1, 3, min),
    "max(city:str)": lambda g, i: max((r[1].encode() for r in g if r[1]), default=b"").decode(),
}


def mode(values):
    counts = {}
    for v in values:
        counts[v] = counts.get(v, 0) + 1
    return max(counts, key=lambda v: counts[v]) if counts else ""


def arg(group, column, by, which):
    rows = [r for r in group if r[by].strip()]
    return which(rows, key=lambda r: Decimal(r[by]))[column] if rows else ""


def numbers(group, column):
    return [Decimal(r[column]) for r in group if r[column].strip()]


class Plans(h.Case):
    def put(self, rng, rows):
        """The input in some form: (arguments, standard input)."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator=rng.choice(["\n", "\r\n"]),
                            quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        writer.writerow(NAMES)
        writer.writerows(rows)
        data = text.getvalue().encode()
        form = rng.randrange(4)
        if form == 0:
            return ["--format", "csv"], data
        if form == 1:
            return [self.write("in.csv.gz", gzip.compress(data, 1))], b""
        return [self.write("in.csv", data)], b""

    def settings(self, rng):
        return ["-S", f"{rng.choice([9, 12, 16, 24, 64, 500])}M", "-j", str(rng.randrange(1, 4)), "-T", self.dir]

    def same(self, got, expected, told):
        self.assertEqual(len(got), len(expected), told)
        for g, e in zip(got, expected):
            for x, y in zip(g, e):
                if isinstance(y, float):
                    self.assertAlmostEqual(float(x), y, delta=1e-12 * max(1.0, abs(y)), msg=told)
                else:
                    self.assertEqual(x, y, told)

    def size(self, rng):
        return rng.choice([0, 1, 2, 7, 100, 1000, 3000] + ([30000] if rng.random() < 0.15 else []))

    def test_groups(self):
        for n in range(plans()):
            rng = random.Random(f"{h.SEED} group {n}")
            rows = make_rows(rng, self.size(rng))
            keys = rng.sample([0, 1, 4], rng.randrange(0, 4))
            names = rng.sample(sorted(AGGREGATES), rng.randrange(1, 6))
            order = ["--sorted-output"] if rng.random() < 0.2 and keys else []
            where, stdin = self.put(rng, rows)
            words = [w for k in keys for w in ("-k", NAMES[k])] + names + order + self.settings(rng) + where
            told = f"plan {n}: carbide group {' '.join(words)}"
            groups = {}
            for r in rows:
                groups.setdefault(tuple(r[k] for k in keys), []).append(r)
            if not keys and not rows:
                groups[()] = []
            listed = sorted(groups, key=lambda k: [v.encode() for v in k]) if order else list(groups)
            expected = [[*k, *(AGGREGATES[a](groups[k], numbers) for a in names)] for k in listed]
            result = h.carbide("group", *words, stdin=stdin)
            self.assertEqual(result.exit, 0, f"{told}: {result}")
            out = list(csv.reader(io.StringIO(result.out.decode(), newline="")))
            width = len(keys) + len(names)
            self.assertEqual(out[0], [NAMES[k] for k in keys] + names, told)
            self.same([r + [""] * (width - len(r)) for r in out[1:]], expected, told)

    def test_groups_are_those_of_sqlite(self):
        for n in range(plans() // 4):
            rng = random.Random(f"{h.SEED} sqlite {n}")
            rows = make_rows(rng, self.size(rng))
            db = sqlite3.connect(":memory:")
            db.execute("create table t (id, city, qty integer, price, note)")
            db.executemany("insert into t values (?, ?, ?, ?, ?)",
                           [[r[0], r[1], int(r[2]) if r[2] else None, r[3], r[4] or None] for r in rows])
            keys = rng.sample([0, 1, 4], rng.randrange(1, 3))
            columns = ", ".join(f"coalesce({NAMES[k]}, '')" for k in keys)
            expected = db.execute(f"select {columns}, count(*), sum(qty), min(qty), max(qty), count(distinct note) from t "
                                  f"group by {columns} order by min(rowid)").fetchall()
            db.close()
            where, stdin = self.put(rng, rows)
            words = [*(w for k in keys for w in ("-k", NAMES[k])), "count()", "sum(qty)", "min(qty)", "max(qty)",
                     "countdistinct(note)", *self.settings(rng), *where]
            result = h.carbide("group", *words, stdin=stdin)
            self.assertEqual(result.exit, 0, result)
            out = list(csv.reader(io.StringIO(result.out.decode(), newline="")))[1:]
            self.same(out, [["" if v is None else str(v) for v in r] for r in expected], f"plan {n}: {words}")

    def test_rows_that_stay_and_rows_that_do_not(self):
        for n in range(plans()):
            rng = random.Random(f"{h.SEED} dedupe {n}")
            rows = make_rows(rng, self.size(rng))
            keys = rng.sample([0, 1, 4], rng.randrange(0, 4))
            keep = rng.choice(["first", "last", "none", "max:price", "min:qty", "max:note:str"])
            order = ["--sorted-output"] if rng.random() < 0.2 and keys else []
            where, stdin = self.put(rng, rows)
            twice = os.path.join(self.dir, "twice.csv")
            words = [w for k in keys for w in ("-k", NAMES[k])] + ["--keep", keep, "--duplicates", twice, *order]
            words += self.settings(rng) + where
            told = f"plan {n}: carbide dedupe {' '.join(words)}"
            groups = {}
            for i, r in enumerate(rows):
                groups.setdefault(tuple(r[k] for k in keys) if keys else tuple(r), []).append(i)
            stay = [i for i in (self.choose(rows, g, keep) for g in groups.values()) if i is not None]
            stay.sort()
            staying = set(stay)
            if order:
                stay.sort(key=lambda i: [rows[i][k].encode() for k in keys])
            result = h.carbide("dedupe", *words, stdin=stdin)
            self.assertEqual(result.exit, 0, f"{told}: {result}")
            out = list(csv.reader(io.StringIO(result.out.decode(), newline="")))[1:]
            self.assertEqual(out, [rows[i] for i in stay], told)
            with open(twice, newline="") as f:
                gone = list(csv.reader(f))[1:]
            self.assertEqual(gone, [r for i, r in enumerate(rows) if i not in staying], told)

    def choose(self, rows, group, keep):
        if keep == "first" or (keep == "none" and len(group) == 1):
            return group[0]
        if keep == "none":
            return None
        if keep == "last":
            return group[-1]
        which, column, *kind = keep.split(":")
        c = NAMES.index(column)
        having = [i for i in group if rows[i][c].strip()]
        if not having:
            return group[0]
        value = (lambda i: rows[i][c].encode()) if kind else (lambda i: Decimal(rows[i][c]))
        return (max if which == "max" else min)(having, key=value)


if __name__ == "__main__":
    h.main()
