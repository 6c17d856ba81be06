#!/bin/sh
# Takes the steps of config/image/Dockerfile where there is no builder of containers: builds the
# program, puts it with what it links to into a folder, and runs it there as the user of the image,
# who may write nothing but what the pod gives.
#
#   tests/kubernetes/image.sh [PROGRAM]
#
# Without PROGRAM it is built as a release. Wants to be root.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
say() { printf '%s\n' "$*" >&2; }

program=${1:-}
if [ -z "$program" ]; then
    (cd "$root" && cargo build --locked --release -p postern)
    program=${CARGO_TARGET_DIR:-$root/target}/release/postern
fi
image=$(mktemp -d)
trap 'rm -rf "$image"' EXIT
install -D -m 0755 "$program" "$image/postern"
strip --strip-debug "$image/postern"
setcap cap_net_bind_service=+ep "$image/postern"
install -d -o 65532 -g 65532 -m 0700 "$image/run/postern" "$image/var/cache/postern"
chmod 0755 "$image" "$image/run" "$image/var" "$image/var/cache"

# What the base image has: the C library.
ldd "$program" | awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^\//) { print $i; break } }' |
    while read -r library; do
        install -D -m 0755 "$library" "$image$library"
    done
say "the image would hold:"
(cd "$image" && du -ah --apparent-size . | sort -k 2) >&2

as_user() {
    # No privileges are to be had, and of the capabilities one alone, as the manifest says.
    chroot "$image" /postern "$@"
}
if command -v setpriv >/dev/null 2>&1; then
    as_user() {
        setpriv --reuid 65532 --regid 65532 --clear-groups \
            --bounding-set -all,+net_bind_service,+sys_chroot \
            --inh-caps -all,+sys_chroot --ambient-caps -all,+sys_chroot \
            chroot "$image" /postern "$@"
    }
fi
as_user version
as_user rbac >/dev/null
say "the program of the image runs as its user"
