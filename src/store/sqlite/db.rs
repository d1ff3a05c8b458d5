//! One connection to a database file: how it is made, opened, checked and written to.
//!
//! Writers queue at a *gate*, a lock file of its own, before they begin a transaction: SQLite's own busy handler sleeps
//! and looks again, which lets a stream of newcomers overtake whoever sleeps. With 8 writers that do nothing else, the slowest run
//! of 1,600 took 0.3 s with the gate and 1.3 s without in WAL; in a rollback journal, without it, some ran into timeouts of 5 s.
//! The gate is for fairness only. Who can't pass it in time goes on without it, so that a stopped process at the gate
//! holds up nobody for good, and one that stops inside its transaction gives the others a timeout.
//!
//! Not guaranteed: that SQLite's locks work on the mount. `doctor` tries them.

mod snapshot;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{
    Connection, ErrorCode, FileControl, MAIN_DB, OpenFlags, Transaction, TransactionBehavior,
};

use super::path::{beside, check_file, refuse_wal};
use super::{prune, schema};
use crate::lease::takeover::FileId;
use crate::store::lockfile::file::{self, id_at, named};
use crate::store::lockfile::gate::Gate;
use crate::store::pruning::{Prune, Pruned};
use crate::store::{Purpose, StoreError, mount, trouble, trust};
use snapshot::State;

/// How long a step of the database may take, besides the time at the gate.
pub const LIMIT: Duration = Duration::from_secs(5);
/// With this many frames a write-ahead log is folded into the database by a holder, when its job has just been started and
/// at each heartbeat. Whoever opens a database that nobody else has open reads all of its log. Folding costs two syncs, and a
/// third at the next commit, which begins the log anew: only the process that folded it can know that it may. A run writes
/// seven frames.
const FOLD_AT: i64 = 100;
/// And by SQLite itself at a commit, in frames, should no holder have done it.
const FOLD_AT_COMMIT: i64 = 1000;

/// No value is larger, in bytes: output of 16 MiB at most, and something to spare. A larger one is somebody's attempt on our memory.
const LARGEST: i32 = 20 << 20;

/// How a new database is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// Local or shared, as its file system is.
    ByFileSystem,
    /// Shared.
    Shared,
}

/// An open database.
pub struct Db {
    /// Its file.
    pub path: PathBuf,
    /// Rollback journal and `synchronous=EXTRA`; else WAL and `FULL`.
    pub shared: bool,
    /// The store's UUID.
    pub uuid: String,
    conn: Connection,
    id: FileId,
    /// A file server has it.
    far: bool,
    gate: Gate,
    purpose: Purpose,
    /// A snapshot may be read instead, see [`Db::open_or_snapshot`].
    has_snapshots: bool,
    /// It is: of when, and what holds the database up.
    snapshot: Option<(State, String)>,
}

impl Db {
    /// Opens the database at `path` (no links in it any more, see `path::real_path`); makes it if it is missing and
    /// `purpose` allows. `gate`: where writers queue.
    pub fn open(
        path: &Path,
        make: Make,
        purpose: Purpose,
        gate: PathBuf,
    ) -> Result<Self, StoreError> {
        Self::open_within(LIMIT, path, make, purpose, gate)
    }

    /// `limit`: how long opening waits for others.
    fn open_within(
        limit: Duration,
        path: &Path,
        make: Make,
        purpose: Purpose,
        gate: PathBuf,
    ) -> Result<Self, StoreError> {
        let broken = |error: io::Error| trouble::from_io(path, &error);
        for end in ["-wal", "-shm", "-journal"] {
            trust::check_part(&beside(path, end), false)?;
            trust::refuse_log_of_others(path, &beside(path, end))?;
        }
        file::look_anew(path).map_err(broken)?;
        if !check_file(path)? {
            let folder = path.parent().unwrap_or(path);
            if !folder.is_dir() {
                return Err(trouble::no_folder(folder));
            }
            if purpose != Purpose::Run {
                return Err(trouble::no_store(path));
            }
            // with the right mode: SQLite's own would be at the umask's mercy, and -wal and -shm follow it
            file::create(path).map_err(broken)?;
        }
        let before = id_at(path).map_err(broken)?;
        let local = mount::is_local_at(path).map_err(broken)?;
        if !local {
            refuse_wal(path)?;
        }
        let conn = connect(path, limit)?;
        let id = id_at(path).map_err(broken)?;
        let (Some(id), true) = (id, before == id) else {
            return Err(trouble::unusable(
                path,
                "was replaced while it was opened: start again",
            ));
        };
        let mut db = Db::over(conn, path, id, purpose, gate);
        db.far = !local;
        if !db.read_meta()? {
            if purpose != Purpose::Run {
                return Err(trouble::no_store(path));
            }
            db.make(make == Make::Shared || !local)?;
        }
        if purpose == Purpose::Run {
            db.add_what_is_new()?;
        }
        if make == Make::Shared && !db.shared {
            return Err(trouble::unusable(
                path,
                "was made as a local store and stays one: leave ?shared out, or make another one with `joblock init --shared`",
            ));
        }
        db.configure()
            .and_then(|()| be_patient(&mut db.conn, LIMIT))
            .map_err(|e| db.broken(&e))?;
        Ok(db)
    }

    /// A connection to the database at `path`, or to what is read instead; its meta is not read yet.
    fn over(conn: Connection, path: &Path, id: FileId, purpose: Purpose, gate: PathBuf) -> Self {
        Db {
            path: path.to_owned(),
            shared: false,
            uuid: String::new(),
            conn,
            id,
            far: false,
            gate: Gate::at(gate),
            purpose,
            has_snapshots: false,
            snapshot: None,
        }
    }

    /// Says what `error` means.
    pub fn broken(&self, error: &rusqlite::Error) -> StoreError {
        let failed = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
        // what was deleted on another machine can't be read any more: no disk fails
        let moved = failed.then(|| self.check_identity().err()).flatten();
        moved.unwrap_or_else(|| trouble::from_sql(&self.path, error))
    }

    /// `false`: there is nothing in it yet.
    fn read_meta(&mut self) -> Result<bool, StoreError> {
        let (application, format, tables, active) = self
            .conn
            .query_row(
                "SELECT a.application_id, v.user_version, (SELECT count(*) FROM sqlite_schema),
                     (SELECT count(*) FROM sqlite_schema WHERE type IN ('trigger', 'view'))
                 FROM pragma_application_id a, pragma_user_version v",
                [],
                |row| {
                    Ok((
                        row.get::<_, i64>(0)?,
                        row.get::<_, i64>(1)?,
                        row.get::<_, i64>(2)?,
                        row.get::<_, i64>(3)?,
                    ))
                },
            )
            .map_err(|e| self.broken(&e))?;
        if (application, format, tables) == (0, 0, 0) {
            return Ok(false);
        }
        if application != schema::APPLICATION_ID {
            return Err(trouble::foreign(&self.path));
        }
        if active > 0 {
            return Err(trouble::unusable(
                &self.path,
                "somebody has put triggers or views into the database, which joblock never does: see them with sqlite3's .schema, and drop them",
            ));
        }
        if format > schema::FORMAT {
            return Err(StoreError::Newer {
                path: self.path.display().to_string(),
                found: format,
                known: schema::FORMAT,
            });
        }
        (self.shared, self.uuid) = self
            .conn
            .query_row(
                "SELECT s.value = '1', u.value FROM meta s, meta u WHERE s.key = 'shared' AND u.key = 'uuid'",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(|e| self.broken(&e))?;
        Ok(true)
    }

    /// What came after the store was made.
    fn add_what_is_new(&mut self) -> Result<(), StoreError> {
        if !self.read(missing)?.is_empty() {
            // another start may have been faster
            self.write(|tx| {
                missing(tx)?
                    .into_iter()
                    .try_for_each(|sql| tx.execute_batch(sql))
            })?;
        }
        Ok(())
    }

    /// Makes the tables, unless somebody else is faster.
    fn make(&mut self, shared: bool) -> Result<(), StoreError> {
        let since = Instant::now();
        loop {
            match self.try_make(shared) {
                Ok(()) => break,
                // two who turn WAL on at once: SQLite's busy handler is not asked then
                Err(e)
                    if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        && since.elapsed() < LIMIT =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(e) => return Err(self.broken(&e)),
            }
        }
        if self.read_meta()? {
            Ok(())
        } else {
            Err(trouble::foreign(&self.path))
        }
    }

    fn try_make(&mut self, shared: bool) -> rusqlite::Result<()> {
        if !shared {
            self.conn.pragma_update(None, "journal_mode", "WAL")?;
        }
        self.conn.pragma_update(None, "synchronous", "EXTRA")?;
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        if tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| {
            row.get::<_, i64>(0)
        })? == 0
        {
            tx.execute_batch(schema::TABLES)?;
            tx.execute_batch(schema::UNSWEPT)?;
            tx.execute(
                "INSERT INTO meta VALUES ('uuid', ?1), ('shared', ?2)",
                (uuid(), i64::from(shared).to_string()),
            )?;
            tx.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", schema::FORMAT)?;
        }
        tx.commit()?;
        // the header in the file itself, for file(1) and for whoever looks before SQLite opens it; and the file's name on the disk
        self.fold();
        if let Some(folder) = self
            .path
            .parent()
            .and_then(|folder| File::open(folder).ok())
        {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    fn configure(&self) -> rusqlite::Result<()> {
        if self.shared {
            return self.conn.pragma_update(None, "synchronous", "EXTRA");
        }
        self.conn.pragma_update(None, "synchronous", "FULL")?;
        self.conn
            .pragma_update(None, "wal_autocheckpoint", FOLD_AT_COMMIT)?;
        // the last to close would fold the log and delete it: two syncs and more in every run's way
        self.conn
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        self.conn
            .file_control(Some(MAIN_DB), FileControl::PersistWal(&mut 1))
    }

    /// Whether the path still names the file that is open. In WAL a database that was replaced takes commits into the orphan.
    fn check_identity(&self) -> Result<(), StoreError> {
        match named(&self.path, self.far) {
            Ok(Some(id)) if id == self.id => Ok(()),
            Ok(_) => Err(trouble::unusable(
                &self.path,
                "the database was moved away or replaced while it was in use: put it back, or start again",
            )),
            Err(error) => Err(trouble::from_io(&self.path, &error)),
        }
    }

    /// Reads. `f` copies out what it needs; no statement outlives it.
    pub fn read<T>(
        &mut self,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        if !self.has_snapshots {
            self.check_identity()?;
            return f(&self.conn).map_err(|e| self.broken(&e));
        }
        self.begin_to_read()?;
        let read = self
            .check_identity()
            .and_then(|()| f(&self.conn).map_err(|e| self.broken(&e)));
        self.end_reading();
        read
    }

    /// Writes: one durable transaction, or nothing at all. An error from the commit itself may still mean that it
    /// happened, unless it is [`StoreError::Timeout`]: whoever gets one must read again or write what can be written twice.
    pub fn write<T>(
        &mut self,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        if let Some(why) = self.held_up().map(str::to_owned)
            && !self.leave_snapshot()
        {
            return Err(StoreError::Timeout(why));
        }
        let turn = self.gate.enter(LIMIT);
        let identity = named(&self.path, self.far);
        let result = match identity {
            Ok(Some(id)) if id == self.id => in_transaction(&mut self.conn, f),
            _ => {
                drop(turn);
                return Err(self.check_identity().err().unwrap_or_else(|| {
                    trouble::unusable(&self.path, "was replaced and put back: start again")
                }));
            }
        };
        drop(turn);
        result.map_err(|e| self.broken(&e))
    }

    /// Deletes a slice of old history, see [`crate::store::History::prune`].
    pub fn prune(&mut self, request: &Prune) -> Result<Pruned, StoreError> {
        let (rows, mut pruned) = self.read(|conn| prune::look(conn, request))?;
        if !rows.is_empty() && !request.dry_run {
            (pruned.attempts, pruned.output_bytes) = self.write(|tx| prune::delete(tx, &rows))?;
            self.fold_if_long();
        }
        Ok(pruned)
    }

    /// Folds the write-ahead log into the database if it has grown. Never waits for anybody, and may fail without harm.
    pub fn fold_if_long(&self) {
        // frames in the log, and those of them that are in the database already; the file's size tells neither
        let frames = |row: &rusqlite::Row<'_>| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?);
        if !self.shared
            && self
                .conn
                .query_row("PRAGMA wal_checkpoint(NOOP)", [], frames)
                .is_ok_and(|frames| frames >= FOLD_AT)
        {
            self.fold();
        }
    }

    fn fold(&self) {
        let _ = self
            .conn
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    }

    /// The answer of `PRAGMA name` as text.
    pub fn pragma(&self, name: &str) -> Result<String, StoreError> {
        let text = |row: &rusqlite::Row<'_>| {
            row.get_ref(0).map(|value| {
                value
                    .as_str()
                    .map(str::to_owned)
                    .or_else(|_| value.as_i64().map(|n| n.to_string()))
            })
        };
        let value = self
            .conn
            .pragma_query_value(None, name, text)
            .map_err(|e| self.broken(&e))?;
        value.map_err(|e| trouble::unusable(&self.path, &e.to_string()))
    }
}

/// What has to be done to have all columns that came after a store was made.
fn missing(conn: &Connection) -> rusqlite::Result<Vec<&'static str>> {
    // one statement, as each takes SQLite's lock
    let mut statement = conn.prepare(
        "SELECT t.name || '.' || c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'",
    )?;
    let there: BTreeSet<String> = statement
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let missing = schema::ADDED
        .iter()
        .filter(|(column, _)| !there.contains(*column));
    Ok(missing.map(|(_, sql)| *sql).collect())
}

fn in_transaction<T>(
    conn: &mut Connection,
    f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = f(&tx)?;
    // busy here (a reader of a shared store): the handler has waited; dropping what is left rolls it back
    tx.commit()?;
    Ok(value)
}

/// A connection to others' file. `limit`: how long a step waits for others.
fn connect(path: &Path, limit: Duration) -> Result<Connection, StoreError> {
    let broken = |error: rusqlite::Error| trouble::from_sql(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut conn = Connection::open_with_flags(path, flags).map_err(broken)?;
    distrust(&mut conn).map_err(broken)?;
    be_patient(&mut conn, limit).map_err(broken)?;
    Ok(conn)
}

/// Others may have written the schema and every value: neither may do more than hold our rows.
fn distrust(conn: &mut Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, LARGEST)
        .map(drop)
}

/// `limit`: how long a step waits for others.
fn be_patient(conn: &mut Connection, limit: Duration) -> rusqlite::Result<()> {
    let mut since = Instant::now();
    let patience = move |count: i32| {
        if count == 0 {
            since = Instant::now();
        }
        let step = usize::try_from(count).unwrap_or(0).min(4);
        // the odd part keeps processes out of step with each other
        std::thread::sleep(
            Duration::from_millis([1, 2, 5, 10, 20][step])
                + Duration::from_micros(u64::from(std::process::id() % 1000)),
        );
        since.elapsed() < limit
    };
    conn.busy_handler(Some(patience))
}

/// A random UUID (version 4, RFC 9562).
fn uuid() -> String {
    let hex = format!(
        "{}{}",
        crate::name::RunId::random(),
        crate::name::RunId::random()
    );
    format!(
        "{}-{}-4{}-a{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path, purpose: Purpose) -> Result<Db, StoreError> {
        let (path, gate) = (folder.join("x.db"), folder.join("gate"));
        Db::open(&path, Make::ByFileSystem, purpose, gate)
    }

    fn change(db: &mut Db, sql: &str) {
        db.write(|tx| tx.execute_batch(sql)).unwrap();
    }

    /// Why it can't be opened.
    fn refused(folder: &Path) -> String {
        let opened = open(folder, Purpose::Run).map(|_| "opened");
        opened.expect_err("refused").to_string()
    }

    #[test]
    fn what_is_not_at_its_path_any_more_is_neither_read_nor_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = open(dir.path(), Purpose::Run).unwrap();
        let (path, moved) = (dir.path().join("x.db"), dir.path().join("moved.db"));
        let mut works = || {
            let read = db.read(|conn| conn.query_row("SELECT 1", [], |_| Ok(())));
            let written = db.write(|tx| tx.execute_batch("DELETE FROM runs"));
            assert_eq!(read.is_ok(), written.is_ok());
            written.map_err(|e| e.to_string())
        };
        assert_eq!(works(), Ok(()));
        std::fs::rename(&path, &moved).unwrap();
        assert!(works().unwrap_err().contains("moved away or replaced"));
        std::fs::copy(&moved, &path).unwrap();
        assert!(works().unwrap_err().contains("moved away or replaced"));
        std::fs::rename(&moved, &path).unwrap();
        assert_eq!(works(), Ok(()));
    }

    #[test]
    fn what_joblock_never_makes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = open(dir.path(), Purpose::Run).unwrap();
        change(&mut db, "CREATE VIEW spy AS SELECT * FROM runs");
        drop(db);
        assert!(refused(dir.path()).contains("triggers or views"));
        let dir = tempfile::tempdir().unwrap();
        let mut db = open(dir.path(), Purpose::Run).unwrap();
        change(
            &mut db,
            &format!("PRAGMA user_version = {}", schema::FORMAT + 1),
        );
        drop(db);
        assert!(refused(dir.path()).contains("use the joblock that made it"));
        // SQLite itself follows none either
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), Purpose::Run).unwrap());
        let link = dir.path().join("link.db");
        std::os::unix::fs::symlink("x.db", &link).unwrap();
        assert!(connect(&link, LIMIT).is_err());
    }

    #[test]
    fn each_store_has_an_id_of_its_own() {
        let id = uuid();
        let parts: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_ne!(id, uuid());
    }

    #[test]
    fn columns_that_are_new_come_with_the_next_run_not_with_a_look() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = open(dir.path(), Purpose::Run).unwrap();
        change(&mut db, "ALTER TABLE runs DROP COLUMN unsafe_mount");
        drop(db);
        let lacks = |purpose| {
            let mut db = open(dir.path(), purpose).unwrap();
            db.read(missing).unwrap().len()
        };
        assert_eq!(lacks(Purpose::Read), 1);
        assert_eq!(lacks(Purpose::Request), 1);
        assert_eq!(lacks(Purpose::Run), 0);
        assert_eq!(lacks(Purpose::Read), 0);
    }
}
