//! Lock rows and sightings: dumb statements. What they mean is decided in `lease/`.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{from_json, parsed, signed, token, unsigned, wrong};
use crate::lease;
use crate::lease::takeover::{FileId, Sighting};
use crate::lease::timing::Timing;
use crate::name::{LockName, RunId, Token};
use crate::store::{Holder, Place};

type Result<T> = rusqlite::Result<T>;

/// A lock's row.
pub type LockRow = lease::row::Row<Holder>;

/// What nobody wrote is an error: a token that could not be counted on, a lease so short that somebody alive would be taken for gone.
fn lock_row(row: &Row<'_>) -> Result<LockRow> {
    let count = |column| unsigned::<u64>(row, column).map(Option::unwrap_or_default);
    let id = |column: &str| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let holder: Holder = from_json(row, "holder")?;
    let ttl = Duration::from_millis(count("ttl_ms")?);
    if ttl < Timing::MIN {
        return Err(wrong(
            row,
            "ttl_ms",
            format!("{ttl:?} is no lease's length"),
        ));
    }
    let owner: RunId = parsed(row, "owner", str::parse)?;
    if owner != holder.run_id {
        return Err(wrong(row, "owner", format!("{owner} is not the holder")));
    }
    Ok(LockRow {
        token: token(row, "token")?.ok_or_else(|| wrong(row, "token", "there is none"))?,
        owner,
        released: row.get("released")?,
        seq: count("seq")?,
        ttl,
        granted_on: FileId {
            dev: id("dev")?,
            ino: id("ino")?,
        },
        holder,
    })
}

/// The row of `lock`.
pub fn get(conn: &Connection, lock: &LockName) -> Result<Option<LockRow>> {
    conn.prepare_cached("SELECT * FROM locks WHERE name = ?1")?
        .query_row([lock.as_str()], lock_row)
        .optional()
}

/// Writes a grant.
pub fn grant(conn: &Connection, lock: &LockName, row: &LockRow) -> Result<()> {
    let holder = serde_json::to_string(&row.holder)
        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    conn.prepare_cached(
        "INSERT INTO locks (name, token, owner, released, seq, ttl_ms, dev, ino, holder) VALUES (?1, ?2, ?3, 0, 0, ?4, ?5, ?6, ?7)
         ON CONFLICT (name) DO UPDATE SET token = excluded.token, owner = excluded.owner, released = 0, seq = 0,
             ttl_ms = excluded.ttl_ms, dev = excluded.dev, ino = excluded.ino, holder = excluded.holder",
    )?
    .execute(params![
        lock.as_str(),
        signed(row.token.0),
        row.owner.as_str(),
        u64::try_from(row.ttl.as_millis()).map_or(i64::MAX, signed),
        row.granted_on.dev.cast_signed(),
        row.granted_on.ino.cast_signed(),
        holder,
    ])?;
    conn.prepare_cached("DELETE FROM sightings WHERE name = ?1")?
        .execute([lock.as_str()])?;
    Ok(())
}

/// Releases, if the grant is still `owner`'s with this token; `false`: it is not.
pub fn release(conn: &Connection, lock: &LockName, owner: &RunId, token: Token) -> Result<bool> {
    let changed = conn
        .prepare_cached("UPDATE locks SET released = 1 WHERE name = ?1 AND owner = ?2 AND token = ?3 AND released = 0")?
        .execute(params![lock.as_str(), owner.as_str(), signed(token.0)])?;
    Ok(changed == 1)
}

/// Releases a grant of `owner`'s that may or may not have been written, whatever its token; `false`: there was none.
pub fn give_back(conn: &Connection, lock: &LockName, owner: &RunId) -> Result<bool> {
    let changed = conn
        .prepare_cached(
            "UPDATE locks SET released = 1 WHERE name = ?1 AND owner = ?2 AND released = 0",
        )?
        .execute(params![lock.as_str(), owner.as_str()])?;
    Ok(changed == 1)
}

/// Renews through the row, if the grant is still `owner`'s with this token; `false`: it is not.
pub fn renew(conn: &Connection, lock: &LockName, owner: &RunId, token: Token) -> Result<bool> {
    let changed = conn
        .prepare_cached("UPDATE locks SET seq = seq + 1 WHERE name = ?1 AND owner = ?2 AND token = ?3 AND released = 0")?
        .execute(params![lock.as_str(), owner.as_str(), signed(token.0)])?;
    Ok(changed == 1)
}

/// Every lock that was ever granted.
pub fn names(conn: &Connection) -> Result<Vec<LockName>> {
    let mut statement = conn.prepare("SELECT name FROM locks ORDER BY name")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    names
        .map(|name| {
            name?.parse().map_err(|e| {
                rusqlite::Error::FromSqlConversionFailure(
                    0,
                    rusqlite::types::Type::Text,
                    Box::new(e),
                )
            })
        })
        .collect()
}

/// How many runs are kept in mind whose machines may have something left of them: all that there ever are, unless somebody
/// takes over for years from machines that never come back.
const UNSWEPT: i64 = 1000;

/// Keeps in mind that `holder`, which was taken over, may have left something on its machine.
pub fn keep_unswept(conn: &Connection, lock: &LockName, holder: &Holder) -> Result<()> {
    let json = serde_json::to_string(holder)
        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    let (run, boot) = (holder.run_id.as_str(), &holder.place.boot_id);
    conn.prepare_cached("INSERT OR IGNORE INTO unswept VALUES (?1, ?2, ?3, ?4)")?
        .execute([lock.as_str(), boot, run, &json])?;
    conn.prepare_cached(
        "DELETE FROM unswept WHERE rowid <= (SELECT max(rowid) FROM unswept) - ?1",
    )?
    .execute([UNSWEPT])?;
    Ok(())
}

/// The runs under `lock` that were taken over from elsewhere and may have left something that can be seen from `here`.
pub fn unswept(conn: &Connection, lock: &LockName, here: &Place) -> Result<Vec<Holder>> {
    let mut statement =
        conn.prepare_cached("SELECT holder FROM unswept WHERE name = ?1 AND boot_id = ?2")?;
    let found = statement.query_map([lock.as_str(), &here.boot_id], |row| {
        from_json::<Holder>(row, "holder")
    })?;
    let seen_from_here = |holder: &Result<Holder>| {
        holder
            .as_ref()
            .map_or(true, |holder| here.same_pids(&holder.place))
    };
    found.filter(seen_from_here).collect()
}

/// Nothing is left of it there.
pub fn swept(conn: &Connection, run: &RunId) -> Result<()> {
    conn.prepare_cached("DELETE FROM unswept WHERE run_id = ?1")?
        .execute([run.as_str()])?;
    Ok(())
}

/// What was seen of `lock` from a place with our clock.
pub fn sighting(conn: &Connection, lock: &LockName, here: &Place) -> Result<Option<Sighting>> {
    conn.prepare_cached(
        "SELECT seen FROM sightings WHERE name = ?1 AND boot_id = ?2 AND time_ns = ?3",
    )?
    .query_row([lock.as_str(), &here.boot_id, &here.time_ns], |row| {
        from_json(row, "seen")
    })
    .optional()
}

/// Keeps a sighting for the next look from a place with our clock.
pub fn keep_sighting(
    conn: &Connection,
    lock: &LockName,
    here: &Place,
    seen: &Sighting,
) -> Result<()> {
    let seen = serde_json::to_string(seen)
        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    conn.prepare_cached("INSERT OR REPLACE INTO sightings VALUES (?1, ?2, ?3, ?4)")?
        .execute([lock.as_str(), &here.boot_id, &here.time_ns, &seen])?;
    Ok(())
}
