#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One sort by one peer, in a process of its own.

    peers.py ENGINE WORKLOAD IN OUT BUDGET_BYTES THREADS TEMP_FOLDER

ENGINE: duckdb, datafusion, polars, clickhouse. WORKLOAD: lines (whole line), csv (id3 ascending, v3 descending).
BUDGET_BYTES 0 means no limit; Polars has none to set. Each engine is told what its manual says for such a job: threads, memory
limit, spilling on, order of equal rows not kept, one column of text with nothing quoted for lines.
"""
import os
import sys

# Bytes that stand in no input: they make a CSV reader take a line as one field.
SEPARATOR, QUOTE = "\x01", "\x02"
CSV_TYPES = {"id1": "VARCHAR", "id2": "VARCHAR", "id3": "VARCHAR", "id4": "BIGINT", "id5": "BIGINT",
             "id6": "BIGINT", "v1": "BIGINT", "v2": "BIGINT", "v3": "DOUBLE"}


def sort_duckdb(workload, source, target, budget, threads, temp):
    import duckdb
    db = duckdb.connect()
    db.execute(f"SET threads={threads}")
    if budget:
        db.execute(f"SET memory_limit='{budget // 1024}KiB'")
    db.execute(f"SET temp_directory='{temp}'")
    db.execute("SET preserve_insertion_order=false")
    if workload == "lines":
        db.execute(f"COPY (SELECT line FROM read_csv('{source}', columns={{'line': 'VARCHAR'}}, header=false, "
                   f"delim='{SEPARATOR}', quote='', escape='', auto_detect=false, new_line='\\r\\n') ORDER BY line) "
                   f"TO '{target}' (FORMAT csv, HEADER false, DELIMITER '{SEPARATOR}', QUOTE '', ESCAPE '')")
    else:
        db.execute(f"COPY (SELECT * FROM read_csv('{source}', columns={CSV_TYPES!r}, header=true, auto_detect=false) "
                   f"ORDER BY id3, v3 DESC) TO '{target}' (FORMAT csv, HEADER true)")


def sort_datafusion(workload, source, target, budget, threads, temp):
    from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext
    runtime = RuntimeEnvBuilder().with_disk_manager_specified(temp)
    if budget:
        runtime = runtime.with_fair_spill_pool(budget)
    config = SessionConfig().with_target_partitions(threads)
    # Its defaults end with "resources exhausted" below 1 GiB. These were found by trying: batch sizes from 512 to 8192,
    # reservations from 1 to 64 MiB, both pools, spills raw and compressed; the fastest that finishes is taken.
    if budget and budget <= 64 << 20:
        config = config.set("datafusion.execution.batch_size", "1024")
    elif budget and budget <= 512 << 20:
        config = config.set("datafusion.execution.batch_size", "2048").set("datafusion.execution.spill_compression", "lz4_frame")
    ctx = SessionContext(config, runtime)
    if workload == "lines":
        columns, options = "line VARCHAR", f"'format.has_header' 'false', 'format.delimiter' '{SEPARATOR}', 'format.quote' '{QUOTE}'"
        order = "line"
    else:
        columns, options = ", ".join(f"{n} {t}" for n, t in CSV_TYPES.items()), "'format.has_header' 'true'"
        order = "id3, v3 DESC"
    name = source if source.endswith(".csv") else source + ".csv"
    if name != source and not os.path.exists(name):
        os.symlink(source, name)  # the reader goes by the extension
    ctx.sql(f"CREATE EXTERNAL TABLE t ({columns}) STORED AS CSV LOCATION '{name}' OPTIONS ({options})").collect()
    ctx.sql(f"COPY (SELECT * FROM t ORDER BY {order}) TO '{target}' STORED AS CSV OPTIONS ({options})").collect()


def sort_polars(workload, source, target, budget, threads, temp):
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    os.environ["POLARS_TEMP_DIR"] = temp
    import polars
    if workload == "lines":
        rows = polars.scan_csv(source, has_header=False, separator=SEPARATOR, quote_char=None, schema={"line": polars.String})
        rows.sort("line").sink_csv(target, include_header=False, separator=SEPARATOR, quote_style="never", engine="streaming")
    else:
        types = {"VARCHAR": polars.String, "BIGINT": polars.Int64, "DOUBLE": polars.Float64}
        rows = polars.scan_csv(source, schema={n: types[t] for n, t in CSV_TYPES.items()})
        rows.sort(["id3", "v3"], descending=[False, True]).sink_csv(target, engine="streaming")


def sort_clickhouse(workload, source, target, budget, threads, temp):
    import chdb
    settings = f"max_threads={threads}, max_insert_threads={threads}"
    if budget:
        settings += f", max_memory_usage={budget}, max_bytes_before_external_sort={budget // 2}, max_bytes_ratio_before_external_sort=0"
    if workload == "lines":
        reading, fmt, order = f"file('{source}', 'LineAsString')", "LineAsString", "line"
    else:
        names = {"VARCHAR": "String", "BIGINT": "Int64", "DOUBLE": "Float64"}
        columns = ", ".join(f"{n} {names[t]}" for n, t in CSV_TYPES.items())
        reading, fmt, order = f"file('{source}', 'CSVWithNames', '{columns}')", "CSVWithNames", "id3, v3 DESC"
        settings += ", format_csv_null_representation='', output_format_csv_crlf_end_of_line=0"
    if os.path.exists(target):
        os.unlink(target)
    out = f"INTO OUTFILE '{target}' TRUNCATE FORMAT {fmt}"
    chdb.query(f"SELECT * FROM {reading} ORDER BY {order} {out} SETTINGS {settings}", path=temp)


def main():
    engine, workload, source, target, budget, threads, temp = sys.argv[1:8]
    sort = {"duckdb": sort_duckdb, "datafusion": sort_datafusion, "polars": sort_polars, "clickhouse": sort_clickhouse}[engine]
    sort(workload, source, target, int(budget), int(threads), temp)


if __name__ == "__main__":
    main()
