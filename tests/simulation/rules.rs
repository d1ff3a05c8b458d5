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
    fn ninths(&self, run: usize, tenths_of_ninths: u64) -> u64 {
        let ttl = u64::try_from(self.runs[run].plan.ttl.as_nanos()).expect("short");
        ttl / 90 * tenths_of_ninths
    }

    /// The store has taken a grant.
    pub fn granted(&mut self, run: usize, token: Token) {
        self.tallies.grants += 1;
        self.runs[run].token = Some(token);
        self.runs[run].watch.granted_at = Some(self.now);
        say!(self, run, "store", "granted");
        if self.newest.is_some_and(|newest| token <= newest) {
            self.violate(format!(
                "token {token} is given after {}",
                self.newest.unwrap_or(Token(0))
            ));
        }
        if self.store.generation == 0 && token.0 != self.newest.map_or(0, |t| t.0) + 1 {
            self.violate(format!("token {token} leaves some out"));
        }
        self.newest = Some(token);
        if self.quiet.is_some() {
            self.free_again.get_or_insert(self.now);
        }
    }

    /// `run` is granted the lock over `old`, which did not release it.
    pub fn taken_over(&mut self, run: usize, old: usize) {
        let looked = self.runs[run].watch.looked;
        self.runs[old].watch.taken_over = Some(looked);
        if self.runs[old].watch.slot_taken > looked {
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
        let sending = self.runs[run].sending;
        let watch = &mut self.runs[run].watch;
        if by == By::Slot {
            watch.slot_taken = slot_taken;
            if watch.taken_over.is_some_and(|looked| slot_taken > looked) {
                self.violate(format!("run {run} renews a grant that was taken over"));
                return;
            }
        }
        watch.leased = leased;
        watch.sent = sending;
    }

    /// The guard lets the job begin.
    pub fn watch_start(&mut self, run: usize) {
        let watch = &self.runs[run].watch;
        let (leased, sent) = (watch.leased, watch.sent.unwrap_or(Boot(0)));
        if leased && self.clock(run).0 >= sent.0 + self.ninths(run, 40) {
            self.violate(format!("run {run} begins although its lease is as good as over"));
        }
    }

    pub fn began(&mut self, run: usize) {
        let token = self.runs[run].token;
        if token < self.register && !self.excused_by_its_machine(run) {
            self.violate(format!("run {run} begins with an old token"));
        }
        self.register = self.register.max(token);
        if !self.store.tables.history.contains_key(&run)
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
        let clock = self.clock(run).0;
        if clock < sent.0 + self.ninths(run, 70) + 5 * MS {
            return;
        }
        let guard = self.runs[run].processes[Role::Guard as usize];
        let was_able = guard.alive
            && !guard.stopped
            && guard.able_since + self.ninths(run, 10) < self.now;
        if (was_able || clock >= sent.0 + self.ninths(run, 78))
            && !self.excused_by_its_machine(run)
            && !self.unattended(run)
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
        if self.runs[old].watch.excused.is_some()
            || self.excused_by_its_machine(old)
            || self.excused_by_a_replaced_file(old)
        {
            return;
        }
        // Leftovers that nobody of their own can end: by kernel locks, or by the sweep, as far as these reach.
        if self.unattended(old) && self.runs[old].place != self.runs[new].place {
            let reach = self.profile.kind != Kind::NoReach && self.runs[old].watch.replaced.is_none();
            let locked = self.runs[old].tree.iter().any(|m| m.alive && m.has_lock);
            if !reach || !locked || self.runs[old].lock.is_some_and(|lock| lock.taken_away) {
                return;
            }
        }
        self.violate(format!("runs {old} and {new} run at once"));
    }

    /// Frozen, it does not run; thawed, or back after its clock stood still unseen, it may take as long as its deadline asks.
    fn excused_by_its_machine(&self, run: usize) -> bool {
        let host = &self.hosts[self.runs[run].place.host];
        let thawed = host.thawed > 0 && self.now < host.thawed + self.ninths(run, 20);
        let ttl = self.ninths(run, 100);
        host.frozen.is_some()
            || thawed
            || host.unstalled.is_some_and(|at| self.now < at + ttl)
    }

    /// Guard and front, which could kill what is left, are dead or stopped, or front has only just gone on.
    fn unattended(&self, run: usize) -> bool {
        let front = self.runs[run].processes[Role::Front as usize];
        !self.runs[run].alive(Role::Guard)
            && (!front.alive
                || front.stopped
                || front.able_since > 0 && self.now < front.able_since + self.ninths(run, 15))
    }

    /// A kernel lock is all that these have: if its file is replaced, the keeper alone can notice.
    fn excused_by_a_replaced_file(&self, run: usize) -> bool {
        let Some(replaced) = self.runs[run].watch.replaced else {
            return false;
        };
        let keeper = self.runs[run].processes[Role::Keeper as usize];
        let host = &self.hosts[self.runs[run].place.host];
        matches!(self.profile.kind, Kind::Local | Kind::FileForGood)
            && (!keeper.alive
                || keeper.stopped
                || keeper.able_since > replaced
                || host.cut_until > replaced
                || host.thawed > replaced
                || self.store.slow_until > replaced)
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
                .or(self.store.tables.history.get(&run).copied());
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
