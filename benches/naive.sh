#!/bin/bash
# naive.sh DATABASE JOB COMMAND [ARG]...: one run at a time and a history, as it is written today with flock(1) and sqlite3(1).
# The benchmark's second peer. It survives no SIGKILL, and lets children keep the lock that outlive the job.
set -u
database=$1 job=$2
shift 2

exec 9>"$database.$job.lock"
if ! flock -n 9; then
    sqlite3 "$database" "INSERT INTO runs (job, host, started, outcome) VALUES ('$job', '$HOSTNAME', datetime('now'), 'refused')"
    exit 75
fi
id=$(sqlite3 "$database" "INSERT INTO runs (job, host, started, outcome) VALUES ('$job', '$HOSTNAME', datetime('now'), 'running');
    SELECT last_insert_rowid()")
"$@"
code=$?
sqlite3 "$database" "UPDATE runs SET ended = datetime('now'), outcome = 'ended', code = $code WHERE id = $id"
exit "$code"
