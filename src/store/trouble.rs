//! The system's and SQLite's complaints in words that say what to do next.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{StoreError, freeing, remote};

const FULL: &str = "no space left on its file system: free some, then start again";
const READ_ONLY: &str =
    "its file system is read-only: remount it for writing, or name another store with --store";
const DENIED: &str = "permission denied: use sudo, or join the group that owns the store (`joblock init --system --group GROUP` makes one for a group)";
const DAMAGED: &str = "the database is damaged: put a backup in its place, or move it away together with its -wal, and a new one is made (tokens go on from what the lock files know)";
const FAILS: &str = "its disk or file server fails, see the kernel's log (dmesg), and start again once it is mended";
const FOREIGN: &str =
    "the file is not a joblock database: name another store with --store, or move the file away";

/// `path: complaint`, as [`StoreError::Unusable`].
pub fn unusable(path: &Path, complaint: &str) -> StoreError {
    StoreError::Unusable(format!("{}: {complaint}", path.display()))
}

/// The file is none of ours.
pub fn foreign(path: &Path) -> StoreError {
    unusable(path, FOREIGN)
}

/// The store's folder is not there.
pub fn no_folder(folder: &Path) -> StoreError {
    unusable(
        folder,
        "no such folder: make it (mkdir -p), or use `joblock init`",
    )
}

/// The store is not there, and whoever asks must not make it.
pub fn no_store(path: &Path) -> StoreError {
    unusable(
        path,
        "no store there yet: `joblock init` or the first `joblock run` makes one",
    )
}

/// What the system said about `path`.
pub fn from_io(path: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => unusable(path, FULL),
        io::ErrorKind::ReadOnlyFilesystem => unusable(path, READ_ONLY),
        io::ErrorKind::PermissionDenied => unusable(path, DENIED),
        io::ErrorKind::NotFound => no_folder(path.parent().unwrap_or(path)),
        io::ErrorKind::IsADirectory => {
            unusable(path, "is a folder, and a file is needed: name a file in it")
        }
        io::ErrorKind::NotADirectory => unusable(
            path,
            "a part of the path is a file, not a folder: name another store with --store",
        ),
        io::ErrorKind::TimedOut => StoreError::Timeout(path.display().to_string()),
        _ => unusable(path, &error.to_string()),
    }
}

/// What SQLite said about `path`.
pub fn from_sql(path: &Path, error: &rusqlite::Error) -> StoreError {
    let rusqlite::Error::SqliteFailure(code, text) = error else {
        // a row that can't be read as what it should be
        return unusable(path, &format!("{DAMAGED} ({error})"));
    };
    match code.code {
        ErrorCode::DiskFull => unusable(path, FULL),
        ErrorCode::ReadOnly if readable_only(path) => unusable(path, DENIED),
        ErrorCode::ReadOnly => unusable(path, READ_ONLY),
        ErrorCode::PermissionDenied => unusable(path, DENIED),
        ErrorCode::DatabaseCorrupt => unusable(path, DAMAGED),
        ErrorCode::NotADatabase => foreign(path),
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed => locked(path),
        ErrorCode::CannotOpen => cannot_open(path),
        ErrorCode::SystemIoFailure => unusable(
            path,
            &format!("{}: {FAILS}", text.as_deref().unwrap_or("disk I/O error")),
        ),
        // our statements are right for the tables that we made
        _ => unusable(
            path,
            &format!(
                "{DAMAGED} ({})",
                text.as_deref().unwrap_or("SQLite can't use it")
            ),
        ),
    }
}

fn locked(path: &Path) -> StoreError {
    let shown = path.display();
    let mount = remote::on_the_way(path);
    let by_the_dead = mount.and_then(|mount| freeing::way_on(&mount, "it"));
    StoreError::Timeout(match by_the_dead {
        None => format!(
            "{shown} is kept locked by another process (a transaction left open in some sqlite3 shell? see lsof or fuser) and"
        ),
        Some(way) => format!(
            "{shown} is kept locked by another process (a transaction left open in some sqlite3 shell, see lsof or fuser; or a machine that \
             lost its power: {way}) and"
        ),
    })
}

/// Whether it is permission that is missing, not a writable file system.
fn readable_only(path: &Path) -> bool {
    let writable = |p: &Path| rustix::fs::access(p, rustix::fs::Access::WRITE_OK);
    [Some(path), path.parent()]
        .into_iter()
        .flatten()
        .any(|p| writable(p) == Err(Errno::ACCESS))
}

/// What SQLite does not say: the disk fails, or was made read-only because of that. The database itself is not opened for this: to close
/// it would free the locks that SQLite has on it.
fn complaint_of_folder(path: &Path) -> Option<StoreError> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(path.parent()?, flags, Mode::from_raw_mode(0o600)) {
        Err(Errno::ROFS) => Some(unusable(path, READ_ONLY)),
        Err(Errno::IO) => Some(unusable(path, FAILS)),
        _ => None,
    }
}

fn cannot_open(path: &Path) -> StoreError {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => from_io(path, &io::ErrorKind::IsADirectory.into()),
        Ok(_) => match std::fs::File::options()
            .read(true)
            .open(path.parent().unwrap_or(path))
        {
            Ok(_) if readable_only(path) => unusable(path, DENIED),
            Ok(_) => complaint_of_folder(path).unwrap_or_else(|| {
                unusable(
                    path,
                    "can't be opened: its -wal or -journal file may belong to another user, see ls -l",
                )
            }),
            Err(error) => from_io(path, &error),
        },
        Err(error) => from_io(path, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use rusqlite::ffi;

    #[rstest]
    #[case(io::ErrorKind::StorageFull, FULL)]
    #[case(io::ErrorKind::QuotaExceeded, FULL)]
    #[case(io::ErrorKind::ReadOnlyFilesystem, READ_ONLY)]
    #[case(io::ErrorKind::PermissionDenied, DENIED)]
    #[case(io::ErrorKind::NotFound, "/a: no such folder")]
    #[case(io::ErrorKind::IsADirectory, "a file is needed")]
    #[case(io::ErrorKind::NotADirectory, "a part of the path is a file")]
    #[case(io::ErrorKind::TimedOut, "did not answer in time")]
    #[case(io::ErrorKind::BrokenPipe, "/a/x.db: broken pipe")]
    fn the_systems_words_say_what_to_do(#[case] kind: io::ErrorKind, #[case] says: &str) {
        let said = from_io(Path::new("/a/x.db"), &kind.into()).to_string();
        assert!(said.contains(says), "{said}");
    }

    #[rstest]
    #[case(ffi::SQLITE_FULL, FULL)]
    #[case(ffi::SQLITE_READONLY, READ_ONLY)]
    #[case(ffi::SQLITE_PERM, DENIED)]
    #[case(ffi::SQLITE_CORRUPT, DAMAGED)]
    #[case(ffi::SQLITE_NOTADB, FOREIGN)]
    #[case(ffi::SQLITE_BUSY, "did not answer in time")]
    #[case(ffi::SQLITE_IOERR, FAILS)]
    #[case(ffi::SQLITE_MISUSE, DAMAGED)]
    fn sqlites_words_say_what_to_do(#[case] code: i32, #[case] says: &str) {
        let dir = tempfile::tempdir().unwrap();
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let said = from_sql(&dir.path().join("x.db"), &error).to_string();
        assert!(said.contains(says), "{said}");
    }

    #[test]
    fn why_a_file_can_t_be_opened_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), None);
        let said = |path: &Path| from_sql(path, &error).to_string();
        let file = dir.path().join("x.db");
        assert!(said(dir.path()).contains("is a folder"));
        assert!(said(&file).contains("no such folder"));
        std::fs::write(&file, "").unwrap();
        assert!(said(&file).contains("may belong to another user"));
    }
}
