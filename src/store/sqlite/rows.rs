//! History rows: a [`RunRecord`] to columns and back, and everything that is asked of them. Both stores use it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Wall;
use crate::name::{LockName, RunId, Token};
use crate::store::record::{End, OutOfMemory, Outcome, Query, RunRecord, Tail, Trigger};
use crate::store::spool::Entry;

use super::locks;

type Result<T> = rusqlite::Result<T>;

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

/// Reads a column's text with `parse`; an error names the column.
pub fn parsed<T, E>(
    row: &Row<'_>,
    column: &str,
    parse: impl FnOnce(&str) -> std::result::Result<T, E>,
) -> Result<T>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let at = row.as_ref().column_index(column)?;
    let text = row
        .get_ref(at)?
        .as_str()
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(e)))?;
    parse(text).map_err(|e| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, e.into()))
}

fn parsed_if_any<T, E>(
    row: &Row<'_>,
    column: &str,
    parse: impl FnOnce(&str) -> std::result::Result<T, E>,
) -> Result<Option<T>>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match row.get_ref(column)?.as_str_or_null() {
        Ok(None) => Ok(None),
        _ => parsed(row, column, parse).map(Some),
    }
}

/// Reads a column of JSON.
pub fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T> {
    parsed(row, column, |text| serde_json::from_str(text))
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// What stands in a column is of the right type, and yet nothing that we wrote.
pub fn wrong(
    row: &Row<'_>,
    column: &str,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    let at = row.as_ref().column_index(column).unwrap_or_default();
    rusqlite::Error::FromSqlConversionFailure(at, Type::Integer, why.into())
}

/// A column's number that is a token; an error names the column.
pub fn token(row: &Row<'_>, column: &str) -> Result<Option<Token>> {
    let token =
        unsigned(row, column)?.map(|n: u64| Token::try_from(n).map_err(|e| wrong(row, column, e)));
    token.transpose()
}

/// A column's number that can't be negative; an error names the column.
pub fn unsigned<T: TryFrom<i64>>(row: &Row<'_>, column: &str) -> Result<Option<T>> {
    let value: Option<i64> = row.get(column)?;
    value
        .map(|n| T::try_from(n).map_err(|_| FromSqlError::OutOfRange(n)))
        .transpose()
        .map_err(|e| wrong(row, column, e))
}

/// A number that SQLite keeps as 64 bits with a sign. Ours are counts and milliseconds, far below that.
pub fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Arguments, each ended by a NUL, which none of them can have in it.
fn join(command: &[OsString]) -> Vec<u8> {
    command
        .iter()
        .flat_map(|arg| arg.as_bytes().iter().copied().chain([0]))
        .collect()
}

fn split(bytes: &[u8]) -> Vec<OsString> {
    let bytes = bytes.strip_suffix(&[0]).map(|b| b.split(|&b| b == 0));
    bytes
        .into_iter()
        .flatten()
        .map(|arg| OsString::from_vec(arg.to_vec()))
        .collect()
}

/// Writes a record, its end included if it has one. One that is there already stays as it is if it has an end;
/// else it gets this one's: what is written twice, or late from a spool file, comes to the same.
pub fn upsert(conn: &Connection, record: &RunRecord) -> Result<()> {
    let end = record.end.as_ref();
    let held_by = record.held_by.as_ref().map(json).transpose()?;
    conn.prepare_cached(
        "INSERT INTO runs (run_id, job, lock, token, trigger, who, reason, tags, repeats, host, boot_id, container, oom_counters, pid,
             command, cwd, started, outcome, ended, duration_ns, exit_code, signal, out_of_memory, peak_memory_kib, cpu_ns, leaked, end_note, held_by, note, redacted, unsafe_mount)
         VALUES (:run_id, :job, :lock, :token, :trigger, :who, :reason, :tags, :repeats, :host, :boot_id, :container, :oom_counters, :pid,
             :command, :cwd, :started, :outcome, :ended, :duration_ns, :exit_code, :signal, :out_of_memory, :peak_memory_kib, :cpu_ns, :leaked, :end_note, :held_by, :note, :redacted, :unsafe_mount)
         ON CONFLICT (run_id) DO UPDATE SET
             token = coalesce(excluded.token, token), outcome = excluded.outcome, ended = excluded.ended, duration_ns = excluded.duration_ns,
             exit_code = excluded.exit_code, signal = excluded.signal, out_of_memory = excluded.out_of_memory,
             peak_memory_kib = excluded.peak_memory_kib, cpu_ns = excluded.cpu_ns, leaked = excluded.leaked,
             end_note = excluded.end_note, held_by = excluded.held_by, note = excluded.note
         WHERE ended IS NULL AND outcome IN ('running', 'abandoned', 'oom-killed') AND excluded.outcome <> 'running'",
    )?
    .execute(named_params! {
        ":run_id": record.run_id.as_str(),
        ":job": record.job.as_str(),
        ":lock": record.lock.as_str(),
        ":token": record.token.map(|t| signed(t.0)),
        ":trigger": record.trigger.as_str(),
        ":who": json(&record.who)?,
        ":reason": record.reason,
        ":tags": json(&record.tags)?,
        ":repeats": record.repeats.as_ref().map(RunId::as_str),
        ":host": record.host,
        ":boot_id": record.boot_id,
        ":container": record.container,
        ":oom_counters": json(&record.oom_counters)?,
        ":pid": record.pid,
        ":command": join(&record.command),
        ":cwd": record.cwd.as_os_str().as_bytes(),
        ":started": record.started.0,
        ":outcome": record.outcome.as_str(),
        ":ended": end.map(|e| e.at.0),
        ":duration_ns": end.map(|e| nanoseconds(e.duration)),
        ":exit_code": end.and_then(|e| e.exit_code),
        ":signal": end.and_then(|e| e.signal),
        ":out_of_memory": end.map(|e| e.out_of_memory.as_str()),
        ":peak_memory_kib": end.and_then(|e| e.peak_memory_kib).map(signed),
        ":cpu_ns": end.and_then(|e| e.cpu).map(nanoseconds),
        ":leaked": end.map(|e| e.leaked),
        ":end_note": end.and_then(|e| e.note.as_deref()),
        ":held_by": held_by,
        ":note": record.note,
        ":redacted": record.redacted,
        ":unsafe_mount": record.unsafe_mount.as_ref().map(json).transpose()?,
    })?;
    Ok(())
}

/// Writes a run's end and its output, and frees its lock if it still has it. What is written twice comes to the same.
pub fn finish(conn: &Connection, record: &RunRecord, tail: Option<&Tail>) -> Result<()> {
    upsert(conn, record)?;
    if let Some(tail) = tail {
        save_tail(conn, &record.run_id, tail)?;
    }
    if let (Some(token), Some(_)) = (record.token, &record.end) {
        locks::release(conn, &record.lock, &record.run_id, token)?;
    }
    Ok(())
}

/// Writes what waited in the spool.
pub fn fold(conn: &Connection, entries: &[Entry]) -> Result<()> {
    for entry in entries {
        finish(conn, &entry.record, entry.tail().as_ref())?;
        let granted = locks::get(conn, &entry.record.lock)?;
        if let (Some(row), Outcome::Running) = (granted, entry.record.outcome) {
            abandon_before(conn, &entry.record.lock, row.token)?;
        }
    }
    Ok(())
}

/// Writes the output of a run that has a row.
pub fn save_tail(conn: &Connection, run: &RunId, tail: &Tail) -> Result<()> {
    conn.prepare_cached(
        "INSERT OR REPLACE INTO tails SELECT id, ?2, ?3 FROM runs WHERE run_id = ?1",
    )?
    .execute(params![run.as_str(), tail.bytes, signed(tail.total)])?;
    Ok(())
}

/// The output of a run.
pub fn tail(conn: &Connection, run: &RunId) -> Result<Option<Tail>> {
    let sql = "SELECT bytes, total FROM tails WHERE id = (SELECT id FROM runs WHERE run_id = ?1)";
    conn.query_row(sql, [run.as_str()], |row| {
        Ok(Tail {
            bytes: row.get("bytes")?,
            total: unsigned(row, "total")?.unwrap_or_default(),
        })
    })
    .optional()
}

/// Stores that a run without an end was abandoned.
pub fn abandon(
    conn: &Connection,
    run: &RunId,
    outcome: Outcome,
    memory: OutOfMemory,
) -> Result<()> {
    conn.prepare_cached("UPDATE runs SET outcome = ?2, out_of_memory = ?3 WHERE run_id = ?1 AND outcome = 'running'")?
        .execute([run.as_str(), outcome.as_str(), memory.as_str()])?;
    Ok(())
}

/// Stores that every run under `lock` was abandoned that was granted a token below `token` and has no end. Looks at all rows.
pub fn abandon_before(conn: &Connection, lock: &LockName, token: Token) -> Result<()> {
    conn.prepare_cached("UPDATE runs SET outcome = 'abandoned' WHERE lock = ?1 AND token < ?2 AND outcome = 'running'")?
        .execute(params![lock.as_str(), signed(token.0)])?;
    Ok(())
}

/// One run by its whole id.
pub fn by_id(conn: &Connection, run: &RunId) -> Result<Option<RunRecord>> {
    conn.prepare_cached("SELECT * FROM runs WHERE run_id = ?1")?
        .query_row([run.as_str()], record)
        .optional()
}

/// Runs whose id begins with `prefix`, newest first.
pub fn by_prefix(conn: &Connection, prefix: &str) -> Result<Vec<RunRecord>> {
    if prefix.len() < RunId::SHORT
        || !prefix
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Ok(Vec::new());
    }
    // ids are lower-case hexadecimal digits: "g" comes after all of them
    let sql = "SELECT * FROM runs WHERE run_id >= ?1 AND run_id < ?1 || 'g' ORDER BY id DESC";
    conn.prepare(sql)?.query_map([prefix], record)?.collect()
}

/// The rows that `query` asks for, newest first, that is in the order of their tokens. `outcomes` is left to the
/// caller, who knows which of the running ones are not.
pub fn query(conn: &Connection, query: &Query) -> Result<Vec<RunRecord>> {
    let sql = "SELECT * FROM runs
         WHERE (:job IS NULL OR job = :job) AND (:since IS NULL OR started >= :since) AND (:until IS NULL OR started < :until)
           AND (:host IS NULL OR host = :host) AND (:trigger IS NULL OR trigger = :trigger)
         ORDER BY id DESC LIMIT :limit";
    // with the job as a plain comparison the index can be used
    let sql = if query.job.is_some() {
        sql.replace("(:job IS NULL OR job = :job)", "job = :job")
    } else {
        sql.to_owned()
    };
    // What stands as `running` may turn out to be one of three, so a limit counts only where all or none of them are asked for.
    let vanishing = [Outcome::Running, Outcome::Abandoned, Outcome::OomKilled];
    let asked = vanishing.map(|outcome| query.outcomes.contains(&outcome));
    let is_exact = query.outcomes.is_empty() || asked.iter().all(|a| *a) || !asked.contains(&true);
    let mut outcomes: Vec<&str> = query.outcomes.iter().map(|o| o.as_str()).collect();
    if asked.contains(&true) {
        outcomes.push(Outcome::Running.as_str());
    }
    let sql = if outcomes.is_empty() {
        sql
    } else {
        // words of our own, with nothing in them to be quoted
        let one_of = format!("AND outcome IN ('{}') ORDER BY", outcomes.join("', '"));
        sql.replace("ORDER BY", &one_of)
    };
    let limit = query
        .limit
        .filter(|_| is_exact)
        .map_or(-1, |n| i64::try_from(n).unwrap_or(-1));
    let mut statement = conn.prepare(&sql)?;
    let rows = statement.query_map(
        named_params! {
            ":job": query.job,
            ":since": query.since.map(|w| w.0),
            ":until": query.until.map(|w| w.0),
            ":host": query.host,
            ":trigger": query.trigger.map(Trigger::as_str),
            ":limit": limit,
        },
        record,
    )?;
    rows.collect()
}

/// When the newest success of `job` ended.
pub fn last_success(conn: &Connection, job: &str) -> Result<Option<Wall>> {
    let sql = "SELECT max(ended) FROM runs WHERE job = ?1 AND outcome = 'succeeded'";
    Ok(conn
        .query_row(sql, [job], |row| row.get::<_, Option<i64>>(0))?
        .map(Wall))
}

/// Every job.
pub fn jobs(conn: &Connection) -> Result<Vec<String>> {
    conn.prepare("SELECT DISTINCT job FROM runs ORDER BY job")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// The newest token of a lock that a row tells of.
pub fn newest_token(conn: &Connection, lock: &LockName) -> Result<Option<Token>> {
    let sql = "SELECT max(token) AS token FROM runs WHERE lock = ?1";
    conn.query_row(sql, [lock.as_str()], |row| token(row, "token"))
}

fn record(row: &Row<'_>) -> Result<RunRecord> {
    let outcome: Outcome = parsed(row, "outcome", str::parse)?;
    let ended: Option<i64> = row.get("ended")?;
    let end = match ended {
        None => None,
        Some(at) => Some(End {
            outcome,
            at: Wall(at),
            duration: Duration::from_nanos(unsigned(row, "duration_ns")?.unwrap_or_default()),
            exit_code: row.get("exit_code")?,
            signal: row.get("signal")?,
            out_of_memory: parsed_if_any(row, "out_of_memory", str::parse)?
                .unwrap_or(OutOfMemory::Unknown),
            peak_memory_kib: unsigned(row, "peak_memory_kib")?,
            cpu: unsigned(row, "cpu_ns")?.map(Duration::from_nanos),
            leaked: unsigned(row, "leaked")?.unwrap_or_default(),
            note: row.get("end_note")?,
        }),
    };
    // a store that no run of this version has written to yet does not have every column
    let has = |column| row.as_ref().column_index(column).is_ok();
    Ok(RunRecord {
        run_id: parsed(row, "run_id", str::parse)?,
        job: parsed(row, "job", str::parse)?,
        lock: parsed(row, "lock", str::parse)?,
        token: token(row, "token")?,
        trigger: parsed(row, "trigger", str::parse)?,
        who: from_json(row, "who")?,
        reason: row.get("reason")?,
        tags: from_json(row, "tags")?,
        repeats: parsed_if_any(row, "repeats", str::parse)?,
        host: row.get("host")?,
        boot_id: row.get("boot_id")?,
        container: row.get("container")?,
        oom_counters: from_json(row, "oom_counters")?,
        pid: row.get("pid")?,
        command: split(&row.get::<_, Vec<u8>>("command")?),
        redacted: has("redacted")
            .then(|| row.get("redacted"))
            .transpose()?
            .unwrap_or_default(),
        unsafe_mount: has("unsafe_mount")
            .then(|| parsed_if_any(row, "unsafe_mount", |text| serde_json::from_str(text)))
            .transpose()?
            .flatten(),
        cwd: PathBuf::from(OsStr::from_bytes(&row.get::<_, Vec<u8>>("cwd")?)),
        started: Wall(row.get("started")?),
        outcome,
        end,
        held_by: parsed_if_any(row, "held_by", |text| serde_json::from_str(text))?,
        note: row.get("note")?,
    })
}
