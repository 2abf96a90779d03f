#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The tests that docs/spark-cases.md, docs/store-cases.md and docs/known-defects.md name do exist.
# ctest-timeout: 60
set -euo pipefail
cd "$CARBIDE_SOURCE"
missing=0
for name in $(grep -ohE '\b[a-z0-9]+(_[a-z0-9]+){2,}\b' docs/spark-cases.md docs/store-cases.md docs/known-defects.md | grep -v '^test_' | sort -u); do
    if ! grep -rqE "\btest_([a-z_]+__)?$name\b" tests --include='*.c' --include='*.py'; then
        echo "docs name a test \"$name\" that is not there" >&2
        missing=1
    fi
done
exit $missing
