#!/bin/bash
# tests/clean-root.sh [SUITE]: tries both commands of the README in a root made by debootstrap, in which there is
# Debian's base system and Rust, and nothing else: a machine where everything is there already proves nothing.
#
# Rust is this machine's toolchain, with the C compiler that any Rust needs for linking (Debian's own rustc package
# depends on the same two), and make. SUITE is this machine's release unless it is named. Needs root; takes long.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" -eq 0 ] || { echo 'check-clean: needs root (debootstrap, chroot, mounts)' >&2; exit 1; }
# A mount namespace of our own, so that nothing stays mounted, whatever happens.
[ "${1:-}" = inside ] || exec unshare --mount --propagation private "$0" inside "$@"
shift

here=$(. /etc/os-release && echo "$VERSION_CODENAME")
suite=${1:-$here}
with_rust=(gcc libc6-dev make)

command -v debootstrap >/dev/null || {
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends debootstrap >/dev/null
}
# The mirror that this machine uses itself.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Codename: $here" | head -1)
[ -n "$mirror" ] || { echo 'check-clean: apt knows no Debian mirror here' >&2; exit 1; }
mapfile -t commands < <(sed -n '/^```console$/,/^```$/s/^\$ //p' README.md | head -2)
[ "${#commands[@]}" -eq 2 ] || { echo 'check-clean: the README does not open with two commands' >&2; exit 1; }

root=$(mktemp -d "${TMPDIR:-/tmp}/clean-root.XXXXXX")
# As / of any machine is: other users, whom tests become, must get in.
chmod 755 "$root"
trap 'umount --recursive --lazy "$root" 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT
# A mount point, as / of any machine is: else unshare --mount, which tests use, fails inside.
mount --bind "$root" "$root"
echo "check-clean: $suite in $root"
debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$root.log" 2>&1 || { tail "$root.log" >&2; exit 1; }
rm -f "$root.log"

# How this machine reaches its mirror and the crates: proxies, certificates, names.
apt-config dump Acquire >"$root/etc/apt/apt.conf.d/90acquire"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
[ ! -d /etc/ssl/certs ] || { mkdir -p "$root/etc/ssl" && cp -aL /etc/ssl/certs "$root/etc/ssl/" 2>/dev/null || true; }
surroundings=("HOME=/root" "PATH=/opt/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin" "LANG=C.UTF-8")
while IFS= read -r -d '' variable; do
    case $variable in
    *_proxy=* | *_PROXY=* | SSL_CERT_*=* | CI=*) surroundings+=("$variable") ;;
    esac
done < <(env -0)

mkdir -p "$root/opt/rust" "$root/root/.cargo" "$root/root/joblock"
mount --bind "$(rustc --print sysroot)" "$root/opt/rust"
mount -o remount,bind,ro "$root/opt/rust"
cargo_home=${CARGO_HOME:-$HOME/.cargo}
for part in config.toml registry; do
    [ ! -e "$cargo_home/$part" ] || cp -a "$cargo_home/$part" "$root/root/.cargo/"
done
git ls-files -z | tar --create --null --files-from=- | tar --extract --no-same-owner --directory "$root/root/joblock"
for part in proc sys dev; do mount --rbind "/$part" "$root/$part"; done

inside() { chroot "$root" env -i "${surroundings[@]}" bash -c "cd /root/joblock && $1" </dev/null; }
inside "apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends ${with_rust[*]} >/dev/null"
for command in "${commands[@]}"; do
    echo "check-clean: \$ $command"
    inside "$command"
done
echo "check-clean: both commands of the README work on a fresh $suite"
