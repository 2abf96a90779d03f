#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/oracle/jvm/run.sh TRACE...      the original classes' answers to each trace, in TRACE.answers
#
# Builds what is missing first (JDK 17 or later, Maven; the originals come from Maven Central and stay in ~/.m2), into
# $ORACLE_BUILD or build/oracle-jvm. Ends with 77 when that cannot be done here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=${ORACLE_BUILD:-$(cd "$here/../../.." && pwd)/build/oracle-jvm}

for tool in java mvn; do
    command -v "$tool" >/dev/null || { echo "there is no $tool here (scripts/setup all)" >&2; exit 77; }
done
if [ ! -e "$build/ready" ] || [ -n "$(find "$here" -newer "$build/ready" -type f -print -quit)" ]; then
    mkdir -p "$build"
    if ! mvn -q -B -f "$here/pom.xml" -Doracle.build="$build" package >"$build/mvn.log" 2>&1; then
        tail -5 "$build/mvn.log" >&2
        grep -qE 'Could not (transfer|resolve|find)|Unknown host|Connection' "$build/mvn.log" && exit 77
        exit 1
    fi
    touch "$build/ready"
fi
[ $# -gt 0 ] || exit 0
opens=()
for package in java.lang java.nio sun.nio.ch; do opens+=("--add-opens=java.base/$package=ALL-UNNAMED"); done
# -ea: what is wrong with a page is said by assertions.
exec java -ea:org.apache.spark.memory... -XX:+UseParallelGC -Xmx1g -XX:MaxDirectMemorySize=1g "${opens[@]}" \
    -cp "$build/driver/classes" carbide.oracle.Main "$build" "$@"
