//! What kind of file system a path lies on, and how it is mounted.
//!
//! It describes this machine's view only: another client of the same server may have mounted it otherwise.

pub mod fuse;
pub mod lease;
pub mod lies;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

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

/// Whether `path` lies on an overlay, as in a container, whose files go with it.
pub fn is_overlay_at(path: &Path) -> io::Result<bool> {
    Ok(magic(&rustix::fs::statfs(path)?) == OVERLAY)
}

const OVERLAY: u64 = 0x794c_7630;

fn magic(found: &StatFs) -> u64 {
    // f_type is a signed long on some architectures: only its low 32 bits are the magic number
    u64::try_from(i128::from(found.f_type) & 0xffff_ffff).unwrap_or_default()
}

fn is_local_kind(found: &StatFs) -> bool {
    // statfs(2) and linux/magic.h
    const EXT: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683e;
    const ZFS: u64 = 0x2fc1_2fc1;
    const TMPFS: u64 = 0x0102_1994;
    const F2FS: u64 = 0xf2f5_2010;
    [EXT, XFS, BTRFS, ZFS, TMPFS, OVERLAY, F2FS].contains(&magic(found))
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
    /// Options of the mount and of its file system, separated by commas; special characters in their values are escaped.
    pub options: String,
    /// The folder of the file system that is mounted there: `/` but for bind mounts.
    pub root: PathBuf,
}

impl Mount {
    /// Whether `option` (`nolock`, or with its value `local_lock=flock`) is among the options.
    pub fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|o| o == option)
    }

    /// The value of an option (`timeo`).
    pub fn value(&self, option: &str) -> Option<&str> {
        let mut values = self.options.split(',').filter_map(|o| o.split_once('='));
        values.find(|(name, _)| *name == option).map(|(_, v)| v)
    }

    /// The major version of NFS that it speaks; `None`: it is none.
    pub fn nfs(&self) -> Option<u8> {
        match self.kind.as_str() {
            "nfs4" => Some(4),
            "nfs" => Some(match self.value("vers").map(str::as_bytes) {
                Some([b'4', ..]) => 4,
                Some([b'2', ..]) => 2,
                _ => 3,
            }),
            _ => None,
        }
    }

    /// A daemon behind FUSE's protocol has it, on this machine or (virtiofs) on the one below. `fuseblk` is a disk of ours.
    pub fn is_fuse(&self) -> bool {
        self.kind == "fuse" || self.kind.starts_with("fuse.") || self.kind == "virtiofs"
    }
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
    let mut left = left.split(' ').skip(3);
    let root = unescape(left.next()?);
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
        root: PathBuf::from(root),
    })
}

/// Space, tab, newline, backslash and in options the comma stand as octal numbers there.
fn unescape(text: &str) -> String {
    let codes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\054", ","),
        ("\\134", "\\"),
    ];
    codes
        .iter()
        .fold(text.to_owned(), |text, (code, is)| text.replace(code, is))
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
        assert_eq!(
            (nfs.value("vers"), nfs.value("nosuid")),
            (Some("4.2"), None)
        );
    }

    #[test]
    fn what_is_not_known_to_be_local_is_not() {
        let proc = Path::new("/proc/self");
        assert!(!is_local_at(proc).unwrap());
        assert!(!is_local(fs::File::open(proc).unwrap()).unwrap());
        assert!(!is_overlay_at(proc).unwrap());
        assert!(is_local_at(Path::new("/dev/shm")).unwrap());
    }

    #[test]
    fn versions_of_nfs_are_told_apart() {
        let of = |kind: &str, options: &str| {
            let mount = Mount {
                point: "/m".into(),
                source: "srv:/data".into(),
                kind: kind.into(),
                options: options.into(),
                root: "/".into(),
            };
            mount.nfs()
        };
        assert_eq!(of("nfs4", "rw,vers=4.0"), Some(4));
        assert_eq!(of("nfs", "rw,vers=4.2"), Some(4));
        assert_eq!(of("nfs", "rw,vers=3"), Some(3));
        assert_eq!(of("nfs", "rw"), Some(3));
        assert_eq!(of("nfs", "rw,vers=2"), Some(2));
        assert_eq!(of("nfsd", "rw"), None);
        assert_eq!(of("ext4", "rw,vers=4"), None);
    }
}
