#!/bin/sh
# Installs what the tests need besides Rust: wrk, a registry for plugins and h2spec (both by Go), and
# a Python environment with clients that are not ours. Run again, it does nothing.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/.cache/tests-venv
requirements=$root/tests/clients/requirements.txt

say() { printf '%s\n' "$*" >&2; }

install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        say "missing: $*; install it with your package manager, then run make setup-tests again"
        exit 1
    fi
    say "installing $*"
    apt-get install -y --no-install-recommends "$@" >&2 ||
        { apt-get update >&2 && apt-get install -y --no-install-recommends "$@" >&2; }
}

# A registry that is not ours: a Go tool, kept beside the rest.
tools=$root/.cache/tests-bin
registry=github.com/google/go-containerregistry/cmd/registry@v0.20.6
if ! [ -x "$tools/registry" ]; then
    command -v go >/dev/null 2>&1 || install golang-go
    say "building $registry"
    GOBIN=$tools go install "$registry"
fi

command -v wrk >/dev/null 2>&1 || install wrk
command -v python3 >/dev/null 2>&1 || install python3
python3 -c 'import venv, ensurepip' 2>/dev/null || install python3-venv

# A conformance test of HTTP/2 that others wrote; it is in no other registry.
h2spec=$root/.cache/h2spec
if [ ! -x "$h2spec/h2spec" ]; then
    command -v go >/dev/null 2>&1 || install golang-go
    say "building h2spec: $h2spec"
    GOBIN=$h2spec go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
fi

if cmp -s "$requirements" "$venv/requirements.txt"; then
    say "the tests' Python environment is there: $venv"
    exit 0
fi
say "making the tests' Python environment: $venv"
rm -rf "$venv"
python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
cp "$requirements" "$venv/requirements.txt"
say "done"
