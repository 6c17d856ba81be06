#!/bin/sh
# Builds what the tests of Kubernetes run: etcd, kube-apiserver, kubectl and helm, at the versions
# that go.mod names, into .cache/kubernetes/VERSION. There is no other way to have a
# kube-apiserver than to build it or to run its container, and a container needs a container
# runtime, so it is built: about ten minutes of processor time, once. Run again, it does nothing.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/tests/kubernetes

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

# Namespaces of the network, and addresses in them.
command -v ip >/dev/null 2>&1 || install iproute2
command -v unshare >/dev/null 2>&1 || install util-linux
command -v go >/dev/null 2>&1 || install golang-go

version=$(awk '$1 == "k8s.io/kubernetes" && $2 ~ /^v/ { print $2 }' "$here/go.mod")
[ -n "$version" ] || { say "tests/kubernetes/go.mod names no version of k8s.io/kubernetes"; exit 1; }
bin=$root/.cache/kubernetes/$version
mkdir -p "$bin"

# The API server says which version it is by what the linker is told, and kubectl believes it.
stamp="-X k8s.io/component-base/version.gitVersion=$version"
stamp="$stamp -X k8s.io/component-base/version.gitMajor=1"
stamp="$stamp -X k8s.io/component-base/version.gitMinor=$(echo "$version" | cut -d. -f2)"

build() {
    name=$1
    package=$2
    if [ -x "$bin/$name" ]; then
        return
    fi
    say "building $name: $bin/$name"
    # Renamed when it is whole, so that a build that was cut short is not taken for one.
    (cd "$here" && go build -mod=readonly -trimpath -ldflags "-s -w $stamp" \
        -o "$bin/$name.part" "$package")
    mv "$bin/$name.part" "$bin/$name"
}

build etcd go.etcd.io/etcd/server/v3
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
build kubectl k8s.io/kubernetes/cmd/kubectl
build helm helm.sh/helm/v4/cmd/helm
say "the API server of the tests is there: $bin"
