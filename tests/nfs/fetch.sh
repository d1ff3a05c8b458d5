#!/bin/bash
# Downloads what the lab's machines are made of into $LAB_CACHE and unpacks it there. Installs nothing.
# 42 MB to download, 25 MB unpacked; does nothing if it was done before.
set -euo pipefail
: "${LAB_CACHE:?where to keep what is downloaded}"

here=$(dirname "$(readlink -f "$0")")
version=$(cksum <"$here/fetch.sh")
[ "$(cat "$LAB_CACHE/version" 2>/dev/null)" != "$version" ] || exit 0
[ "$(dpkg --print-architecture)" = amd64 ] || { echo 'nfs lab: Debian has User Mode Linux for amd64 only' >&2; exit 1; }

mkdir -p "$(dirname "$LAB_CACHE")"
new=$(mktemp -d "$LAB_CACHE.XXXXXX")
trap 'rm -rf "$new"' EXIT
chmod 755 "$new"
mkdir -p "$new/deb/partial" "$new/kernel" "$new/root/usr"

# apt works out what is missing here and would have to be installed, and stops after the download.
download() {
    apt-get -qq -y --no-install-recommends --download-only \
        -o "Dir::Cache::archives=$new/deb" -o Debug::NoLocking=1 -o APT::Sandbox::User=root \
        install --reinstall user-mode-linux nfs-common nfs-kernel-server rpcbind
}
download >"$new/log" 2>&1 || {
    # a new machine has no lists yet
    apt-get -qq update && download
} >"$new/log" 2>&1 || { cat "$new/log" >&2; echo 'nfs lab: its packages could not be downloaded' >&2; exit 1; }

for package in "$new"/deb/*.deb; do
    case ${package##*/} in
    user-mode-linux_*) dpkg-deb --extract "$package" "$new/kernel" ;;
    *) dpkg-deb --extract "$package" "$new/root" ;;
    esac
done
# It is laid over a root whose /bin, /lib and /sbin are links into /usr.
for folder in bin lib lib64 sbin; do
    [ -d "$new/root/$folder" ] && [ ! -L "$new/root/$folder" ] || continue
    mkdir -p "$new/root/usr/$folder"
    cp -a "$new/root/$folder/." "$new/root/usr/$folder/"
    rm -rf "${new:?}/root/$folder"
done
find "$new/kernel/usr/lib/uml/modules" -name '*.ko' |
    grep -vE '/(overlay|sunrpc|grace|lockd|netfs|fscache|nfs|nfsv3|nfsv4|nfs_acl|nfsd|auth_rpcgss|oid_registry|dns_resolver)\.ko$' |
    xargs rm -f
rm -rf "$new/deb" "$new/log" "$new"/{kernel,root}/usr/share
echo "$version" >"$new/version"
rm -rf "$LAB_CACHE"
mv "$new" "$LAB_CACHE"
