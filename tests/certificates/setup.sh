#!/bin/sh
# Installs what the tests of certificates run: Pebble, a certificate authority for tests, with its
# DNS server (both by Go), and openssl, which judges what was issued. Run again, it does nothing.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
tools=$root/.cache/tests-bin

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

command -v openssl >/dev/null 2>&1 || install openssl

# Debian's is too old for profiles, renewal information and pauses (Retry-After).
pebble=v2.10.1
for name in pebble pebble-challtestsrv; do
    if ! [ -x "$tools/$name-$pebble" ]; then
        command -v go >/dev/null 2>&1 || install golang-go
        say "building $name $pebble"
        GOBIN=$tools go install "github.com/letsencrypt/pebble/v2/cmd/$name@$pebble"
        mv "$tools/$name" "$tools/$name-$pebble"
    fi
done
# A DNS server that is not ours, and a Route 53 with another.
{ [ -x /usr/sbin/named ] || command -v named >/dev/null 2>&1; } || install bind9
# A balancer, before several gateways of one cluster; and that cluster.
{ [ -x /usr/sbin/haproxy ] || command -v haproxy >/dev/null 2>&1; } || install haproxy
"$root/tests/kubernetes/setup.sh"
command -v python3 >/dev/null 2>&1 || install python3
python3 -c 'import venv, ensurepip' 2>/dev/null || install python3-venv
environment() {
    venv=$root/.cache/$1
    requirements=$root/tests/certificates/$2
    if ! cmp -s "$requirements" "$venv/requirements.txt"; then
        say "making a Python environment of the tests of certificates: $venv"
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --requirement "$requirements"
        cp "$requirements" "$venv/requirements.txt"
    fi
}
environment certificates-venv requirements.txt
# A certificate authority that is not Pebble.
environment acme2certifier-venv acme2certifier.txt
say "the tests' certificate authority is there: $tools"
