//! Mounts that lie: locks or data that stay on this machine although other machines use the same files, and what to change.
//!
//! - NFS before version 4 with `nolock` or `local_lock=`. Version 4 ignores both.
//! - NFS that is `soft` and gives up early. What it gave up on may still be done by the server, later and after what came
//!   then, so a write that was called failed (or one that SQLite undid) can come back; and a heartbeat that
//!   could not wait for a restart of the server looks like a lost lock. What waits as long as the kernel's defaults do is let through.
//! - NFS version 4 with `recover_lost_locks`: the kernel takes a lock that the server gave away again, and nobody is told.
//! - An overlay over a network mount: locks are the overlay's own, and what is written goes to the upper layer, here.
//! - SMB with `nobrl`, or with a cache that doesn't ask; 9p from QEMU, which says yes to every lock; Lustre, GFS2 and OCFS2 with local locks.
//! - FUSE and virtiofs whose daemon leaves locks to the kernel, or lets two have one, see `fuse`.
//!
//! Not told: that a FUSE daemon, an SMB or a 9p server passes locks on, nor how another machine has mounted the same.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{StatFs, StatVfsMountFlags};

use super::fuse::{self, Tried};
use super::{Mount, OVERLAY, find, is_local_kind, magic, unescape};
use crate::duration;
use crate::kernel_file;
use crate::store::{StoreError, StoreUrl, trouble};

/// A soft mount that waits for a server as long as this is let through: `timeo=600,retrans=2`, the kernel's defaults.
pub const PATIENCE: Duration = Duration::from_secs(180);

const RECOVER: &str = "/sys/module/nfs/parameters/recover_lost_locks";

/// A kind of lock that a store needs to reach other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locks {
    /// flock(2): `lockfile:`'s own.
    Flock,
    /// fcntl(2): `SQLite`'s.
    Posix,
}

impl fmt::Display for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Locks::Flock => "flock(2) locks",
            Locks::Posix => "SQLite's (fcntl(2)) locks",
        })
    }
}

/// What a mount does not do, although it looks as if it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lie {
    /// What, with the mount point and the option.
    pub what: String,
    /// What to change.
    pub change: String,
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.change)
    }
}

/// All of them in one line.
pub fn listed(lies: &[Lie]) -> String {
    let lies: Vec<_> = lies.iter().map(ToString::to_string).collect();
    lies.join("; and ")
}

/// The lies of the mount that a store is on, to be asked before a start.
///
/// # Errors
/// It is mounted read-only, or takes no file or lock at all. A store or folder that is missing is left to who opens it.
pub fn of_store(url: &StoreUrl) -> Result<Vec<Lie>, StoreError> {
    let (path, asked) = match url {
        StoreUrl::Sqlite { path, .. } => (path, SQLITE),
        StoreUrl::Lockfile { directory, .. } => (directory, LOCKFILE),
    };
    if let Some(point) = read_only(path) {
        let point = point.display();
        return Err(trouble::unusable(
            path,
            &format!(
                "{point} is mounted read-only, and no run can be recorded there: mount -o remount,rw {point}, or name another store with --store"
            ),
        ));
    }
    at(path, asked).map_err(|error| trouble::from_io(path, &error))
}

/// `path`'s file system, or, if it is not made yet, its folder's.
fn statfs(path: &Path) -> Option<(&Path, StatFs)> {
    let of = |path| Some((path, rustix::fs::statfs(path).ok()?));
    of(path).or_else(|| of(path.parent()?))
}

/// Where what `path` is on is mounted, if nobody may write there.
pub fn read_only(path: &Path) -> Option<PathBuf> {
    let (path, found) = statfs(path)?;
    let flags = StatVfsMountFlags::from_bits_retain(u64::try_from(found.f_flags).ok()?);
    let is = flags.contains(StatVfsMountFlags::RDONLY);
    is.then(|| super::of(path).map_or_else(|| path.to_owned(), |mount| mount.point))
}

/// The lies of the mount that `path` is on, for whoever needs the locks `asked` for to reach other machines.
///
/// # Errors
/// Of trying a lock on a FUSE mount.
pub fn at(path: &Path, asked: &[Locks]) -> io::Result<Vec<Lie>> {
    let Some((path, found)) = statfs(path) else {
        return Ok(Vec::new());
    };
    if is_local_kind(&found) && magic(&found) != OVERLAY {
        return Ok(Vec::new());
    }
    let table = kernel_file::text("/proc/self/mountinfo")?;
    let path = fs::canonicalize(path)?;
    let Some(mount) = find(&table, &path) else {
        return Ok(Vec::new());
    };
    let folder = if path.is_dir() {
        &path
    } else {
        path.parent().unwrap_or(&path)
    };
    let around = Around {
        recovers: mount.nfs() == Some(4)
            && fs::read_to_string(RECOVER).is_ok_and(|yes| yes.starts_with('Y')),
        tried: if mount.is_fuse() {
            fuse::try_locks(folder, asked)?
        } else {
            Tried::default()
        },
        below: below(&table, &mount),
    };
    Ok(judge(&mount, asked, &around))
}

/// What is known beside the line of the mount table.
#[derive(Debug, Default)]
pub struct Around {
    /// `recover_lost_locks` is on.
    pub recovers: bool,
    /// What came of trying locks on a FUSE mount.
    pub tried: Tried,
    /// The network mount that an overlay has the folder from.
    pub below: Option<Mount>,
}

struct Rule {
    option: &'static str,
    hits: &'static [Locks],
    so: &'static str,
    change: &'static str,
}

const BOTH: &[Locks] = &[Locks::Flock, Locks::Posix];

/// What a `lockfile:` store needs: its own kind, and its history's.
pub const LOCKFILE: &[Locks] = BOTH;
/// What a shared `sqlite:` store needs: its lease keeps two runs apart where flock(2) does not reach.
pub const SQLITE: &[Locks] = &[Locks::Posix];

const STAY: &str = "its locks don't reach other machines";
const STALE: &str = "it uses what it remembers without asking the server";

const fn rule(
    option: &'static str,
    hits: &'static [Locks],
    so: &'static str,
    change: &'static str,
) -> Rule {
    Rule {
        option,
        hits,
        so,
        change,
    }
}

const NFS_3: &[Rule] = &[
    rule("nolock", BOTH, STAY, "mount it without nolock"),
    rule(
        "local_lock=all",
        BOTH,
        STAY,
        "mount it with local_lock=none",
    ),
    rule(
        "local_lock=flock",
        &[Locks::Flock],
        "flock(2) locks don't reach other machines",
        "mount it with local_lock=none",
    ),
    rule(
        "local_lock=posix",
        &[Locks::Posix],
        "SQLite's (fcntl(2)) locks don't reach other machines",
        "mount it with local_lock=none",
    ),
];
const SMB: &[Rule] = &[
    rule("nobrl", BOTH, STAY, "mount it without nobrl"),
    rule("cache=loose", BOTH, STALE, "mount it with cache=strict"),
    rule("cache=ro", BOTH, STALE, "mount it with cache=strict"),
    rule(
        "cache=singleclient",
        BOTH,
        STALE,
        "mount it with cache=strict",
    ),
];
const PLAN_9: &[Rule] = &[rule(
    "trans=virtio",
    BOTH,
    "QEMU, which serves it, says yes to every lock",
    "put the store on NFS, or on a file system of this machine's own",
)];
const LUSTRE: &[Rule] = &[
    rule("localflock", BOTH, STAY, "mount it with flock"),
    rule("noflock", BOTH, "it has no locks", "mount it with flock"),
];
const GFS_2: &[Rule] = &[rule(
    "localflocks",
    BOTH,
    STAY,
    "mount it without localflocks",
)];
const OCFS_2: &[Rule] = &[rule(
    "localflocks",
    &[Locks::Flock],
    "flock(2) locks don't reach other machines",
    "mount it without localflocks",
)];

fn rules(mount: &Mount) -> &'static [Rule] {
    match mount.kind.as_str() {
        "nfs" | "nfs4" if mount.nfs() < Some(4) => NFS_3,
        "cifs" | "smb3" => SMB,
        "9p" => PLAN_9,
        "lustre" => LUSTRE,
        "gfs2" => GFS_2,
        "ocfs2" => OCFS_2,
        _ => &[],
    }
}

/// The lies of a mount.
pub fn judge(mount: &Mount, asked: &[Locks], around: &Around) -> Vec<Lie> {
    let point = mount.point.display();
    let mut lies = Vec::new();
    let mut lie = |what: String, change: &str| {
        lies.push(Lie {
            what,
            change: change.to_owned(),
        });
    };
    for rule in rules(mount) {
        // nolock shows as local_lock=all as well
        let is_said = rule.option == "local_lock=all" && mount.has("nolock");
        if mount.has(rule.option) && rule.hits.iter().any(|hit| asked.contains(hit)) && !is_said {
            let what = format!("{point} is mounted with {}, so {}", rule.option, rule.so);
            lie(what, rule.change);
        }
    }
    if let Some(time) = gives_up_after(mount).filter(|time| *time < PATIENCE) {
        lie(
            format!(
                "{point} is mounted soft and gives up on its server after {}, so what was called failed may still be done later",
                duration::text(time)
            ),
            "mount it hard, or with timeo=600,retrans=2 at least",
        );
    }
    if around.recovers {
        lie(
            format!(
                "the kernel takes lost locks of {point} again without a word (recover_lost_locks), although others may have had them meanwhile"
            ),
            "echo N >/sys/module/nfs/parameters/recover_lost_locks, and take it out of /etc/modprobe.d and of the kernel's command line",
        );
    }
    if let Some(below) = &around.below {
        let place = below.point.display();
        lie(
            format!(
                "{point} is an overlay over {place} ({}), so locks and what is written stay on this machine",
                below.kind
            ),
            &format!("use the store below {place} itself, or a bind mount of it"),
        );
    }
    let named = |kinds: &[Locks]| {
        let names: Vec<_> = kinds.iter().map(ToString::to_string).collect();
        names.join(" and ")
    };
    let Tried {
        kept_here,
        had_by_two,
    } = &around.tried;
    if !kept_here.is_empty() {
        lie(
            format!(
                "the daemon behind {point} ({}) leaves {} to this kernel, so they don't reach other machines",
                mount.kind,
                named(kept_here)
            ),
            "have it pass them on (virtiofsd: flock, posix_lock), or put the store on another file system",
        );
    }
    if !had_by_two.is_empty() {
        lie(
            format!(
                "the daemon behind {point} ({}) lets two processes have {} at once",
                mount.kind,
                named(had_by_two)
            ),
            "put the store on another file system",
        );
    }
    lies
}

/// How long a soft NFS mount waits for its server (nfs(5): each of the `retrans` tries waits `timeo` longer than the one before).
pub fn gives_up_after(mount: &Mount) -> Option<Duration> {
    mount.nfs()?;
    if !mount.has("soft") && !mount.has("softerr") {
        return None;
    }
    let number = |option, default| {
        let value = mount.value(option).and_then(|n| n.parse().ok());
        value.unwrap_or(default)
    };
    let (timeo, retrans): (u64, u64) = (number("timeo", 600), number("retrans", 2));
    Some(Duration::from_millis(
        timeo
            .saturating_mul(100)
            .saturating_mul(retrans.saturating_add(1)),
    ))
}

/// A network mount below an overlay. Whoever keeps a store there means to share it; a folder that was made in the overlay
/// looks shared as well, and is this machine's own.
fn below(table: &str, overlay: &Mount) -> Option<Mount> {
    if overlay.kind != "overlay" {
        return None;
    }
    layers(overlay).into_iter().find_map(|layer| {
        // a container does not see its own layers
        let layer = fs::canonicalize(layer).ok()?;
        find(table, &layer).filter(is_shared)
    })
}

/// Several machines can have it mounted.
fn is_shared(mount: &Mount) -> bool {
    const KINDS: &[&str] = &[
        "cifs", "smb3", "ceph", "lustre", "gfs2", "ocfs2", "beegfs", "gpfs", "afs", "9p",
    ];
    mount.nfs().is_some() || mount.is_fuse() || KINDS.contains(&mount.kind.as_str())
}

/// The folders that an overlay is made of, those with a full path.
pub fn layers(overlay: &Mount) -> Vec<PathBuf> {
    let values = overlay.options.split(',').filter_map(|o| o.split_once('='));
    let mut layers = Vec::new();
    for (name, value) in values {
        match name {
            // a colon in a name stands behind a backslash, which the table escapes
            "lowerdir" => {
                let whole = value.replace("\\134:", "\0");
                let names = whole.split(':').map(|name| name.replace('\0', ":"));
                layers.extend(names.map(|name| unescape(&name)));
            }
            "lowerdir+" | "datadir+" | "upperdir" => layers.push(unescape(value)),
            _ => {}
        }
    }
    let layers = layers.into_iter().map(PathBuf::from);
    layers.filter(|layer| layer.is_absolute()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Lines as kernels print them, with `/m` for the mount point.
    const V3: &str = "61 25 0:52 / /m rw,relatime shared:30 - nfs srv:/export/data rw,vers=3,rsize=65536,wsize=65536,namlen=255,hard,proto=tcp,timeo=600,retrans=2,sec=sys,mountaddr=10.99.0.1,mountvers=3,mountport=20048,mountproto=tcp,local_lock=none,addr=10.99.0.1";
    const V4: &str = "61 25 0:52 / /m rw,relatime - nfs4 srv:/data rw,vers=4.2,rsize=65536,wsize=65536,namlen=255,hard,proto=tcp,timeo=600,retrans=2,sec=sys,clientaddr=10.99.0.2,local_lock=none,addr=10.99.0.1";
    const SMB_3: &str = "61 25 0:52 / /m rw,relatime - cifs //nas/jobs rw,vers=3.1.1,sec=ntlmssp,cache=strict,username=j,uid=0,noforceuid,gid=0,noforcegid,addr=10.0.0.9,file_mode=0755,dir_mode=0755,soft,nounix,serverino,mapposix,reparse=nfs,rsize=4194304,wsize=4194304,bsize=1048576,retrans=1,echo_interval=60,actimeo=1,closetimeo=1";
    const NINE: &str = "61 25 0:52 / /m rw,relatime - 9p share rw,access=client,trans=virtio";
    const CLUSTER: &str = "61 25 0:52 / /m rw,relatime - KIND /dev/x rw,localflocks,localflock";
    const BINDFS: &str = "42 27 0:39 / /m rw,nosuid,nodev,relatime - fuse /a rw,user_id=0,group_id=0,default_permissions,allow_other";

    fn mount(line: &str, replaced: &[(&str, &str)]) -> Mount {
        let line = replaced.iter().fold(line.to_owned(), |line, (from, to)| {
            assert!(line.contains(from), "{from} in {line}");
            line.replace(from, to)
        });
        find(&line, Path::new("/m/store")).expect("a mount")
    }

    fn changes(mount: &Mount, asked: &[Locks]) -> Vec<String> {
        let lies = judge(mount, asked, &Around::default());
        for lie in &lies {
            assert!(lie.what.contains("/m"), "{lie}");
        }
        lies.into_iter().map(|lie| lie.change).collect()
    }

    #[rstest]
    #[case::v3(V3, &[], &[], &[])]
    #[case::nolock(V3, &[("hard", "hard,nolock"), ("local_lock=none", "local_lock=all")], &["without nolock"], &["without nolock"])]
    #[case::all(V3, &[("local_lock=none", "local_lock=all")], &["local_lock=none"], &["local_lock=none"])]
    #[case::flock(V3, &[("local_lock=none", "local_lock=flock")], &["local_lock=none"], &[])]
    #[case::posix(V3, &[("local_lock=none", "local_lock=posix")], &["local_lock=none"], &["local_lock=none"])]
    #[case::version_2(V3, &[("vers=3", "vers=2"), ("hard", "nolock")], &["without nolock"], &["without nolock"])]
    #[case::v4(V4, &[], &[], &[])]
    #[case::v4_ignores_them(V4, &[("hard", "hard,nolock"), ("local_lock=none", "local_lock=all")], &[], &[])]
    #[case::kind_nfs_version_4(V4, &[("nfs4 ", "nfs "), ("local_lock=none", "local_lock=all")], &[], &[])]
    #[case::soft_as_long_as_hard_waits(V3, &[("hard", "soft")], &[], &[])]
    #[case::soft(V3, &[("hard", "soft"), ("timeo=600", "timeo=50")], &["hard"], &["hard"])]
    #[case::softerr(V4, &[("hard", "softerr"), ("retrans=2", "retrans=1")], &["hard"], &["hard"])]
    #[case::hard_and_impatient(V3, &[("timeo=600,retrans=2", "timeo=50,retrans=1")], &[], &[])]
    #[case::only_revalidation_is_soft(V4, &[("hard", "hard,softreval"), ("timeo=600", "timeo=50")], &[], &[])]
    #[case::two_at_once(V3, &[("hard", "softerr,nolock"), ("timeo=600", "timeo=1")], &["without nolock", "hard"], &["without nolock", "hard"])]
    #[case::smb_is_soft_by_itself(SMB_3, &[], &[], &[])]
    #[case::nobrl(SMB_3, &[("nounix", "nounix,nobrl")], &["without nobrl"], &["without nobrl"])]
    #[case::loose(SMB_3, &[("cache=strict", "cache=loose")], &["cache=strict"], &["cache=strict"])]
    #[case::singleclient(SMB_3, &[("cifs", "smb3"), ("cache=strict", "cache=singleclient")], &["cache=strict"], &["cache=strict"])]
    #[case::no_cache(SMB_3, &[("cache=strict", "cache=none")], &[], &[])]
    #[case::qemu(NINE, &[], &["NFS"], &["NFS"])]
    #[case::other_9p(NINE, &[("trans=virtio", "trans=tcp")], &[], &[])]
    #[case::gfs2(CLUSTER, &[("KIND", "gfs2")], &["without localflocks"], &["without localflocks"])]
    #[case::ocfs2(CLUSTER, &[("KIND", "ocfs2")], &["without localflocks"], &[])]
    #[case::lustre(CLUSTER, &[("KIND", "lustre")], &["with flock"], &["with flock"])]
    #[case::disk(CLUSTER, &[("KIND", "ext4")], &[], &[])]
    fn what_the_mount_table_tells(
        #[case] line: &str,
        #[case] replaced: &[(&str, &str)],
        #[case] lockfile: &[&str],
        #[case] sqlite: &[&str],
    ) {
        let mount = mount(line, replaced);
        for (asked, expected) in [(LOCKFILE, lockfile), (SQLITE, sqlite)] {
            let changes = changes(&mount, asked);
            assert_eq!(changes.len(), expected.len(), "{changes:?}");
            for (change, expected) in changes.iter().zip(expected) {
                assert!(change.contains(expected), "{changes:?}, {expected}");
            }
        }
    }

    #[rstest]
    #[case("timeo=600,retrans=2", 180_000)]
    #[case("timeo=50,retrans=1", 10_000)]
    #[case("timeo=7,retrans=0", 700)]
    #[case::told_by_no_kernel_that_we_know("sec=sys", 180_000)]
    fn a_soft_mount_gives_up_after_its_last_try(#[case] options: &str, #[case] ms: u64) {
        let soft = mount(V3, &[("hard", "soft"), ("timeo=600,retrans=2", options)]);
        assert_eq!(gives_up_after(&soft), Some(Duration::from_millis(ms)));
        let hard = mount(V3, &[("timeo=600,retrans=2", options)]);
        assert_eq!(gives_up_after(&hard), None);
        let smb = mount(SMB_3, &[]);
        assert_eq!(gives_up_after(&smb), None);
    }

    #[test]
    fn what_the_mount_table_does_not_tell() {
        let around = Around {
            recovers: true,
            ..Around::default()
        };
        let lies = judge(&mount(V4, &[]), SQLITE, &around);
        assert!(
            lies.len() == 1 && lies[0].change.starts_with("echo N >"),
            "{lies:?}"
        );
        let around = Around {
            tried: Tried {
                kept_here: BOTH.to_vec(),
                had_by_two: vec![Locks::Posix],
            },
            ..Around::default()
        };
        let lies = listed(&judge(&mount(BINDFS, &[]), BOTH, &around));
        assert!(
            lies.contains("leaves flock(2) locks and SQLite's (fcntl(2)) locks to this kernel")
                && lies
                    .contains("; and the daemon behind /m (fuse) lets two processes have SQLite's"),
            "{lies}"
        );
        let around = Around {
            below: find(&V4.replace("/m", "/nfs"), Path::new("/nfs")),
            ..Around::default()
        };
        let overlay = mount("9 1 0:9 / /m rw - overlay o rw,lowerdir=/nfs", &[]);
        let lies = judge(&overlay, SQLITE, &around);
        assert!(
            lies.len() == 1 && lies[0].change.contains("below /nfs itself"),
            "{lies:?}"
        );
    }

    #[rstest]
    #[case("lowerdir=/a:/b,upperdir=/u,workdir=/w", &["/a", "/b", "/u"])]
    #[case::relative("lowerdir=l/AB:l/CD,upperdir=/u", &["/u"])]
    #[case::data_only("lowerdir=/a::/d", &["/a", "/d"])]
    #[case::named_one_by_one("lowerdir+=/a,lowerdir+=/b,datadir+=/d", &["/a", "/b", "/d"])]
    #[case::strange_names(r"lowerdir=/a\134:b:/c\040d\054e", &["/a:b", "/c d,e"])]
    fn the_layers_of_an_overlay(#[case] options: &str, #[case] expected: &[&str]) {
        let line = format!("9 1 0:9 / /m rw - overlay o rw,{options},index=off");
        let found = layers(&mount(&line, &[]));
        assert_eq!(
            found,
            expected.iter().map(PathBuf::from).collect::<Vec<_>>()
        );
    }

    /// A real folder takes the place of the layer, as only the table says what kind it is.
    #[test]
    fn an_overlay_over_the_network_lies_about_all_that_it_has() {
        let layer = tempfile::TempDir::new().expect("a folder");
        let layer = layer.path().canonicalize().expect("its path");
        fs::create_dir_all(layer.join("srv/store")).expect("a folder");
        let table = |kind: &str, root: &str| {
            format!(
                "1 0 8:1 / / rw - ext4 /dev/x rw\n\
                 2 1 0:2 / {lower} rw - {kind} srv:/x rw\n\
                 3 1 0:3 {root} /m rw - overlay o rw,lowerdir={lower}:/not/seen,upperdir=/u",
                lower = layer.display()
            )
        };
        let from = |kind: &str, root: &str| {
            let table = table(kind, root);
            let overlay = find(&table, Path::new("/m")).expect("the overlay");
            below(&table, &overlay).map(|m| m.kind)
        };
        assert_eq!(from("nfs4", "/").as_deref(), Some("nfs4"));
        assert_eq!(from("fuse.x", "/srv").as_deref(), Some("fuse.x"));
        assert_eq!(from("ext4", "/"), None);
        assert_eq!(from("squashfs", "/"), None);
    }
}
