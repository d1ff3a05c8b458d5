//! The folder that a store lies in, made ready for one user or for a group: what `init` does before it opens the store.
//!
//! A database that root makes under umask 022 is read-only for everybody else. A setgid folder (2770)
//! keeps what is made in it within the group, and files made there are made 0660.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{self, FileType, Gid, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{StoreError, StoreUrl, trust};

/// The bits that make a folder a group's own: setgid, and all rights for the group.
const GROUP_FOLDER: u32 = 0o2770;
const GROUP_FILE: u32 = 0o660;

/// A group of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name, or its number as text.
    pub name: String,
    /// Its number.
    pub gid: u32,
}

impl Group {
    /// From the text of /etc/group (group(5)), by name or number. The program is static and can't ask the name
    /// service switch: a group of a directory service is given by its number.
    pub fn find(name: &str, groups: &str) -> Option<Group> {
        let mut known = groups.lines().filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?, fields.nth(1)?.parse::<u32>().ok()?))
        });
        let gid = known.find(|(known, _)| *known == name).map(|(_, gid)| gid);
        let gid = gid.or_else(|| name.parse().ok())?;
        Some(Group {
            name: name.to_owned(),
            gid,
        })
    }
}

/// Makes the folder for the store at `url`, or makes the one that is there fit for `group`. Says what it did, a
/// sentence each. A folder with other things in it is never changed.
pub fn prepare(url: &StoreUrl, group: Option<&Group>) -> Result<Vec<String>, StoreError> {
    let (folder, name) = match url {
        StoreUrl::Sqlite { path, .. } => (
            path.parent().unwrap_or(Path::new("/")),
            path.file_name().map(OsStr::to_string_lossy),
        ),
        StoreUrl::Lockfile { directory, .. } => (directory.as_path(), None),
    };
    let broken = |error: io::Error| {
        StoreError::Unusable(format!("{} can't be made ready: {error}", folder.display()))
    };
    let mut did = Vec::new();
    if make(folder).map_err(broken)? {
        did.push(format!("made the folder {}", folder.display()));
    }
    let Some(group) = group else { return Ok(did) };
    // links that the administrator laid; the folder itself is opened as none
    let folder = trust::follow(folder)?.path;
    let folder = folder.as_path();
    let is_wanted = |entry: &str| is_part(entry, name.as_deref());
    let fd = open_folder(folder).map_err(broken)?;
    let stat = fs::fstat(&fd).map_err(|e| broken(e.into()))?;
    if !belongs_to(&stat, group) {
        if !has_only(&fd, &is_wanted).map_err(broken)? {
            return Err(not_ours(folder, group));
        }
        hand_over(&fd, &stat, group).map_err(broken)?;
        did.push(format!("gave it to the group {} (mode 2770)", group.name));
    }
    let changed = hand_over_entries(&fd, &is_wanted, group).map_err(broken)?;
    if changed > 0 {
        did.push(format!(
            "gave {changed} files and folders in it to the group {}",
            group.name
        ));
    }
    Ok(did)
}

/// `false`: it is there.
fn make(folder: &Path) -> io::Result<bool> {
    if folder.try_exists()? {
        return Ok(false);
    }
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::DirBuilder::new().mode(0o750).create(folder)?;
    Ok(true)
}

fn not_ours(folder: &Path, group: &Group) -> StoreError {
    let (at, name) = (folder.display(), &group.name);
    StoreError::Unusable(format!(
        "the folder {at} is there already, with other things in it, and is not the group {name}'s: name a folder of the \
         store's own, or change it yourself: chgrp {name} {at}; chmod 2770 {at}"
    ))
}

fn belongs_to(stat: &Stat, group: &Group) -> bool {
    let wanted = mode_for(stat);
    // others' rights are nobody's business here but the administrator's
    stat.st_gid == group.gid && stat.st_mode & wanted == wanted
}

fn mode_for(stat: &Stat) -> u32 {
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        GROUP_FOLDER
    } else {
        GROUP_FILE
    }
}

/// By descriptor: a member of the group could put a symbolic link in the place of a name between two looks.
fn hand_over(fd: &OwnedFd, stat: &Stat, group: &Group) -> io::Result<()> {
    fs::fchown(fd, None, Some(Gid::from_raw(group.gid)))?;
    // after chown, which clears setgid
    fs::fchmod(fd, Mode::from_raw_mode(mode_for(stat)))?;
    Ok(())
}

fn open_folder(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::open(folder, flags, Mode::empty())?)
}

fn has_only(folder: &OwnedFd, is_wanted: &dyn Fn(&str) -> bool) -> io::Result<bool> {
    for entry in fs::Dir::read_from(folder)? {
        let entry = entry?;
        let text = entry.file_name().to_string_lossy();
        if text != "." && text != ".." && !is_wanted(&text) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A part of the store called `name`: the database, its journals, its lock files, its spool.
fn is_part(entry: &str, name: Option<&str>) -> bool {
    let Some(name) = name else {
        return Path::new(entry)
            .extension()
            .is_some_and(|e| e == "lock" || e == "waiting")
            || entry == "spool"
            || entry == "peer"
            || is_part(entry, Some("history.db"));
    };
    entry
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
}

/// How many of what `is_wanted` in `folder`, and of what lies below, had to be changed.
fn hand_over_entries(
    folder: &OwnedFd,
    is_wanted: &dyn Fn(&str) -> bool,
    group: &Group,
) -> io::Result<usize> {
    let mut changed = 0;
    for entry in fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text == "." || text == ".." || !is_wanted(&text) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match fs::openat(folder, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            // a symbolic link, which is none of the store's, or gone by now, as journals are
            Err(Errno::LOOP | Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let stat = fs::fstat(&fd)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind.is_dir() {
            changed += hand_over_entries(&fd, &|_| true, group)?;
        }
        // a second name may be that of a file which was never the store's
        let ours = kind.is_dir() || kind.is_file() && stat.st_nlink == 1;
        if ours && !belongs_to(&stat, group) {
            hand_over(&fd, &stat, group)?;
            changed += 1;
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_name_and_number() {
        let groups = "root:x:0:\nadm:x:4:syslog,u\nbroken\nstaff:x:50:\n";
        let gid = |name| Group::find(name, groups).map(|g| g.gid);
        assert_eq!(
            (gid("adm"), gid("4711"), gid("ad"), gid("")),
            (Some(4), Some(4711), None, None)
        );
    }

    #[test]
    fn what_has_the_groups_id_and_the_groups_rights_is_the_groups() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (path, fit, unfit) in [(dir.path(), 0o2770, 0o770), (&file, 0o660, 0o640)] {
            let belongs = |mode, other: u32| {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
                let stat = fs::stat(path).unwrap();
                let (name, gid) = ("g".into(), stat.st_gid + other);
                belongs_to(&stat, &Group { name, gid })
            };
            assert!(belongs(fit, 0) && belongs(fit | 0o5, 0));
            assert!(!belongs(unfit, 0) && !belongs(fit, 1) && !belongs(unfit, 1));
        }
    }

    #[test]
    fn only_a_folder_is_opened_and_no_link_to_one() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("link"), dir.path().join("file"));
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        std::fs::write(&file, "").unwrap();
        assert!(open_folder(dir.path()).is_ok());
        assert!(open_folder(&link).is_err());
        assert!(open_folder(&file).is_err());
    }

    #[test]
    fn parts_of_a_store_are_told_from_other_files() {
        for part in ["j.db", "j.db-wal", "j.db.locks", "j.db.spool"] {
            assert!(is_part(part, Some("j.db")), "{part}");
        }
        for other in ["j.dbx", "x.db", "j"] {
            assert!(!is_part(other, Some("j.db")), "{other}");
        }
        assert!(
            is_part("sync.lock", None)
                && is_part("sync.waiting", None)
                && is_part("spool", None)
                && is_part("history.db-journal", None)
                && !is_part("notes.txt", None)
        );
    }
}
