//! Guard and front, as `supervise::guard` and `supervise::front` do it.

use std::time::Duration;

use crate::lease::fence::{Acts, Cause};

use super::machine::{MS, SECOND, US};
use super::run::{Ask, Message, Role};
use super::store::Outcome;
use super::world::{Event, World, say};

impl World {
    pub fn step_guard(&mut self, run: usize) {
        if self.runs[run].guard.spawning {
            return;
        }
        let messages = std::mem::take(&mut self.runs[run].inbox[Role::Guard as usize]);
        let mut start = false;
        for message in messages {
            let now = self.clock(run);
            let idle = !self.runs[run].guard.started && !self.runs[run].guard.over;
            match message {
                Message::Start(deadline, sent) => {
                    self.runs[run].watch.told = sent;
                    self.runs[run].guard.fence.renewed(deadline);
                    start = true;
                }
                Message::Renewed(deadline, sent) => {
                    self.runs[run].watch.told = sent;
                    self.runs[run].guard.fence.renewed(deadline);
                    self.set_suicide(run);
                }
                Message::End(cause) if idle => self.runs[run].guard.fence.not_started(cause),
                Message::End(cause) => {
                    let acts = self.runs[run].guard.fence.end(cause, now);
                    self.act(run, acts);
                }
                Message::Recorded => self.runs[run].guard.recorded = true,
                _ => {}
            }
        }
        if start && self.start(run) {
            return;
        }
        let r = &mut self.runs[run];
        let (front, keeper) = (r.alive(Role::Front), r.alive(Role::Keeper));
        if r.guard.reported {
            return self.guard_goes(run);
        }
        if !front && !r.guard.front_gone {
            r.guard.front_gone = true;
            if r.guard.started {
                let now = self.clock(run);
                let acts = self.runs[run].guard.fence.end(Cause::FrontGone, now);
                self.act(run, acts);
            }
        }
        let r = &self.runs[run];
        if !r.guard.started && !r.guard.over {
            if !front || !keeper {
                self.kill(run, Role::Guard);
            }
            return;
        }
        if !r.tree_lives() {
            return self.report(run);
        }
        self.leftovers(run);
        let now = self.clock(run);
        let over = !self.runs[run].tree[0].alive;
        let before = self.runs[run].guard.fence.cause();
        let acts = self.runs[run].guard.fence.mind(over, now);
        let lost = Some(Cause::Lost);
        if before != lost && self.runs[run].guard.fence.cause() == lost {
            self.fenced(run);
        }
        self.act(run, acts);
        if let Some(at) = self.runs[run].guard.fence.next_moment(over) {
            self.wake_at_clock(run, Role::Guard, at);
        }
    }

    /// Whether the job begins.
    fn start(&mut self, run: usize) -> bool {
        let now = self.clock(run);
        let may_start = self.runs[run].guard.fence.may_start(now);
        self.set_suicide(run);
        if !may_start {
            say!(self, run, "guard", "too late to start");
        } else if !self.runs[run].alive(Role::Front) {
            self.runs[run].guard.fence.not_started(Cause::FrontGone);
        } else {
            self.runs[run].guard.spawning = true;
            self.watch_start(run);
            let delay = self.chance.between(20 * US, 3 * MS);
            self.at(delay, Event::Spawn(run));
            return true;
        }
        self.runs[run].guard.over = true;
        false
    }

    /// The job's first process has ended: the others may take so long.
    fn leftovers(&mut self, run: usize) {
        if self.runs[run].tree[0].alive || self.runs[run].guard.over {
            return;
        }
        self.runs[run].guard.over = true;
        if !self.runs[run].guard.fence.is_ending() {
            self.terminate(run);
            let now = self.clock(run);
            self.runs[run].guard.fence.end_leftovers(now);
        }
    }

    fn act(&mut self, run: usize, acts: Acts) {
        if acts.terminate {
            say!(
                self,
                run,
                "guard",
                "TERM, {:?}",
                self.runs[run].guard.fence.cause()
            );
            self.terminate(run);
        }
        if acts.kill {
            say!(
                self,
                run,
                "guard",
                "KILL, {:?}",
                self.runs[run].guard.fence.cause()
            );
            self.kill_tree(run);
        }
    }

    fn terminate(&mut self, run: usize) {
        for member in 0..self.runs[run].tree.len() {
            if !self.runs[run].tree[member].ignores_term {
                let ends = self.chance.delay(20 * MS, 3 * SECOND);
                self.at(ends, Event::Ends(run, member));
            }
        }
    }

    fn kill_tree(&mut self, run: usize) {
        for member in 0..self.runs[run].tree.len() {
            self.kill_member(run, member);
        }
    }

    fn report(&mut self, run: usize) {
        say!(self, run, "guard", "the tree is gone");
        let give_up = self.clock(run) + Duration::from_secs(60);
        self.runs[run].guard.reported = true;
        self.runs[run].guard.give_up = Some(give_up);
        self.set_suicide(run);
        self.send(run, Role::Front, Message::Ended);
        self.send(run, Role::Keeper, Message::Ended);
        self.guard_goes(run);
    }

    /// With the keeper gone, the guard's is the last descriptor: front has the end recorded first.
    fn guard_goes(&mut self, run: usize) {
        let r = &self.runs[run];
        let now = self.clock(run);
        let waits = !r.alive(Role::Keeper)
            && r.alive(Role::Front)
            && !r.guard.recorded
            && r.guard.give_up.is_some_and(|at| now < at);
        if waits {
            let at = r.guard.give_up.expect("a time");
            self.wake_at_clock(run, Role::Guard, at);
        } else {
            self.kill(run, Role::Guard);
        }
    }

    pub fn step_front(&mut self, run: usize) {
        let messages = std::mem::take(&mut self.runs[run].inbox[Role::Front as usize]);
        let now = self.now;
        let front = &mut self.runs[run].front;
        for message in messages {
            match message {
                Message::Granted(token) => front.token = Some(token),
                Message::NotRun => front.not_run = true,
                Message::Finished => front.finished = true,
                Message::Ended => front.ended = true,
                _ => {}
            }
        }
        let (not_run, granted) = (front.not_run, front.token.is_some());
        let r = &self.runs[run];
        let (guard, keeper) = (r.alive(Role::Guard), r.alive(Role::Keeper));
        if not_run || !granted && !keeper {
            return self.kill(run, Role::Front);
        }
        if !granted {
            if now >= r.front.give_up {
                say!(self, run, "front", "the store does not answer");
                self.kill(run, Role::Keeper);
                return self.kill(run, Role::Front);
            }
            let left = r.front.give_up - now;
            return self.wake(run, Role::Front, left);
        }
        if !self.runs[run].front.ended && !guard {
            if self.runs[run].tree_lives() {
                self.kill_tree(run);
                return self.wake(run, Role::Front, 50 * MS);
            }
            self.runs[run].front.ended = true;
        }
        if !self.runs[run].front.ended {
            return;
        }
        if !self.runs[run].front.drained {
            self.send(run, Role::Keeper, Message::Drained);
            self.runs[run].front.drained = true;
            self.runs[run].front.give_up = now + 30 * SECOND;
        }
        self.front_ends(run, guard, keeper);
    }

    fn front_ends(&mut self, run: usize, guard: bool, keeper: bool) {
        let now = self.now;
        let recording = self.runs[run].alive(Role::Recorder);
        let give_up = self.runs[run].front.give_up;
        if !self.runs[run].front.finished && !keeper {
            self.runs[run].front.finished = true;
            say!(self, run, "front", "has another record the end");
            self.runs[run].process(Role::Recorder).alive = true;
            self.runs[run].recorded_by_another = true;
            self.ask(run, Role::Recorder, Ask::Finish(Outcome::Ended));
            return self.wake(run, Role::Front, 30 * SECOND);
        }
        if now >= give_up {
            return self.kill(run, Role::Front);
        }
        if self.runs[run].front.finished && !recording {
            if self.runs[run].recorded_by_another || !guard {
                return self.kill(run, Role::Front);
            }
            if !keeper {
                self.send(run, Role::Guard, Message::Recorded);
            }
        }
        self.wake(run, Role::Front, give_up.saturating_sub(now).max(MS));
    }
}
