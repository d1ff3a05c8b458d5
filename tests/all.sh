#!/bin/bash
# Runs every test and ends with one plain line, `N passed, N failed`, added up from the summaries that each of
# cargo's test programs prints. Not zero if a test failed, if a test program died without a summary, or if none ran.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?

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
echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$status" -eq 0 ]
