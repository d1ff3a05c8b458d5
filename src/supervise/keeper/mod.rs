//! The only process that does the store's I/O. It may hang on a dead mount and be left behind: guard and front go on.
//!
//! It takes the lock, hands its descriptor to the guard, renews, and when the tree is gone and the output is complete it
//! writes the end and frees the lock. Nobody's signals reach it: it has a session of its own.

mod acquire;

use std::cell::Cell;
use std::ffi::OsString;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::memory;
use super::messages::{
    Cause, Channel, Deadline, Ended, FromGuard, FromKeeper, FrontToKeeper, Level, Received, Status,
    ToGuard, Word,
};
use super::outcome;
use super::tail::TailFile;
use super::timer::Alarm;
use super::tree::Tree;
use crate::clock::{Boot, Wall};
use crate::lease::timing::Timing;
use crate::name::Token;
use crate::output::text::visible;
use crate::plan::{RunPlan, store_url_text};
use crate::store::pruning::Prune;
use crate::store::record::{End, RunRecord, Tail};
use crate::store::twin::NfsClient;
use crate::store::{
    Cleared, Expiry, Grant, Holder, Purpose, Recorded, Renewal, Store, StoreError, open,
};
use acquire::Verdict;

/// How often the output so far is written for `joblock logs`, where that costs nobody else anything.
const SAVE_LOCALLY: Duration = Duration::from_secs(1);

/// How long front may take to read what the job, which is gone, left in its pipes.
const DRAIN: Duration = Duration::from_secs(10);

/// What the keeper has from the fork on.
pub struct Sides {
    /// To front.
    pub front: Channel,
    /// To the guard.
    pub guard: Channel,
    /// What front keeps of the output.
    pub tail: Option<TailFile>,
}

/// The keeper before it has a lock.
pub struct Keeper<'a> {
    plan: &'a RunPlan,
    record: RunRecord,
    holder: Holder,
    tree: Tree,
    front: Channel,
    guard: Channel,
    tail: Option<TailFile>,
    cancelled: Cell<bool>,
}

/// Lives until the end is recorded. Run in a freshly forked process, which must exit after it.
pub fn run(plan: &RunPlan, record: RunRecord, mut holder: Holder, sides: Sides) {
    holder.nfs = NfsClient::of(&plan.store.database());
    let tree = Tree::new(holder.place.clone());
    let Sides { front, guard, tail } = sides;
    let mut keeper = Keeper {
        plan,
        record,
        holder,
        tree,
        front,
        guard,
        tail,
        cancelled: Cell::new(false),
    };
    match keeper.acquire() {
        Verdict::Granted(store, grant) => {
            if keeper.hold(grant) {
                prune(plan, store.as_ref());
            }
        }
        Verdict::NotRun(code) => {
            keeper.front.send(&FromKeeper::NotRun { code }, None);
        }
    }
}

/// Writes the end of a run whose keeper is gone. Run in a freshly forked process, as only a keeper does store I/O.
///
/// # Errors
/// If neither the history nor a spool file took it.
pub fn record_end(
    plan: &RunPlan,
    record: &RunRecord,
    token: Token,
    ended: &Ended,
    tail: Option<&TailFile>,
) -> Result<Recorded, StoreError> {
    let store = open(&plan.store, Purpose::Run, plan.store_id.as_deref())?;
    let note = Some("the keeper, joblock's recording process, was killed".to_owned());
    store.end_of(
        record,
        token,
        &end(record, ended, note),
        tail.map(TailFile::read).as_ref(),
    )
}

fn end(record: &RunRecord, ended: &Ended, note: Option<String>) -> End {
    outcome::end(ended, memory::verdict(&record.oom_counters), note)
}

fn deadline(expiry: Expiry) -> Option<Deadline> {
    match expiry {
        Expiry::Never => None,
        Expiry::After { sent, ttl } => Some(Deadline::of(Timing::of(ttl), sent)),
    }
}

impl Keeper<'_> {
    fn say(&self, level: Level, text: String) {
        self.front
            .send(&FromKeeper::Say(Word { level, text }), None);
    }

    /// Until the lock is free; says whether the history has the end. Front hears that this process is through with it.
    fn hold(self, grant: Box<dyn Grant>) -> bool {
        let token = grant.token();
        self.front.send(&FromKeeper::Granted(token), None);
        let start = ToGuard::Start {
            variables: self.variables(token),
            deadline: deadline(grant.expiry()),
        };
        self.guard.send(&start, grant.inherit());
        let alarm = match Alarm::new() {
            Ok(alarm) => alarm,
            Err(error) => {
                self.say(
                    Level::Error,
                    format!("no timer for the heartbeats: {error}"),
                );
                return false;
            }
        };
        // a file server's lease is not for us to choose
        let ttl = match grant.expiry() {
            Expiry::After { ttl, .. } => ttl,
            Expiry::Never => self.plan.ttl.unwrap_or(Timing::DEFAULT),
        };
        let holding = Holding {
            timing: Timing::of(ttl),
            keeper: self,
            grant,
            alarm,
            next_beat: Boot::now(),
            next_save: Boot::now(),
            saved: 0,
            ending: None,
            ended: None,
            note: None,
            drained: false,
            drain_by: None,
            front_gone: false,
            guard_gone: false,
        };
        holding.until_the_end()
    }

    fn variables(&self, token: Token) -> Vec<(String, OsString)> {
        [
            ("JOBLOCK_JOB", self.record.job.as_str().into()),
            ("JOBLOCK_RUN_ID", self.record.run_id.as_str().into()),
            ("JOBLOCK_TOKEN", token.to_string().into()),
            ("JOBLOCK_TRIGGER", self.record.trigger.as_str().into()),
            ("JOBLOCK_STORE", store_url_text(&self.plan.store)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// The keeper while it has the lock.
struct Holding<'a> {
    keeper: Keeper<'a>,
    grant: Box<dyn Grant>,
    timing: Timing,
    alarm: Alarm,
    next_beat: Boot,
    next_save: Boot,
    saved: u64,
    ending: Option<Cause>,
    ended: Option<Ended>,
    note: Option<String>,
    drained: bool,
    drain_by: Option<Boot>,
    front_gone: bool,
    guard_gone: bool,
}

impl Holding<'_> {
    fn until_the_end(mut self) -> bool {
        self.grant.started();
        self.next_beat = Boot::now() + self.timing.heartbeat();
        self.next_save = Boot::now() + self.saving();
        loop {
            self.hear_guard();
            self.hear_front();
            self.stand_in_for_both();
            let now = Boot::now();
            if self.ended.is_some() {
                // A front that is stopped reads no output: the lock does not wait for it for ever.
                let give_up = *self.drain_by.get_or_insert(now + DRAIN);
                if self.drained || self.front_gone || now >= give_up {
                    return self.finish();
                }
            }
            if now >= self.next_beat {
                self.beat();
            }
            if now >= self.next_save {
                self.save_tail();
            }
            self.sleep();
        }
    }

    fn sleep(&self) {
        let next = self.next_beat.min(self.next_save);
        self.alarm
            .set(Some(self.drain_by.map_or(next, |by| next.min(by))));
        let mut fds = vec![PollFd::new(&self.alarm, PollFlags::IN)];
        // A socket whose other end is gone would wake poll for ever.
        if !self.front_gone {
            fds.push(PollFd::new(&self.keeper.front, PollFlags::IN));
        }
        if !self.guard_gone {
            fds.push(PollFd::new(&self.keeper.guard, PollFlags::IN));
        }
        let _ = poll(&mut fds, None);
    }

    fn hear_guard(&mut self) {
        while !self.guard_gone {
            match self.keeper.guard.receive() {
                Received::Message(FromGuard::Ended(ended), _) => self.ended = Some(ended),
                Received::Message(_, _) => {}
                Received::Gone => self.guard_gone = true,
                Received::Nothing => break,
            }
        }
    }

    fn hear_front(&mut self) {
        while !self.front_gone {
            match self.keeper.front.receive() {
                Received::Message(FrontToKeeper::Drained(ended), _) => {
                    self.drained = true;
                    self.ended.get_or_insert(ended);
                }
                // It came while the lock was being granted: front ends the job, through the guard.
                Received::Message(FrontToKeeper::Cancel, _) => {}
                Received::Gone => self.front_gone = true,
                Received::Nothing => break,
            }
        }
    }

    /// With front and guard gone, nobody else is left to end the tree: the lock stays until nothing of it is alive.
    fn stand_in_for_both(&mut self) {
        if !(self.front_gone && self.guard_gone && self.ended.is_none()) {
            return;
        }
        if let Cleared::Gone { ended } = self
            .keeper
            .tree
            .end(&self.keeper.holder, self.grant.inherit())
        {
            let began = self.keeper.record.started;
            self.ended = Some(Ended::without_guard(Status::Unknown, began, ended));
            self.note = Some("front and guard, joblock's own processes, were killed: what was left of the job was ended".into());
        }
    }

    fn beat(&mut self) {
        let mut again = self.timing.heartbeat();
        if self.has_heartbeats() {
            match self.grant.renew() {
                Ok(Renewal::Renewed) => self.renewed(),
                Ok(Renewal::Stop(request)) => {
                    self.renewed();
                    self.end_job(
                        Cause::Stop,
                        format!("stopped by {}: {}", request.by, request.reason),
                    );
                }
                Ok(Renewal::Lost(why)) => {
                    self.keeper.say(
                        Level::Error,
                        format!("the lock is lost ({why}): the job is being killed"),
                    );
                    self.end_job(Cause::Lost, why);
                }
                Ok(Renewal::Revoked(request)) => {
                    let why = format!("unlocked by {}: {}", request.by, request.reason);
                    if !self.is_taken_away() {
                        self.keeper.say(
                            Level::Error,
                            format!(
                                "the lock was taken away ({}): the job is being killed",
                                visible(&why)
                            ),
                        );
                    }
                    self.end_job(Cause::Revoked, why);
                }
                // Unknown: the guard's deadline stands, and there is time for more tries before it.
                Err(error) => {
                    again = self.timing.heartbeat() / 2;
                    self.keeper
                        .say(Level::Detail, format!("a heartbeat failed: {error}"));
                }
            }
        }
        self.next_beat = Boot::now() + again;
    }

    /// The lock is lost, or was revoked.
    fn is_taken_away(&self) -> bool {
        matches!(self.ending, Some(Cause::Lost | Cause::Revoked))
    }

    /// A lease that was revoked is not renewed. Where the kernel's lock alone keeps others out, and its server may forget it, they go by
    /// the heartbeats as long as anything of the job may live.
    fn has_heartbeats(&self) -> bool {
        let for_good = matches!(self.grant.expiry(), Expiry::Never);
        !self.is_taken_away() || for_good && self.ending == Some(Cause::Revoked)
    }

    fn renewed(&mut self) {
        self.keeper
            .guard
            .send(&ToGuard::Renewed(deadline(self.grant.expiry())), None);
    }

    /// A stop stays asked for, heartbeat after heartbeat; a loss of the lock comes on top of it.
    fn end_job(&mut self, cause: Cause, note: String) {
        if self.ending != Some(cause) {
            self.keeper.guard.send(&ToGuard::End(cause), None);
            self.ending = Some(cause);
            self.note = Some(note);
        }
    }

    fn saving(&self) -> Duration {
        match self.grant.expiry() {
            Expiry::Never => SAVE_LOCALLY,
            Expiry::After { .. } => self.timing.heartbeat(),
        }
    }

    fn save_tail(&mut self) {
        if let Some(tail) = &self.keeper.tail
            && tail.total() != self.saved
        {
            let tail = tail.read();
            if self.grant.save_tail(&tail).is_ok() {
                self.saved = tail.total;
            }
        }
        self.next_save = Boot::now() + self.saving();
    }

    /// A guard that is stopped, or frozen with its machine, for longer than the lease is killed by its own timer: then the
    /// lock was lost, whatever front saw of it.
    fn lost_with_its_guard(&self) -> bool {
        let lapsed = match self.grant.expiry() {
            Expiry::Never => false,
            Expiry::After { sent, ttl } => Boot::now() >= Timing::of(ttl).term_at(sent),
        };
        lapsed || self.is_taken_away()
    }

    fn finish(mut self) -> bool {
        let Some(mut ended) = self.ended.take() else {
            return false;
        };
        if ended.cause == Some(Cause::GuardGone) && self.lost_with_its_guard() {
            ended.cause = Some(Cause::Lost);
        }
        if ended.cause == Some(Cause::Lost) && !self.is_taken_away() {
            self.keeper.say(Level::Error, lost_lock());
        }
        let Holding {
            keeper,
            grant,
            note,
            ..
        } = self;
        let end = end(&keeper.record, &ended, note);
        let tail = keeper
            .tail
            .as_ref()
            .map(TailFile::read)
            .filter(|tail: &Tail| tail.total > 0);
        let recorded = grant.release(&end, tail.as_ref());
        let is_stored = matches!(recorded, Ok(Recorded::Stored));
        match recorded {
            Ok(Recorded::Stored) => {}
            Ok(Recorded::Spooled { why, file }) => {
                keeper.say(Level::Error, spooled(&why, &file.display().to_string()));
            }
            Err(error) => keeper.say(Level::Error, lost_record(&error.to_string())),
        }
        keeper.front.send(&FromKeeper::Finished(ended), None);
        is_stored
    }
}

/// A slice of the job's old history, when neither the next start nor front waits for this process any more. What it can't do
/// now, the next run's keeper does.
fn prune(plan: &RunPlan, store: &dyn Store) {
    let Some(keep) = plan.keep else { return };
    let _ = store.prune(&Prune {
        job: plan.job.as_str().to_owned(),
        keep,
        now: Wall::now(),
        after: 0,
        trust_clock: false,
        dry_run: false,
    });
}

/// The words for a record that waits in a spool file.
pub fn spooled(why: &str, file: &str) -> String {
    format!(
        "the history can't be written ({why}): the end of this run waits in {file}, and the next start takes it over"
    )
}

/// The words for a lock that was lost without the keeper having said so in time.
pub fn lost_lock() -> String {
    "the lock is lost (it could not be renewed in time): the job was killed".into()
}

/// The words for a record that nobody took.
pub fn lost_record(why: &str) -> String {
    format!("the end of this run could NOT be recorded: {why}")
}
