//! What SQLite's transactions do between the two: a database of their own, with a rollback journal as every shared store has.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use serde::{Deserialize, Serialize};

use super::link::{Link, Trouble, short};
use super::trial::Answer;
use crate::clock::Boot;
use crate::store::lockfile::file;
use crate::store::sqlite::path::beside;
use crate::store::trust;

/// How often each side counts on.
pub const COUNTED: u32 = 20;
/// How long one transaction may wait for the others.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one side saw of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqliteSeen {
    /// What went wrong.
    pub error: Option<String>,
    /// A transaction while the other side has one.
    pub excluded: Answer,
    /// How far it counted on.
    pub counted: u32,
    /// What stood in the table in the end.
    pub total: Option<i64>,
    /// What SQLite's own check says.
    pub integrity: Option<String>,
    /// How long counting took, in milliseconds.
    pub took_ms: u64,
}

fn open(path: &Path) -> Result<Connection, String> {
    for part in [path, &beside(path, "-journal")] {
        trust::check_part(part, false).map_err(|e| short(&e))?;
    }
    connect(path).map_err(|e| short(&e))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let conn = Connection::open_with_flags(path, flags)?;
    // the other side may have made it, and may mean harm
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.pragma_update(None, "synchronous", "EXTRA")?;
    conn.busy_timeout(Duration::ZERO)?;
    Ok(conn)
}

fn make(path: &Path) -> Result<Connection, String> {
    file::create(path).map_err(|e| short(&e))?;
    let conn = open(path)?;
    conn.execute_batch("CREATE TABLE counter (n INTEGER); INSERT INTO counter VALUES (0)")
        .map_err(|e| short(&e))?;
    Ok(conn)
}

fn begin(conn: &Connection) -> Answer {
    match conn.execute_batch("BEGIN IMMEDIATE") {
        Ok(()) => {
            let _ = conn.execute_batch("ROLLBACK");
            Answer::Taken
        }
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Answer::Refused,
        Err(error) => Answer::Failed(short(&error)),
    }
}

/// Reads and writes in one transaction each time: what one of both overlooks is missing in the end.
fn count(conn: &mut Connection, seen: &mut SqliteSeen, alive: &mut dyn FnMut()) {
    let mut once = || -> rusqlite::Result<()> {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let n: i64 = tx.query_row("SELECT n FROM counter", [], |row| row.get(0))?;
        tx.execute("UPDATE counter SET n = ?1", [n + 1])?;
        tx.commit()
    };
    for _ in 0..COUNTED {
        alive();
        if let Err(error) = once() {
            seen.error = Some(short(&error));
            return;
        }
        seen.counted += 1;
    }
}

/// The part of the script that is SQLite's.
///
/// # Errors
/// If the other side is gone.
pub fn play(link: &mut Link<'_>) -> Result<SqliteSeen, Trouble> {
    let mut seen = SqliteSeen::default();
    let keep = |seen: &mut SqliteSeen, error: String| {
        seen.error.get_or_insert(error);
    };
    let first = link.is_first();
    let mut conn = None;
    if first {
        match make(&link.own(".db")) {
            Ok(made) => conn = Some(made),
            Err(error) => keep(&mut seen, error),
        }
    }
    link.exchange("a database", &())?;
    if !first {
        match open(&link.theirs(".db")) {
            Ok(opened) => conn = Some(opened),
            Err(error) => keep(&mut seen, error),
        }
    }
    for turn in [true, false] {
        let ours = turn == first;
        if let (true, Some(conn)) = (ours, &conn)
            && let Err(error) = conn.execute_batch("BEGIN IMMEDIATE")
        {
            keep(&mut seen, short(&error));
        }
        link.exchange("one has a transaction", &())?;
        if let (false, Some(conn)) = (ours, &conn) {
            seen.excluded = begin(conn);
        }
        link.exchange("the other one tried", &())?;
        if let (true, Some(conn)) = (ours, &conn)
            && !conn.is_autocommit()
            && let Err(error) = conn.execute_batch("COMMIT")
        {
            keep(&mut seen, short(&error));
        }
        link.exchange("the transaction is over", &())?;
    }
    if let Some(conn) = &mut conn {
        let since = Boot::now();
        match conn.busy_timeout(PATIENCE) {
            Ok(()) => count(conn, &mut seen, &mut || link.alive("SQLite's transactions")),
            Err(error) => keep(&mut seen, short(&error)),
        }
        let took = Boot::now().since(since).as_millis();
        seen.took_ms = u64::try_from(took).unwrap_or(u64::MAX);
    }
    link.exchange("both counted", &())?;
    if let Some(conn) = &conn {
        let total = conn.query_row("SELECT n FROM counter", [], |row| row.get(0));
        let integrity = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0));
        match (total, integrity) {
            (Ok(total), Ok(integrity)) => {
                (seen.total, seen.integrity) = (Some(total), Some(integrity));
            }
            (Err(error), _) | (_, Err(error)) => keep(&mut seen, short(&error)),
        }
    }
    drop(conn);
    link.exchange("both read the sum", &())?;
    Ok(seen)
}
