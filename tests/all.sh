#!/bin/bash
# Runs every test and ends with one plain line, `N passed, N failed`, added up from the summaries that each of
# cargo's test programs prints. Not zero if a test failed, if a test program died without a summary, or if none ran.
#
# The programs whose machines of their own mostly wait for leases go one after the other beside the rest, and are shown after it.
# `tests/all.sh ARGUMENTS` is `cargo test ARGUMENTS`.
set -euo pipefail
cd "$(dirname "$0")/.."

programs=() machines=()
for file in tests/*.rs tests/*/main.rs; do
    name=${file#tests/} name=${name%/main.rs} name=${name%.rs}
    if grep -q 'pub mod lab;' "$file"; then
        machines+=(--test "$name")
    else
        programs+=(--test "$name")
    fi
done

log=$(mktemp) beside=$(mktemp)
trap 'rm -f "$log" "$beside"; kill $(jobs -p) 2>/dev/null || true' EXIT
status=0
run() { cargo test --locked --no-fail-fast "$@" 2>&1; }
if [ $# -gt 0 ]; then
    run "$@" | tee "$log" || status=$?
else
    run --no-run | tee "$log" || status=$?
    if [ "$status" -eq 0 ]; then
        run "${machines[@]}" >"$beside" &
        run --lib --bins "${programs[@]}" | tee -a "$log" || status=$?
        run --doc | tee -a "$log" || status=$?
        wait $! || status=$?
        tee -a "$log" <"$beside"
    fi
fi

read -r passed failed ignored < <(
    awk '/^test result: / { passed += $4; failed += $6; ignored += $8 }
         END { print passed + 0, failed + 0, ignored + 0 }' "$log"
)
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
    echo "tests: cargo test ended with $status and no test says that it failed: see above" >&2
    failed=1
fi
if [ "$ignored" -ne 0 ]; then
    echo "tests: $ignored ignored: this project has no ignored tests" >&2
    failed=$((failed + ignored))
fi
if [ "$passed" -eq 0 ]; then
    echo 'tests: none ran' >&2
    status=1
fi
# once more, each in a few lines: they stand far above, between what passed
awk '/^---- .* stdout ----$/ { left = 12; print "" } left-- > 0' "$log"
echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$status" -eq 0 ]
