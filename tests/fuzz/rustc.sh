#!/bin/sh
# Compiles a crate for the fuzzers: with coverage if it is ours or reads what strangers send.
#
# Coverage of a compiler's code generator would take longer to build than all the rest, and lead
# the fuzzer to inputs that are new to nobody but that.
crate=
previous=
for argument; do
    case $previous in --crate-name) crate=$argument ;; esac
    previous=$argument
done
case $crate in
postern_* | h2 | http | httparse | hyper | ipnet | rustls | tokio_rustls | toml | toml_* | wasmparser) exec "$@" ;;
esac
# What is left out of the arguments; the rest in their order.
left=$#
while [ "$left" -gt 0 ]; do
    case $1 in
    -Cpasses=sancov-module | -Cllvm-args=-sanitizer-coverage-*) ;;
    *) set -- "$@" "$1" ;;
    esac
    shift
    left=$((left - 1))
done
exec "$@"
