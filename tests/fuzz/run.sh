#!/bin/bash
# Builds every fuzz target and runs each for so many seconds: run.sh SECONDS [TARGET...].
#
# Two targets run at a time on two cores, and so on. What a run adds to the corpus is kept in
# .cache; an input that a target fails on is kept in tests/fuzz/artifacts, and its path is printed.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
seconds=${1:?how many seconds for each target}
shift
fuzz=$root/tests/fuzz
found=$root/.cache/fuzz
build=${CARGO_TARGET_DIR:-$root/target}/fuzz
# More is a hang, and a leak: the largest input is a quarter of a MiB.
limits=(-timeout=30 -rss_limit_mb=2048)

[ "$seconds" -gt 0 ] || { echo "run.sh: $seconds is no number of seconds" >&2; exit 2; }
if [ $# = 0 ]; then
    set -- $(cd "$fuzz/corpus" && echo *)
fi

# The stable compiler has coverage for fuzzing, behind this switch. No AddressSanitizer: our code
# has next to no unsafe that it could judge, and without it inputs run several times as fast. `-O`
# leaves it to the profile what is asserted.
RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$build PATH=$root/.cache/cargo-fuzz/bin:$PATH \
    RUSTC_WRAPPER=$fuzz/rustc.sh \
    cargo fuzz build --fuzz-dir "$fuzz" --sanitizer none -O --codegen-units 16
host=$(rustc -vV | sed -n 's/^host: //p')

fuzz_one() {
    local target=$1 log=$found/$1.log status=0
    mkdir -p "$found/$target" "$fuzz/artifacts/$target"
    "$build/$host/release/$target" "${limits[@]}" -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="$fuzz/artifacts/$target/" \
        "$found/$target" "$fuzz/corpus/$target" >"$log" 2>&1 || status=$?
    local runs
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ "$status" = 0 ]; then
        printf '%-22s ok      %s inputs\n' "$target" "${runs:-0}"
        return
    fi
    printf '%-22s FAILED  %s inputs; %s\n' "$target" "${runs:-some}" "$log"
    grep -E 'panicked at|SUMMARY|Test unit written' -A1 "$log" | sed 's/^/    /' | head -20
    return 1
}

mkdir -p "$found"
failed=0
running=0
for target in "$@"; do
    if [ "$running" -ge "$(nproc)" ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    fuzz_one "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
[ "$failed" = 0 ] || echo "inputs that failed are in $fuzz/artifacts" >&2
exit "$failed"
