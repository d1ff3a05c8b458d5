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

use super::{Db, Make, connect, distrust, missing};
use crate::store::lockfile::file::{self, id_at};
use crate::store::sqlite::path::beside;
use crate::store::{Purpose, StoreError};

/// File systems tell the time of a write to a few milliseconds.
const REST: Duration = Duration::from_millis(100);

/// How often somebody who keeps the database locked may come and go while it is to be read.
const TRIES: u32 = 3;

/// No more bytes are copied of a file: whoever may write the store must not fill our memory.
const LARGEST: u64 = 256 << 20;

/// Which file, how long, and when it was written: in seconds and nanoseconds.
type Look = Option<[i64; 6]>;

/// What the database's files were like; by default, there were none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State([Look; 2]);

fn journal(path: &Path) -> PathBuf {
    beside(path, "-journal")
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
    fn of(path: &Path) -> io::Result<Self> {
        Ok(State([look(path)?, look(&journal(path))?]))
    }
}

/// What the database at `path` held, in memory, and the state of its files that it was taken of.
///
/// # Errors
/// If somebody writes it, if it is none that can be rolled back, or is damaged, or too large, or if there is no room for the copy.
fn take(path: &Path) -> io::Result<(State, Connection)> {
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

impl Db {
    /// Opens the database of a store that can do without writing it, be it that somebody keeps it locked even for readers. Then what it
    /// held at its last commit is read, as long as that was the last, and each write is a [`StoreError::Timeout`] at once.
    pub fn open_or_snapshot(
        path: &Path,
        purpose: Purpose,
        gate: PathBuf,
    ) -> Result<Self, StoreError> {
        match Self::open(path, Make::Shared, purpose, gate.clone()) {
            Err(StoreError::Timeout(why)) => Self::of_snapshot(path, purpose, gate, why),
            opened => opened.map(Db::with_snapshots),
        }
    }

    fn with_snapshots(self) -> Self {
        Db {
            has_snapshots: true,
            ..self
        }
    }

    fn of_snapshot(
        path: &Path,
        purpose: Purpose,
        gate: PathBuf,
        why: String,
    ) -> Result<Self, StoreError> {
        let no_copy = |error: &dyn std::fmt::Display| {
            StoreError::Timeout(format!(
                "{why}, as no copy of it can be read either ({error}),"
            ))
        };
        let id = id_at(path).map_err(|e| no_copy(&e))?;
        let id = id.ok_or_else(|| StoreError::Timeout(why.clone()))?;
        let (state, conn) = take(path).map_err(|e| no_copy(&e))?;
        let mut db = Db::over(conn, path, id, purpose, gate);
        if !db.read_meta()? || !db.shared {
            return Err(StoreError::Timeout(why));
        }
        let missing = db.read(missing)?;
        let added = missing
            .iter()
            .try_for_each(|sql| db.conn.execute_batch(sql));
        added.map_err(|e| db.broken(&e))?;
        db.snapshot = Some((state, why));
        Ok(db.with_snapshots())
    }

    /// What holds the database up, if it is not read itself.
    pub fn held_up(&self) -> Option<&str> {
        self.snapshot.as_ref().map(|(_, why)| why.as_str())
    }

    /// Has the database itself again instead of the snapshot, if it can be had now.
    pub(super) fn leave_snapshot(&mut self) -> bool {
        let gate = self.gate.path().to_owned();
        let opened =
            Self::open_within(Duration::ZERO, &self.path, Make::Shared, self.purpose, gate);
        opened.map(|db| *self = db.with_snapshots()).is_ok()
    }

    /// Begins to read what was committed last, be it from a snapshot.
    pub(super) fn begin_to_read(&mut self) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let Some(why) = self.cant_be_read()? else {
                return Ok(());
            };
            // no connection may be open to the files that are copied; and what is read instead of them is nothing yet
            self.conn = Connection::open_in_memory().map_err(|e| self.broken(&e))?;
            self.snapshot = Some((State::default(), why));
            let gate = self.gate.path().to_owned();
            match Self::open_or_snapshot(&self.path, self.purpose, gate) {
                // they come and go
                Err(StoreError::Timeout(_)) => {}
                opened => *self = opened?,
            }
        }
        let why = self.cant_be_read()?;
        why.map_or(Ok(()), |why| Err(StoreError::Timeout(why)))
    }

    /// Who keeps it locked, or the snapshot too old; else it is being read now.
    fn cant_be_read(&self) -> Result<Option<String>, StoreError> {
        if let Some((state, why)) = &self.snapshot {
            let is_current = State::of(&self.path).is_ok_and(|now| now == *state);
            return Ok((!is_current).then(|| why.clone()));
        }
        // takes SQLite's lock for all that is read then
        let begun = self
            .conn
            .execute_batch("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1");
        if begun.is_err() {
            self.end_reading();
        }
        match begun.map_err(|e| self.broken(&e)) {
            Ok(()) => Ok(None),
            Err(StoreError::Timeout(why)) => Ok(Some(why)),
            Err(error) => Err(error),
        }
    }

    /// After [`Db::begin_to_read`].
    pub(super) fn end_reading(&self) {
        if !self.conn.is_autocommit() {
            let _ = self.conn.execute_batch("ROLLBACK");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table that came later is asked for where the store is on another machine's disk.
    #[test]
    fn the_copy_of_an_older_history_has_what_came_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("history.db");
        let open = || Db::open_or_snapshot(&path, Purpose::Run, dir.path().join("history.gate"));
        drop(open().unwrap());
        let stuck = Connection::open(&path).unwrap();
        stuck
            .execute_batch("DROP TABLE unswept; BEGIN EXCLUSIVE")
            .unwrap();
        let mut db = open().unwrap();
        assert!(db.held_up().is_some());
        let unswept = db.read(|conn| {
            conn.query_one("SELECT count(*) FROM unswept", [], |row| {
                row.get::<_, i64>(0)
            })
        });
        assert_eq!(unswept.unwrap(), 0);
    }
}
