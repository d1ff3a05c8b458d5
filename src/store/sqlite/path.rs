//! Which database file a path means, and whether it may be used, looked at before SQLite touches it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, StatxAttributes, StatxFlags, statx};

use crate::lease::takeover::FileId;
use crate::store::lockfile::file::{id_at, id_of};
use crate::store::{StoreError, trouble, trust};

/// A part of the store at `path`, whose name ends in `suffix`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The path without links, so that all who name the store otherwise use the same lock files; the file itself may be missing.
pub fn real_path(path: &Path) -> Result<PathBuf, StoreError> {
    let Some(folder) = path.parent() else {
        return Err(trouble::from_io(path, &io::ErrorKind::IsADirectory.into()));
    };
    // named as a whole if it is missing
    trust::follow(folder)?;
    Ok(trust::follow(path)?.path)
}

/// `false`: there is none. Refuses what would get lock files of its own beside those that others use.
pub fn check_file(path: &Path) -> Result<bool, StoreError> {
    let stat = match statx(
        CWD,
        path,
        AtFlags::SYMLINK_NOFOLLOW,
        StatxFlags::BASIC_STATS,
    ) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::NOENT) => return Ok(false),
        Err(error) => return Err(trouble::from_io(path, &error.into())),
    };
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile if stat.stx_nlink > 1 => Err(trouble::unusable(
            path,
            "the database has more than one name (hard links), and each would get locks of its own: remove the others",
        )),
        FileType::RegularFile if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => {
            Err(trouble::unusable(
                path,
                "the database file is mounted by itself, without its locks beside it: mount its whole folder",
            ))
        }
        FileType::RegularFile => Ok(true),
        FileType::Directory => Err(trouble::from_io(path, &io::ErrorKind::IsADirectory.into())),
        _ => Err(trouble::foreign(path)),
    }
}

/// A write-ahead log's index is shared memory, which no network file system shares: looked at before SQLite touches the file.
pub fn refuse_wal(path: &Path) -> Result<(), StoreError> {
    /// Left open on purpose: closing any descriptor of the file drops every lock that SQLite has on it in this process (fcntl(2)).
    static OPEN: Mutex<Vec<(FileId, File)>> = Mutex::new(Vec::new());
    let broken = |error: io::Error| trouble::from_io(path, &error);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let id = id_at(path).map_err(broken)?;
    if !open.iter().any(|(known, _)| Some(*known) == id) {
        let file = File::open(path).map_err(broken)?;
        open.push((id_of(&file).map_err(broken)?, file));
    }
    let file = open.iter().find(|(known, _)| Some(*known) == id);
    let mut header = [0; 20];
    let wal = file.is_some_and(|(_, file)| file.read_exact_at(&mut header, 0).is_ok())
        && (header[18] == 2 || header[19] == 2);
    if wal {
        return Err(trouble::unusable(
            path,
            "the database was made as a local store (its journal is WAL) and lies on a network or FUSE mount: use it on the machine that has the disk, or make a shared one with `joblock init --shared`",
        ));
    }
    Ok(())
}
