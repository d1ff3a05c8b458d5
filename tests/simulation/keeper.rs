//! The keeper, as `supervise::keeper` and the loop of `store::lockfile::attempt` do it.

use crate::lease::file_taker::{self, FileTaker};
use crate::lease::holder::{By, Lease};
use crate::lease::taker::{Over, Step, Taker, Written};
use crate::lease::timing::Timing;

use super::machine::{MS, SECOND};
use super::run::{Answer, Ask, Keeper, Message, Pending, Role, ask_of_file_taker, ask_of_taker};
use super::store::{Kind, Outcome, Store, Who};
use super::world::{World, say};

impl World {
    pub fn step_keeper(&mut self, run: usize) {
        if self.runs[run].busy {
            return;
        }
        match self.runs[run].keeper {
            Keeper::Begin | Keeper::Pausing => {
                self.runs[run].keeper = Keeper::Opening;
                self.ask(run, Role::Keeper, Ask::Open);
            }
            Keeper::Holding(_) => self.hold_on(run),
            _ => {}
        }
    }

    pub fn answered(&mut self, run: usize, role: Role, answer: Box<Answer>) {
        if !self.runs[run].alive(role) {
            return;
        }
        if self.runs[run].processes[role as usize].stopped {
            return self.hold(run, role, super::world::Event::Answered(run, role, answer));
        }
        let place = self.runs[run].place;
        if self.is_cut(place.host) && !matches!(*answer, Answer::Alive(_)) {
            // it was on its way back
            if self.profile.hard_mount {
                let delay = self.hangs(place.host);
                return self.at(delay, super::world::Event::Answered(run, role, answer));
            }
            return self.comes_back(run, role, Answer::Failed);
        }
        self.comes_back(run, role, *answer);
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each state and answer")]
    fn comes_back(&mut self, run: usize, role: Role, answer: Answer) {
        if role == Role::Recorder {
            if matches!(answer, Answer::Failed) {
                self.spool_end(run);
            }
            self.runs[run].watch.recorder_finished = true;
            return self.kill(run, Role::Recorder);
        }
        self.runs[run].busy = false;
        let state = std::mem::replace(&mut self.runs[run].keeper, Keeper::Over);
        match (state, answer) {
            (Keeper::Opening, Answer::File(file)) => {
                self.runs[run].keeper = Keeper::Locking;
                self.ask(run, Role::Keeper, Ask::TryLock(file));
            }
            (Keeper::Locking, Answer::Locked(true)) => {
                let before = self.clock(run);
                self.runs[run].watch.asked = self.now;
                let lockfile = self.profile.kind.is_lockfile();
                self.runs[run].keeper = if lockfile {
                    Keeper::FileBeginning(before)
                } else {
                    Keeper::Beginning(before)
                };
                let file = self.runs[run].lock.expect("locked").file;
                self.ask(run, Role::Keeper, Ask::Begin(file));
            }
            (Keeper::Locking, Answer::Locked(false)) => {
                self.runs[run].keeper = Keeper::Inspecting;
                self.ask(run, Role::Keeper, Ask::Inspect);
            }
            (Keeper::Inspecting, Answer::Holder(None))
            | (Keeper::SweepingForLock, Answer::Alive(false)) => self.unnamed(run),
            (Keeper::Inspecting, Answer::Holder(Some(old))) => {
                if self.runs[old].place == self.runs[run].place {
                    self.runs[run].keeper = Keeper::SweepingForLock;
                    self.ask(run, Role::Keeper, Ask::Sweep(old));
                } else {
                    self.held_by_another(run, SECOND);
                }
            }
            (Keeper::SweepingForLock, Answer::Alive(true)) => self.held_by_another(run, SECOND),
            (Keeper::Beginning(before), Answer::Begun(Some((slot, _)))) => {
                let file = slot.map(|slot| {
                    let file = self.runs[run].lock.expect("locked").file;
                    slot.into_row(Store::file_id(file))
                });
                let (taker, step) = Taker::begin(before, file);
                self.taker_goes_on(run, Box::new(taker), step);
            }
            (Keeper::Taking(taker), answer) => self.taking(run, taker, answer),
            (Keeper::FileBeginning(before), Answer::Begun(Some((slot, row)))) => {
                self.runs[run].seen = row.as_ref().map(|row| row.token);
                let file = Store::file_id(self.runs[run].lock.expect("locked").file);
                let found = slot.map(|slot| self.found(run, &slot));
                let elsewhere = self
                    .store
                    .spool
                    .iter()
                    .filter_map(|(_, token, _)| *token)
                    .max();
                let (taker, step) =
                    FileTaker::begin(before, file, found.as_ref(), row.as_ref(), elsewhere);
                self.file_taker_goes_on(run, Box::new(taker), None, step);
            }
            (Keeper::FileTaking(taker, old), answer) => self.file_taking(run, taker, old, answer),
            (Keeper::Beginning(_) | Keeper::FileBeginning(_), Answer::Begun(None))
            | (Keeper::FileBegun(_), Answer::Ours(_))
            | (Keeper::FileSpooled(_), Answer::StillLocked(false)) => self.again(run),
            (Keeper::FileBegun(sent), Answer::Failed) => {
                // it waits in the spool, where nobody compares it with another's
                self.runs[run].keeper = Keeper::FileSpooled(sent);
                self.ask(run, Role::Keeper, Ask::ReadLock);
            }
            (Keeper::FileSpooled(sent), Answer::StillLocked(true)) => {
                let token = self.runs[run].token;
                self.store.spool.push((run, token, Outcome::Running));
                self.unknown_to_the_history(run);
                self.holds_file(run, sent);
            }
            (Keeper::FileBegun(sent), _) => self.holds_file(run, sent),
            (Keeper::GivingBack, answer) => {
                self.runs[run].watch.kept = matches!(answer, Answer::Failed);
                self.refuse(run, Outcome::NotStarted);
            }
            (Keeper::Refusing, Answer::Failed) => {
                self.spool_or_tell(run, Outcome::NotStarted);
                self.keeper_is_through(run);
            }
            (Keeper::Refusing, _) => self.keeper_is_through(run),
            (Keeper::Holding(holding), answer) => self.beat_goes_on(run, holding, &answer),
            (Keeper::Finishing, answer) => {
                if matches!(answer, Answer::Failed) {
                    self.spool_end(run);
                }
                self.runs[run].watch.keeper_finished = true;
                self.send(run, Role::Front, Message::Finished);
                self.kill(run, Role::Keeper);
            }
            (_, Answer::Failed) => self.refuse(run, Outcome::NotStarted),
            (_, answer) => self.violate(format!(
                "the simulator itself: run {run} can't use {answer:?}"
            )),
        }
    }

    fn taking(&mut self, run: usize, mut taker: Box<Taker<Who>>, answer: Answer) {
        let now = self.clock(run);
        let step = match answer {
            Answer::Failed if self.runs[run].step == Pending::Grant => {
                taker.written(Written::Unknown)
            }
            Answer::Failed => return self.refuse(run, Outcome::NotStarted),
            Answer::Written(written) => taker.written(written),
            Answer::Looked(looked) => {
                let step = taker.looked(&looked, now);
                if matches!(step, Step::Remember(_) | Step::Over(Over::Until(_))) {
                    self.told_to_wait(run, &looked.seen);
                }
                step
            }
            Answer::Alive(alive) => taker.cleared(alive, now),
            Answer::Mark(mark) => taker.looked_again(mark, now),
            // of a claim, or of a sighting that was kept
            _ if self.runs[run].step == Pending::Claim => taker.claimed(),
            _ => taker.remembered(),
        };
        self.taker_goes_on(run, taker, step);
    }

    fn taker_goes_on(
        &mut self,
        run: usize,
        taker: Box<Taker<Who>>,
        step: crate::lease::taker::Step<Who>,
    ) {
        match ask_of_taker(step) {
            Ok(Ask::GiveBack) => {
                self.runs[run].keeper = Keeper::GivingBack;
                self.ask(run, Role::Keeper, Ask::GiveBack);
            }
            Ok(ask) => {
                if matches!(ask, Ask::Sweep(_)) {
                    self.others_are_back(run);
                }
                self.runs[run].step = match ask {
                    Ask::Grant { .. } => Pending::Grant,
                    Ask::Claim(_) => Pending::Claim,
                    _ => Pending::Another,
                };
                self.runs[run].keeper = Keeper::Taking(taker);
                self.ask(run, Role::Keeper, ask);
            }
            Err(Over::Granted { token, sent }) => {
                let by = if self.profile.kind == Kind::Local {
                    By::Kernel
                } else {
                    By::Slot
                };
                let lease = Lease::new(token, Timing::of(self.runs[run].plan.ttl), by, 0, sent);
                self.holds(run, lease, sent);
            }
            Err(over) => self.not_yet(run, over),
        }
    }

    fn file_taking(
        &mut self,
        run: usize,
        mut taker: Box<FileTaker<Who>>,
        mut old: Option<Who>,
        answer: Answer,
    ) {
        let now = self.clock(run);
        let step = match answer {
            Answer::Failed => return self.refuse(run, Outcome::NotStarted),
            Answer::Looked(looked) => {
                old = looked.row.as_ref().map(|row| row.holder);
                let step = taker.looked(&looked.seen, looked.known, now);
                if matches!(
                    step,
                    file_taker::Step::Remember(_) | file_taker::Step::Over(Over::Until(_))
                ) {
                    self.told_to_wait(run, &looked.seen);
                }
                step
            }
            Answer::Alive(alive) => taker.cleared(alive, now),
            Answer::Mark(mark) => taker.looked_again(mark, now),
            Answer::StillLocked(still) => taker.lock_read(still),
            _ if self.runs[run].step == Pending::Grant => taker.written(),
            _ if self.runs[run].step == Pending::Claim => taker.claimed(),
            _ => taker.remembered(),
        };
        self.file_taker_goes_on(run, taker, old, step);
    }

    fn file_taker_goes_on(
        &mut self,
        run: usize,
        taker: Box<FileTaker<Who>>,
        old: Option<Who>,
        step: file_taker::Step<Who>,
    ) {
        match ask_of_file_taker(step) {
            Ok(ask) => {
                if matches!(ask, Ask::Sweep(_)) {
                    self.others_are_back(run);
                }
                self.runs[run].step = match ask {
                    Ask::WriteGrant(_) => Pending::Grant,
                    Ask::Claim(_) => Pending::Claim,
                    _ => Pending::Another,
                };
                let old = if let Ask::Sweep(holder) = ask {
                    Some(holder)
                } else {
                    old
                };
                self.runs[run].keeper = Keeper::FileTaking(taker, old);
                self.ask(run, Role::Keeper, ask);
            }
            Err(Over::Granted { token, sent }) => {
                self.runs[run].keeper = Keeper::FileBegun(sent);
                self.ask(run, Role::Keeper, Ask::Begun(token, old));
            }
            Err(over) => self.not_yet(run, over),
        }
    }

    /// The kernel lock is ours, and it does not help.
    fn not_yet(&mut self, run: usize, over: Over) {
        match over {
            Over::Until(until) => {
                let left = until.since(self.clock(run)).as_nanos();
                let left = u64::try_from(left).unwrap_or(SECOND);
                self.held_by_another(run, left.clamp(20 * MS, SECOND));
            }
            Over::Alive => self.held_by_another(run, 20 * MS),
            Over::Again | Over::Granted { .. } => self.again(run),
        }
    }

    fn again(&mut self, run: usize) {
        self.pause(run, MS);
    }

    /// The file is closed, and the lock with it.
    fn pause(&mut self, run: usize, time: u64) {
        self.runs[run].lock = None;
        self.runs[run].keeper = Keeper::Pausing;
        let delay = time + self.turn();
        self.wake(run, Role::Keeper, delay);
    }

    fn unnamed(&mut self, run: usize) {
        let now = self.now;
        let until = *self.runs[run].unnamed_until.get_or_insert(now + 2 * SECOND);
        if now < until {
            self.pause(run, 60 * MS);
        } else {
            self.held_by_another(run, 20 * MS);
        }
    }

    fn held_by_another(&mut self, run: usize, pause: u64) {
        if self.now >= self.runs[run].until {
            self.refuse(run, Outcome::Refused);
        } else {
            self.pause(run, pause);
        }
    }

    pub fn refuse(&mut self, run: usize, outcome: Outcome) {
        say!(self, run, "keeper", "{outcome:?}");
        self.runs[run].lock = None;
        self.runs[run].keeper = Keeper::Refusing;
        self.ask(run, Role::Keeper, Ask::Attempted(outcome));
    }

    fn keeper_is_through(&mut self, run: usize) {
        self.runs[run].watch.keeper_finished = true;
        self.send(run, Role::Front, Message::NotRun);
        self.kill(run, Role::Keeper);
    }
}
