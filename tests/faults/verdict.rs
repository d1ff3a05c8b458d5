//! What must be true after a fault, whatever it was.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::calls::{Kind, Target};
use crate::play::{Done, Fault, Kept, Scenario, Who, World};
use crate::tracer::{Role, Status};
use joblock::store::sqlite::schema::ADDED;
use joblock::supervise::cgroup::JobCgroup;

/// A row of the history.
#[derive(Debug, Clone)]
struct Row {
    run_id: String,
    reason: String,
    token: Option<i64>,
    outcome: String,
    exit_code: Option<i64>,
}

/// A database as another program sees it; a copy is looked at, so a journal may be rolled back.
struct Found {
    integrity: String,
    rows: Vec<Row>,
    /// Token and whether it was released, of the lock.
    lock: Option<(i64, bool)>,
    /// What it has of the columns that came later.
    added: usize,
}

fn look(database: &Path) -> Result<Option<Found>, rusqlite::Error> {
    if fs::metadata(database).map_or(0, |m| m.len()) == 0 {
        return Ok(None);
    }
    let conn = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let integrity = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    let tables: i64 = conn.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE name = 'runs'",
        [],
        |row| row.get(0),
    )?;
    if tables == 0 {
        return Ok(Some(Found {
            integrity,
            rows: Vec::new(),
            lock: None,
            added: 0,
        }));
    }
    let mut statement = conn.prepare(
        "SELECT run_id, coalesce(reason, ''), token, outcome, exit_code FROM runs ORDER BY id",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(Row {
            run_id: row.get(0)?,
            reason: row.get(1)?,
            token: row.get(2)?,
            outcome: row.get(3)?,
            exit_code: row.get(4)?,
        })
    })?;
    let rows = rows.collect::<Result<_, _>>()?;
    let mut statement = conn.prepare("SELECT token, released FROM locks WHERE name = 'job'")?;
    let lock = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .next()
        .transpose()?;
    let mut statement = conn.prepare(
        "SELECT m.name || '.' || c.name FROM sqlite_schema m, pragma_table_info(m.name) c",
    )?;
    let columns = statement.query_map([], |row| row.get(0))?;
    let columns = columns.collect::<Result<HashSet<String>, _>>()?;
    let added = ADDED.iter().filter(|(column, _)| columns.contains(*column));
    Ok(Some(Found {
        integrity,
        rows,
        lock,
        added: added.count(),
    }))
}

/// The words of a loss that was told.
const TOLD: [&str; 3] = [
    "could NOT be recorded",
    "is not recorded yet",
    "could not be recorded",
];

struct Judge<'a> {
    world: &'a World,
    fault: Option<&'a Fault>,
    wrong: Vec<String>,
}

/// What is wrong after a scenario was played; nothing, if all is as it should be.
pub fn judge(world: &World, fault: Option<&Fault>) -> Vec<String> {
    let mut judge = Judge {
        world,
        fault,
        wrong: world.wrong.clone(),
    };
    judge.words();
    judge.history();
    judge.leftovers();
    match world.scenario {
        Scenario::Earlier => {}
        Scenario::Prune => judge.pruned(),
        Scenario::Run
        | Scenario::Creation
        | Scenario::Older
        | Scenario::Slice
        | Scenario::Takeover
        | Scenario::Spooled => judge.run(),
        Scenario::Waiting => {
            judge.holder();
            judge.run();
        }
        Scenario::Refused => judge.refused(),
        Scenario::Stopped | Scenario::Stop | Scenario::Unlocked | Scenario::Unlock => judge.ended(),
    }
    judge.wrong
}

impl Judge<'_> {
    fn expect(&mut self, is_so: bool, what: impl FnOnce() -> String) {
        if !is_so {
            self.wrong.push(what());
        }
    }

    fn done(&self, who: Who) -> Option<&Done> {
        self.world.done.get(&who)
    }

    /// The fault killed this role.
    fn killed(&self, role: Role) -> bool {
        self.fault.is_some_and(|f| {
            f.point.role == role && matches!(f.kind, Kind::KillAtEntry | Kind::KillAtExit)
        })
    }

    /// The fault was an error in this role.
    fn failed(&self, role: Role) -> bool {
        self.fault.is_some_and(|f| f.point.role == role) && !self.killed(role)
    }

    /// The fault was in a call on this.
    fn is_on(&self, target: Target) -> bool {
        self.fault.is_some_and(|f| f.point.seen.target == target)
    }

    /// The fault was in a call of this name.
    fn is_in(&self, name: &str) -> bool {
        self.fault.is_some_and(|f| f.point.seen.name == name)
    }

    /// The fault killed the guard, or the job's process before it executed the program.
    fn without_guard(&self) -> bool {
        self.killed(Role::Guard) || self.killed(Role::Starting)
    }

    fn words(&mut self) {
        for (who, done) in &self.world.done {
            if done.stderr.contains("panicked") || done.stderr.contains("RUST_BACKTRACE") {
                self.wrong.push(format!("{} panicked", who.name()));
            }
            let foreign = done
                .stderr
                .lines()
                .find(|line| !line.starts_with("joblock: "));
            let loader = self.fault.is_some_and(|f| f.point.role == Role::Job);
            if let (Some(line), false) = (foreign, loader) {
                self.wrong
                    .push(format!("a line on stderr is not joblock's: {line:?}"));
            }
        }
        // the keeper and the store do what they should: whoever is left brings the end to them
        let by_guard = self.fault.is_some_and(|f| {
            matches!(f.point.role, Role::Guard | Role::Starting)
                && f.point.seen.target != Target::Store
        });
        if let (true, Some(first)) = (by_guard, self.done(Who::First)) {
            let waited = first.stderr.contains("is not recorded yet");
            self.expect(!waited, || "nobody told the keeper of the end".into());
        }
    }

    fn history(&mut self) {
        let kept = self.world.kept;
        match look(&kept.database(&self.world.kept_copy())) {
            Ok(Some(found)) => self.expect(found.integrity == "ok", || {
                format!("integrity_check after the fault: {}", found.integrity)
            }),
            Ok(None) => {}
            Err(error) => self
                .wrong
                .push(format!("the database after the fault: {error}")),
        }
        let next = self.done(Who::Next).cloned();
        self.expect(
            next.as_ref().is_some_and(|d| d.status == Status::Exited(0)),
            || format!("the next start did not work: {next:?}"),
        );
        let found = match look(&kept.database(&self.world.store())) {
            Ok(Some(found)) => found,
            Ok(None) => return self.wrong.push("there is no database at the end".into()),
            Err(error) => return self.wrong.push(format!("the database at the end: {error}")),
        };
        self.expect(found.integrity == "ok", || {
            format!("integrity_check at the end: {}", found.integrity)
        });
        self.expect(found.added == ADDED.len(), || {
            format!("{} of the columns that came later", found.added)
        });
        self.tokens(&found);
        self.rows(&found);
    }

    fn tokens(&mut self, found: &Found) {
        let begun: Vec<Vec<String>> = self
            .world
            .witness()
            .into_iter()
            .filter(|line| line[0] == "begin")
            .collect();
        let tokens: Vec<i64> = begun
            .iter()
            .map(|line| line[2].parse().unwrap_or(-1))
            .collect();
        self.expect(tokens.is_sorted_by(|a, b| a < b), || {
            format!("tokens that jobs saw: {tokens:?}")
        });
        if self.world.kept != Kept::Lockfile {
            let last = tokens.last().copied().unwrap_or_default();
            self.expect(found.lock == Some((last, true)), || {
                format!(
                    "the lock's row at the end is {:?}, and the last job had {last}",
                    found.lock
                )
            });
        }
        for line in begun {
            let row = found.rows.iter().find(|row| row.run_id == line[3]);
            let known = row
                .is_some_and(|row| row.token.map(|t| t.to_string()).as_deref() == Some(&line[2]));
            self.expect(known, || {
                format!("the job of {line:?} began, and its row is {row:?}")
            });
        }
    }

    fn rows(&mut self, found: &Found) {
        let mut counts: HashMap<&str, u32> = HashMap::new();
        for row in &found.rows {
            *counts.entry(&row.reason).or_default() += 1;
            self.expect(row.outcome != "running", || {
                format!("a row has no end: {row:?}")
            });
        }
        for who in [Who::Holder, Who::First, Who::Next] {
            let count = counts.get(who.name()).copied().unwrap_or_default();
            self.expect(count <= 1, || format!("{} rows for {}", count, who.name()));
        }
        let tokens: Vec<_> = found.rows.iter().filter_map(|row| row.token).collect();
        let different: HashSet<_> = tokens.iter().collect();
        self.expect(different.len() == tokens.len(), || {
            format!("tokens of rows: {tokens:?}")
        });
        self.expect_row(found, Who::Next, &["succeeded"]);
        let (old, earlier) = (counts.get("old"), counts.get("earlier"));
        match self.world.scenario {
            Scenario::Creation => {}
            Scenario::Prune | Scenario::Slice => self
                .expect((old, earlier) == (None, Some(&1)), || {
                    format!("after pruning there are {old:?} old rows, and {earlier:?}")
                }),
            _ => self.expect((old, earlier) != (None, None), || {
                "the history is gone".into()
            }),
        }
        match self.world.scenario {
            Scenario::Refused | Scenario::Waiting => {
                let lost = self
                    .done(Who::Holder)
                    .is_some_and(|d| self.was_kept_waiting(d));
                let outcome = if lost { "lost" } else { "succeeded" };
                self.expect_row(found, Who::Holder, &[outcome]);
            }
            Scenario::Takeover => self.expect_row(found, Who::Holder, &["abandoned"]),
            _ => {}
        }
        self.row_of_first(found);
    }

    fn expect_row(&mut self, found: &Found, who: Who, outcomes: &[&str]) {
        let row = found.rows.iter().find(|row| row.reason == who.name());
        let right = row.is_some_and(|row| outcomes.contains(&row.outcome.as_str()));
        self.expect(right, || {
            format!("the row of {} is {row:?}, not {outcomes:?}", who.name())
        });
    }

    fn row_of_first(&mut self, found: &Found) {
        let row = found
            .rows
            .iter()
            .find(|row| row.reason == Who::First.name())
            .cloned();
        let Some(first) = self.done(Who::First).cloned() else {
            return;
        };
        let told = TOLD.iter().any(|words| first.stderr.contains(words));
        let ran = self.world.saw("begin", Who::First);
        if self.world.scenario == Scenario::Refused {
            if first.status == Status::Exited(75) && !told {
                self.expect_row(found, Who::First, &["refused"]);
            }
            return;
        }
        if first.status == Status::Exited(7) && !told {
            let right = row
                .as_ref()
                .is_some_and(|row| row.outcome == "failed" && row.exit_code == Some(7));
            self.expect(right, || {
                format!("exit code 7 was reported, and the row is {row:?}")
            });
        }
        if let (Some(row), false) = (&row, ran) {
            // who is gone, or gives up, does not want the lock any more that it waited for
            let cancelled = self.world.scenario == Scenario::Waiting && row.outcome == "cancelled";
            let right = [
                "not-started",
                "abandoned",
                "signaled",
                "failed",
                "lost",
                "refused",
            ]
            .contains(&row.outcome.as_str());
            let by_front = self.fault.is_some_and(|f| f.point.role == Role::Front);
            let right = right || cancelled && by_front;
            self.expect(right, || format!("nothing ran, and the row is {row:?}"));
        }
    }

    /// Nothing is left of anything: no record in the spool, no half-written one, no cgroup.
    fn leftovers(&mut self) {
        let spool = fs::read_dir(self.world.kept.spool(&self.world.store()));
        let left: Vec<_> = spool
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        self.expect(left.is_empty(), || format!("left in the spool: {left:?}"));
        let ids: HashSet<String> = self
            .world
            .witness()
            .into_iter()
            .filter_map(|line| line.into_iter().nth(3))
            .collect();
        for id in ids {
            for root in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
                let run = id.parse().expect("a run id");
                let cgroup = Path::new(root).join(JobCgroup::name(&run));
                // an empty one that could not be removed is in nobody's way
                let removing = self.is_in("rmdir") || self.failed(Role::Guard);
                let refused = removing && self.is_on(Target::Kernel);
                self.expect(refused || !cgroup.exists(), || {
                    format!("a cgroup is left: {}", cgroup.display())
                });
            }
        }
    }

    /// A code of joblock's own needs a word about it.
    fn code_with_a_word(&mut self, done: &Done, codes: &[i32]) {
        let code = done.status;
        self.expect(codes.iter().any(|&c| code == Status::Exited(c)), || {
            format!(
                "ended with {code:?}, not one of {codes:?}; stderr: {:?}",
                done.stderr
            )
        });
        // what failed once was on standard output
        let mute = self.is_mute() && self.fault.is_some_and(|fault| fault.forever);
        let says = done.stderr.contains("joblock: ") || mute;
        self.expect(says, || format!("{code:?} without a word"));
    }

    /// The fault is in what front says.
    fn is_mute(&self) -> bool {
        self.failed(Role::Front) && self.is_on(Target::Output)
    }

    /// On a machine that is slow, a lease of two seconds is lost now and then: the job is ended, and that is right.
    fn lost_for_slowness(&self, done: &Done) -> bool {
        let lost = done.status == Status::Exited(79) && done.stderr.contains("the lock is lost");
        let killed = matches!(done.status, Status::Exited(125 | 137))
            && done
                .stderr
                .contains("the guard, joblock's process above the job");
        self.world.kept == Kept::Shared && (lost || killed)
    }

    /// Who could not let go of SQLite's lock after reading, and reads again while a writer waits for it, waits for that one and is waited for:
    /// until the patience of one of them is over, which is longer than a lease of two seconds.
    fn was_kept_waiting(&self, done: &Done) -> bool {
        let locking = self.is_in("lock") && self.is_on(Target::Store);
        locking && self.lost_for_slowness(done)
    }

    fn run(&mut self) {
        let Some(first) = self.done(Who::First).cloned() else {
            return;
        };
        if self.lost_for_slowness(&first) {
            return;
        }
        if self.killed(Role::Front) {
            self.expect(first.status == Status::Killed(libc::SIGKILL), || {
                format!("front was killed and is {:?}", first.status)
            });
            return;
        }
        let (began, ended) = (
            self.world.saw("begin", Who::First),
            self.world.saw("end", Who::First),
        );
        let without_guard = self.without_guard();
        match (began, ended) {
            (_, true) if !without_guard => {
                self.expect(first.status == Status::Exited(7), || {
                    format!(
                        "the job ended with 7, joblock with {:?}; stderr: {:?}",
                        first.status, first.stderr
                    )
                });
                let passed_on = first.stdout == "hello\n";
                let fault_in_passing =
                    self.failed(Role::Front) && (self.is_in("write") || self.is_in("read"));
                self.expect(passed_on || fault_in_passing, || {
                    format!("the output was {:?}", first.stdout)
                });
            }
            (true, _) if without_guard => {
                self.expect(
                    [Status::Exited(7), Status::Exited(125), Status::Exited(137)]
                        .contains(&first.status),
                    || {
                        format!(
                            "the guard was killed, and joblock ended with {:?}",
                            first.status
                        )
                    },
                );
                if first.status != Status::Exited(7) && self.killed(Role::Guard) {
                    self.expect(first.stderr.contains("joblock: "), || {
                        format!("{:?} without a word", first.status)
                    });
                }
            }
            (true, _) => self.wrong.push(format!(
                "the job was cut off; joblock ended with {:?}, stderr {:?}",
                first.status, first.stderr
            )),
            // the job's own process, before it executed the program
            (false, _) if self.killed(Role::Starting) => {
                self.expect(first.status == Status::Exited(137), || {
                    format!(
                        "the job was killed, and joblock ended with {:?}",
                        first.status
                    )
                });
            }
            (false, _) if without_guard => self.code_with_a_word(&first, &[125, 126, 137]),
            (false, _) if self.failed(Role::Keeper) && self.is_on(Target::Store) => {
                self.code_with_a_word(&first, &[69]);
            }
            // whoever can't be looked at counts as alive
            (false, _)
                if self.world.scenario == Scenario::Takeover
                    && first.status == Status::Exited(75) =>
            {
                self.expect(self.is_on(Target::Kernel), || "refused by nobody".into());
            }
            (false, _) => self.code_with_a_word(&first, &[69, 125, 126]),
        }
    }

    fn pruned(&mut self) {
        let again = self.done(Who::Again).cloned();
        let right = again
            .as_ref()
            .is_some_and(|d| d.status == Status::Exited(0));
        self.expect(right, || format!("pruning once more: {again:?}"));
        if let Some(asker) = self.done(Who::Asker).cloned()
            && !self.killed(Role::Front)
            && asker.status != Status::Exited(0)
        {
            self.code_with_a_word(&asker, &[69, 125]);
        }
    }

    /// Who runs while another start is refused or waits.
    fn holder(&mut self) {
        let holder = self.done(Who::Holder).cloned();
        let right = holder
            .as_ref()
            .is_some_and(|d| d.status == Status::Exited(0) || self.was_kept_waiting(d));
        self.expect(right, || format!("the holder was disturbed: {holder:?}"));
    }

    fn refused(&mut self) {
        self.expect(!self.world.saw("begin", Who::First), || {
            "the job of a refused start began".into()
        });
        self.holder();
        let Some(first) = self.done(Who::First).cloned() else {
            return;
        };
        if self.killed(Role::Front) {
            return;
        }
        if first.status != Status::Exited(75) {
            self.code_with_a_word(&first, &[69, 125]);
        }
    }

    /// A run that was stopped, or whose lock was taken away.
    fn ended(&mut self) {
        let Some(first) = self.done(Who::First).cloned() else {
            return;
        };
        if self.lost_for_slowness(&first) {
            return;
        }
        let stopped = matches!(self.world.scenario, Scenario::Stopped | Scenario::Stop);
        let in_asker = matches!(self.world.scenario, Scenario::Stop | Scenario::Unlock);
        let code = if stopped || self.world.insisted {
            143
        } else {
            79
        };
        self.expect(!self.world.saw("end", Who::First), || {
            "the job ran to its end".into()
        });
        let may_insist = self
            .fault
            .is_some_and(|f| f.point.role == Role::Keeper || f.point.role == Role::Front);
        let asker = self.done(Who::Asker).cloned();
        self.expect(may_insist || !self.world.insisted, || {
            format!("the run did not do what it was asked to: {asker:?}")
        });
        if in_asker {
            let right = first.status == Status::Exited(code);
            self.expect(right, || format!("the run ended with {:?}", first.status));
            if let Some(asker) = self.done(Who::Asker).cloned()
                && !self.killed(Role::Front)
                && asker.status != Status::Exited(0)
            {
                self.code_with_a_word(&asker, &[69, 75, 125]);
            }
        } else if !self.killed(Role::Front) {
            // who kills its processes because the keeper does not hear may be faster than its word of the start
            let killed = self.world.scenario == Scenario::Unlocked
                && first
                    .stderr
                    .contains("ended before it told of the job's start");
            let codes = match self.world.saw("begin", Who::First) {
                // it had no time to tell of the start
                true if self.without_guard() || killed => vec![code, 125, 137, 79],
                true => vec![code, 137, 79],
                false => vec![69, 125, 126, 137],
            };
            let right = codes.iter().any(|&c| first.status == Status::Exited(c));
            self.expect(right, || {
                format!(
                    "the run ended with {:?}, not with one of {codes:?}; stderr: {:?}",
                    first.status, first.stderr
                )
            });
            // who can't look whether it is still the job's process asks it nothing, and kills it later
            let unasked = self.failed(Role::Guard) && self.is_on(Target::Kernel);
            let silent = first.status == Status::Exited(143)
                || unasked && first.status == Status::Exited(137);
            if !silent && !self.killed(Role::Starting) && !self.is_mute() {
                self.expect(first.stderr.contains("joblock: "), || {
                    format!("{:?} without a word", first.status)
                });
            }
        }
    }
}
