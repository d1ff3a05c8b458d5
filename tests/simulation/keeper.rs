//! The keeper, as `supervise::keeper` and the loop of `store::lockfile::attempt` do it.

use crate::clock::Boot;
use crate::lease::fence::{Cause, Deadline};
use crate::lease::file_taker::{self, FileTaker, Found};
use crate::lease::holder::{Beat, By, Lease};
use crate::lease::taker::{Over, Taker, Written};
use crate::lease::timing::Timing;
use crate::name::Token;

use super::machine::{MS, SECOND};
use super::run::{
    Answer, Ask, Holding, Keeper, Message, Pending, Role, ask_of, ask_of_file_taker, ask_of_taker,
};
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
            (Keeper::Inspecting, Answer::Holder(None)) => self.unnamed(run),
            (Keeper::Inspecting, Answer::Holder(Some(old))) => {
                if self.runs[old].place == self.runs[run].place {
                    self.runs[run].keeper = Keeper::SweepingForLock;
                    self.ask(run, Role::Keeper, Ask::Sweep(old));
                } else {
                    self.held_by_another(run, SECOND);
                }
            }
            (Keeper::SweepingForLock, Answer::Alive(true)) => self.held_by_another(run, SECOND),
            (Keeper::SweepingForLock, Answer::Alive(false)) => self.unnamed(run),
            (Keeper::Beginning(_) | Keeper::FileBeginning(_), Answer::Begun(None)) => {
                self.again(run);
            }
            (Keeper::Beginning(before), Answer::Begun(Some((slot, _)))) => {
                let file = slot.map(|slot| {
                    let file = self.runs[run].lock.expect("locked").file;
                    slot.as_row(Store::file_id(file))
                });
                let (taker, step) = Taker::begin(before, file);
                self.taker_goes_on(run, Box::new(taker), step);
            }
            (Keeper::Taking(taker), answer) => self.taking(run, taker, answer),
            (Keeper::FileBeginning(before), Answer::Begun(Some((slot, row)))) => {
                let found = slot.map(|slot| Found {
                    token: slot.token,
                    released: slot.released,
                    holder: slot.run,
                });
                let elsewhere = self.store.spool.iter().filter_map(|(_, token, _)| *token).max();
                let (taker, step) =
                    FileTaker::begin(before, found.as_ref(), row.as_ref(), elsewhere);
                self.file_taker_goes_on(run, Box::new(taker), None, step);
            }
            (Keeper::FileTaking(taker, old), answer) => self.file_taking(run, taker, old, answer),
            (Keeper::FileBegun(_), Answer::Ours(_)) => self.again(run),
            (Keeper::FileBegun(sent), Answer::Failed) => {
                // it waits in the spool, where nobody compares it with another's
                self.runs[run].keeper = Keeper::FileSpooled(sent);
                self.ask(run, Role::Keeper, Ask::ReadLock);
            }
            (Keeper::FileSpooled(sent), Answer::StillLocked(true)) => {
                let token = self.runs[run].token;
                self.store.spool.push((run, token, Outcome::Running));
                self.holds_file(run, sent);
            }
            (Keeper::FileSpooled(_), Answer::StillLocked(false)) => self.again(run),
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
            (_, answer) => self.violate(format!("the simulator itself: run {run} can't use {answer:?}")),
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
            Answer::Looked(looked) => taker.looked(&looked, now),
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
                taker.looked(&looked.seen, looked.known, now)
            }
            Answer::Alive(alive) => taker.cleared(alive, now),
            Answer::StillLocked(still) => taker.lock_read(still),
            _ if self.runs[run].step == Pending::Grant => taker.written(),
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
                self.runs[run].step = match ask {
                    Ask::WriteGrant(_) => Pending::Grant,
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

    fn holds_file(&mut self, run: usize, sent: Boot) {
        let by = if self.profile.kind == Kind::FileLease {
            By::Server
        } else {
            By::File
        };
        let token = self.runs[run].token.expect("a token");
        self.granted(run, token);
        let lease = Lease::new(token, Timing::of(self.runs[run].plan.ttl), by, 1, sent);
        self.holds(run, lease, sent);
    }

    fn holds(&mut self, run: usize, lease: Lease, sent: Boot) {
        let token = lease.token();
        self.runs[run].token = Some(token);
        self.send(run, Role::Front, Message::Granted(token));
        let deadline = lease.sent().map(|sent| Deadline::of(lease.timing(), sent));
        self.runs[run].watch.sent = Some(sent);
        self.runs[run].watch.leased = deadline.is_some();
        if self.profile.kind == Kind::Local {
            self.write_first_slot(run);
        }
        if self.runs[run].alive(Role::Guard) {
            if let Some(lock) = &mut self.runs[run].lock {
                lock.guard = true;
            }
            self.send(run, Role::Guard, Message::Start(deadline, lease.sent()));
        }
        let next_beat = self.clock(run) + lease.timing().heartbeat();
        self.runs[run].keeper = Keeper::Holding(Box::new(Holding {
            lease,
            next_beat,
            renewing: true,
            ending: None,
            ended: None,
            drained: false,
            drain_by: None,
            slot_taken: 0,
        }));
        self.wake_at_clock(run, Role::Keeper, next_beat);
    }

    /// `Holding::until_the_end`, one turn.
    fn hold_on(&mut self, run: usize) {
        let now = self.clock(run);
        let messages = std::mem::take(&mut self.runs[run].inbox[Role::Keeper as usize]);
        let (front, guard) = (
            self.runs[run].alive(Role::Front),
            self.runs[run].alive(Role::Guard),
        );
        let Keeper::Holding(holding) = &mut self.runs[run].keeper else {
            return;
        };
        for message in messages {
            match message {
                Message::Ended(cause) => holding.ended = Some(cause),
                Message::TreeGone => {
                    holding.ended.get_or_insert(Some(Cause::GuardGone));
                }
                Message::Drained => holding.drained = true,
                _ => {}
            }
        }
        if holding.ended.is_none() && !front && !guard {
            return self.ask(run, Role::Keeper, Ask::EndTree);
        }
        if holding.ended.is_some() {
            let by = *holding
                .drain_by
                .get_or_insert(now + std::time::Duration::from_secs(10));
            if holding.drained || !front || now >= by {
                return self.finish(run);
            }
        }
        let (next, drain_by) = (holding.next_beat, holding.drain_by);
        if now >= next {
            if holding.renewing {
                let step = holding.lease.beat(now);
                holding.slot_taken = 0;
                self.runs[run].sending = Some(now);
                return self.beat_step(run, step);
            }
            holding.next_beat = now + holding.lease.timing().heartbeat();
        }
        let Keeper::Holding(holding) = &self.runs[run].keeper else {
            return;
        };
        let at = drain_by.map_or(holding.next_beat, |by| by.min(holding.next_beat));
        self.wake_at_clock(run, Role::Keeper, at);
    }

    fn beat_step(&mut self, run: usize, step: crate::lease::holder::Step) {
        match ask_of(step) {
            Ok(ask) => self.ask(run, Role::Keeper, ask),
            Err(beat) => self.beaten(run, beat),
        }
    }

    fn beat_goes_on(&mut self, run: usize, mut holding: Box<Holding>, answer: &Answer) {
        let lease = &mut holding.lease;
        let step = match answer {
            Answer::Failed => None,
            Answer::Done => Some(lease.slot_written()),
            Answer::StillLocked(still) => Some(lease.lock_read(*still)),
            Answer::FileRead(read) => Some(lease.file_read(*read)),
            Answer::Ours(ours) => Some(lease.row_renewed(*ours)),
            Answer::Wishes(wishes) => Some(lease.wishes_read(*wishes)),
            // the tree, with front and guard gone
            _ => {
                holding.ended = Some(Some(Cause::GuardGone));
                self.runs[run].keeper = Keeper::Holding(holding);
                return self.hold_on(run);
            }
        };
        let now = self.clock(run);
        if step.is_none() {
            holding.next_beat = now + holding.lease.timing().heartbeat() / 2;
        }
        self.runs[run].keeper = Keeper::Holding(holding);
        match step {
            Some(step) => self.beat_step(run, step),
            None => {
                say!(self, run, "keeper", "a heartbeat failed");
                self.hold_on(run);
            }
        }
    }

    fn beaten(&mut self, run: usize, beat: Beat) {
        let now = self.clock(run);
        let Keeper::Holding(holding) = &mut self.runs[run].keeper else {
            return;
        };
        holding.next_beat = now + holding.lease.timing().heartbeat();
        let deadline = holding
            .lease
            .sent()
            .map(|sent| Deadline::of(holding.lease.timing(), sent));
        let sent = holding.lease.sent();
        let by = holding.lease.by();
        let slot_taken = holding.slot_taken;
        let end = match beat {
            Beat::Renewed => None,
            Beat::Stop => Some(Cause::Stop),
            Beat::Lost(_) => Some(Cause::Lost),
            Beat::Revoked => Some(Cause::Revoked),
        };
        if matches!(beat, Beat::Lost(_) | Beat::Revoked) {
            holding.renewing = false;
        }
        let first = end.is_some() && holding.ending != end;
        if first {
            holding.ending = end;
        }
        if !matches!(beat, Beat::Renewed) {
            say!(self, run, "keeper", "{beat:?}");
        }
        if matches!(beat, Beat::Renewed | Beat::Stop) {
            self.renewed(run, by, slot_taken, deadline.is_some());
            self.send(run, Role::Guard, Message::Renewed(deadline, sent));
        } else {
            self.runs[run].lost_file |= matches!(beat, Beat::Lost(_));
            self.tallies.lost += 1;
        }
        if let (true, Some(cause)) = (first, end) {
            self.send(run, Role::Guard, Message::End(cause));
        }
        self.hold_on(run);
    }

    fn finish(&mut self, run: usize) {
        say!(self, run, "keeper", "records the end");
        self.runs[run].keeper = Keeper::Finishing;
        self.ask(run, Role::Keeper, Ask::Finish(Outcome::Ended));
    }

    fn spool_end(&mut self, run: usize) {
        self.spool_or_tell(run, Outcome::Ended);
    }

    /// A record that the database did not take.
    fn spool_or_tell(&mut self, run: usize, outcome: Outcome) {
        let host = self.runs[run].place.host;
        if self.is_cut(host) || self.now < self.store.full_until {
            say!(self, run, "keeper", "this record is lost");
            self.runs[run].watch.told_loss = true;
        } else {
            let token: Option<Token> = self.runs[run].token;
            self.store.spool.push((run, token, outcome));
        }
    }
}
