#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 600
"""Random joins against SQLite: kinds, keys, types, duplicates, missing values, columns, formats and budgets, the order of
rows included. --long runs many more; --seed brings one back."""
import csv
import io
import os
import random
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness as h

HOWS = ("inner", "left", "right", "full", "semi", "anti")


def texts(rng, count, kind):
    """Values of one key column: few or many different ones, skewed, missing now and then."""
    different = rng.choice((1, 3, 50, 5000, 10 ** 9))
    out = []
    for _ in range(count):
        if rng.random() < 0.03:
            out.append("")
            continue
        n = rng.randrange(different) if rng.random() < 0.8 else 0
        if kind == "num":
            out.append(rng.choice((str(n), f"{n}.0", f"{n}.50", f"0{n}")))
        elif kind == "int":
            out.append(str(n))
        else:
            out.append(rng.choice(("", "a,b", 'q"', "line\nend", " ")) + f"k{n}" if rng.random() < 0.1 else f"k{n}")
    return out


class Plan:
    """Two tables and what is asked of them."""

    def __init__(self, rng, rows):
        self.rng = rng
        self.how = rng.choice(HOWS)
        self.kinds = [rng.choice(("str", "num", "int")) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        self.sizes = [rng.choice((0, 1, rows // 10, rows)) for _ in range(2)]
        self.match = rng.random() < 0.3
        self.tables = [self.table(side) for side in range(2)]
        self.formats = rng.choice((("csv", "csv"), ("csv", "csv"), ("csv", "tsv")))
        self.select = None
        if rng.random() < 0.4:
            names = ["left." + n for n in self.names(0)]
            if self.how not in ("semi", "anti"):
                names += ["right." + n for n in self.names(1)]
            self.select = rng.choices(names, k=rng.randrange(1, 7))

    def names(self, side):
        keys = [f"key{i}" if side == 0 else f"k{i}" for i in range(len(self.kinds))]
        return (["x"] + keys + ["y"]) if side == 0 else (keys + ["y", "z"])

    def table(self, side):
        count = self.sizes[side]
        columns = [texts(self.rng, count, kind) for kind in self.kinds]
        pad = self.rng.choice((0, 0, 200))
        other = [["".join(self.rng.choice("abc,\"") for _ in range(self.rng.randrange(4))) + "p" * self.rng.randrange(pad + 1)
                  for _ in range(count)] for _ in range(2)]
        every = [other[0]] + columns + [other[1]] if side == 0 else columns + other
        return list(zip(*every))

    def write(self, case):
        paths = []
        for side in range(2):
            text = io.StringIO()
            kind = self.formats[side]
            if kind == "tsv":
                self.tables[side] = [tuple(v.replace("\n", " ") for v in row) for row in self.tables[side]]
                for row in [self.names(side)] + self.tables[side]:
                    text.write("\t".join(row) + "\n")
            else:
                writer = csv.writer(text, lineterminator="\n")
                writer.writerows([self.names(side)] + self.tables[side])
            paths.append(case.write(f"{side}.{kind[:3]}", text.getvalue().encode()))
        return paths

    def arguments(self):
        out = ["--how", self.how]
        for i, kind in enumerate(self.kinds):
            kind = "" if kind == "str" else ":" + kind
            out += ["--left-key", f"key{i}{kind}", "--right-key", f"k{i}{kind}"]
        if self.match:
            out.append("--match-empty")
        if self.select:
            out += ["--select", ",".join(self.select)]
        return out

    def norm(self, value, kind):
        if value == "" and not self.match:
            return None
        return value if kind == "str" or value == "" else repr(float(value))

    def answer(self):
        """Header and rows by SQLite."""
        db = sqlite3.connect(":memory:")
        for side in range(2):
            names = self.names(side)
            first = 1 if side == 0 else 0
            keys = [f"n{i}" for i in range(len(self.kinds))]
            db.execute(f"create table t{side} (pos integer primary key, {','.join(names + keys)})")
            rows = [(i, *row, *(self.norm(row[first + k], kind) for k, kind in enumerate(self.kinds)))
                    for i, row in enumerate(self.tables[side])]
            db.executemany(f"insert into t{side} values ({','.join('?' * (1 + len(names) + len(keys)))})", rows)
            db.execute(f"create index i{side} on t{side} ({','.join(keys)})")
        on = " and ".join(f"l.n{i} = r.n{i}" for i in range(len(self.kinds)))
        parts = []
        columns = self.select or ["left." + n for n in self.names(0)] + (
            [] if self.how in ("semi", "anti") else ["right.y", "right.z"])

        def expression(column, left, right):
            side, name = column.split(".")
            if side == "right":
                return f"r.{name}" if right else "''"
            if left:
                return f"l.{name}"
            return f"r.k{name[3:]}" if name.startswith("key") else "''"

        def query(left, right, source, order):
            parts.append(f"select {','.join(expression(c, left, right) for c in columns)} from {source} order by {order}")

        if self.how in ("semi", "anti"):
            word = "exists" if self.how == "semi" else "not exists"
            query(True, False, f"t0 l where {word} (select 1 from t1 r where {on})", "l.pos")
        else:
            outer = "left join" if self.how in ("left", "full") else "join"
            source = f"t0 l {outer} t1 r on {on}"
            query(True, True, source, "l.pos, r.pos")
            if self.how in ("right", "full"):
                query(False, True, f"t1 r where not exists (select 1 from t0 l where {on})", "r.pos")
        rows = [tuple("" if v is None else v for v in row) for sql in parts for row in db.execute(sql)]
        header = []
        for column in columns:
            side, name = column.split(".")
            header.append(name + ("_right" if side == "right" and name in self.names(0) else ""))
        return [tuple(header)] + rows


class Join(h.Case):
    def check(self, seed, rows):
        rng = random.Random(seed)
        plan = Plan(rng, rows)
        paths = plan.write(self)
        budget = rng.choice(("9M", "12M", "1G"))
        threads = rng.choice(("1", "2", "3"))
        result = h.carbide("join", *plan.arguments(), "-S", budget, "-j", threads, *paths, timeout=120)
        self.assertEqual(result.exit, 0, f"seed {seed}: {result}")
        got = [tuple(row) for row in csv.reader(io.StringIO(result.out.decode(), newline=""))]
        got = [row if row else ("",) for row in got]
        want = plan.answer()
        if got != want:
            first = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
            self.fail(f"seed {seed}, {plan.how} {plan.kinds} {plan.sizes} {plan.select}: {len(got)} rows for {len(want)}; row "
                      f"{first}: {got[first:first + 1]} for {want[first:first + 1]}")

    def test_random_joins(self):
        for i in range(1500 if h.LONG else 60):
            self.check(h.SEED + i, random.Random(i).choice((20, 300, 1500)))


if __name__ == "__main__":
    h.main()
