//! The folder that a store lies in, made ready for one user or for a group: what `init` does before it opens the store.
//!
//! A database that root makes under umask 022 is read-only for everybody else. A setgid folder (2770)
//! keeps what is made in it within the group, and files made there are made 0660.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{StoreError, StoreUrl};

/// The bits that make a folder a group's own: setgid, and all rights for the group.
const GROUP_FOLDER: u32 = 0o2770;
const GROUP_FILE: u32 = 0o660;
const MODE_BITS: u32 = 0o7777;

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
        StoreUrl::Sqlite { path, .. } => {
            (path.parent().unwrap_or(Path::new("/")), path.file_name())
        }
        StoreUrl::Lockfile { directory } => (directory.as_path(), None),
    };
    let broken = |error: io::Error| {
        StoreError::Unusable(format!("{} can't be made ready: {error}", folder.display()))
    };
    let mut did = Vec::new();
    match fs::metadata(folder) {
        Ok(meta) if !meta.is_dir() => return Err(broken(io::ErrorKind::NotADirectory.into())),
        Ok(meta) => {
            if let Some(group) = group.filter(|g| !belongs_to(&meta, g)) {
                let own = own_entries(
                    folder,
                    name.map(|n| n.to_string_lossy().into_owned()).as_deref(),
                )
                .map_err(broken)?;
                if !own {
                    return Err(not_ours(folder, group));
                }
                hand_over(folder, &meta, group).map_err(broken)?;
                did.push(format!(
                    "gave the folder {} to the group {} (mode 2770)",
                    folder.display(),
                    group.name
                ));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(folder, group).map_err(broken)?;
            let whose = group.map_or("mode 0750".to_owned(), |g| {
                format!("mode 2770, group {}", g.name)
            });
            did.push(format!("made the folder {} ({whose})", folder.display()));
        }
        Err(error) => return Err(broken(error)),
    }
    if let Some(group) = group {
        let changed = hand_over_entries(
            folder,
            name.map(|n| n.to_string_lossy().into_owned()).as_deref(),
            group,
        )
        .map_err(broken)?;
        if changed > 0 {
            did.push(format!(
                "gave {changed} files and folders in it to the group {}",
                group.name
            ));
        }
    }
    Ok(did)
}

fn make(folder: &Path, group: Option<&Group>) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    match group {
        Some(group) => hand_over(folder, &fs::metadata(folder)?, group),
        None => fs::set_permissions(folder, Permissions::from_mode(0o750)),
    }
}

fn not_ours(folder: &Path, group: &Group) -> StoreError {
    let (at, name) = (folder.display(), &group.name);
    StoreError::Unusable(format!(
        "the folder {at} is there already, with other things in it, and is not the group {name}'s: name a folder of the \
         store's own, or change it yourself: chgrp {name} {at}; chmod 2770 {at}"
    ))
}

fn belongs_to(meta: &Metadata, group: &Group) -> bool {
    let wanted = if meta.is_dir() {
        GROUP_FOLDER
    } else {
        GROUP_FILE
    };
    // others' rights are nobody's business here but the administrator's
    meta.gid() == group.gid && meta.mode() & wanted == wanted
}

fn hand_over(path: &Path, meta: &Metadata, group: &Group) -> io::Result<()> {
    std::os::unix::fs::lchown(path, None, Some(group.gid))?;
    // after chown, which clears setgid
    let mode = if meta.is_dir() {
        GROUP_FOLDER
    } else {
        GROUP_FILE
    };
    fs::set_permissions(path, Permissions::from_mode(mode & MODE_BITS))
}

/// Nothing lies in `folder` but a store called `name` (`None`: only lock files and a history).
fn own_entries(folder: &Path, name: Option<&str>) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        if !is_part(&entry?.file_name().to_string_lossy(), name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A part of the store called `name`: the database, its journals, its lock files, its spool.
fn is_part(entry: &str, name: Option<&str>) -> bool {
    let Some(name) = name else {
        return Path::new(entry).extension().is_some_and(|e| e == "lock")
            || is_part(entry, Some("history.db"));
    };
    entry
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
}

/// How many had to be changed.
fn hand_over_entries(folder: &Path, name: Option<&str>, group: &Group) -> io::Result<usize> {
    let mut changed = 0;
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_part(&entry.file_name().to_string_lossy(), name) {
            paths.push(entry.path());
        }
    }
    while let Some(path) = paths.pop() {
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                paths.push(entry?.path());
            }
        }
        if (meta.is_file() || meta.is_dir()) && !belongs_to(&meta, group) {
            hand_over(&path, &meta, group)?;
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
    fn parts_of_a_store_are_told_from_other_files() {
        for part in ["j.db", "j.db-wal", "j.db.locks", "j.db.spool"] {
            assert!(is_part(part, Some("j.db")), "{part}");
        }
        for other in ["j.dbx", "x.db", "j"] {
            assert!(!is_part(other, Some("j.db")), "{other}");
        }
        assert!(
            is_part("sync.lock", None)
                && is_part("history.db-journal", None)
                && !is_part("notes.txt", None)
        );
    }
}
