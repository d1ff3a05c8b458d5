//! Whether a path leads into a file system that another machine, or another process, answers for. To touch such a file may take for
//! ever, so this is found out by the mount table's text and by links on local file systems alone.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::mount::{self, Mount};
use crate::kernel_file;

/// The kinds that answer by themselves, among those that a store may lie on, or a link to it.
const LOCAL: &[&str] = &[
    "bcachefs", "btrfs", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "iso9660",
    "jfs", "overlay", "proc", "ramfs", "reiserfs", "rootfs", "squashfs", "sysfs", "tmpfs", "vfat",
    "xfs", "zfs",
];

/// More links than this on the way are a loop, as for the kernel (path_resolution(7)).
const LINKS: usize = 40;

/// The mount on the way to `path` that may not answer; `None`: all of the way is local.
pub fn on_the_way(path: &Path) -> Option<Mount> {
    let table = kernel_file::text("/proc/self/mountinfo").ok()?;
    walk(path, |at| {
        mount::find(&table, at).filter(|m| !LOCAL.contains(&m.kind.as_str()))
    })
}

/// Names it to whoever waited for it in vain.
pub fn silent(mount: &Mount) -> String {
    let server = mount
        .value("addr")
        .map(|address| format!(", server {address}"))
        .unwrap_or_default();
    format!(
        "the file system at {} ({}{server}) does not answer: see whether its server is up and can be reached from here",
        mount.point.display(),
        mount.kind
    )
}

fn walk(path: &Path, remote: impl Fn(&Path) -> Option<Mount>) -> Option<Mount> {
    let mut at = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = path
        .components()
        .map(|c| c.as_os_str().to_owned())
        .collect();
    let mut links = 0;
    if let found @ Some(_) = remote(&at) {
        return found;
    }
    while let Some(part) = ahead.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => drop(at.pop()),
            Some(Component::Normal(name)) => {
                let next = at.join(name);
                if let found @ Some(_) = remote(&next) {
                    return found;
                }
                match fs::read_link(&next) {
                    Ok(target) if links < LINKS => {
                        links += 1;
                        for part in target.components().rev() {
                            ahead.push_front(part.as_os_str().to_owned());
                        }
                    }
                    _ => at = next,
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::fs::symlink;

    const TABLE: &str = "\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
35 21 0:32 / /mnt/a rw,relatime - nfs4 srv:/data rw,vers=4.2,hard,addr=10.99.0.1
36 35 0:33 / /mnt/a/local rw - tmpfs none rw
37 21 0:34 / /mnt/auto rw - autofs systemd-1 rw";

    fn by_table(path: &Path) -> Option<Mount> {
        mount::find(TABLE, path).filter(|m| !LOCAL.contains(&m.kind.as_str()))
    }

    #[rstest]
    #[case::local("/var/lib/store.db", None)]
    #[case::below("/mnt/a/store.db", Some("/mnt/a"))]
    #[case::the_mount_itself("/mnt/a", Some("/mnt/a"))]
    #[case::through_it("/mnt/a/local/x", Some("/mnt/a"))]
    #[case::a_name_that_begins_so("/mnt/ab/x", None)]
    #[case::up_again("/mnt/b/../a/x", Some("/mnt/a"))]
    #[case::automounted("/mnt/auto/x", Some("/mnt/auto"))]
    fn the_table_decides(#[case] path: &str, #[case] found: Option<&str>) {
        let found = found.map(PathBuf::from);
        assert_eq!(walk(Path::new(path), by_table).map(|m| m.point), found);
    }

    #[test]
    fn links_are_followed_before_they_are_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/mnt/a", dir.path().join("absolute")).unwrap();
        symlink("absolute/x", dir.path().join("relative")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let point = |name: &str| walk(&dir.path().join(name), by_table).map(|m| m.point);
        assert_eq!(point("absolute/store.db"), Some("/mnt/a".into()));
        assert_eq!(point("relative"), Some("/mnt/a".into()));
        assert_eq!(point("loop/x"), None);
    }

    #[test]
    fn what_is_silent_is_named_with_its_server() {
        let mount = by_table(Path::new("/mnt/a/x")).unwrap();
        let said = silent(&mount);
        assert!(said.contains("/mnt/a (nfs4, server 10.99.0.1)"), "{said}");
    }
}
