#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Random plans from plenty of memory to next to none: group, join, dedupe and partition, against DuckDB.

A plan is an operator, its options, the shape of its data, threads, and two budgets: 5 MiB (or what carbide says is the least), which shows
what has to leave and so what the plan needs; and that need times something from 2 down to 0.02. DuckDB makes the data and the answer, and
compares; the second budget must give the same bytes as the first. A few plans run every day, CARBIDE_TEST_LONG=1 (or --long) runs 6,000; --seed N brings a run back, and
CARBIDE_TEST_PLAN=N or N-M only those plans of it.
"""
import hashlib
import json
import os
import random
import re
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

sys.path.append(os.path.join(h.ROOT, "build/oracle-duckdb"))
try:
    import duckdb
except ImportError:
    duckdb = None

ONLY = os.environ.get("CARBIDE_TEST_PLAN")
LEAST = 5  # MiB: less is refused at once

# what carbide is asked -> (what DuckDB is asked, whether it is a real number that is compared with a tolerance)
AGGREGATES = {
    "count()": ("count(*)", False),
    "count(s)": ("count(s)", False),
    "sum(i)": ("sum(i)", False),
    "sum(d)": ("sum(d)", False),
    "mean(d)": ("avg(d::double)", True),
    "min(d)": ("min(d)", False),
    "max(i)": ("max(i)", False),
    "min(s:str)": ("min(s)", False),
    "sd(i)": ("stddev_samp(i)", True),
    "varp(d)": ("var_pop(d::double)", True),
    "var(i)": ("var_samp(i)", True),
    "sdp(d)": ("stddev_pop(d::double)", True),
    "corr(i,d)": ("case when count(i) filter (d is not null) > 1 and max(i) filter (d is not null) > min(i) filter (d is not null) "
                  "and max(d) filter (i is not null) > min(d) filter (i is not null) then corr(i, d::double) end", True),
    "median(i)": ("quantile_cont(i, 0.5)", True),
    "p95(d)": ("quantile_cont(d::double, 0.95)", True),
    "countdistinct(s)": ("count(distinct s)", False),
    "countdistinct(i:num)": ("count(distinct i)", False),
    "first(s)": ("arg_min(s, pos) filter (s is not null)", False),
    "last(i:str)": ("arg_max(i, pos) filter (i is not null)", False),
    "collect(i)": ("string_agg(i, ';' order by pos)", False),
    "top3(i)": ("array_to_string(list_sort(list(i) filter (i is not null), 'DESC')[:3], ';')", False),
    "bottom2(i)": ("array_to_string(list_sort(list(i) filter (i is not null))[:2], ';')", False),
    "mode(i)": ("(select x from (select unnest(list(i order by pos) filter (i is not null)) x, generate_subscripts(list(i order by pos) filter (i is not null), 1) p)"
                " group by x order by count(*) desc, min(p) limit 1)", False),
    "bottom2(s:str)": ("array_to_string(list_sort(list(s) filter (s is not null))[:2], ';')", False),
    "argmax(pos,d)": ("arg_min(pos, (-d, pos)) filter (d is not null)", False),
    "argmin(s,i)": ("arg_min(coalesce(s, ''), (i, pos)) filter (i is not null)", False),
}


def plans():  # --long is known when tests run, not before
    return int(os.environ.get("CARBIDE_TEST_PLANS") or (6000 if h.LONG else max(4, int(48 * h.SHARE))))


def rows(rng):
    """Mostly small, so that there can be many; some that no small budget holds."""
    kind = rng.random()
    if kind < 0.08:
        return rng.choice((0, 1, 2))
    if kind < 0.55:
        return int(10 ** rng.uniform(1, 4.3))
    if kind < 0.93:
        return int(10 ** rng.uniform(4.3, 5.3))
    return int(10 ** rng.uniform(5.3, 6.1 if h.LONG else 5.6))


class Shape:
    """Data of one table: keys k (a text) and n (a number, in several spellings of it), and columns s, i, d and pad."""

    def __init__(self, rng, count):
        self.count = count
        self.distinct = rng.choice((1, 7, 200, 5000, max(1, count // 20), max(1, count // 2), 10 ** 9))
        self.skew = rng.choice((1, 1, 1, 3, 8))  # power of the uniform draw: a few keys get most of the rows
        self.giant = rng.choice((0, 0, 0, 0.5, 0.95))  # share of one key
        self.order = rng.random() < 0.15
        self.nulls = rng.choice((0, 0.02, 0.3))
        self.wide = rng.choice((0, 0, 0, 40, 300)) if count < 300_000 else 0
        self.long_keys = rng.random() < 0.15
        self.odd = rng.random() < 0.2

    def key(self):
        draw = f"(pow(random(), {self.skew}) * {self.distinct})::bigint"
        draw = f"(case when random() < {self.giant} then 0 else {draw} end)" if self.giant else draw
        return f"(pos * {self.distinct} // {max(1, self.count)})" if self.order else draw

    def make(self, db, table):
        null = f"case when random() < {self.nulls} then null else"
        text = "'k' || x" if not self.long_keys else "repeat('long key ', 8) || x"
        if self.odd:
            text = f"case x % 5 when 0 then 'a,b' || x when 1 then 'say \"' || x || '\"' when 2 then 'two' || chr(10) || x else {text} end"
        spell = "case (random() * 3)::int when 0 then x::varchar when 1 then x || '.0' else '0' || x end" if self.odd else "x::varchar"
        db.execute(f"""create or replace table {table} as with b as materialized (select pos, {self.key()} x from range({self.count}) t(pos))
            select pos, {null if self.nulls else 'case when true then'} {text} end k, {null if self.nulls else 'case when true then'} {spell} end n,
            {null} md5(random()::varchar)[: (random() * 6)::int + 1] end s, {null} (random() * 2000 - 1000)::int end i,
            {null} ((random() - 0.5) * 1e6)::decimal(18,4) end d, repeat('p', (random() * {self.wide})::int) pad from b order by pos""")


class Budgets(h.Case):
    def setUp(self):
        super().setUp()
        if duckdb is None:
            h.skip_loudly("there is no duckdb module (scripts/setup all brings it)")

    # ---- one plan ----

    def save(self, db, table, name):
        """The table as a file of some form: its path."""
        rng = self.rng
        path = os.path.join(self.dir, f"{name}.csv")
        quoted = ", force_quote (k, s)" if rng.random() < 0.2 else ""
        db.execute(f"copy (select * from {table} order by pos) to '{path}' (header, delimiter ',', nullstr ''{quoted})")
        return path

    def ask(self, verb, words, budget, threads, **kw):
        stats = os.path.join(self.dir, "stats")
        resources = ["-S", budget, "-T", self.temp, "--stats=" + stats] + (["--parallel", threads] if threads else [])
        result = h.carbide(verb, *words, *resources, timeout=240, **kw)
        with open(stats) as f:
            return result, json.load(f)["stats"]

    def budget(self, need):
        return max(LEAST << 20, int(need * 2 ** self.rng.uniform(-5.64, 1)))

    def plan(self, number):
        self.rng = rng = random.Random(f"{h.SEED} budgets {number}")
        self.number, self.wanted = number, {}
        db = duckdb.connect(config={"threads": 1, "memory_limit": "2GB", "temp_directory": self.path("duck")})
        db.execute(f"select setseed({rng.random()})")
        db.execute("set preserve_insertion_order = true")
        verb = rng.choice(("group", "group", "group", "join", "join", "dedupe", "dedupe", "partition"))
        words, stdin, check = getattr(self, verb)(db)
        self.told = f"plan {number} (seed {h.SEED}): carbide {verb} " + " ".join(map(str, words))
        # What it needs: next to nothing, and what has to leave when it gets that.
        _, stats = self.run_once(verb, words, stdin, f"{LEAST}M", rng.randrange(1, 3))
        check(db)
        first = self.fingerprint()
        self.clean()
        need = (LEAST << 20) + int(stats["spilled_bytes"] * 1.2)
        if stats["spilled_bytes"] == 0 and rng.random() < 0.8:
            need *= rng.choice((1, 8, 100))  # there is nothing less; plans differ with more, too
        budget = self.budget(need)
        _, stats = self.run_once(verb, words, stdin, str(budget), rng.randrange(1, 4))
        self.assertEqual(self.fingerprint(), first, f"{self.told}: not the bytes of the first budget")
        self.clean()
        db.close()
        return min(1, budget / need), stats["spilled_bytes"]

    def run_once(self, verb, words, stdin, budget, threads):
        self.told = re.sub(r" -S .*| *$", f" -S {budget} --parallel {threads}", self.told)
        for attempt in range(4):
            if stdin:
                with open(stdin, "rb") as f:
                    result, stats = self.ask(verb, words, budget, threads, stdin=f)
            else:
                result, stats = self.ask(verb, words, budget, threads)
            named = re.search(r"--memory (\d+[KMG]?)", result.text)
            # how large the next result or state is nobody knows
            enough = attempt > 0 and not re.search("a result of|in one piece", result.text)
            if result.exit != h.BUDGET or not named or enough:
                break
            budget = named[1]  # the smallest budget that will do has to
            self.told += f", then {budget}"
        self.assertEqual((result.timed_out, result.exit), (False, 0), f"{self.told}: {result}")
        self.assertEqual(os.listdir(self.temp), [], self.told)
        return result, stats

    def fingerprint(self):
        """All that came out."""
        found = {}
        for folder, _, names in os.walk(self.dir):
            for name in names:
                path = os.path.join(folder, name)
                if os.path.relpath(path, self.dir).startswith("out"):
                    with open(path, "rb") as f:
                        found[os.path.relpath(path, self.dir)] = hashlib.sha256(f.read()).hexdigest()
        self.assertTrue(found or "partition" in self.told, self.told)
        return found

    def clean(self):
        for name in os.listdir(self.dir):
            if name.startswith("out"):
                path = os.path.join(self.dir, name)
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)

    def same(self, db, got, want, reals=()):
        """`got`, a CSV file, has the rows of the query `want` in its order (column o); columns in `reals` almost."""
        relation = db.sql(want)
        names = [c for c in relation.columns if c != "o"]
        columns = ", ".join(f"'c{i}': 'varchar'" for i in range(len(names)))
        db.execute(f"create or replace temp table got as select row_number() over () o, * from read_csv('{got}', header=true, "
                   f"columns={{{columns}}}, delim=',', quote='\"', escape='\"', nullstr='', parallel=false, null_padding=true, "
                   "auto_detect=false, strict_mode=false, max_line_size=50000000)")
        want_table = self.wanted.get(want)
        if want_table is None:
            want_table = self.wanted[want] = f"want{len(self.wanted)}"
            db.execute(f"create temp table {want_table} as select row_number() over (order by o) o, {', '.join(f'{chr(34)}{n}{chr(34)} c{i}' for i, n in enumerate(names))} from ({want})")
        counts = [db.execute(f"select count(*) from {t}").fetchone()[0] for t in ("got", want_table)]
        self.assertEqual(*counts, f"{self.told}: rows")
        tests = []
        for i, name in enumerate(names):
            if name in reals:
                tests.append(f"(g.c{i} is null) <> (w.c{i} is null) or abs(g.c{i}::double - w.c{i}) > 1e-7 * greatest(1, abs(w.c{i}))")
            elif "DECIMAL" in str(db.sql(f"select c{i} from {want_table}").types[0]):
                tests.append(f"g.c{i}::decimal(38,4) is distinct from w.c{i}")
            else:
                tests.append(f"g.c{i} is distinct from nullif(w.c{i}::varchar, '')")
        bad = db.execute(f"select g.*, w.* from got g join {want_table} w using (o) where {' or '.join(f'({t})' for t in tests)} order by o limit 2").fetchall()
        self.assertEqual(bad, [], f"{self.told}: {names}")

    def source(self, path):
        """(arguments, standard input): a file, a stream, or a compressed one."""
        form = self.rng.random()
        if form < 0.15:
            return ["--format", "csv"], path
        if form < 0.25:
            packed = path + ".zst"
            h.run(["zstd", "-q1f", path, "-o", packed])
            return [packed], None
        return [path], None

    # ---- operators: (words, standard input, a check of what came out) ----

    def group(self, db):
        rng = self.rng
        Shape(rng, rows(rng)).make(db, "t")
        where, stdin = self.source(self.save(db, "t", "t"))
        keys = rng.choice(([], ["k"], ["k"], ["n:num"], ["i", "k"], ["k", "n:num"], ["s"]))
        fixed = [a for a in AGGREGATES if re.match(r"(count|sum|mean|min\(d|max|sd|varp|corr)", a) and "distinct" not in a]
        names = rng.sample(fixed if rng.random() < 0.5 else sorted(AGGREGATES), rng.randrange(0 if keys else 1, 6))
        ordered = bool(keys) and rng.random() < 0.25
        words = [w for key in keys for w in ("-k", key)] + [f"a{i}={a}" for i, a in enumerate(names)]
        words += ["--sorted-output"] if ordered else []
        out = os.path.join(self.dir, "out.csv")
        by = ["try_cast(n as decimal(18,1))" if key == "n:num" else key for key in keys]
        shown = [f"coalesce(arg_min(coalesce({key[0]}::varchar, ''), pos), '') x{i}" for i, key in enumerate(keys)]
        order = "min(pos)"
        if ordered:  # texts by bytes
            order = ", ".join(f"any_value(b{i}{'' if key == 'n:num' else '::varchar'}) nulls {'last' if key == 'n:num' else 'first'}" for i, key in enumerate(keys))
        columns = shown + [f"{AGGREGATES[a][0]} a{i}" for i, a in enumerate(names)]
        bs = ", ".join(f"{b} b{i}" for i, b in enumerate(by))
        query = (f"select {', '.join(columns)}, row_number() over (order by {order}) o from (select *{', ' + bs if bs else ''} from t) "
                 + (f"group by {', '.join(f'b{i}' for i in range(len(by)))}" if by else ""))
        reals = {f"a{i}" for i, a in enumerate(names) if AGGREGATES[a][1]}
        return [*words, "-o", out, *where], stdin, lambda db: self.same(db, out, query, reals)

    def dedupe(self, db):
        rng = self.rng
        Shape(rng, rows(rng)).make(db, "t")
        where, stdin = self.source(self.save(db, "t", "t"))
        keys = rng.choice((["k"], ["n"], ["n:num"], ["k", "i"], ["s"], ["k"]))
        by = ", ".join("try_cast(n as decimal(18,1))" if key == "n:num" else key for key in keys)
        keep, order = rng.choice((("first", "pos"), ("last", "-pos"), ("none", "pos"), ("max:d", "d is null, -d, pos"), ("min:i", "i is null, i, pos"),
                                  ("max:s:str", "s is null, s desc, pos")))
        out, twice = (os.path.join(self.dir, f"out{n}.csv") for n in ("", "2"))
        count = rng.random() < 0.3
        words = [w for key in keys for w in ("-k", key)] + ["--keep", keep, "-o", out] + (["-c"] if count else [])
        both = rng.random() < 0.5
        words += ["--duplicates", twice] if both else []
        stay = "copies = 1" if keep == "none" else "place = 1"
        ranked = f"(select *, count(*) over (partition by {by}) copies, row_number() over (partition by {by} order by {order}) place from t)"
        columns = "pos, k, n, s, i, d, pad, pos o"

        def check(db):
            self.same(db, out, f"select {'copies, ' if count else ''}{columns} from {ranked} where {stay}")
            if both:
                self.same(db, twice, f"select {columns} from {ranked} where not ({stay})")
        return [*words, *where], stdin, check

    def join(self, db):
        rng = self.rng
        total = rows(rng)
        left, right = Shape(rng, int(total * rng.random())), Shape(rng, int(total * rng.random()))
        right.distinct = rng.choice((left.distinct, right.distinct))
        right.long_keys, right.odd = left.long_keys, left.odd
        right.order = rng.random() < 0.3
        how = rng.choice(("inner", "left", "right", "full", "semi", "anti"))
        keys = rng.choice((["k"], ["n:num"], ["k"], ["i", "k"]))
        for _ in range(12):  # a product of two large groups is nobody's wish
            left.make(db, "l")
            right.make(db, "r")
            on = " and ".join("try_cast(l.n as decimal(18,1)) = try_cast(r.n as decimal(18,1))" if key == "n:num" else f"l.{key} = r.{key}" for key in keys)
            pairs = db.execute(f"select count(*) from l join r on {on}").fetchone()[0]
            if pairs <= 3_000_000:
                break
            left.giant = right.giant = 0
            left.skew = right.skew = 1
            left.count, right.count = left.count // 2, right.count // 2
        files = [self.save(db, "l", "l"), self.save(db, "r", "r")]
        out = os.path.join(self.dir, "out.csv")
        names = ["pos", "k", "n", "s", "i", "d", "pad"]
        plain = [key.split(":")[0] for key in keys]
        shown = [f"{'coalesce(l.' + c + ', r.' + c + ')' if c in plain else 'l.' + c} l_{c}" for c in names]
        if plain == ["n"]:  # the left's spelling, also where it is equal to the right's
            shown = [f"case when l.pos is null then r.{c} else l.{c} end l_{c}" if c in plain else f"l.{c} l_{c}" for c in names]
        if how in ("semi", "anti"):
            query = f"select {', '.join('l.' + c for c in names)}, l.pos o from l where {'not ' if how == 'anti' else ''}exists (select 1 from r where {on})"
        else:
            shown += [f"r.{c} r_{c}" for c in names if c not in plain]
            query = (f"select {', '.join(shown)}, row_number() over (order by l.pos nulls last, r.pos nulls first) o from l "
                     f"{'join' if how == 'inner' else how + ' join'} r on {on}")
        words = [w for key in keys for w in ("-k", key)] + ["--how", how, "-o", out]
        stdin = None
        if rng.random() < 0.15:
            side = rng.randrange(2)
            stdin, files[side] = files[side], "-"
            words += ["--format", "csv"]
        return [*words, *files], stdin, lambda db: self.same(db, out, query)

    def partition(self, db):
        rng = self.rng
        shape = Shape(rng, min(rows(rng), 200_000))
        shape.make(db, "t")
        where, stdin = self.source(self.save(db, "t", "t"))
        out = os.path.join(self.dir, "out")
        way = rng.choice(("value", "hash", "range"))
        few = db.execute("select count(distinct k) from t").fetchone()[0] < 500
        key = rng.choice(("k", "k", "n:num") if few else ("i",))
        if way == "value":
            words = ["-k", key, "-o", out + "/{}.csv"]
        elif way == "hash":
            number = rng.choice((1, 2, 16, 16, 200))
            words = ["-k", key, "-n", number, "-o", out + "/{}.csv"]
        else:
            bounds = sorted(rng.sample(range(-1100, 1100), rng.choice((1, 5, 100))))
            words = ["-k", "i:int", "--bounds=" + ",".join(map(str, bounds)), "-o", out + "/{}.csv"]
            key = "i"
        name = key.split(":")[0]
        value = "try_cast(n as decimal(18,1))" if key == "n:num" else name

        def check(db):
            if shape.count == 0:
                return
            columns = "columns={'pos':'bigint','k':'varchar','n':'varchar','s':'varchar','i':'int','d':'decimal(18,4)','pad':'varchar'}"
            db.execute(f"create or replace temp table got as select row_number() over () o, * from read_csv('{out}/*.csv', header=true, {columns}, "
                       "nullstr='', parallel=false, filename=true, auto_detect=false, max_line_size=50000000)")
            wrong = {
                "a row is missing or changed": "select * from (select pos, k, n, s, i, d, coalesce(pad, '') from got) except all select * from t limit 1",
                "rows": f"select count(*) from got having count(*) <> {shape.count}",
                "the order of a file": "select pos from (select pos, lag(pos) over (partition by filename order by o) before from got) where pos < before limit 1",
                "a key in two files": f"select {value} from got group by {value} having count(distinct filename) > 1 limit 1",
            }
            if way == "value":
                wrong["two keys in a file"] = f"select filename from got group by filename having count(distinct coalesce({value}::varchar, '')) > 1 limit 1"
            if way == "range":
                wrong["a row outside its range"] = (
                    "select i, filename from got where regexp_extract(filename, '([0-9]+).csv', 1)::int <> "
                    f"case when i is null then {len(bounds)} else len(list_filter({bounds}, lambda b: b <= i)) end limit 1")
            for what, query in wrong.items():
                self.assertEqual(db.execute(query).fetchall(), [], f"{self.told}: {what}")
        return [*words, *where], stdin, check

    def test_random_plans(self):
        started, tight, spilled, done = time.monotonic(), 0, 0, 0
        seconds = float(os.environ.get("CARBIDE_TEST_SECONDS") or (1e9 if h.LONG else 25))
        first, last = map(int, ONLY.split("-")) if ONLY and "-" in ONLY else (int(ONLY or 0), int(ONLY or plans() - 1))
        for n in range(first, last + 1):
            if time.monotonic() - started > seconds:
                break
            with self.subTest(plan=n):
                share, bytes_spilled = self.plan(n)
                tight += share < 0.5
                spilled += bytes_spilled > 0
            done += 1
            if done % 100 == 0:
                print(f"[{done}: {tight} tight, {spilled} spilled] ", end="", file=sys.stderr, flush=True)
        print(f"[{done} plans, {tight} with less than half of what they need, {spilled} spilled] ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    h.main()
