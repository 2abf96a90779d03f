#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Goal: what is installed can be used by others, by CMake, by pkg-config and by hand. Method: installs into a folder,
# builds a small program against it in each way, runs them.
# ctest-timeout: 180
set -euo pipefail

if [ "$CARBIDE_BUILD_KIND" != plain ]; then
    echo "a build with sanitizers is not for installing: skipped"
    exit 77
fi
work=$(mktemp -d "$CARBIDE_BUILD/install-test.XXXXXX")
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

cmake --install "$CARBIDE_BUILD" --prefix "$prefix" >"$work/log" || { cat "$work/log"; exit 1; }
for file in bin/carbide include/carbide/carbide.h share/bash-completion/completions/carbide share/zsh/site-functions/_carbide; do
    [ -s "$prefix/$file" ] || { echo "$file was not installed"; exit 1; }
done

seq 20000 | sort -R >"$work/in"
LC_ALL=C sort "$work/in" >"$work/expected"
check() {
    rm -f "$work/out"
    "$@" "$work/in" "$work/out"
    cmp "$work/expected" "$work/out"
}

echo "== by CMake"
cmake -S "$CARBIDE_SOURCE/tests/house/consumer" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$prefix" >"$work/log" &&
    cmake --build "$work/consumer" >"$work/log" || { cat "$work/log"; exit 1; }
check "$work/consumer/consumer_static"
[ ! -e "$work/consumer/consumer_shared" ] || check "$work/consumer/consumer_shared"
[ ! -e "$work/consumer/consumer_net" ] || "$work/consumer/consumer_net"

if command -v pkg-config >/dev/null; then
    echo "== by pkg-config"
    pc=$(dirname "$(find "$prefix" -name carbide.pc)")
    # The file names the folder that was configured; --define-prefix goes by where it lies.
    flags=$(PKG_CONFIG_PATH=$pc pkg-config --define-prefix --static --cflags --libs carbide)
    # shellcheck disable=SC2086 # words on purpose
    cc -o "$work/by_hand" "$CARBIDE_SOURCE/tests/house/consumer/main.c" $flags
    check env LD_LIBRARY_PATH="$(dirname "$pc")" "$work/by_hand"
fi

echo "== installed command"
"$prefix/bin/carbide" sort --memory 64M -o "$work/out" "$work/in"
cmp "$work/expected" "$work/out"
