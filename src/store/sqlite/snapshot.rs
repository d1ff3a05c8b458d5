//! What a database held at its last commit, read past a lock that nobody gives back: its owner is stopped in the midst of a commit, or
//! was on a machine that lost its power, whose locks an NFSv3 server keeps.
//!
//! The database and its rollback journal are copied, SQLite rolls the copy back, and it is taken into memory: nothing of it stays among the
//! temporary files, where others may write. They were the same before the copy, when they had rested for a while, and after it, so nobody
//! wrote in between. As long as they stay the same nothing was committed either. See <https://sqlite.org/fileformat2.html#the_rollback_journal>.
//!
//! Not guaranteed: anything for a database with a write-ahead log, which is refused. Opening and closing the files gives up every POSIX
//! lock that this process has on them: no connection to them may be open. Who is killed in the midst of it leaves a folder that nobody
//! else can read.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::Backup;

use super::db::{connect, distrust};
use crate::store::lockfile::file;

/// File systems tell the time of a write to a few milliseconds.
const REST: Duration = Duration::from_millis(100);

/// No more bytes are copied of a file: whoever may write the store must not fill our memory.
const LARGEST: u64 = 256 << 20;

/// Which file, how long, and when it was written: in seconds and nanoseconds.
type Look = Option<[i64; 6]>;

/// What the database's files were like; by default, there were none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State([Look; 2]);

fn journal(path: &Path) -> PathBuf {
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    journal.into()
}

/// Opened, as network file systems promise only then that it is not what they knew a while ago.
fn opened(path: &Path) -> io::Result<Option<File>> {
    match file::open(path, false, false) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn look(path: &Path) -> io::Result<Look> {
    let Some(file) = opened(path)? else {
        return Ok(None);
    };
    let meta = file.metadata()?;
    Ok(Some([
        meta.ino().cast_signed(),
        meta.size().cast_signed(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ]))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(file) = opened(from)? {
        let mut options = OpenOptions::new();
        let mut copy = options.write(true).create_new(true).mode(0o600).open(to)?;
        io::copy(&mut file.take(LARGEST), &mut copy)?;
    }
    Ok(())
}

impl State {
    /// What they are like now.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(State([look(path)?, look(&journal(path))?]))
    }
}

/// What the database at `path` held, in memory, and the state of its files that it was taken of.
///
/// # Errors
/// If somebody writes it, if it is none that can be rolled back, or is damaged, or too large, or if there is no room for the copy.
pub fn take(path: &Path) -> io::Result<(State, Connection)> {
    let state = State::of(path)?;
    if state
        .0
        .iter()
        .flatten()
        .any(|look| look[1].cast_unsigned() > LARGEST)
    {
        return Err(io::Error::other(format!(
            "it is larger than {} MiB",
            LARGEST >> 20
        )));
    }
    std::thread::sleep(REST);
    // without links on the way, which SQLite is told to refuse
    let folder = tempfile::Builder::new()
        .prefix("joblock-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(std::env::temp_dir().canonicalize()?)?;
    let taken = folder.path().join("copy.db");
    copy(path, &taken)?;
    copy(&journal(path), &journal(&taken))?;
    if State::of(path)? != state {
        return Err(io::Error::other("it is being written"));
    }
    Ok((state, into_memory(&taken).map_err(io::Error::other)?))
}

fn into_memory(path: &Path) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
    let conn = connect(path, Duration::ZERO).map_err(|error| error.to_string())?;
    for (pragma, wanted) in [("journal_mode", "delete"), ("quick_check", "ok")] {
        let value: String = conn.pragma_query_value(None, pragma, |row| row.get(0))?;
        if value != wanted {
            return Err(format!("its {pragma} is {value}").into());
        }
    }
    let mut memory = Connection::open_in_memory()?;
    Backup::new(&conn, &mut memory)?.run_to_completion(i32::MAX, Duration::ZERO, None)?;
    distrust(&mut memory)?;
    Ok(memory)
}
