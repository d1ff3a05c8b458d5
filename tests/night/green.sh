#!/bin/sh
# Green's first process: at 01:29 of the night it starts a real cron daemon, whose own time zone is such that
# the next full minute of the real clock is 01:29 there. The crontab stays as it would be on a server.
. "$(dirname "$0")/clock.sh"

tell is up
until_minute 89

# In the last seconds of a minute cron might be up too late for the next one: then the one after it is 01:29.
now=$(date +%s)
tick=$((((now + 10) / 60 + 1) * 60))
east=$((89 * 60 - tick % 86400))
sign=-
if [ $east -lt 0 ]; then
    sign=+
    east=$((-east))
fi
TZ=NIGHT$sign$(printf %02d:%02d $((east / 3600)) $((east % 3600 / 60)))
export TZ
tell "starts cron at $(date +%H:%M:%S)"
cron -f &
while :; do sleep 1; done
