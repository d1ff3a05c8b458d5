#!/bin/bash
# make fuzz: coverage-guided fuzzing of every target (or of those named) on stable Rust, beginning with fuzz/corpus.
#
#   run.sh [TARGET]...     $MINUTES in all (22 unless set), shared by the targets; what is found stays in target/fuzz
#   run.sh keep [TARGET].. puts what has coverage of its own into fuzz/corpus, in the place of what is there
#
# An input that breaks a promise is kept below target/fuzz/TARGET.found and makes this fail. Mend the cause, and copy the input
# into fuzz/corpus/TARGET under a name that says what was wrong: tests/fuzz_corpus.rs replays it from then on.
#
# The compiler of C and C++ that rusqlite needs builds libFuzzer too. $JOBLOCK_RECORD: keeps the figures in docs/evidence.
set -euo pipefail
# libFuzzer ends without running what would remove them
FUZZ_MEMORY=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo /tmp)" joblock-fuzz.XXXXXX)
export FUZZ_MEMORY
trap 'rm -rf "$FUZZ_MEMORY"' EXIT
cd "$(dirname "$(readlink -f "$0")")"

host=$(rustc -vV | sed -n 's/^host: //p')
work=$(readlink -f ..)/target/fuzz
mkdir -p "$work"

# SanitizerCoverage is a pass of LLVM, which stable rustc runs when it is asked for by name. The last one keeps LLVM from turning
# short comparisons of memory into loads, which libFuzzer would not see: without it no keyword is ever guessed.
coverage=(
    -C passes=sancov-module
    -C llvm-args=-sanitizer-coverage-level=4
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters
    -C llvm-args=-sanitizer-coverage-pc-table
    -C llvm-args=-sanitizer-coverage-trace-compares
    -C llvm-args=-max-loads-per-memcmp=0
)
# the host is named so that build scripts and macros, which can't have it, do without
CARGO_TARGET_DIR=$work RUSTFLAGS=${coverage[*]} cargo build --quiet --locked --profile fuzz --target "$host"
fuzzer=$work/$host/fuzz/fuzz
mapfile -t all < <(cd corpus && printf '%s\n' */ | tr -d /)

# libFuzzer's words about a target are in its log.
look() {
    local target=$1
    shift
    mkdir -p "$work/$target.corpus" "$work/$target.found"
    FUZZ_TARGET=$target "$fuzzer" -timeout=25 -rss_limit_mb=1024 -max_len=16384 \
        -artifact_prefix="$work/$target.found/" "$@" >"$work/$target.log" 2>&1
}

keep=
[ "${1:-}" != keep ] || { keep=1; shift; }
targets=("$@")
[ "$#" -gt 0 ] || targets=("${all[@]}")

if [ -n "$keep" ]; then
    for target in "${targets[@]}"; do
        rm -rf "$work/$target.kept"
        mkdir "$work/$target.kept"
        # those with a name tell of something that was mended, or are what everything began with
        find "corpus/$target" -type f -regextype egrep ! -regex '.*/[0-9a-f]{40}' -exec cp {} "$work/$target.kept/" \;
        look "$target" -use_counters=0 -merge=1 "$work/$target.kept" "corpus/$target" "$work/$target.corpus"
        rm -rf "corpus/$target"
        cp -r "$work/$target.kept" "corpus/$target"
        echo "fuzz: $target: $(find "corpus/$target" -type f | wc -l) inputs kept"
    done
    exit
fi

seconds=$((${MINUTES:-22} * 60 / ${#targets[@]}))
status=0
figures=
for target in "${targets[@]}"; do
    if ! look "$target" -max_total_time="$seconds" -use_value_profile=1 -print_final_stats=1 \
        "$work/$target.corpus" "corpus/$target"; then
        status=1
        tail -40 "$work/$target.log"
        echo "fuzz: $target: a promise is broken by what is in $work/$target.found" >&2
        continue
    fi
    inputs=$(sed -n 's/^stat::number_of_executed_units: //p' "$work/$target.log")
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$work/$target.log" | sed -n '1p;$p' | paste -sd' ')
    said="$inputs inputs in $seconds s, edges ${edges/ / → }"
    echo "fuzz: $target: $said"
    figures+=$(printf '    ["%s", "%s"],' "$target" "$said")$'\n'
done

if [ "$status" -eq 0 ] && [ -n "${JOBLOCK_RECORD:-}" ]; then
    kept="$(find corpus -type f | wc -l) inputs, $(find corpus -type f -exec cat {} + | wc -c | awk '{ printf "%d KiB", $1 / 1024 }')"
    cat >../docs/evidence/fuzz.json <<END
{
  "program": "fuzz",
  "command": "make fuzz MINUTES=${MINUTES:-22}",
  "date": "$(date -u +%F)",
  "commit": "$(git rev-parse --short HEAD)",
  "cores": $(nproc),
  "figures": [
$figures    ["corpus that CI replays", "$kept"]
  ]
}
END
fi
exit "$status"
