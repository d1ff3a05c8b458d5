#!/bin/sh
# Blue's first process: the application in its container. When it comes up between 00:00 and 05:00 it runs all
# jobs of `startup-order`, one after the other, waiting for each; then it starts what `schedule` says, for ever.
. "$(dirname "$0")/clock.sh"

start() { # TRIGGER JOB
    if [ -e "$night/joblock.toml" ]; then
        JOBLOCK_TRIGGER=$1 joblock run "$2"
    else
        job.sh "$2"
    fi
    code=$?
    tell "$1 of $2 exited with $code"
    return $code
}

look_at_clock
tell is up
if [ "$minute" -ge 0 ] && [ "$minute" -le 300 ]; then
    while read -r job; do
        start startup "$job" </dev/null
    done <"$night/startup-order"
    tell start-up is over
fi

look_at_clock
last=$minute
while :; do
    until_minute $((last + 1))
    now=$minute
    while read -r due job; do
        if [ "$due" -gt "$last" ] && [ "$due" -le "$now" ]; then
            start schedule "$job" </dev/null &
        fi
    done <"$night/schedule"
    last=$now
done
