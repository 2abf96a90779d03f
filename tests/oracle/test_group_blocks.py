#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Rows read in blocks (group_block.c) are grouped as rows read one by one are: with --sorted-output no blocks are used, so both
ways must give the same rows; sums, counts and extremes are Python's own too. Inputs are such that every reason to leave the
fast road occurs: long keys, quoted keys, keys apart, missing values, numbers of other scales, too large, written oddly."""
import csv
import io
import os
import random
import subprocess
import tempfile
from decimal import Decimal, getcontext

getcontext().prec = 60
CARBIDE = os.environ["CARBIDE"]
rng = random.Random(20)


def number(kind):
    x = rng.random()
    if kind == "clean":
        return f"{rng.uniform(-99, 99):.{rng.randrange(5)}f}"
    if x < 0.05:
        return ""
    if x < 0.10:
        return rng.choice(["1e3", "+7", " 4", "9e-05", "-0.0", "5.", ".5", "00012", "  "])
    if x < 0.13:
        return str(rng.randrange(-10**22, 10**22))
    if x < 0.15:
        return f"0.{rng.randrange(10**14):014d}"
    return str(rng.randrange(-10**rng.randrange(1, 16), 10**15))


def key(n, shape):
    k = f"{rng.randrange(n)}"
    if shape == "long":
        k = ("x" * rng.choice([3, 13, 20, 40])) + k
    if shape == "quoted" and rng.random() < 0.5:
        return f'"{k}"' if rng.random() < 0.8 else f'"{k},{rng.choice(["a", "b", chr(34) * 2])}"'
    if shape == "empty" and rng.random() < 0.2:
        return ""
    return k


def run(keys, aggregates, path, *options):
    p = subprocess.run([CARBIDE, "group", *(["-k", keys] if keys else []), *aggregates, *options, path], capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    rows = list(csv.reader(io.StringIO(p.stdout)))
    return rows[0], rows[1:]


def expected(path, keys):
    groups = {}
    with open(path, newline="") as f:
        for row in csv.DictReader(f):
            values = groups.setdefault(tuple(row[k] for k in keys), [0, []])
            values[0] += 1
            if row["v"].strip():
                values[1].append(Decimal(row["v"]))
    return {k: (n, sum(v) if v else None, min(v) if v else None, max(v) if v else None, len(v), sorted(v)) for k, (n, v) in groups.items()}


def check_lists(path, keys, want):
    """Medians and the best few, which are made from lists of numbers, from states, or both."""
    options = ["-S", rng.choice(["16M", "64M", "1G"]), "-j", rng.choice("12")]
    for names in (["median(v)", "top2(v)", "bottom9(v)", "bottom3(v)"], ["top2(v)", "bottom3(v)"], ["p0(v)", "p100(v)"], ["count()", "median(v)"]):
        for row in run(",".join(keys), names, path, *options)[1]:
            n, *_, v = want[tuple(row[:len(keys)])]
            middle = [(v[(len(v) - 1) // 2] + v[len(v) // 2]) / 2] if v else []
            answers = {"count()": [n], "median(v)": middle, "top2(v)": v[:-3:-1], "bottom9(v)": v[:9], "bottom3(v)": v[:3], "p0(v)": v[:1], "p100(v)": v[-1:]}
            for name, text in zip(names, row[len(keys):]):
                got = [Decimal(t) for t in text.split(";") if t]
                assert len(got) == len(answers[name]) and all(abs(a - b) <= abs(b) * Decimal("1e-16") for a, b in zip(got, answers[name])), (name, row, v[:9])
    lists = ["median(w)", "sd(w)", "top2(w)", "count(v)", "distinct(w:num)", "mode(w)"]
    slow = run(",".join(keys), lists, path, "--sorted-output", "-S", "64M")[1]
    fast = run(",".join(keys), lists[:-1], path, *options)[1]
    assert sorted(r[:-1] for r in slow) == sorted(fast), [x for x in zip(sorted(slow), sorted(fast)) if x[0][:-1] != x[1]][:3]
    assert [tuple(r[:len(keys)]) for r in fast] == list(want), "not in order of first appearance"


def check(path, keys, kind):
    aggregates = ["count()", "sum(v)", "min(v)", "max(v)", "count(v)"]
    _, rows = run(",".join(keys), aggregates, path, "-S", rng.choice(["16M", "64M", "1G"]), "-j", rng.choice("12"))
    want = expected(path, keys)
    got = [tuple(r[:len(keys)]) for r in rows]
    assert got == list(want), (len(got), len(want), [x for x in zip(got, want) if x[0] != x[1]][:3], set(got) ^ set(want))
    for row in rows:
        n, total, least, most, values, _ = want[tuple(row[:len(keys)])]
        got = row[len(keys):]
        assert int(got[0]) == n and int(got[4]) == values, row
        for text, value in zip(got[1:4], (total, least, most)):
            assert (text == "") == (value is None) and (value is None or Decimal(text) == value), (row, want[tuple(row[:len(keys)])])
    more = aggregates + ["mean(v)", "sd(w)", "corr(v,w)" if kind == "clean" else "mean(w)", "var(w)"]
    check_lists(path, keys, want)
    slow = run(",".join(keys), more, path, "--sorted-output", "-S", "64M")[1]
    fast = run(",".join(keys), more, path, "-S", "64M")[1]
    assert sorted(slow) == sorted(fast), [x for x in zip(sorted(slow), sorted(fast)) if x[0] != x[1]][:3]


def main():
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(14):
            shape = rng.choice(["short", "long", "quoted", "empty"])
            kind = rng.choice(["clean", "wild"])
            n, rows = rng.choice([1, 7, 300, 30000]), rng.choice([50, 3000, 40000])
            path = os.path.join(folder, f"t{turn}.csv")
            with open(path, "w", newline="") as f:
                f.write("k,v,l,w\n")
                for _ in range(rows):
                    f.write(f"{key(n, shape)},{number(kind)},{key(3, shape)},{rng.randrange(1000)}.{rng.randrange(100)}\n")
            check(path, rng.choice([["k"], ["l"], ["k", "l"], ["l", "k"]]), kind)
        # nothing of what comes later is in the sample: numbers get places, keys grow
        path = os.path.join(folder, "late.csv")
        with open(path, "w") as f:
            f.write("k,v,l,w\n")
            for i in range(200000):
                v = i if i < 100000 else f"{i}.{i % 1000:03d}" if i % 5 else ""
                f.write(f"{i % 50 if i < 150000 else 'much longer than sixteen bytes ' + str(i % 70)},{v},x,{i % 9}\n")
        check(path, ["k"], "clean")
        # what joins numbers, or stands in them, may separate fields, too: then there are quotes, whichever way results are made
        path = os.path.join(folder, "joint.csv")
        with open(path, "w") as f:
            f.write("k;v\na;1\na;2\na;3\n")
        answers = {"top9(v)": "3;2;1", "top2(v)": "3;2", "median(v)": "2", "collect(v)": "1;2;3"}
        for names in (["top2(v)"], ["top9(v)"], ["top2(v)", "median(v)"], ["top2(v)", "collect(v)"]):
            p = subprocess.run([CARBIDE, "group", "--format", "csv", "-t", ";", "-k", "k", *names, path], capture_output=True, text=True)
            assert list(csv.reader(io.StringIO(p.stdout), delimiter=";"))[1] == ["a", *(answers[n] for n in names)], (names, p.stdout)


main()
