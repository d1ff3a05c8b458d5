#!/bin/bash
# Installs what building and testing use, if it isn't there: nothing is touched on a machine that has it all.
# Without root it says what is missing and fails.
set -euo pipefail

# program:Debian package, and what uses it
wanted=$(cat <<'END'
cc:gcc                      rusqlite compiles SQLite
c++:g++                     libFuzzer (make fuzz)
make:make                   make check
awk:mawk                    tests/all.sh, tests/licences.sh
cron:cron                   the night: one start comes from a real cron daemon
strace:strace               counts system calls, forks and syncs
sqlite3:sqlite3             holds a SELECT open, writes broken stores
zsh:zsh                     completions
fish:fish                   completions
man:man-db                  man pages render without a warning
ps:procps                   process trees
unshare:util-linux          namespaces of PIDs, mounts and time
mount:mount                 small and read-only file systems
setpriv:util-linux          a user who may not
script:bsdutils             a terminal
ip:iproute2                 hosts with a network of their own
bindfs:bindfs               mounts whose locks end at them
mkfs.ext4:e2fsprogs         the NFS lab's server has a disk (its own packages it downloads itself and installs nothing)
END
)

PATH=$PATH:/usr/sbin:/sbin
missing=()
while read -r entry _; do
    [ -n "$entry" ] || continue
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
done <<<"$wanted"
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)

if [ "${#missing[@]}" -gt 0 ]; then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    if [ "$(id -u)" -ne 0 ]; then
        echo "setup: missing: ${missing[*]}" >&2
        echo "setup: install them: sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
    echo "setup: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

command -v cargo >/dev/null || {
    echo 'setup: no cargo in $PATH: install Rust 1.89 or newer (rustup.rs)' >&2
    exit 1
}
for component in rustfmt clippy; do
    cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || {
        echo "setup: missing: rustup component add $component" >&2
        exit 1
    }
done
echo "setup: everything is there ($(cargo --version))"
