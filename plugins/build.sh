#!/bin/sh
# Builds every plugin in this folder for wasm32-unknown-unknown and prints where the core modules
# are. Run again, it builds what has changed.
#
# Usage: plugins/build.sh [OUT]      OUT defaults to target/plugins
#
# The target comes from rustup where rustup can be reached, else from Debian's packages, whose
# compiler builds its standard library from source. `postern plugin componentize` makes components
# of what this builds.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/target/plugins}
target=wasm32-unknown-unknown
target_dir=${CARGO_TARGET_DIR:-$root/target}/guests
debian_packages="rustc-web cargo-web rust-web-src rust-web-llvm"

say() { printf '%s\n' "$*" >&2; }

has_rustup_target() {
    command -v rustup >/dev/null 2>&1 && rustup target list --installed 2>/dev/null | grep -qx "$target"
}

has_debian_target() {
    [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] &&
        [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std" ]
}

# shellcheck disable=SC2086 # the packages are words
install_debian_target() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
    say "installing $debian_packages"
    apt-get install -y --no-install-recommends $debian_packages >&2
}

if has_rustup_target; then
    with=rustup
elif has_debian_target; then
    with=debian
elif command -v rustup >/dev/null 2>&1 && rustup target add "$target" >&2; then
    with=rustup
elif install_debian_target && has_debian_target; then
    with=debian
else
    say "no compiler for $target: run 'rustup target add $target', or as root 'apt-get install $debian_packages'"
    exit 1
fi

packages=
for manifest in "$root"/plugins/*/Cargo.toml; do
    name=$(basename "$(dirname "$manifest")")
    packages="$packages -p $name"
done

# Small and self-contained: a plugin is loaded by the page, and a panic has no one to unwind to.
# The stack of 32 KiB makes room in one 64 KiB page for the data too, so that a fresh instance is
# cheap to clear.
export CARGO_TARGET_DIR="$target_dir"
export CARGO_PROFILE_RELEASE_PANIC=abort
export CARGO_PROFILE_RELEASE_OPT_LEVEL=s
export CARGO_PROFILE_RELEASE_LTO=fat
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1
export CARGO_PROFILE_RELEASE_DEBUG=false
export CARGO_PROFILE_RELEASE_STRIP=symbols
export RUSTFLAGS="-Clink-arg=-zstack-size=32768"

cd "$root"
# shellcheck disable=SC2086 # the packages are words
if [ "$with" = rustup ]; then
    cargo build --locked --release --target "$target" $packages
else
    PATH=/usr/bin:$PATH RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc /usr/bin/cargo build --locked --release \
        --target "$target" -Zbuild-std=std,panic_abort $packages
fi

mkdir -p "$out"
for manifest in "$root"/plugins/*/Cargo.toml; do
    name=$(basename "$(dirname "$manifest")")
    cp "$target_dir/$target/release/$(printf %s "$name" | tr - _).wasm" "$out/$name.core.wasm"
    say "built $out/$name.core.wasm"
done
