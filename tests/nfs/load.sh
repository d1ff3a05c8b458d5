#!/bin/bash
# load.sh STORE JOB ADDRESS PORT WAITERS RUNS: starts JOB on this machine as fast as it can: WAITERS loops of RUNS runs each
# that wait for the lock, and beside them, until the last of these is through, now and then one that does not. Prints the exit code of
# each start. The job tells the witness that it lives, and ends when that has heard it.
store=$1 job=$2 address=$3 port=$4 waiters=$5 runs=$6
host=$(uname -n)
task="exec 9<>/dev/tcp/$address/$port; echo \"\$JOBLOCK_JOB \$JOBLOCK_TOKEN $host\" >&9; read -r answer <&9 && [ \"\$answer\" != refused ]"
start() {
    code=0
    /host/joblock run --store "$store" -q "$@" "$job" -- bash -c "$task" || code=$?
    echo "exit $code"
}
waiter() { for ((i = 0; i < runs; i++)); do start -w forever; done; }
cd / || exit 1
pids=()
for ((w = 0; w < waiters; w++)); do
    waiter &
    pids+=($!)
done
while kill -0 "${pids[@]}" 2>/dev/null; do
    start -n
    sleep 1
done
wait
