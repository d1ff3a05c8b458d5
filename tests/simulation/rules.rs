//! What must hold after every step. The arithmetic here is the design's, written down once more on purpose: it is not taken
//! from the code that is tried.

use crate::clock::Boot;
use crate::lease::holder::By;
use crate::name::Token;

use super::machine::{MS, SECOND, Time};
use super::run::Role;
use super::store::{Kind, Outcome};
use super::world::{World, say};

impl World {
    pub fn ninths(&self, run: usize, tenths_of_ninths: u64) -> u64 {
        let ttl = u64::try_from(self.runs[run].plan.ttl.as_nanos()).expect("short");
        ttl / 90 * tenths_of_ninths
    }

    /// The store has taken a grant.
    pub fn granted(&mut self, run: usize, token: Token) {
        self.tallies.grants += 1;
        self.runs[run].token = Some(token);
        self.runs[run].watch.granted_at = Some(self.now);
        say!(self, run, "store", "granted");
        // In a lockfile store a keeper that was frozen may come by its grant too late, when another has been given the lock
        // and the token. Its guard refuses to start; what counts is what jobs see. The same where the server forgot the lock meanwhile.
        let late = self.profile.kind == Kind::FileLease
            || self.tokens_unknown
            || self.excused_by_a_forgetful_server(run).is_some();
        if !late && self.newest.is_some_and(|newest| token <= newest) {
            self.violate(format!(
                "token {token} is given after {}",
                self.newest.unwrap_or(Token(0))
            ));
        }
        if self.store.generation == 0
            && !self.profile.kind.is_lockfile()
            && token.0 != self.newest.map_or(0, |t| t.0) + 1
        {
            self.violate(format!("token {token} leaves some out"));
        }
        // a grant that comes too late takes no token from the one who has the lock
        if self.excused_by_a_forgetful_server(run).is_none() {
            self.newest = self.newest.max(Some(token));
        }
        if self.quiet.is_some() {
            self.free_again.get_or_insert(self.now);
        }
    }

    /// `run` is granted the lock over `old`, which did not release it.
    pub fn taken_over(&mut self, run: usize, old: usize) {
        let looked = self.runs[run].watch.looked;
        self.runs[old].watch.taken_over = Some(looked);
        let watch = &self.runs[old].watch;
        // a claim that it can't hear of does not stop it, see `renewed`
        if watch.row_renewed > looked || watch.slot_taken > looked && !watch.claim_hidden {
            self.violate(format!(
                "run {run} takes the lock over from run {old}, which has renewed since it was looked at"
            ));
        }
        if self.runs[old].is_gone() {
            self.tallies.at_once += 1;
        } else {
            self.tallies.lapsed += 1;
        }
    }

    /// A heartbeat succeeded.
    pub fn renewed(&mut self, run: usize, by: By, slot_taken: Time, leased: bool) {
        let (sending, now) = (self.runs[run].sending, self.now);
        let watch = &self.runs[run].watch;
        if let (true, Some(before), Some(sending)) = (watch.leased, watch.sent, sending)
            && sending.0 >= before.0 + self.ninths(run, 40)
        {
            self.violate(format!("run {run} renews a lease that is as good as over"));
            return;
        }
        let watch = &mut self.runs[run].watch;
        if by == By::Slot {
            watch.slot_taken = slot_taken;
            // its guard hears of it too late, as the lease was over before the lock was taken; that nobody runs beside its job is
            // looked at all the same
            if watch.taken_over.is_some_and(|looked| slot_taken > looked) && !watch.claim_hidden {
                self.violate(format!("run {run} renews a grant that was taken over"));
                return;
            }
        }
        if leased && !watch.leased {
            watch.leased_since = now;
        }
        watch.leased = leased;
        watch.sent = sending;
    }

    /// The guard lets the job begin.
    pub fn watch_start(&mut self, run: usize) {
        let watch = &self.runs[run].watch;
        let (leased, sent) = (watch.told.is_some(), watch.told.unwrap_or(Boot(0)));
        if leased && self.clock(run).0 >= sent.0 + self.ninths(run, 40) {
            self.violate(format!(
                "run {run} begins although its lease is as good as over"
            ));
        }
    }

    /// The guard begins to end a job by its own deadline.
    pub fn fenced(&mut self, run: usize) {
        self.tallies.fenced += 1;
        let watch = &self.runs[run].watch;
        if watch
            .told
            .is_none_or(|sent| self.clock(run).0 < sent.0 + self.ninths(run, 40))
        {
            self.violate(format!("run {run} is ended although its lease is not over"));
        }
    }

    /// An attempt did not get the lock, and says so.
    pub fn refused(&mut self, run: usize) {
        let owner = &self.runs[run].owner;
        let has_it = self
            .store
            .tables
            .row
            .as_ref()
            .is_some_and(|row| row.owner == *owner && !row.released);
        if has_it && !self.profile.kind.is_lockfile() && !self.runs[run].watch.kept {
            self.violate(format!("run {run} is refused and has the lock"));
        }
    }

    pub fn began(&mut self, run: usize) {
        let token = self.runs[run].token;
        if token <= self.register
            && !self.tokens_unknown
            && self.excused_by_its_machine(run).is_none()
            && self.excused_by_a_replaced_file(run).is_none()
            && self.excused_by_a_forgetful_server(run).is_none()
        {
            self.violate(format!("run {run} begins with an old token"));
        }
        if self.excused_by_a_forgetful_server(run).is_none() {
            self.register = self.register.max(token);
        }
        if self.store.tables.stands(run).is_none()
            && !self.runs[run].watch.history_lost
            && !self.store.spool.iter().any(|(r, ..)| *r == run)
        {
            self.violate(format!("run {run} begins and stands in no history"));
        }
    }

    /// The end of `run` is written and its lock freed.
    pub fn released(&mut self, run: usize) {
        if self.runs[run].tree_lives() {
            self.violate(format!("run {run} is released while its tree lives"));
        }
    }

    pub fn check(&mut self) {
        let runs = &self.runs;
        if self.active.len() > 1 || self.free_again.is_some() {
            self.active.retain(|run| !runs[*run].is_gone());
        }
        for at in 0..self.living.len() {
            let run = self.living[at];
            self.check_fence(run);
            for other in 0..at {
                self.check_overlap(self.living[other], run);
            }
        }
        self.check_rows();
        self.check_delay();
        if let (Some(quiet), None) = (self.quiet, self.free_again)
            && self.now > quiet + 60 * SECOND + self.profile.base_ttl * SECOND * 26 / 10
        {
            self.violate("the lock is not free in time".into());
        }
    }

    /// No job runs past its own deadline: dead by F+G+K, or, where the guard was stopped and its timer had to kill it,
    /// as long after that as it takes front to kill what is left.
    fn check_fence(&mut self, run: usize) {
        let watch = &self.runs[run].watch;
        let (Some(sent), true) = (watch.sent, watch.leased) else {
            return;
        };
        // one that became a lease when it was as good as over is ended then
        if watch.leased_since > 0 && self.now < watch.leased_since + self.ninths(run, 20) {
            return;
        }
        let clock = self.clock(run).0;
        if clock < sent.0 + self.ninths(run, 70) + 5 * MS {
            return;
        }
        let guard = self.runs[run].processes[Role::Guard as usize];
        let was_able =
            guard.alive && !guard.stopped && guard.able_since + self.ninths(run, 10) < self.now;
        if (was_able || clock >= sent.0 + self.ninths(run, 78))
            && self.excused_by_its_machine(run).is_none()
            && self.unattended(run).is_none()
            && self.excused_by_a_replaced_file(run).is_none()
        {
            self.violate(format!("run {run} runs past its deadline"));
        }
    }

    fn check_overlap(&mut self, a: usize, b: usize) {
        let (old, new) = if self.runs[a].token < self.runs[b].token {
            (a, b)
        } else {
            (b, a)
        };
        match self.excuse(old, new) {
            Some(excuse) => {
                if self.excused.insert((old, new)) {
                    self.tallies.excused[excuse as usize] += 1;
                }
            }
            None => self.violate(format!("runs {old} and {new} run at once")),
        }
    }

    /// Rows come, one for each run, and none goes.
    fn check_rows(&mut self) {
        let rows = &self.store.tables.history;
        let (before, count) = (self.rows, rows.len());
        if count == before {
            return;
        }
        self.rows = count;
        let new = rows.get(before..).unwrap_or_default();
        let twice = new
            .iter()
            .enumerate()
            .find(|(at, (run, _))| rows[..before + at].iter().any(|(other, _)| other == run));
        if let Some((_, (run, _))) = twice {
            self.violate(format!("run {run} stands in the history twice"));
        } else if count < before {
            self.violate("a row of the history is gone".into());
        }
    }

    /// At the end: every attempt has its row, and every end that somebody could record is recorded.
    pub fn check_history(&mut self) {
        for run in 0..self.runs.len() {
            let watch = &self.runs[run].watch;
            if watch.history_lost || watch.told_loss {
                continue;
            }
            let spooled = self
                .store
                .spool
                .iter()
                .rev()
                .find(|(r, _, outcome)| *r == run && *outcome != Outcome::Running);
            let stands = spooled
                .map(|(_, _, outcome)| *outcome)
                .or(self.store.tables.stands(run));
            let fits = match stands {
                _ if watch.keeper_finished && watch.began.is_some() || watch.recorder_finished => {
                    stands == Some(Outcome::Ended)
                }
                Some(Outcome::Ended) => true,
                Some(Outcome::Refused | Outcome::NotStarted) => watch.began.is_none(),
                Some(Outcome::Running | Outcome::Abandoned) => !watch.keeper_finished,
                None => !watch.keeper_finished && watch.began.is_none(),
            };
            if !fits {
                self.violate(format!("run {run} stands in the history as {stands:?}"));
            }
        }
    }
}
