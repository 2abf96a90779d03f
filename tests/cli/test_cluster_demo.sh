#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
# Goal: scripts/cluster-demo shows what it says, with this command, and leaves nothing behind.
set -euo pipefail
for tool in redis-server redis-cli; do
    command -v $tool >/dev/null || { echo "skipped: $tool is not installed"; exit 77; }
done
if [ "${CARBIDE_BUILD_KIND:-plain}" != plain ]; then
    echo "skipped: a build with sanitizers does not fit into the demo's budgets"
    exit 77
fi
said=$("$CARBIDE" serve --listen 127.0.0.1:0 -S 64M --directory x 2>&1 || true)
if grep -q "without hiredis" <<<"$said"; then
    echo "skipped: carbide was built without hiredis"
    exit 77
fi
# Signals as a terminal sends them, to all, and more of them while it cleans up: rm is slow here.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf '#!/bin/sh\nmkdir "%s/demo" && echo "%s/demo"\n' "$folder" "$folder" >"$folder/mktemp"
printf '#!/bin/sh\nsleep 0.5\nexec %s "$@"\n' "$(command -v rm)" >"$folder/rm"
chmod +x "$folder/mktemp" "$folder/rm"
PATH="$folder:$PATH" setsid "$CARBIDE_SOURCE/scripts/cluster-demo" "$CARBIDE" >/dev/null 2>&1 &
demo=$!
until [ -s "$folder/demo/a.port" ]; do sleep 0.05; done
while kill -TERM -- -$demo 2>/dev/null; do sleep 0.05; done
wait $demo || true
[ ! -e "$folder/demo" ]

out=$("$CARBIDE_SOURCE/scripts/cluster-demo" "$CARBIDE")
echo "$out"
grep -q "read at b: the same bytes" <<<"$out"
grep -q "read at b and at c: the same bytes" <<<"$out"
