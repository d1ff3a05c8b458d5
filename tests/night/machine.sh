#!/bin/sh
# machine.sh NAME PROGRAM...: the first process of a host of the night, in UTS, PID and mount namespaces of its own.
# What it mounts and writes is this host's alone: /etc is a copy, /run (with cron's pid file) is empty.
set -eu
. "$(dirname "$0")/clock.sh"

name=$1
shift
hostname "$name"
mount -t tmpfs none /run
cp -a /etc /run/etc
mount --bind /run/etc /etc
mount -t tmpfs -o mode=1730 none /var/spool/cron/crontabs
mount -t tmpfs none /etc/cron.d
echo "$name" >/etc/hostname
install -m 644 "$night/crontab" /etc/crontab
if [ -e "$night/joblock.toml" ]; then
    mkdir -p /etc/joblock
    install -m 644 "$night/joblock.toml" /etc/joblock/joblock.toml
fi
exec "$@"
