#!/bin/sh
# job.sh JOB: the jobs of the night. They last as long as they did then, on the night's clock.
set -eu
. "$(dirname "$0")/clock.sh"

job=$1
look_at_clock
began=$minute
tell "begins $job"
case $job in
person-placement-employing-body-trust)
    if [ "$began" -lt 21 ]; then
        until_minute 21
        exec tail /dev/zero # keeps the last line, which never ends: until the kernel's OOM killer strikes
    fi
    until_minute 40
    ;;
person-record-status)
    until_minute 93
    ;;
person-elasticsearch-sync)
    "$night/bin/person-sync.sh" "$night/people.db" "$night/index.db" "$began"
    ;;
*) ;; # less than a minute
esac
tell "ends $job"
