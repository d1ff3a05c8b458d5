//! Two trees at once that no rule is broken by, as nobody promised to keep them apart. Each excuse has a name and says where that is
//! told: in docs/guarantees.md, by the id of its row in tests/guarantees.toml, or in the list at its end; or that it is not. Pairs are counted by it, so that an excuse that
//! swallows more than it should is noticed.

use super::run::Role;
use super::store::Kind;
use super::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excuse {
    /// Its processes do not run. `frozen-past-ttl`.
    Frozen,
    /// `frozen-past-ttl`: it is killed at once after the thaw.
    Thawed,
    /// The list: a machine whose clocks are stopped from outside, unseen by its own kernel.
    ClockStopped,
    /// The list: a lock file that is deleted while guard or keeper is dead or stopped.
    LockFileDeleted,
    /// The list: a lock file that is deleted when the history can't be written either, as the store is cut off or slow. That the
    /// machine was frozen is not told.
    LockFileDeletedUnwritten,
    /// The list: a lock file that is deleted in the very moment that the history can't be written either.
    GrantUnknown,
    /// The list: a database that is put back while the lock file has lost the newest token too.
    TokenHidden,
    /// The list: a database that is put back from a backup. The run lives whose lock file was deleted, so that its lease in the row is lost.
    PutBackWithoutLockFile,
    /// `server-forgets`: a start which is under way in that moment.
    ForgottenBeforeGrant,
    /// `server-forgets`: a job whose keeper is dead, or cut off from the server.
    ForgottenUnattended,
    /// A keeper that was stopped, its machine frozen or the server slow, and so silent.
    ForgottenSilent,
    /// `all-killed`, and the list: a daemon, where no kernel lock reaches.
    AllKilled,
    /// Guard and front killed, and the keeper, which should end what is left, stopped or waiting for the store.
    KeeperLeft,
    /// The list: whoever stops the guard *and* front; a guard that was stopped is dead by its own timer.
    FrontStopped,
    /// Front goes on again, the guard being dead, and ends what is left.
    FrontGoesOn,
    /// The list: `lockfile:` from another container of the machine, guard and keeper dead and the descriptor closed.
    DescriptorClosed,
    /// The same on a local `sqlite:` store: not told in the list, which names `lockfile:` alone.
    DescriptorClosedLocal,
}

/// All of them, in their order.
pub const EXCUSES: [Excuse; 17] = [
    Excuse::Frozen,
    Excuse::Thawed,
    Excuse::ClockStopped,
    Excuse::LockFileDeleted,
    Excuse::LockFileDeletedUnwritten,
    Excuse::GrantUnknown,
    Excuse::TokenHidden,
    Excuse::PutBackWithoutLockFile,
    Excuse::ForgottenBeforeGrant,
    Excuse::ForgottenUnattended,
    Excuse::ForgottenSilent,
    Excuse::AllKilled,
    Excuse::KeeperLeft,
    Excuse::FrontStopped,
    Excuse::FrontGoesOn,
    Excuse::DescriptorClosed,
    Excuse::DescriptorClosedLocal,
];

impl World {
    pub fn excuse(&self, old: usize, new: usize) -> Option<Excuse> {
        let same = self.runs[new].token == self.runs[old].token;
        self.runs[old]
            .watch
            .excused
            .or(self.runs[new].watch.excused.filter(|_| same))
            .or_else(|| self.excused_by_its_machine(old))
            .or_else(|| self.excused_by_a_replaced_file(old))
            .or_else(|| self.excused_by_a_forgetful_server(old))
            .or_else(|| same.then(|| self.excused_by_a_forgetful_server(new))?)
            .or_else(|| {
                self.granted_what_was_forgotten(new)
                    .then_some(Excuse::ForgottenBeforeGrant)
            })
            .or_else(|| self.excused_as_leftovers(old, new))
    }

    /// Frozen, it does not run; thawed, or back after its clock stood still unseen, it may take as long as its deadline asks.
    pub fn excused_by_its_machine(&self, run: usize) -> Option<Excuse> {
        let host = &self.hosts[self.runs[run].place.host];
        let thawed = host.thawed > 0 && self.now < host.thawed + self.ninths(run, 20);
        let ttl = self.ninths(run, 100);
        if host.frozen.is_some() {
            Some(Excuse::Frozen)
        } else if host.unstalled.is_some_and(|at| self.now < at + ttl) {
            Some(Excuse::ClockStopped)
        } else {
            thawed.then_some(Excuse::Thawed)
        }
    }

    /// A kernel lock is all that these have: if its file is replaced, the keeper alone can notice.
    pub fn excused_by_a_replaced_file(&self, run: usize) -> Option<Excuse> {
        let replaced = self.runs[run].watch.replaced?;
        if !matches!(self.profile.kind, Kind::Local | Kind::FileForGood) {
            return None;
        }
        let keeper = self.runs[run].processes[Role::Keeper as usize];
        let guard = self.runs[run].processes[Role::Guard as usize];
        let host = &self.hosts[self.runs[run].place.host];
        if !guard.alive
            || guard.able_since > replaced
            || !keeper.alive
            || keeper.stopped
            || keeper.able_since > replaced
        {
            return Some(Excuse::LockFileDeleted);
        }
        let unwritten = self.runs[run].guard.fence.suicide_at().is_none()
            || host.cut_until > replaced
            || host.thawed > replaced
            || self.store.slow_until > replaced;
        unwritten.then_some(Excuse::LockFileDeletedUnwritten)
    }

    /// The server forgot its lock before it was granted, and its client will never know: a write that was under way then lands in the midst
    /// of what comes after, and a keeper that was stopped goes on, over whomever the server gave the lock to meanwhile.
    fn granted_what_was_forgotten(&self, run: usize) -> bool {
        let forgotten = self.runs[run].lock.and_then(|lock| lock.forgotten);
        let granted = self.runs[run].watch.granted_at;
        self.profile.kind == Kind::FileForGood
            && forgotten.is_some_and(|forgotten| granted.is_none_or(|at| at > forgotten))
    }

    /// The server forgot its lock, and no heartbeat of its keeper's could show others that it lives.
    pub fn excused_by_a_forgetful_server(&self, run: usize) -> Option<Excuse> {
        let forgotten = self.runs[run].lock.and_then(|lock| lock.forgotten)?;
        let keeper = self.runs[run].processes[Role::Keeper as usize];
        let host = &self.hosts[self.runs[run].place.host];
        if self.granted_what_was_forgotten(run) {
            Some(Excuse::ForgottenBeforeGrant)
        } else if !keeper.alive || host.cut_until > forgotten {
            Some(Excuse::ForgottenUnattended)
        } else {
            let silent = keeper.stopped
                || keeper.able_since > forgotten
                || host.thawed > forgotten
                || self.store.slow_until > forgotten;
            silent.then_some(Excuse::ForgottenSilent)
        }
    }

    /// Guard and front, which could kill what is left, are dead or stopped, or front has only just gone on.
    pub fn unattended(&self, run: usize) -> Option<Excuse> {
        let front = self.runs[run].processes[Role::Front as usize];
        if self.runs[run].alive(Role::Guard) {
            None
        } else if !front.alive {
            Some(if self.runs[run].alive(Role::Keeper) {
                Excuse::KeeperLeft
            } else {
                Excuse::AllKilled
            })
        } else if front.stopped {
            Some(Excuse::FrontStopped)
        } else {
            let soon = front.able_since + self.ninths(run, 15);
            (front.able_since > 0 && self.now < soon).then_some(Excuse::FrontGoesOn)
        }
    }

    /// Leftovers that none of their own ends in time: the next run's sweep finds them if it follows at once in the same pid
    /// namespace, and elsewhere the locked descriptor speaks for them, if they kept it and kernel locks reach there.
    fn excused_as_leftovers(&self, old: usize, new: usize) -> Option<Excuse> {
        let (run, next) = (&self.runs[old], &self.runs[new]);
        let follows = run.token.map(crate::name::Token::next) == next.token;
        if run.place == next.place && follows {
            return None;
        }
        let leased = matches!(self.profile.kind, Kind::Reach | Kind::NoReach);
        let reach = self.profile.kind != Kind::NoReach && run.watch.replaced.is_none();
        if leased || run.watch.replaced.is_some() {
            // there was a whole lease's time for front
            return self
                .unattended(old)
                .filter(|_| !(reach && run.holds_lock()));
        }
        let closed = !run.alive(Role::Guard) && !run.holds_lock();
        closed.then_some(if self.profile.kind == Kind::Local {
            Excuse::DescriptorClosedLocal
        } else {
            Excuse::DescriptorClosed
        })
    }
}
