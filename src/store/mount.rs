//! What kind of file system a path lies on, and how it is mounted.
//!
//! It describes this machine's view only: another client of the same server may have mounted it otherwise.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::StatFs;

use crate::kernel_file;

/// Whether the open file's system is one that only this kernel writes to, as far as its type tells.
///
/// Everything else counts as shared: network, FUSE, 9p, virtiofs, and whatever is not known here.
pub fn is_local(fd: impl AsFd) -> io::Result<bool> {
    Ok(is_local_kind(&rustix::fs::fstatfs(fd)?))
}

/// As [`is_local`], for a path.
pub fn is_local_at(path: &Path) -> io::Result<bool> {
    Ok(is_local_kind(&rustix::fs::statfs(path)?))
}

fn is_local_kind(found: &StatFs) -> bool {
    // statfs(2) and linux/magic.h
    const EXT: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683e;
    const ZFS: u64 = 0x2fc1_2fc1;
    const TMPFS: u64 = 0x0102_1994;
    const OVERLAY: u64 = 0x794c_7630;
    const F2FS: u64 = 0xf2f5_2010;
    // f_type is a signed long on some architectures: only its low 32 bits are the magic number
    let magic = u64::try_from(i128::from(found.f_type) & 0xffff_ffff).unwrap_or_default();
    [EXT, XFS, BTRFS, ZFS, TMPFS, OVERLAY, F2FS].contains(&magic)
}

/// One line of `proc_pid_mountinfo(5)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// What is mounted: a device, or a server and its export.
    pub source: String,
    /// The file system's kind: `ext4`, `nfs4`, `fuse.bindfs`, …
    pub kind: String,
    /// Options of the mount and of its file system, separated by commas.
    pub options: String,
}

impl Mount {
    /// Whether `option` (`nolock`, or with its value `local_lock=flock`) is among the options.
    pub fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|o| o == option)
    }

    /// Why locks of one kind are known not to reach other clients of this mount: `flock` (flock(2)) or `posix` (fcntl(2)).
    pub fn lie(&self, locks: &str) -> Option<String> {
        let option = [
            "nolock".to_owned(),
            format!("local_lock={locks}"),
            "local_lock=all".to_owned(),
        ]
        .into_iter()
        .find(|o| self.has(o))?;
        self.kind.starts_with("nfs").then(|| {
            format!(
                "{} is mounted with {option}: locks don't reach other machines, mount it without",
                self.point.display()
            )
        })
    }

    /// The lease of an NFS version 4 server, after which it may give a silent client's locks away; `None`: not such a mount.
    pub fn server_lease(&self) -> Option<Duration> {
        let version_4 =
            self.kind == "nfs4" || self.options.split(',').any(|o| o.starts_with("vers=4"));
        if !self.kind.starts_with("nfs") || !version_4 {
            return None;
        }
        let stats = fs::read_to_string("/proc/self/mountstats").unwrap_or_default();
        Some(lease_in(&stats, &self.point).unwrap_or(SHORT_LEASE))
    }
}

/// The lease to go by where the kernel does not tell the server's: shorter than any in use but on test servers.
const SHORT_LEASE: Duration = Duration::from_secs(30);

/// `lease_time=` in seconds, in the part of /proc/self/mountstats that is about `point`.
pub fn lease_in(mountstats: &str, point: &Path) -> Option<Duration> {
    let begins = |line: &&str| line.starts_with("device ");
    let ours = format!(" mounted on {} with ", point.display());
    let mut lines = mountstats
        .lines()
        .skip_while(|line| !(begins(line) && line.contains(&ours)));
    lines.next()?;
    let mut fields = lines
        .take_while(|line| !begins(line))
        .flat_map(|line| line.split([',', ' ', '\t']));
    let seconds = fields
        .find_map(|field| field.strip_prefix("lease_time="))?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// The mount that `path` lies on, after links are followed; `None` if `/proc` does not tell.
pub fn of(path: &Path) -> Option<Mount> {
    let path = fs::canonicalize(path).ok()?;
    find(&kernel_file::text("/proc/self/mountinfo").ok()?, &path)
}

/// The mount that `path` lies on, by the text of a mount table (proc_pid_mountinfo(5)).
pub fn find(mountinfo: &str, path: &Path) -> Option<Mount> {
    // later lines cover earlier ones at the same point
    let mounts = mountinfo
        .lines()
        .filter_map(parse)
        .filter(|m| path.starts_with(&m.point));
    mounts.max_by_key(|m| m.point.components().count())
}

fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(4);
    let point = unescape(left.next()?);
    let options = left.next()?;
    let mut right = right.split(' ');
    let kind = right.next()?.to_owned();
    let source = unescape(right.next()?);
    let super_options = right.next().unwrap_or_default();
    Some(Mount {
        source,
        point: PathBuf::from(point),
        kind,
        options: format!("{options},{super_options}"),
    })
}

/// Space, tab, newline and backslash stand as octal numbers there.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw,discard
30 25 0:25 / /mnt/a\\040b rw,nosuid - nfs4 srv:/data rw,vers=4.2,local_lock=none
31 25 0:26 / /mnt rw - tmpfs tmpfs rw
32 25 0:27 / /mnt rw - xfs /dev/x rw";

    #[test]
    fn the_innermost_and_newest_mount_is_found() {
        let kind = |path: &str| find(TABLE, Path::new(path)).map(|m| m.kind);
        assert_eq!(kind("/etc").as_deref(), Some("ext4"));
        assert_eq!(kind("/mnt/other").as_deref(), Some("xfs"));
        assert_eq!(kind("/mntx").as_deref(), Some("ext4"));
        let nfs = find(TABLE, Path::new("/mnt/a b/c")).expect("a mount");
        assert_eq!(
            (nfs.kind.as_str(), nfs.source.as_str()),
            ("nfs4", "srv:/data")
        );
        assert!(nfs.has("local_lock=none") && nfs.has("nosuid") && !nfs.has("nolock"));
    }

    #[test]
    fn mounts_that_lie_are_known() {
        let mount = |kind: &str, options: &str| Mount {
            source: "srv:/data".into(),
            point: "/m".into(),
            kind: kind.into(),
            options: options.into(),
        };
        assert!(
            mount("nfs", "rw,vers=3,local_lock=flock")
                .lie("flock")
                .is_some()
        );
        assert!(
            mount("nfs", "rw,vers=3,local_lock=flock")
                .lie("posix")
                .is_none()
        );
        assert!(
            mount("nfs", "rw,vers=3,nolock,local_lock=all")
                .lie("posix")
                .is_some()
        );
        assert!(mount("nfs4", "rw,local_lock=none").lie("flock").is_none());
    }

    #[test]
    fn the_servers_lease_is_read() {
        let stats = "device /dev/vda mounted on / with fstype ext4\n\
            device srv:/x mounted on /other with fstype nfs4 statvers=1.1\n\tnfsv4:\tbm0=0xf,lease_time=10,lease_expired=0\n\
            device srv:/data mounted on /mnt with fstype nfs4 statvers=1.1\n\tcaps:\tcaps=0x3\n\tnfsv4:\tbm0=0xf,sessions,lease_time=90,lease_expired=0\n";
        assert_eq!(
            lease_in(stats, Path::new("/mnt")),
            Some(Duration::from_secs(90))
        );
        assert_eq!(
            lease_in(stats, Path::new("/other")),
            Some(Duration::from_secs(10))
        );
        assert_eq!(lease_in(stats, Path::new("/")), None);
    }
}
