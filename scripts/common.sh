# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the scripts beside this file share.

# shellcheck disable=SC2034 # used by those who read this file
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }
fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# The newest clang that carbide is known to work with, or nothing. tool: clang, clang-tidy, clang-format ...
clang_versions=(19 20 21 18 17 16 15 14)
find_clang() {
    local tool=$1 version
    for version in "${clang_versions[@]}"; do
        if command -v "$tool-$version" >/dev/null; then
            echo "$tool-$version"
            return
        fi
    done
    if command -v "$tool" >/dev/null; then echo "$tool"; fi
}

# Builds go easy on the machine they share with whoever waits for them.
jobs() { nproc; }
