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

# what carbide is asked -> (what DuckDB is asked, whether it is a real number that is compared with a tolerance; ABOUT: an estimate)
ABOUT = "about"
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
    "median(d)": ("quantile_cont(d::double, 0.5)", True),
    "p99.9(i)": ("quantile_cont(i, 0.999)", True),
    "median(s:str)": ("quantile_disc(s, 0.5)", False),
    "p10(s:str)": ("quantile_disc(s, 0.1)", False),
    "median(d:float)": ("quantile_cont(d::double, 0.5)", True),
    "sum(d:float)": ("sum(d::double)", True),
    "mean(i:float)": ("avg(i)", True),
    "var(d:float)": ("var_samp(d::double)", True),
    "approxdistinct(s)": ("count(distinct s)", ABOUT),
    "approxdistinct(i:num)": ("count(distinct i)", ABOUT),
    "mode(s)": ("(select x from (select unnest(list(s order by pos) filter (s is not null)) x, generate_subscripts(list(s order by pos) filter (s is not null), 1) p)"
                " group by x order by count(*) desc, min(p) limit 1)", False),
    "collect(s)": ("string_agg(s, ';' order by pos)", False),
    "max(s:str)": ("max(s)", False),
    "first(i)": ("arg_min(i, pos) filter (i is not null)", False),
    "last(s)": ("arg_max(s, pos) filter (s is not null)", False),
    "argmin(pos,s:str)": ("arg_min(pos, (s, pos)) filter (s is not null)", False),
    "argmin(s,i)": ("arg_min(coalesce(s, ''), (i, pos)) filter (i is not null)", False),
}


def plans():  # --long is known when tests run, not before
    return int(os.environ.get("CARBIDE_TEST_PLANS") or (6000 if h.LONG else max(4, int(48 * h.SHARE))))


def bare(key):
    return key.split(":")[0]


def value(key, of=""):
    """What a key compares."""
    return f"try_cast({of}n as decimal(18,1))" if key == "n:num" else of + bare(key)


def by_key(keys, of=""):
    """The order of keys: texts by bytes with empty ones first, of numbers what is missing last."""
    return [f"{value(key, of)} nulls last" if ":" in key else f"coalesce({value(key, of)}::varchar, '')" for key in keys]


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

    def save(self, db, table, name, columns="*", order=("pos",), where="true"):
        """The table as a file of some form: its path."""
        rng = self.rng
        path = os.path.join(self.dir, f"{name}.csv")
        quoted = ", force_quote (k, s)" if columns == "*" and rng.random() < 0.2 else ""
        db.execute(f"copy (select {columns} from {table} where {where} order by {', '.join(order)}) to '{path}' (header, delimiter ',', nullstr ''{quoted})")
        return path

    def spoil(self, shape, path):
        """Now and then rows of too few or too many fields, which are to be left out: the words for that."""
        if shape.odd or shape.count > 100_000 or self.rng.random() > 0.1:
            return []
        with open(path, "rb") as f:
            lines = f.readlines()
        for _ in range(self.rng.choice((1, 30))):
            lines.insert(self.rng.randrange(1, len(lines) + 1), self.rng.choice((b"ragged\n", b"1,2,3,4,5,6,7,8,9\n", b"7,\n")))
        with open(path, "wb") as f:
            f.writelines(lines)
        return ["--bad-rows", "skip"]

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
        self.clean()  # what a plan that failed has left
        db = duckdb.connect(config={"threads": 1, "memory_limit": "2GB", "temp_directory": self.path("duck")})
        db.execute(f"select setseed({rng.random()})")
        db.execute("set preserve_insertion_order = true")
        verb = rng.choice(("group", "group", "group", "join", "join", "dedupe", "dedupe", "partition"))
        words, stdin, check = getattr(self, verb)(db)
        self.told = f"plan {number} (seed {h.SEED}): carbide {verb} " + " ".join(map(str, words))
        # What it needs: next to nothing, and what has to leave when it gets that.
        _, stats = self.run_once(verb, words, stdin, f"{LEAST}M", rng.randrange(1, 3))
        first = self.fingerprint()
        check(db)
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

    def same(self, db, got, want, reals=None):
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
            if reals and reals.get(name) == ABOUT:
                tests.append(f"abs(g.c{i}::double - w.c{i}) > 3 + 0.1 * w.c{i}")
            elif reals and reals.get(name):
                tests.append(f"(g.c{i} is null) <> (w.c{i} is null) or abs(g.c{i}::double - w.c{i}) > 1e-7 * greatest(1, abs(w.c{i}))")
            elif "DECIMAL" in str(db.sql(f"select c{i} from {want_table}").types[0]):
                tests.append(f"g.c{i}::decimal(38,4) is distinct from w.c{i}")
            else:
                tests.append(f"g.c{i} is distinct from nullif(w.c{i}::varchar, '')")
        bad = db.execute(f"select g.*, w.* from got g join {want_table} w using (o) where {' or '.join(f'({t})' for t in tests)} order by o limit 2").fetchall()
        self.assertEqual(bad, [], f"{self.told}: {names}")

    def source(self, path):
        """(arguments, standard input): a file, a stream, a compressed one, or several."""
        form = self.rng.random()
        if form < 0.15:
            return ["--format", "csv"], path
        if form < 0.25:
            packed = path + ".zst"
            h.run(["zstd", "-q1f", path, "-o", packed])
            return [packed], None
        return [path], None

    def sources(self, db, shape):
        """The table "t" in a file or in two; with the words for bad rows, if there are any."""
        if self.rng.random() < 0.1:
            cut = self.rng.randrange(shape.count + 1)
            return [self.save(db, "t", "t1", where=f"pos < {cut}"), self.save(db, "t", "t2", where=f"pos >= {cut}")], None
        path = self.save(db, "t", "t")
        words = self.spoil(shape, path)
        where, stdin = self.source(path)
        return words + where, stdin

    # ---- operators: (words, standard input, a check of what came out) ----

    def group(self, db):
        rng = self.rng
        shape = Shape(rng, rows(rng))
        shape.make(db, "t")
        where, stdin = self.sources(db, shape)
        keys = rng.choice(([], ["k"], ["k"], ["n:num"], ["i", "k"], ["k", "n:num"], ["s"]))
        fixed = [a for a in AGGREGATES if re.match(r"(count|sum|mean|min\(d|max|sd|varp|corr)", a) and not re.search("distinct|:str", a)]
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
        reals = {f"a{i}": AGGREGATES[a][1] for i, a in enumerate(names)}
        return [*words, "-o", out, *where], stdin, lambda db: self.same(db, out, query, reals)

    def dedupe(self, db):
        rng = self.rng
        shape = Shape(rng, rows(rng))
        shape.make(db, "t")
        columns, form = "pos, k, n, s, i, d, pad", []
        whole = rng.random() < 0.2
        if whole:  # rows are their own keys
            columns = rng.choice(("k", "k, i", "n", "s, k", "i"))
            if not shape.odd and not shape.long_keys and rng.random() < 0.4:
                form = ["--format", "lines", "--header"]
            where, stdin = self.source(self.save(db, "t", "t", columns))
            where = [w for w in where if w not in ("--format", "csv")] if form else where
        else:
            where, stdin = self.sources(db, shape)
        keys = [] if whole else rng.choice((["k"], ["n"], ["n:num"], ["k", "i"], ["s"], ["k"], ["n:num", "s", "i"]))
        by = columns if whole else ", ".join(value(key) for key in keys)
        ways = [("first", "pos"), ("last", "-pos"), ("none", "pos")]
        if not whole:
            ways += [("max:d", "d is null, -d, pos"), ("min:i", "i is null, i, pos"), ("max:s:str", "s is null, s desc, pos"), ("min:s:str", "s is null, s, pos")]
        keep, order = rng.choice(ways)
        out, twice = (os.path.join(self.dir, f"out{n}.csv") for n in ("", "2"))
        count = not form and rng.random() < 0.3
        ordered = bool(keys) and rng.random() < 0.25
        words = form + [w for key in keys for w in ("-k", key)] + ["--keep", keep, "-o", out] + (["-c"] if count else [])
        words += ["--sorted-output"] if ordered else []
        both = rng.random() < 0.5
        words += ["--duplicates", twice] if both else []
        stay = "copies = 1" if keep == "none" else "place = 1"
        ranked = f"(select *, count(*) over (partition by {by}) copies, row_number() over (partition by {by} order by {order}) place from t)"
        place = f"row_number() over (order by {', '.join(by_key(keys))})" if ordered else "pos"

        def check(db):
            self.same(db, out, f"select {'copies, ' if count else ''}{columns}, {place} o from {ranked} where {stay}")
            if both:
                self.same(db, twice, f"select {columns}, pos o from {ranked} where not ({stay})")
        return [*words, *where], stdin, check

    def join(self, db):
        rng = self.rng
        total = rows(rng)
        left, right = Shape(rng, int(total * rng.random())), Shape(rng, int(total * rng.random()))
        right.distinct = rng.choice((left.distinct, right.distinct))
        right.long_keys, right.odd = left.long_keys, left.odd
        right.order = rng.random() < 0.3
        how = rng.choice(("inner", "left", "right", "full", "semi", "anti", "alone"))
        keys = rng.choice((["k"], ["n:num"], ["k"], ["i", "k"], ["k", "n:num"], ["s"], ["s", "i", "k"]))
        match = rng.random() < 0.2
        on = " and ".join(f"{value(key, 'l.')} {'is not distinct from' if match else '='} {value(key, 'r.')}" for key in keys)
        for _ in range(20):  # a product of two large groups is nobody's wish
            left.make(db, "l")
            right.make(db, "r")
            side = "(select {0}, count(*) c from {1} group by all)"
            by = ", ".join(f"{value(key)} v{i}" for i, key in enumerate(keys))
            same = " and ".join(f"a.v{i} {'is not distinct from' if match else '='} b.v{i}" for i in range(len(keys)))
            pairs = db.execute(f"select coalesce(sum(a.c * b.c), 0) from {side.format(by, 'l')} a join {side.format(by, 'r')} b on {same}").fetchone()[0]
            if pairs <= 3_000_000:
                break
            left.giant = right.giant = 0
            left.skew = right.skew = 1
            left.count, right.count = left.count // 2, right.count // 2
        ordered = rng.random() < 0.2
        order = (by_key(keys) if ordered else []) + ["pos"]
        plain = [bare(key) for key in keys]
        names = ["pos", "k", "n", "s", "i", "d", "pad"]
        theirs = ["key" + c if c in plain else c for c in names] if rng.random() < 0.2 else names
        files = [self.save(db, "l", "l", order=order), self.save(db, "r", "r", ", ".join(f"{a} as {b}" for a, b in zip(names, theirs)) if theirs != names else "*", order)]
        bad = [word for shape, path in ((left, files[0]), (right, files[1])) for word in self.spoil(shape, path)][:2]
        out = os.path.join(self.dir, "out.csv")
        missing = rng.choice((None, None, "-", "none"))

        alone = how in ("semi", "anti")

        def shown(side, c):
            text = f"{side}.{c}::varchar"
            if alone:
                return text
            other = f"r.{c}::varchar" if side == "l" and c in plain else "null" if missing is None else f"'{missing}'"
            return f"case when {side}.pos is null then {other} else {text} end"

        words = [w for key in keys for w in ("-k", key)] if theirs is names else []
        for key in keys if theirs is not names else []:
            words += ["--left-key", key, "--right-key", "key" + key]
        words += ["--how", how, "-o", out, *bad]
        result = [("l", c) for c in names] + ([] if alone else [("r", c) for c in names if c not in plain])
        if rng.random() < 0.3:
            result = rng.choices([("l", c) for c in names] + ([] if alone else [("r", c) for c in names]), k=rng.randrange(1, 8))
            spelled = []
            for side, c in result:
                name = c if side == "l" else theirs[names.index(c)]
                forms = [f"{'left' if side == 'l' else 'right'}.{name}", f"{1 if side == 'l' else 2}.{names.index(c) + 1}"]
                spelled.append(rng.choice(forms + ([name] if side == "l" or name not in names else [])))
            words += ["--select", ",".join(spelled)]
        suffix = "_right"
        if rng.random() < 0.2:
            suffix = ".r"
            words += ["--suffix", suffix]
        words += ["-e", missing] if missing is not None else []
        words += ["--match-empty"] if match else []
        words += ["--sorted"] if ordered else []
        columns = ", ".join(f"{shown(side, c)} x{n}" for n, (side, c) in enumerate(result))
        by = ["l.pos nulls last", "r.pos nulls first"]
        if ordered:  # of rows whose keys are missing the right's come first
            by = [f"case when l.pos is null then {r.split(' nulls')[0]} else {l}" .replace(" nulls last", "") + " end" + (" nulls last" if "nulls" in l else "")
                  for l, r in zip(by_key(keys, "l."), by_key(keys, "r."))] + ["l.pos nulls first", "r.pos"]
        if alone:
            place = f"row_number() over (order by {', '.join(by_key(keys, 'l.') + ['l.pos'])})" if ordered else "l.pos"
            query = f"select {columns}, {place} o from l where {'not ' if how == 'anti' else ''}exists (select 1 from r where {on})"
        else:
            query = (f"select {columns}, row_number() over (order by {', '.join(by)}) o from l "
                     f"{'join' if how == 'inner' else ('full' if how == 'alone' else how) + ' join'} r on {on}"
                     + (" where l.pos is null or r.pos is null" if how == "alone" else ""))
        header = ",".join(c if side == "l" else theirs[names.index(c)] + (suffix if theirs[names.index(c)] in names else "") for side, c in result)
        stdin = None
        if rng.random() < 0.15:
            side = rng.randrange(2)
            stdin, files[side] = files[side], "-"
            words += ["--format", "csv"]

        def check(db):
            with open(out) as f:
                self.assertEqual(f.readline().rstrip("\n"), header, self.told)
            self.same(db, out, query)
        return [*words, *files], stdin, check

    def partition(self, db):
        rng = self.rng
        shape = Shape(rng, min(rows(rng), 200_000))
        shape.make(db, "t")
        where, stdin = self.sources(db, shape)
        out = os.path.join(self.dir, "out")
        way = rng.choice(("value", "value", "hash", "range", "range", "whole", "folders"))
        few = db.execute("select count(distinct k) from t").fetchone()[0] < 500
        key = rng.choice(("k", "k", "n:num") if few else ("i",))
        packed = rng.choice(("", "", ".gz", ".zst", ".lz4"))
        to = out + "/{}.csv" + packed
        if way == "value":
            words = ["-k", key, "-o", to]
        elif way in ("hash", "whole"):
            number = rng.choice((1, 2, 16, 16, 200))
            words = (["-k", key] if way == "hash" else []) + ["-n", number, "-o", to]
            key = key if way == "hash" else "pos"  # nothing else says which rows are the same
        elif way == "folders":
            key = "s"
            db.execute("update t set s = s[:2]")
            where, stdin = self.source(self.save(db, "t", "t"))
            names = rng.choice((out + "/{1}/{2}.csv", out + "/{k}/of {s}.csv", out + "/{2}/{{x}}{1}.csv")) if few else out + "/{1}/a.csv"
            words = [*(["-k", "s", "-k", "k"] if "{s}" not in names and few else ["-k", "k", "-k", "s"] if few else ["-k", "s"]), "-o", names + packed]
        else:
            key = rng.choice(("i", "i", "s", "d"))
            bounds = sorted(rng.sample(range(-1100, 1100), rng.choice((1, 5, 100))))
            if key == "s":
                bounds = sorted({"%x" % abs(b) for b in bounds})
            elif key == "d":
                bounds = [b * 450 + 0.125 for b in bounds]
            words = ["-k", key + {"i": ":int", "s": "", "d": ":num"}[key], "--bounds=" + ",".join(map(str, bounds)), "-o", to]
        compared = value(key)

        def check(db):
            if shape.count == 0:
                return
            unpacked = packed if packed != ".lz4" else ""
            if packed == ".lz4":
                files = [os.path.join(folder, name) for folder, _, names in os.walk(out) for name in names]
                for i in range(0, len(files), 500):
                    self.assertEqual(h.run(["lz4", "-dqm", *files[i:i + 500]]).exit, 0, self.told)
            columns = "columns={'pos':'bigint','k':'varchar','n':'varchar','s':'varchar','i':'int','d':'decimal(18,4)','pad':'varchar'}"
            db.execute(f"create or replace temp table got as select row_number() over () o, * from read_csv('{out}/**/*.csv{unpacked}', header=true, {columns}, "
                       "nullstr='', parallel=false, filename=true, auto_detect=false, max_line_size=50000000)")
            wrong = {
                "a row is missing or changed": "select * from (select pos, k, n, s, i, d, coalesce(pad, '') from got) except all select * from t limit 1",
                "rows": f"select count(*) from got having count(*) <> {shape.count}",
                "the order of a file": "select pos from (select pos, lag(pos) over (partition by filename order by o) before from got) where pos < before limit 1",
                "a key in two files": f"select {compared} from got group by {compared} having count(distinct filename) > 1 limit 1",
            }
            if way == "folders" and few:
                wrong["a key in two files"] = "select s, k from got group by s, k having count(distinct filename) > 1 limit 1"
                wrong["two keys in a file"] = "select filename from got group by filename having count(distinct (s, k)) > 1 limit 1"
            if way == "value" or way == "folders" and not few:
                wrong["two keys in a file"] = f"select filename from got group by filename having count(distinct coalesce({compared}::varchar, '')) > 1 limit 1"
            if way == "range":
                listed = "[" + ", ".join(f"'{b}'" if key == "s" else str(b) for b in bounds) + "]"
                wrong["a row outside its range"] = (
                    f"select {key}, filename from got where regexp_extract(filename, '([0-9]+).csv', 1)::int <> "
                    f"case when {key} is null then {0 if key == 's' else len(bounds)} else len(list_filter({listed}, lambda b: b <= {key})) end limit 1")
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
