#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Floating point numbers of any exponent (x:float) in a group-by, against exact fractions rounded once: any order, budget and threads."""
import csv
import io
import math
import os
import random
import sys
from decimal import Context, Decimal
from fractions import Fraction

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

WIDE = Context(prec=1500, Emax=999999, Emin=-999999)
FIXED = ["sum(x:float)", "mean(x:float)", "var(x:float)", "sdp(x:float)", "min(x:float)", "max(x:float)", "corr(x:float,y)", "top3(x:float)"]
LISTS = ["median(x:float)", "p90(x:float)", "countdistinct(x:float)", "top12(x:float)", "mode(x:float)", "argmax(x,y:float)"]


def rounded(fraction):
    try:
        return float(fraction)
    except OverflowError:
        return math.inf if fraction > 0 else -math.inf


def root(fraction):
    return float(WIDE.sqrt(WIDE.divide(Decimal(fraction.numerator), Decimal(fraction.denominator))))


def rank(v):
    return (1, 0) if math.isnan(v) else (0, v)


def draw(rng, kind):
    return (lambda: rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300),
            lambda: rng.choice([1e308, -1e308, 1.0, 1e-320, 5e-324, -5e-324, 0.1, -0.0, 1.7976931348623157e308]),
            lambda: rng.gauss(0, 1),
            lambda: rng.uniform(-1, 1) * 2.0 ** rng.randint(-1074, -1000),
            lambda: rng.choice([math.inf, 1.0, 2.5]),
            lambda: rng.choice([math.inf, -math.inf, math.nan, 1.0]))[kind]()


def total(xs, n):
    odd = {repr(v) for v in xs if not math.isfinite(v)}
    if odd:
        return float(odd.pop()) if len(odd) == 1 else math.nan
    return rounded(sum(map(Fraction, xs)) / n)


def spread(xs, sample):
    if len(xs) <= sample:
        return ""
    if not all(map(math.isfinite, xs)):
        return math.nan
    fs = [Fraction(v) for v in xs]
    v = sum((f - sum(fs) / len(fs)) ** 2 for f in fs) / (len(fs) - sample) if len(fs) < 50 else (
        sum(f * f for f in fs) - sum(fs) ** 2 / len(fs)) / (len(fs) - sample)
    return rounded(v) if sample else root(v) if v else 0.0


def correlation(xs, ys):
    if len(xs) < 2:
        return ""
    if not all(map(math.isfinite, xs + ys)):
        return math.nan
    x, y, n = [Fraction(v) for v in xs], [Fraction(v) for v in ys], len(xs)
    xx, yy = (n * sum(f * f for f in v) - sum(v) ** 2 for v in (x, y))
    xy = n * sum(a * b for a, b in zip(x, y)) - sum(x) * sum(y)
    if xx == 0 or yy == 0:
        return ""
    r = root(xy * xy / (xx * yy))
    return r if xy >= 0 else -r


def quantile(values, part):
    low = int(part * (len(values) - 1))
    rest = part * (len(values) - 1) - low
    a, b = values[low], values[low + (rest > 0)]
    if rest == 0:
        return a
    if math.isfinite(a) and math.isfinite(b):
        return rounded(Fraction(a) * (1 - rest) + Fraction(b) * rest)
    return a + b


def answer(name, rows):
    xs, ys = [r[0] for r in rows], [r[1] for r in rows]
    values = sorted(xs, key=rank)
    names = ["nan" if math.isnan(v) else v for v in xs]
    return {
        "sum": lambda: total(xs, 1), "mean": lambda: total(xs, len(xs)), "var": lambda: spread(xs, 1), "sdp": lambda: spread(xs, 0),
        "min": lambda: values[0], "max": lambda: values[-1], "corr": lambda: correlation(xs, ys), "top3": lambda: values[::-1][:3],
        "top12": lambda: values[::-1][:12], "median": lambda: quantile(values, Fraction(1, 2)), "p90": lambda: quantile(values, Fraction(9, 10)),
        "countdistinct": lambda: len(set(names)), "mode": lambda: float(max(dict.fromkeys(names), key=names.count)),
        "argmax": lambda: xs[max(range(len(ys)), key=lambda i: (rank(ys[i]), -i))],
    }[name.split("(")[0]]()


def same(got, want, off=0.0):
    if isinstance(want, list):
        return len(got.split(";")) == len(want) and all(same(a, b) for a, b in zip(got.split(";"), want))
    if want == "" or got == "":
        return got == want
    if math.isnan(want):
        return math.isnan(float(got))
    return float(got) == want or abs(float(got) - want) <= off


class Floats(h.Case):
    def test_exact_and_rounded_once(self):
        for n in range(400 if h.LONG else max(5, int(40 * h.SHARE))):
            rng = random.Random(f"{h.SEED} floats {n}")
            count, kind = rng.choice([1, 2, 3, 10, 300, 2000]), rng.randrange(6)
            keys = rng.choice([1, 2, count, max(1, count // 2)])
            rows = [(rng.randrange(keys), draw(rng, kind), draw(rng, rng.choice([2, kind]))) for _ in range(count)]
            names = rng.sample(FIXED if rng.random() < 0.5 else FIXED + LISTS, rng.randrange(1, 6))
            groups = {}
            for k, x, y in rows:
                groups.setdefault(k, []).append((x, y))
            text = "k,x,y\n" + "".join(f"{k},{x!r},{y!r}\n" for k, x, y in rows)
            told = f"plan {n} (seed {h.SEED}): {names}"
            key = rng.choice(["k", "k:num"])
            result = h.carbide("group", "-k", key, *names, "--format", "csv", "-S", rng.choice(["9M", "64M"]), "-j", rng.randrange(1, 4),
                               "-T", self.temp, stdin=text.encode())
            self.assertEnded(result, h.DONE)
            got = list(csv.reader(io.StringIO(result.out.decode())))[1:]
            self.assertEqual(len(got), len(groups), told)
            for row, (k, values) in zip(got, groups.items()):
                for name, field in zip(names, row[1:]):
                    want = answer(name, values)
                    self.assertTrue(same(field, want, 1e-15 if name.startswith("corr") else 0), f"{told}: {name} of group {k}: {field} for {want}")

    def test_no_order_budget_or_thread_shows(self):
        rng = random.Random(7)
        rows = [f"{rng.randrange(20000)},{draw(rng, rng.randrange(4))!r}\n" for _ in range(int(60000 * h.SHARE))]
        said = set()
        for budget, threads in (("9M", 1), ("9M", 3), ("200M", 2)):
            rng.shuffle(rows)
            path = self.write("in.csv", ("k,x\n" + "".join(rows)).encode())
            result = h.carbide("group", "-k", "k", "--sorted-output", "sum(x:float)", "sd(x:float)", "-S", budget, "-j", threads, "-T", self.temp, path)
            self.assertEnded(result, h.DONE)
            said.add(result.out)
        self.assertEqual(len(said), 1)

    def test_what_cancels_leaves_what_is_small(self):
        result = h.carbide("group", "sum(x:float)", "mean(x:float)", "--format", "csv", stdin=b"x\n1e308\n1e308\n1\n-1e308\n1e-300\n-1e308\n")
        self.assertEqual(result.out.split(b"\n")[1].split(b",")[0], b"1")

    def test_text_that_is_no_number_is_named(self):
        result = h.carbide("group", "sum(x:float)", "--format", "csv", stdin=b"x\n1\n1e400\nabc\n")
        self.assertEnded(result, h.BAD_DATA)
        self.assertSaid(result, "abc", "4")

    def test_decimals_that_do_not_fit_point_to_floats(self):
        result = h.carbide("group", "sum(x)", "--format", "csv", stdin=b"x\n1e300\n")
        self.assertEnded(result, h.BAD_DATA)
        self.assertSaid(result, "float")


if __name__ == "__main__":
    h.main()
