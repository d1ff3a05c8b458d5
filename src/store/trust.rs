//! Who else can write where a store lies, and which links lead there.
//!
//! What stands in a store is never believed (`supervise::tree`, `plan::rerun`); this is about its files being those that are
//! meant. Root refuses to write to a store that just anybody can replace. Who else may write, a group for which the
//! folder was made (2770), is trusted with the store, and with nothing else.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::{StoreError, mount, trouble};
use crate::kernel_file;

const STICKY: u32 = 0o1000;
const SETGID: u32 = 0o2000;
const GROUP: u32 = 0o020;
const OTHERS: u32 = 0o002;

/// A path without links, and the folders that the way there leads through, the last one first.
pub struct Way {
    /// The path; what it names may be missing.
    pub path: PathBuf,
    folders: Vec<(PathBuf, Metadata)>,
}

/// Follows `path`, which is absolute. In a folder that others can write, a link is followed only if it is the folder's owner's
/// or the caller's: anybody else could have laid it.
pub fn follow(path: &Path) -> Result<Way, StoreError> {
    const MOST: u32 = 40;
    let names = |path: &Path| -> Vec<OsString> {
        let plain = |c: &Component<'_>| !matches!(c, Component::RootDir | Component::CurDir);
        let components = path.components().filter(plain);
        components.map(|c| c.as_os_str().to_owned()).collect()
    };
    let stat = |at: &Path| at.symlink_metadata();
    let mut rest: VecDeque<OsString> = names(path).into();
    let mut way = Way {
        path: PathBuf::from("/"),
        folders: Vec::new(),
    };
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            way.path.pop();
            continue;
        }
        let folder = stat(&way.path).map_err(|e| trouble::from_io(&way.path, &e))?;
        let at = way.path.join(&name);
        let found = match stat(&at) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound && rest.is_empty() => {
                way.folders.insert(0, (way.path, folder));
                way.path = at;
                return Ok(way);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(trouble::no_folder(path));
            }
            Err(error) => return Err(trouble::from_io(&at, &error)),
        };
        if found.is_symlink() {
            links += 1;
            let open_to_others = folder.mode() & (GROUP | OTHERS) != 0;
            let own = rustix::process::geteuid().as_raw();
            if links > MOST {
                return Err(trouble::unusable(&at, "links lead in a circle"));
            }
            if open_to_others && found.uid() != folder.uid() && found.uid() != own {
                let by = found.uid();
                return Err(trouble::unusable(
                    &at,
                    &format!(
                        "a symbolic link that user id {by} made in a folder that others can write is not followed: remove it"
                    ),
                ));
            }
            let target = fs::read_link(&at).map_err(|e| trouble::from_io(&at, &e))?;
            way.folders.insert(0, (way.path.clone(), folder));
            if target.is_absolute() {
                way.path = PathBuf::from("/");
            }
            for name in names(&target).into_iter().rev() {
                rest.push_front(name);
            }
            continue;
        }
        if !found.is_dir() && !rest.is_empty() {
            return Err(trouble::from_io(&at, &io::ErrorKind::NotADirectory.into()));
        }
        way.folders.insert(0, (way.path, folder));
        way.path = at;
    }
    Ok(way)
}

/// Why root does not use a store, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The folder or file at fault.
    pub path: PathBuf,
    /// What is wrong, and the line that mends it.
    pub what: String,
}

/// What is wrong with the rights of the store whose files lie in `folder`, `parts` among them: the first thing, from there upwards.
pub fn problem(folder: &Path, parts: &[PathBuf]) -> Result<Option<Problem>, StoreError> {
    let way = follow(folder)?;
    let meta = folder
        .symlink_metadata()
        .map_err(|e| trouble::from_io(folder, &e))?;
    let found = |path: &Path, what: Option<String>| {
        let path = path.to_owned();
        what.map(|what| Problem { path, what })
    };
    if let Some(problem) = found(folder, of_folder(folder, &meta, true)) {
        return Ok(Some(problem));
    }
    // Nobody can replace root's files in a sticky folder, but everybody can be there first.
    let open_to_all = meta.mode() & OTHERS != 0;
    let is_declared = is_made_for_a_group(&meta);
    let is_local = mount::is_local_at(folder).unwrap_or(true);
    for part in parts {
        let Ok(meta) = part.symlink_metadata() else {
            continue;
        };
        if !meta.is_symlink() && meta.mode() & OTHERS != 0 {
            let what = format!("everybody can write it: chmod o-w {}", part.display());
            return Ok(found(part, Some(what)));
        }
        if open_to_all && let Some(what) = by_another(&meta) {
            return Ok(found(part, Some(what)));
        }
        // what is left of a folder that was once somebody else's, or a group's
        if !is_declared
            && is_local
            && let Some(what) = of_part(part, &meta)
        {
            return Ok(found(part, Some(what)));
        }
    }
    let mut above = way.folders.iter();
    Ok(above.find_map(|(path, meta)| found(path, of_folder(path, meta, false))))
}

fn by_another(meta: &Metadata) -> Option<String> {
    let uid = meta.uid();
    (uid != 0 && !is_unmapped(uid))
        .then(|| format!("user id {uid} put it there, where everybody can: remove it"))
}

/// Refuses, for root, a file beside the database at `path` that others can write and the database not: SQLite would take what stands in it
/// into the database, be it only read.
pub fn refuse_log_of_others(path: &Path, log: &Path) -> Result<(), StoreError> {
    let (Ok(of_log), Ok(of_db)) = (log.symlink_metadata(), path.metadata()) else {
        return Ok(());
    };
    let folder = path.parent().and_then(|folder| folder.metadata().ok());
    let is_alike = of_log.uid() == of_db.uid() && of_log.gid() == of_db.gid();
    let is_rightly_anothers = is_alike || folder.as_ref().is_some_and(is_made_for_a_group);
    if !rustix::process::geteuid().is_root()
        || is_rightly_anothers
        || !mount::is_local_at(path).unwrap_or(true)
    {
        return Ok(());
    }
    match of_part(log, &of_log) {
        None => Ok(()),
        Some(what) => Err(trouble::unusable(log, &what)),
    }
}

fn is_made_for_a_group(folder: &Metadata) -> bool {
    folder.mode() & (SETGID | GROUP) == SETGID | GROUP
}

/// Who else than root can write a part of a store that was made for no group.
fn of_part(path: &Path, meta: &Metadata) -> Option<String> {
    let at = path.display();
    let (uid, gid) = (meta.uid(), meta.gid());
    if uid != 0 && !is_unmapped(uid) {
        return Some(format!(
            "it belongs to user id {uid}, not to root: chown root {at}"
        ));
    }
    let by_a_group = meta.mode() & GROUP != 0 && gid != 0 && !meta.is_symlink();
    by_a_group.then(|| format!("the group with id {gid} can write it, and the store was not made for a group: chmod g-w {at}"))
}

/// Why root does not write to the open file `path`, whose metadata this is: another user was there first, in a folder that everybody can
/// write. Who owns a lock file can forge its holder, and keep it locked. On a network mount users are the server's.
pub fn put_there_by_another(path: &Path, meta: &Metadata) -> Option<String> {
    let what = by_another(meta).filter(|_| rustix::process::geteuid().is_root())?;
    let folder = path.parent()?;
    let is_open_to_all = folder.metadata().ok()?.mode() & OTHERS != 0;
    (is_open_to_all && mount::is_local_at(path).unwrap_or(true)).then_some(what)
}

fn of_folder(path: &Path, meta: &Metadata, is_stores: bool) -> Option<String> {
    let (mode, at) = (meta.mode(), path.display());
    let sticky = mode & STICKY != 0;
    // A file server has users of its own, and often one for root.
    if !mount::is_local_at(path).unwrap_or(true) {
        return (mode & OTHERS != 0 && !sticky)
            .then(|| format!("everybody can write it: chmod o-w {at}"));
    }
    if meta.uid() != 0 && !is_unmapped(meta.uid()) {
        return Some(format!(
            "it belongs to user id {}, not to root: chown root {at}, or run the job as that user",
            meta.uid()
        ));
    }
    // In a sticky folder such as /tmp nobody can rename what is root's (inode(7)).
    if mode & OTHERS != 0 && !sticky {
        return Some(format!("everybody can write it: chmod o-w {at}"));
    }
    let declared = is_stores && mode & SETGID != 0;
    let by_a_group = mode & GROUP != 0 && meta.gid() != 0 && !sticky && !declared;
    by_a_group.then(|| {
        let gid = meta.gid();
        if is_stores {
            format!(
                "the group with id {gid} can write it, and it was not made for a group: chmod g-w {at}, or chmod g+s {at} if that group is to share the store"
            )
        } else {
            format!("the group with id {gid} can write it, and so replace the store: chmod g-w {at}")
        }
    })
}

/// In a user namespace, whose users are not all of the machine's, the rest look like nobody (user_namespaces(7)).
fn is_unmapped(uid: u32) -> bool {
    let text = |path| kernel_file::text(path).unwrap_or_default();
    let overflow = text("/proc/sys/fs/overflowuid").trim().parse() == Ok(uid);
    overflow
        && !text("/proc/self/uid_map")
            .split_whitespace()
            .eq(["0", "0", "4294967295"])
}

/// Refuses, for root, a store with a [`problem`].
pub fn refuse_for_root(folder: &Path, parts: &[PathBuf]) -> Result<(), StoreError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    match problem(folder, parts)? {
        None => Ok(()),
        Some(Problem { path, what }) => Err(StoreError::Unusable(format!(
            "root does not use the store in {}: {}: {what}",
            folder.display(),
            path.display()
        ))),
    }
}

/// Whether anybody but the caller and root can change the history in the database at `path` or in its `parts`, as far as modes tell; who.
/// SQLite takes what stands in the files beside a database for its own, and what waits in the spool comes into the history.
pub fn other_writer(path: &Path, parts: &[PathBuf]) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    let who = |meta: &Metadata| {
        let (uid, mode) = (meta.uid(), meta.mode());
        if uid != 0 && uid != own {
            Some(format!("user id {uid}"))
        } else if mode & OTHERS != 0 {
            Some("everybody".to_owned())
        } else if mode & GROUP != 0 && meta.gid() != 0 {
            Some(format!("the group with id {}", meta.gid()))
        } else {
            None
        }
    };
    let Ok(way) = follow(path) else {
        return Some("who knows who".to_owned());
    };
    let immediate = way.folders.first();
    let above = way.folders.iter().skip(1);
    let mut files = [&way.path].into_iter().chain(parts);
    files
        .find_map(|file| who(&file.symlink_metadata().ok()?))
        .or_else(|| immediate.and_then(|(_, meta)| who(meta)))
        .or_else(|| {
            above
                .filter(|(_, meta)| meta.mode() & STICKY == 0)
                .find_map(|(_, meta)| who(meta))
        })
}

/// A file without a name is one that SQLite is just deleting: its journal.
fn is_one_file(meta: &Metadata) -> bool {
    meta.is_file() && meta.nlink() <= 1
}

/// Refuses what would make SQLite, or us, open something else than a file of the store: a link, a FIFO at which the opener waits.
pub fn check_part(path: &Path, is_folder: bool) -> Result<(), StoreError> {
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(trouble::from_io(path, &error)),
    };
    let fits = if is_folder {
        meta.is_dir()
    } else {
        is_one_file(&meta)
    };
    if fits {
        return Ok(());
    }
    let what = if is_folder {
        "a folder of the store is something else (a link?)"
    } else {
        "a file of the store is something else (a link, a FIFO?), or has a second name"
    };
    Err(trouble::unusable(path, &format!("{what}: remove it")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn links_are_followed_to_where_they_lead() {
        let dir = tempfile::tempdir().expect("a folder");
        let real = dir.path().canonicalize().expect("its path");
        fs::create_dir_all(real.join("a/b")).expect("folders");
        symlink("a", real.join("link")).expect("a link");
        symlink(real.join("link/b/../b"), real.join("other")).expect("a link");
        let follow = |path: &str| follow(&real.join(path)).map(|way| way.path);
        assert_eq!(follow("other/x.db").expect("a way"), real.join("a/b/x.db"));
        assert_eq!(follow("./link/../a").expect("a way"), real.join("a"));
        assert!(follow("link/no/x.db").is_err());
        symlink("circle", real.join("circle")).expect("a link");
        assert!(follow("circle").is_err());
        fs::write(real.join("file"), "").expect("a file");
        assert!(follow("file/x.db").is_err());
    }

    #[test]
    fn parts_that_are_something_else_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").expect("a file");
        symlink("file", at("link")).expect("a link");
        assert!(
            check_part(&at("missing"), false).is_ok() && check_part(&at("file"), false).is_ok()
        );
        assert!(check_part(&at("link"), false).is_err() && check_part(&at("file"), true).is_err());
        assert!(check_part(dir.path(), true).is_ok());
        fs::hard_link(at("file"), at("second")).expect("a second name");
        assert!(check_part(&at("file"), false).is_err());
        // what can't be looked at may be there
        assert!(check_part(&at("file/part"), false).is_err());
        let open = fs::File::open(at("file")).expect("the file");
        for name in ["file", "second"] {
            fs::remove_file(at(name)).expect("a name less");
            assert!(is_one_file(&open.metadata().expect("stat")));
        }
    }

    #[test]
    fn forty_links_are_followed_and_no_more() {
        let dir = tempfile::tempdir().expect("a folder");
        let real = dir.path().canonicalize().expect("its path");
        symlink(".", real.join("1")).expect("a link");
        for n in 2..=41 {
            symlink((n - 1).to_string(), real.join(n.to_string())).expect("a link");
        }
        assert!(follow(&real.join("40")).is_ok() && follow(&real.join("41")).is_err());
    }

    const STRANGER: u32 = 54321;

    /// Gives it to a stranger, user or group.
    fn give(path: &Path, user: Option<u32>, group: Option<u32>) {
        std::os::unix::fs::lchown(path, user, group).expect("chown");
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    #[test]
    fn a_strangers_link_is_followed_only_where_no_stranger_could_make_it() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let link = dir.path().join("link");
        fs::create_dir(dir.path().join("to")).expect("a folder");
        symlink("to", &link).expect("a link");
        let follows = |mode| {
            chmod(dir.path(), mode);
            follow(&link).is_ok()
        };
        assert!(follows(0o755) && follows(0o777));
        give(&link, Some(STRANGER), None);
        assert!(follows(0o755));
        assert!(!follows(0o775) && !follows(0o757) && !follows(0o1777));
        give(dir.path(), Some(STRANGER), None);
        assert!(follows(0o777));
    }

    #[test]
    fn root_uses_what_nobody_can_write_but_those_it_was_made_for() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let part = dir.path().join("x.db");
        fs::write(&part, "").expect("a file");
        let mends = |folder, file| {
            chmod(dir.path(), folder);
            chmod(&part, file);
            let problem = problem(dir.path(), std::slice::from_ref(&part)).expect("a look");
            problem.map(|p| p.what.rsplit(": ").next().unwrap_or_default().to_owned())
        };
        let names = |found: Option<String>, what: &str| found.is_some_and(|f| f.starts_with(what));
        assert_eq!(mends(0o755, 0o644), None);
        assert!(names(mends(0o757, 0o644), "chmod o-w"));
        assert!(names(mends(0o755, 0o646), "chmod o-w"));
        // a link has all rights, and is refused elsewhere
        symlink("x.db", dir.path().join("link")).expect("a link");
        let link = [dir.path().join("link")];
        assert_eq!(problem(dir.path(), &link).expect("a look"), None);
        // a group's
        give(dir.path(), None, Some(STRANGER));
        give(&part, Some(STRANGER), Some(STRANGER));
        assert_eq!(mends(0o2770, 0o660), None);
        assert!(names(mends(0o770, 0o660), "chmod g-w"));
        // nobody can replace it, but he was there first
        assert!(names(mends(0o1777, 0o660), "remove it"));
        give(&part, Some(0), None);
        assert!(names(mends(0o1777, 0o660), "chmod g-w"));
        assert_eq!(mends(0o1777, 0o640), None);
        give(dir.path(), Some(STRANGER), None);
        assert!(names(mends(0o755, 0o660), "chown root"));
    }

    #[test]
    fn all_users_are_mapped_where_there_is_one_namespace() {
        let map = fs::read_to_string("/proc/self/uid_map").expect("a map");
        if map.split_whitespace().eq(["0", "0", "4294967295"]) {
            let nobody = fs::read_to_string("/proc/sys/fs/overflowuid").expect("an id");
            assert!(!is_unmapped(nobody.trim().parse().expect("a number")));
            assert!(!is_unmapped(STRANGER));
        }
    }

    #[test]
    fn others_who_can_write_are_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.db");
        fs::write(&path, "").expect("a file");
        let log = dir.path().join("x.db-wal");
        let other_writer = |path: &Path| other_writer(path, std::slice::from_ref(&log));
        chmod(&path, 0o600);
        assert_eq!(other_writer(&path), None);
        chmod(&path, 0o606);
        assert_eq!(other_writer(&path).as_deref(), Some("everybody"));
        chmod(&path, 0o600);
        fs::write(&log, "").expect("a file");
        chmod(&log, 0o602);
        assert_eq!(other_writer(&path).as_deref(), Some("everybody"));
        chmod(&log, 0o600);
        chmod(dir.path(), 0o707);
        assert_eq!(other_writer(&path).as_deref(), Some("everybody"));
        // above it, too, unless nobody can rename there what is another's
        let below = dir.path().join("a/x.db");
        fs::create_dir(dir.path().join("a")).expect("a folder");
        chmod(&dir.path().join("a"), 0o700);
        fs::write(&below, "").expect("a file");
        assert_eq!(other_writer(&below).as_deref(), Some("everybody"));
        chmod(dir.path(), 0o1707);
        assert_eq!(other_writer(&below), None);
        if is_root() {
            give(&below, Some(STRANGER), None);
            let who = format!("user id {STRANGER}");
            assert_eq!(other_writer(&below), Some(who));
            give(&below, Some(0), Some(STRANGER));
            chmod(&below, 0o660);
            let who = format!("the group with id {STRANGER}");
            assert_eq!(other_writer(&below), Some(who));
        }
    }
}
