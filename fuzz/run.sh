#!/bin/bash
# make fuzz: coverage-guided fuzzing of every target (or of those named) on stable Rust, from the corpus that is in the repo.
#
#   run.sh [TARGET]...           $MINUTES in all, shared by the targets; what it finds new stays in target/fuzz
#   run.sh --keep [TARGET]...    then puts the smallest set of inputs with the same coverage into fuzz/corpus
#
# An input that breaks a promise is kept as target/fuzz/TARGET.found/…, and ends the run with an error: mend the cause,
# and copy the input into fuzz/corpus/TARGET, so that it is replayed for ever (tests/fuzz_corpus.rs).
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"

keep=
[ "${1:-}" != --keep ] || { keep=1; shift; }
host=$(rustc -vV | sed -n 's/^host: //p')
work=$(readlink -f ..)/target/fuzz
mkdir -p "$work"

# SanitizerCoverage is a pass of LLVM that stable rustc runs when it is asked for by name. Its comparisons are not seen where
# LLVM turns a short memcmp into loads, hence the last one.
coverage='-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table
    -C llvm-args=-sanitizer-coverage-trace-compares -C llvm-args=-max-loads-per-memcmp=0'
# the host is named so that build scripts and macros, which can't have it, do without
CARGO_TARGET_DIR=$work RUSTFLAGS=$(echo $coverage) \
    cargo build --quiet --locked --profile fuzz --target "$host"
fuzzer=$work/$host/fuzz/fuzz

targets=("$@")
[ "$#" -gt 0 ] || mapfile -t targets < <(cd corpus && printf '%s\n' */ | tr -d /)
seconds=$((${MINUTES:-5} * 60 / ${#targets[@]}))
status=0
for target in "${targets[@]}"; do
    mkdir -p "$work/$target.corpus" "$work/$target.found" "corpus/$target"
    echo "fuzz: $target, $seconds s"
    FUZZ_TARGET=$target "$fuzzer" "$work/$target.corpus" "corpus/$target" \
        -max_total_time="$seconds" -timeout=25 -rss_limit_mb=1024 -use_value_profile=1 -print_final_stats=1 \
        -max_len=16384 \
        -artifact_prefix="$work/$target.found/" >"$work/$target.log" 2>&1 || {
        status=1
        tail -40 "$work/$target.log"
        echo "fuzz: $target broke a promise: see $work/$target.found" >&2
        continue
    }
    grep -E 'DONE|stat::number_of_executed_units' "$work/$target.log"
done
exit "$status"
