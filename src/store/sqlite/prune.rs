//! Deletes old history rows and their output, a slice at a time: what is to go is found by reading, and one short
//! transaction deletes it. Both stores use it.
//!
//! Deleted pages stay in the file and are used again by later rows: the file does not shrink. A VACUUM would hold
//! up every start for as long as it takes to copy the database.

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, named_params, params};

use super::rows::parsed;
use crate::clock::Wall;
use crate::store::pruning::{
    Class, LOOKED_AT, Prune, Pruned, Row, any_old, choose, settled_before, vouched,
};

type Result<T> = rusqlite::Result<T>;

/// Of the attempts that were recorded last, how many are asked for an earlier clock.
const WITNESSES: i64 = 10_000;

/// Finds a slice: the rows to delete, and what would be said of it then.
pub fn look(conn: &Connection, request: &Prune) -> Result<(Vec<Row>, Pruned)> {
    let rows = rows_after(conn, request)?;
    let reference = if !request.trust_clock && any_old(request, &rows) {
        let (settled, since) = evidence(conn, settled_before(request.now, request.keep))?;
        vouched(request.now, request.keep, settled, since)
    } else {
        request.now
    };
    let last = rows.last().map_or(request.after, |row| row.id);
    choose(request, &rows, reference, |class| {
        is_newer(conn, &request.job, last, class)
    })
}

/// Deletes what [`look`] found; says how many attempts, and how many bytes of output with them. A row that is another's by now, or
/// runs, stays: ids are used again. One that somebody else deleted meanwhile is not counted.
pub fn delete(conn: &Connection, rows: &[Row]) -> Result<(u64, u64)> {
    let mut tails = conn.prepare_cached(
        "DELETE FROM tails WHERE id = (SELECT id FROM runs WHERE id = ?1 AND run_id = ?2 AND outcome <> 'running')",
    )?;
    let mut runs = conn.prepare_cached(
        "DELETE FROM runs WHERE id = ?1 AND run_id = ?2 AND outcome <> 'running'",
    )?;
    let (mut attempts, mut bytes) = (0, 0);
    for row in rows {
        tails.execute(params![row.id, row.run_id.as_str()])?;
        if runs.execute(params![row.id, row.run_id.as_str()])? > 0 {
            attempts += 1;
            bytes += row.bytes;
        }
    }
    Ok((attempts, bytes))
}

fn rows_after(conn: &Connection, request: &Prune) -> Result<Vec<Row>> {
    let sql = "SELECT runs.id, run_id, outcome, lock, token IS NOT NULL AS granted, coalesce(ended, started) AS at,
             coalesce(length(bytes), 0) AS bytes
         FROM runs LEFT JOIN tails ON tails.id = runs.id
         WHERE job = :job AND runs.id > :after ORDER BY runs.id LIMIT :limit";
    conn.prepare_cached(sql)?
        .query_map(
            named_params! {
                ":job": request.job,
                ":after": request.after,
                ":limit": i64::try_from(LOOKED_AT).unwrap_or(i64::MAX),
            },
            read,
        )?
        .collect()
}

fn read(row: &SqlRow<'_>) -> Result<Row> {
    let lock: String = row.get("lock")?;
    Ok(Row {
        id: row.get("id")?,
        run_id: parsed(row, "run_id", str::parse)?,
        outcome: parsed(row, "outcome", str::parse)?,
        granted: row.get::<_, bool>("granted")?.then_some(lock),
        at: Wall(row.get("at")?),
        bytes: row.get::<_, i64>("bytes")?.unsigned_abs(),
    })
}

fn is_newer(conn: &Connection, job: &str, than: i64, class: &Class) -> Result<bool> {
    let (condition, value) = match class {
        Class::Outcome(outcome) => ("outcome = ?3", outcome.as_str()),
        Class::Lock(lock) => ("lock = ?3 AND token IS NOT NULL", lock.as_str()),
    };
    let sql = format!("SELECT 1 FROM runs WHERE job = ?1 AND id > ?2 AND {condition} LIMIT 1");
    Ok(conn
        .prepare_cached(&sql)?
        .query_row(params![job, than, value], |_| Ok(()))
        .optional()?
        .is_some())
}

/// The newest attempt of any job that began before `until`, and the earliest beginning among those that were recorded after it.
fn evidence(conn: &Connection, until: Wall) -> Result<(Option<Wall>, Option<Wall>)> {
    // one step of the index for each job; a plain DISTINCT would read all of it
    let mut jobs = conn.prepare_cached(
        "WITH RECURSIVE j (job) AS (SELECT min(job) FROM runs UNION ALL
             SELECT (SELECT min(job) FROM runs WHERE job > j.job) FROM j WHERE j.job IS NOT NULL)
         SELECT job FROM j WHERE job IS NOT NULL",
    )?;
    let jobs: Vec<String> = jobs
        .query_map([], |row| row.get(0))?
        .collect::<Result<_>>()?;
    let mut newest = conn.prepare_cached(
        "SELECT started, id FROM runs WHERE job = ?1 AND started < ?2 ORDER BY started DESC LIMIT 1",
    )?;
    let mut settled: Option<(i64, i64)> = None;
    for job in jobs {
        let found = newest
            .query_row(params![job, until.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        settled = settled.max(found);
    }
    let Some((started, id)) = settled else {
        return Ok((None, None));
    };
    let since: Option<i64> = conn
        .prepare_cached(
            "SELECT min(started) FROM (SELECT started FROM runs WHERE id > ?1 ORDER BY id DESC LIMIT ?2)",
        )?
        .query_row([id, WITNESSES], |row| row.get(0))?;
    Ok((Some(Wall(started)), since.map(Wall)))
}
