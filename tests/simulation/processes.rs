//! How simulated processes get their turn, are stopped, killed and go on, and what their kernel does for them.

use crate::clock::Boot;

use super::machine::{MS, SECOND, Time, US};
use super::run::{Member, ROLES, Role};
use super::world::{Event, World, name, say};

impl World {
    pub fn thaw(&mut self, host: usize) {
        let now = self.now;
        self.hosts[host].thaw(now);
        say!(self, usize::MAX, "host", "{host} goes on");
        let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.deferred)
            .into_iter()
            .partition(|(h, _)| *h == host);
        self.deferred = others;
        for (_, event) in mine {
            // the kernel's own timers first: they are behind their time
            let delay = match event {
                Event::Suicide(..) => 0,
                _ => self.chance.between(US, 20 * MS),
            };
            self.at(delay, event);
        }
        // timers that were set by a clock that stood still meanwhile are early now, and looked at again
        for run in self.active.clone() {
            if self.runs[run].place.host == host {
                self.set_suicide(run);
                for role in ROLES {
                    let delay = self.chance.between(US, 20 * MS);
                    self.wake(run, role, delay);
                }
            }
        }
    }

    pub fn goes_on(&mut self, run: usize, role: Role) {
        let now = self.now;
        let process = self.runs[run].process(role);
        if !process.alive || !process.stopped {
            return;
        }
        process.stopped = false;
        process.able_since = now;
        say!(self, run, &name(role), "goes on");
        let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(r, p, _)| (*r, *p) == (run, role));
        self.held = others;
        for (_, _, event) in mine {
            let delay = self.chance.between(US, 5 * MS);
            self.at(delay, event);
        }
        self.wake(run, role, 50 * US);
    }

    pub fn wakes(&mut self, run: usize, role: Role, alarm: u64) {
        let process = self.runs[run].process(role);
        if !process.alive || process.alarm != alarm {
            return;
        }
        process.next = Time::MAX;
        if process.stopped {
            return;
        }
        match role {
            Role::Front => self.step_front(run),
            Role::Keeper => self.step_keeper(run),
            Role::Guard => self.step_guard(run),
            Role::Recorder => {}
        }
    }

    /// Has `role` look around after `delay`, unless it will earlier.
    pub fn wake(&mut self, run: usize, role: Role, delay: Time) {
        let at = self.now + delay;
        let process = self.runs[run].process(role);
        if process.alive && at < process.next {
            process.next = at;
            process.alarm += 1;
            let alarm = process.alarm;
            self.at(delay, Event::Wake(run, role, alarm));
        }
    }

    /// What it takes a process to get its turn.
    pub fn turn(&mut self) -> Time {
        self.chance
            .delay(2 * MS, self.profile.base_ttl * SECOND / 90)
    }

    pub fn wake_soon(&mut self, run: usize, role: Role) {
        let delay = self.turn();
        self.wake(run, role, delay);
    }

    pub fn wake_at_clock(&mut self, run: usize, role: Role, at: Boot) {
        let place = self.runs[run].place;
        let time = self.hosts[place.host].when(place.container, at);
        let delay = time.saturating_sub(self.now) + self.chance.below(MS);
        self.wake(run, role, delay);
    }

    pub fn hold(&mut self, run: usize, role: Role, event: Event) {
        self.held.push((run, role, event));
    }

    /// A process of a run ends, by itself or by SIGKILL.
    pub fn kill(&mut self, run: usize, role: Role) {
        if !self.runs[run].alive(role) {
            return;
        }
        self.runs[run].process(role).alive = false;
        say!(self, run, &name(role), "is gone");
        if role == Role::Guard && !self.runs[run].tree.is_empty() {
            // PR_SET_PDEATHSIG
            self.kill_member(run, 0);
        }
        for other in ROLES {
            self.wake_soon(run, other);
        }
    }

    pub fn stop(&mut self, run: usize, role: Role, lasts: Time) {
        let process = self.runs[run].process(role);
        if process.alive && !process.stopped {
            process.stopped = true;
            say!(self, run, &name(role), "is stopped");
            self.at(lasts, Event::Continue(run, role));
        }
    }

    pub fn kill_member(&mut self, run: usize, member: usize) {
        let most = self.runs[run].plan.ttl.as_nanos() / 9;
        let delay = self
            .chance
            .delay(5 * MS, u64::try_from(most).expect("short"));
        let target = &mut self.runs[run].tree[member];
        if target.alive && target.dies_at.is_none() {
            target.dies_at = Some(self.now + delay);
            self.at(delay, Event::Dies(run, member));
        }
    }

    pub fn member_ends(&mut self, run: usize, member: usize) {
        if !self.runs[run].tree[member].alive {
            return;
        }
        self.runs[run].tree[member].alive = false;
        say!(self, run, "job", "process {member} is gone");
        self.wake_soon(run, Role::Guard);
        self.wake_soon(run, Role::Front);
        if !self.runs[run].tree_lives() {
            self.living.retain(|r| *r != run);
        }
    }

    pub fn spawns(&mut self, run: usize) {
        if !self.runs[run].alive(Role::Guard) {
            return;
        }
        if self.runs[run].processes[Role::Guard as usize].stopped {
            self.hold(run, Role::Guard, Event::Spawn(run));
            return;
        }
        let plan = self.runs[run].plan.clone();
        let member = |first: bool| Member {
            alive: true,
            has_lock: first || plan.children_have_lock,
            ignores_term: plan.ignores_term,
            dies_at: None,
        };
        let r = &mut self.runs[run];
        r.guard.spawning = false;
        r.guard.started = true;
        r.tree = (0..=plan.children).map(|i| member(i == 0)).collect();
        r.watch.began = Some(self.now);
        self.living.push(run);
        say!(self, run, "guard", "starts the job");
        self.at(plan.lasts, Event::Ends(run, 0));
        for i in 1..=plan.children {
            self.at(plan.children_last, Event::Ends(run, i));
        }
        self.began(run);
        self.wake_soon(run, Role::Guard);
    }

    /// Sets the guard's own timer to what its fence says now.
    pub fn set_suicide(&mut self, run: usize) {
        let at = if self.runs[run].guard.reported {
            None
        } else {
            self.runs[run].guard.fence.suicide_at()
        };
        self.runs[run].suicide += 1;
        if let Some(at) = at {
            let place = self.runs[run].place;
            let time = self.hosts[place.host].when(place.container, at);
            let setting = self.runs[run].suicide;
            self.at(time.saturating_sub(self.now), Event::Suicide(run, setting));
        }
    }
}
