//! What the history, the exit codes and the witness come to, when all is over.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::arena::{Arena, Kind};
use super::plan::{FRONT, GUARD, KEEPER, Torment};
use super::witness::{Findings, Seen};
use super::worker::Tried;

/// A row of the history.
#[derive(Debug)]
struct Row {
    run: String,
    lock: String,
    token: Option<u64>,
    outcome: String,
    exit_code: Option<i64>,
    attempt: Option<u64>,
}

/// Figures of a campaign, and everything that must not be.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Figures by their names.
    pub figures: BTreeMap<&'static str, u64>,
    /// What was wrong.
    pub wrong: Vec<String>,
}

impl Verdict {
    /// Adds to a figure.
    pub fn count(&mut self, figure: &'static str, n: u64) {
        *self.figures.entry(figure).or_default() += n;
    }

    /// Takes another one's figures and findings in.
    pub fn add(&mut self, other: Verdict) {
        for (figure, n) in other.figures {
            self.count(figure, n);
        }
        self.wrong.extend(other.wrong);
    }

    /// What the witness found.
    pub fn of_witness(&mut self, findings: &Findings) {
        self.count("acquisitions", findings.seen.len() as u64);
        self.count("overlaps", findings.overlaps.len() as u64);
        self.count("frozen runs overtaken", findings.frozen);
        for overlap in &findings.overlaps {
            self.wrong.push(overlap.to_string());
        }
        self.wrong.extend(findings.complaints.iter().cloned());
    }

    /// What an arena's history says about the attempts that were made there.
    pub fn of_arena(&mut self, arena: &Arena, tried: &[Tried], findings: &Findings) {
        let path = arena.history();
        let rows = match read(&path) {
            Ok(rows) => rows,
            Err(error) => return self.wrong.push(format!("{}: {error}", path.display())),
        };
        self.count("rows checked", rows.len() as u64);
        let mut by_attempt: HashMap<u64, Vec<&Row>> = HashMap::new();
        for row in &rows {
            match row.attempt {
                Some(attempt) => by_attempt.entry(attempt).or_default().push(row),
                None => self.wrong.push(format!("a row of nobody: {row:?}")),
            }
        }
        // by lock
        let mut without_a_row = vec![0; arena.locks.len()];
        for tried in tried {
            let rows = by_attempt.remove(&tried.attempt.id).unwrap_or_default();
            without_a_row[tried.attempt.lock] += u64::from(rows.is_empty());
            self.of_attempt(arena, tried, &rows, findings.seen.get(&tried.attempt.id));
        }
        for row in by_attempt.into_values().flatten() {
            self.wrong
                .push(format!("nobody made this attempt: {row:?}"));
        }
        for (lock, killed) in arena.locks.iter().zip(without_a_row) {
            self.of_tokens(arena, lock, &rows, killed);
        }
        let spooled = fs::read_dir(arena.spool()).map_or(0, Iterator::count);
        if spooled != 0 {
            self.wrong.push(format!(
                "{spooled} records wait in the spool of {}",
                arena.kind.name()
            ));
        }
    }

    fn of_attempt(&mut self, arena: &Arena, tried: &Tried, rows: &[&Row], seen: Option<&Seen>) {
        self.count("attempts", 1);
        if tried.killed != 0 {
            self.count("kills", u64::from(tried.killed.count_ones()));
        }
        if tried.stopped != 0 {
            self.count("stops", u64::from(tried.stopped.count_ones()));
        }
        self.count("freezes", u64::from(tried.frozen));
        let mut wrong = Vec::new();
        match rows {
            [] => match reason_to_be_missing(arena, tried, seen) {
                Some(reason) => self.count(reason, 1),
                None => wrong.push("a lost row"),
            },
            [row] => {
                if row.outcome == "abandoned" && !tried.was_tormented() && was_told(tried) {
                    self.count("runs abandoned in trouble, and told", 1);
                }
                wrong.extend(of_row(tried, row, seen));
                let killed = seen.is_some() && matches!(tried.code(), Some(137 | 143));
                if (row.outcome == "lost" || killed) && !tried.was_tormented() {
                    self.count("leases lost without a torment", 1);
                }
            }
            _ => wrong.push("doubled rows"),
        }
        match (tried.status, tried.code()) {
            (None, _) => wrong.push("stuck"),
            (_, Some(code)) => wrong.extend(of_code(arena, tried, code, seen)),
            _ if tried.signal() == Some(libc::SIGKILL) && tried.killed & FRONT != 0 => {}
            // with its host
            _ if tried.signal() == Some(libc::SIGKILL)
                && arena.kind == Kind::Far
                && !tried.calm => {}
            _ => wrong.push("front died of a signal that nobody sent"),
        }
        for what in wrong {
            self.wrong.push(format!(
                "{}: {what}: {tried:?}, {rows:?}, {seen:?}",
                arena.kind.name()
            ));
        }
    }

    /// Tokens grow one by one. Only a lock file has its token before the history has the row: of the attempts that have none (`killed`),
    /// each may leave out one token; where lock files are deleted as well, it may have had to begin again.
    fn of_tokens(&mut self, arena: &Arena, lock: &str, rows: &[Row], killed: u64) {
        let mut tokens: Vec<u64> = rows
            .iter()
            .filter(|row| row.lock == lock)
            .filter_map(|row| row.token)
            .collect();
        tokens.sort_unstable();
        let mut next = 1;
        let mut missing = 0;
        for token in tokens {
            match token.checked_sub(next) {
                None => self
                    .wrong
                    .push(format!("{lock}: token {token} was given twice")),
                Some(gap) => missing += gap,
            }
            next = token + 1;
        }
        self.count(
            "tokens of keepers killed between lock file and history",
            missing,
        );
        let may_miss = match arena.kind {
            Kind::Lockfile if arena.troubled => u64::MAX,
            Kind::Lockfile => killed,
            _ => 0,
        };
        if missing > may_miss {
            self.wrong.push(format!(
                "{lock}: no row for {missing} tokens, and {killed} attempts without a row"
            ));
        }
    }
}

/// Why an attempt may be in no history, if it may: its job never began, and whoever writes the row was killed before, or could not and said so.
fn reason_to_be_missing(arena: &Arena, tried: &Tried, seen: Option<&Seen>) -> Option<&'static str> {
    if seen.is_some() {
        return None;
    }
    let early = matches!(tried.attempt.torment, Torment::KillEarly(..));
    let at_the_store =
        tried.killed & KEEPER != 0 || (tried.killed & FRONT != 0 && !tried.had_a_keeper);
    if early && at_the_store {
        return Some("attempts killed before their row");
    }
    if !tried.calm && tried.signal().is_some() {
        return Some("attempts killed before their row");
    }
    if !arena.troubled {
        return None;
    }
    // also when it is over: a disk that was full has room only some moments after its files were removed
    let words = ["in no history", "could not be recorded", "does not answer"];
    words
        .iter()
        .any(|words| tried.said.contains(words))
        .then_some("attempts refused by a store that takes no row, and told so")
}

/// Whether somebody said why this run has no end of its own in the history, or lost power with it.
fn was_told(tried: &Tried) -> bool {
    let words = [
        "could NOT be recorded",
        "is not recorded yet",
        "could not be recorded",
        STARVED,
    ];
    (!tried.calm && tried.signal().is_some()) || words.iter().any(|w| tried.said.contains(w))
}

/// A guard that the machine left no time for before the deadline of a lease is killed by its own timer, as a stopped one is.
const STARVED: &str = "the guard, joblock's process above the job, ended before it told";

fn of_row(tried: &Tried, row: &Row, seen: Option<&Seen>) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    if let Some(seen) = seen
        && (row.token != Some(seen.token) || row.run != seen.run || row.lock != seen.lock)
    {
        wrong.push("the row is of another run");
    }
    let own_end = matches!(row.outcome.as_str(), "succeeded" | "failed");
    let said_own_code = seen.is_some() && tried.code() == Some(tried.attempt.code.into());
    if said_own_code && !own_end && !was_told(tried) {
        wrong.push("the job's own exit code, and another outcome on record");
    }
    match row.outcome.as_str() {
        "running" => wrong.push("a run that is over still stands as running"),
        "succeeded" if row.exit_code != Some(0) || tried.attempt.code != 0 => {
            wrong.push("no success");
        }
        "failed" if row.exit_code != Some(i64::from(tried.attempt.code)) => {
            wrong.push("a failure with another code");
        }
        "succeeded" | "failed" if seen.is_none() => wrong.push("an end of a job that never began"),
        "abandoned" if !tried.was_tormented() && !was_told(tried) => {
            wrong.push("abandoned, and nobody said why");
        }
        // a keeper that is killed between its row and its word tells front of neither
        "refused" if tried.killed & KEEPER == 0 && tried.code().is_some_and(|code| code != 75) => {
            wrong.push("refused, with another exit code");
        }
        "timed-out" if tried.attempt.limit.is_none() => wrong.push("no time limit was set"),
        _ => {}
    }
    wrong
}

/// Whether an exit code is one that this attempt can have.
fn of_code(arena: &Arena, tried: &Tried, code: i32, seen: Option<&Seen>) -> Option<&'static str> {
    let tormented = tried.was_tormented() || !tried.calm;
    let began = seen.is_some();
    let right = match code {
        75 => !began,
        69 => !began && tried.said.contains("not started"),
        79 => arena.kind.has_leases() || !tried.calm,
        124 => tried.attempt.limit.is_some(),
        125 if arena.kind.has_leases() && tried.said.contains(STARVED) => true,
        // killed before front had heard of the job's start
        125 => tormented && (!began || tried.killed & GUARD != 0),
        // see STARVED; a grant whose lock file is deleted becomes a lease on any store
        137 | 143 => tormented || arena.kind.has_leases(),
        _ => began && code == i32::from(tried.attempt.code) && tried.attempt.limit.is_none(),
    };
    let patient = code == 75 && tried.attempt.wait.is_some() && tried.calm;
    if patient {
        return Some("waited for ever");
    }
    (!right).then_some("an exit code that it can't have")
}

fn read(path: &Path) -> rusqlite::Result<Vec<Row>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(rusqlite::Error::InvalidColumnName(check));
    }
    let mut statement = conn.prepare(
        "SELECT run_id, lock, token, outcome, exit_code, json_extract(tags, '$.attempt') FROM runs",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(Row {
            run: row.get(0)?,
            lock: row.get(1)?,
            token: row.get::<_, Option<i64>>(2)?.map(i64::unsigned_abs),
            outcome: row.get(3)?,
            exit_code: row.get(4)?,
            attempt: row
                .get::<_, Option<String>>(5)?
                .and_then(|text| text.parse().ok()),
        })
    })?;
    rows.collect()
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (figure, n) in &self.figures {
            writeln!(f, "  {figure}: {n}")?;
        }
        for wrong in self.wrong.iter().take(20) {
            writeln!(f, "  WRONG: {wrong}")?;
        }
        if self.wrong.len() > 20 {
            writeln!(f, "  and {} more", self.wrong.len() - 20)?;
        }
        Ok(())
    }
}
