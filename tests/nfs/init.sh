#!/bin/bash
# PID 1 of a machine of the lab. From the kernel's command line: HN its name, IP the last part of its addresses,
# CACHE what fetch.sh unpacked, SHARE what is /host, STATE what survives a power cut, LEASE and GRACE the server's.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
modules=$(echo "$CACHE"/kernel/usr/lib/uml/modules/*/kernel)
export modules

# kmod may not be there: finit_module(2) by its number. FILE[,PARAMETER..]
load() {
    perl -e 'for (@ARGV) { my ($f, @p) = split /,/; my $p = join " ", @p; open F, "<", "$ENV{modules}/$f.ko" or die "$f: $!";
        syscall(313, fileno F, $p, 0) == 0 or warn "$f: $!\n" }' "$@"
}
export -f load

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=755 tmp /run
load fs/overlayfs/overlay
mkdir -p /run/o/up /run/o/work /run/o/new /run/l1
mount -t hostfs -o "$CACHE/root" none /run/l1
mount -t overlay -o lowerdir=/run/l1:/,upperdir=/run/o/up,workdir=/run/o/work root /run/o/new ||
    exec echo 'the root could not be laid over this machine'\''s'
new=/run/o/new
mkdir -p $new/host $new/mnt/{a,b,c,d} $new/export $new/var/lib/nfs $new/proc $new/sys $new/dev $new/run $new/tmp
for folder in proc sys dev; do mount --move /$folder $new/$folder; done
mount -t tmpfs -o mode=755 run $new/run
mount -t tmpfs -o mode=1777 tmp $new/tmp
mkdir -p $new/dev/pts $new/dev/shm
mount -t devpts devpts $new/dev/pts
mount -t tmpfs shm $new/dev/shm
mount -t hostfs -o "$SHARE" none $new/host
# wherever the cache is on this computer, /tmp included
mkdir -p $new/run/kernel
mount -t hostfs -o "$CACHE/kernel" none $new/run/kernel
# statd's list of peers and the NFSv4 server's of clients
mount -t hostfs -o "$STATE" none $new/var/lib/nfs
mkdir -p $new/var/lib/nfs/{sm,sm.bak,rpc_pipefs,v4recovery,nfsdcltrack,nfsdcld}

cat >$new/run/services <<'STAGE'
modules=$(echo /run/kernel/usr/lib/uml/modules/*/kernel)
hostname "$HN"
printf '%s\n' '127.0.0.1 localhost' '10.99.0.1 srv' '10.99.0.2 blue' '10.99.0.3 green' >/etc/hosts
# there is no DNS: never wait for it
echo 'hosts: files' >/run/nsswitch
grep -v '^hosts:' /etc/nsswitch.conf >>/run/nsswitch 2>/dev/null
rm -f /etc/nsswitch.conf /etc/resolv.conf
cp /run/nsswitch /etc/nsswitch.conf
: >/etc/resolv.conf
grep -q ^_rpc: /etc/passwd || echo '_rpc:x:100107:65534::/run/rpcbind:/usr/sbin/nologin' >>/etc/passwd
grep -q ^statd: /etc/passwd || echo 'statd:x:100108:65534::/var/lib/nfs:/usr/sbin/nologin' >>/etc/passwd
ip link set lo up
ip addr add 10.99.0.$IP/24 dev eth0
ip link set eth0 up
ip addr add 10.99.1.$IP/24 dev eth1
ip link set eth1 up
perl /host/lab/agent.pl 10.99.1.$IP >/run/agent.log 2>&1 &
# grace periods that end in seconds
load net/sunrpc/sunrpc fs/nfs_common/grace fs/lockd/lockd,nlm_grace_period=3,nlm_timeout=3 fs/nfs_common/nfs_acl
mount -t rpc_pipefs rpc_pipefs /var/lib/nfs/rpc_pipefs
mkdir -p /run/rpcbind
# there is no IPv6
sed -i '/^[a-z]*6 /d' /etc/netconfig
rpcbind
if [ "$HN" = srv ]; then
    load lib/oid_registry net/sunrpc/auth_gss/auth_rpcgss fs/nfsd/nfsd
    mount -t nfsd nfsd /proc/fs/nfsd
    mount -t ext4 /dev/ubda /export || echo 'the export could not be mounted'
    mkdir -p /export/data
    chmod 1777 /export/data
    touch /var/lib/nfs/{etab,rmtab}
    echo '/export *(rw,sync,no_root_squash,no_subtree_check,fsid=0,insecure)' >/etc/exports
    nfsdcld
    rpc.statd --no-notify
    sm-notify
    exportfs -ra
    rpc.mountd --manage-gids=no 2>/dev/null || rpc.mountd
    rpc.nfsd -L "$LEASE" -G "$GRACE" 8
    # at the very first boot nobody has a lock to reclaim
    [ -e /var/lib/nfs/booted ] || echo Y >/proc/fs/lockd/nlm_end_grace
    touch /var/lib/nfs/booted
else
    load fs/netfs/netfs fs/fscache/fscache fs/nfs/nfs fs/nfs/nfsv3 net/dns_resolver/dns_resolver fs/nfs/nfsv4
    rpc.statd --no-notify
    sm-notify
fi
echo "READY $HN $(cut -d' ' -f1 /proc/uptime)"
trap : CHLD
while :; do
    wait
    sleep 3600 &
    wait $!
done
STAGE
mkdir -p $new/run/old
cd $new || exit 1
pivot_root . run/old
exec chroot . /bin/bash /run/services </dev/console >/dev/console 2>&1
