//! The keeper while it has the lock, as `supervise::keeper` and the grants of both stores do it.

use std::time::Duration;

use crate::clock::Boot;
use crate::lease::fence::{Cause, Deadline};
use crate::lease::holder::{Beat, By, Lease, Step};
use crate::lease::timing::Timing;
use crate::name::Token;

use super::run::{Answer, Ask, Holding, Keeper, Message, Role, ask_of};
use super::store::{Kind, Outcome};
use super::world::{World, say};

impl World {
    pub fn holds_file(&mut self, run: usize, sent: Boot) {
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

    pub fn holds(&mut self, run: usize, lease: Lease, sent: Boot) {
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
            ended: false,
            drained: false,
            drain_by: None,
            slot_taken: 0,
        }));
        self.wake_at_clock(run, Role::Keeper, next_beat);
    }

    /// `Holding::until_the_end`, one turn.
    pub fn hold_on(&mut self, run: usize) {
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
                Message::Ended => holding.ended = true,
                Message::Drained => {
                    holding.ended = true;
                    holding.drained = true;
                }
                _ => {}
            }
        }
        if !holding.ended && !front && !guard {
            return self.ask(run, Role::Keeper, Ask::EndTree);
        }
        if holding.ended {
            let by = *holding
                .drain_by
                .get_or_insert(now + Duration::from_secs(10));
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

    fn beat_step(&mut self, run: usize, step: Step) {
        match ask_of(step) {
            Ok(ask) => self.ask(run, Role::Keeper, ask),
            Err(beat) => self.beaten(run, beat),
        }
    }

    pub fn beat_goes_on(&mut self, run: usize, mut holding: Box<Holding>, answer: &Answer) {
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
                holding.ended = true;
                self.runs[run].keeper = Keeper::Holding(holding);
                return self.hold_on(run);
            }
        };
        let now = self.clock(run);
        if step.is_none() {
            holding.next_beat = now + holding.lease.timing().heartbeat() / 2;
        }
        self.runs[run].keeper = Keeper::Holding(holding);
        if let Some(step) = step {
            return self.beat_step(run, step);
        }
        say!(self, run, "keeper", "a heartbeat failed");
        self.hold_on(run);
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
        holding.renewing = match beat {
            Beat::Lost(_) => false,
            Beat::Revoked => deadline.is_none(),
            _ => true,
        };
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

    pub fn spool_end(&mut self, run: usize) {
        self.spool_or_tell(run, Outcome::Ended);
    }

    /// A record that the database did not take.
    pub fn spool_or_tell(&mut self, run: usize, outcome: Outcome) {
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
