#!/bin/bash
# Licences of all that is built in, and known advisories, as far as this machine can tell: cargo-deny where it is
# installed, else the licences alone, against the same list (deny.toml).
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo deny --version >/dev/null 2>&1; then
    cargo deny --locked check licenses bans sources
    # The advisory database is fetched from the network: not having it is said, never passed over in silence.
    if cargo deny --locked fetch db >/dev/null 2>&1; then
        cargo deny --locked check advisories
    else
        echo 'licences: SKIPPED: advisories (the advisory database cannot be fetched from here)' >&2
    fi
    exit
fi

echo 'licences: SKIPPED: advisories, bans and sources (cargo-deny is not installed)' >&2
allowed=$(sed -n '/^allow = \[/,/^\]/s/^ *"\(.*\)",*$/\1/p' deny.toml | sed 's/ WITH /-with-/')
[ -n "$allowed" ] || { echo 'licences: deny.toml has no list that can be read' >&2; exit 1; }

# Is the SPDX expression $1 true if exactly the allowed licences are? Each name becomes 1 or 0, OR and AND become operators.
may_use() {
    local word sum=''
    for word in $(sed 's/ WITH /-with-/g; s:/: OR :g; s/[()]/ & /g' <<<"$1"); do
        case $word in
            OR) sum+='||' ;;
            AND) sum+='&&' ;;
            '(' | ')') sum+=$word ;;
            *) if grep -qxF -e "$word" <<<"$allowed"; then sum+=1; else sum+=0; fi ;;
        esac
    done
    [ -n "$sum" ] && [ "$((sum))" -eq 1 ]
}

listing=$(cargo tree --locked --prefix none --no-dedupe -e normal,build,dev -f '{p}|{l}' | sort -u)
count=0 bad=0
while IFS='|' read -r package licence; do
    count=$((count + 1))
    may_use "$licence" || {
        bad=$((bad + 1))
        echo "licences: $package: ${licence:-no licence named}: not in the list of deny.toml" >&2
    }
done <<<"$listing"
[ "$bad" -eq 0 ] || exit 1
echo "licences: $count packages, all under licences that deny.toml allows"
