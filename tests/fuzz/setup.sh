#!/bin/sh
# Installs the fuzzers' driver beside the other tools of the tests. Run again, it does nothing.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
version=0.13.1
tools=$root/.cache/cargo-fuzz

if ! [ -x "$tools/bin/cargo-fuzz" ]; then
    command -v c++ >/dev/null 2>&1 || {
        printf 'missing: a C++ compiler; install one (Debian: apt-get install g++)\n' >&2
        exit 1
    }
    CARGO_TARGET_DIR=$tools/build cargo install cargo-fuzz --version "$version" --locked --root "$tools"
    rm -rf "$tools/build"
fi
