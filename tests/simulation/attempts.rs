//! Who asks for the lock, and when: cron's attempts and those that wait; and at the end everybody, with no more faults.

use std::collections::VecDeque;
use std::time::Duration;

use crate::lease::fence::Fence;

use super::machine::{MS, Place, SECOND, Time};
use super::run::{Front, Guard, Keeper, Pending, Plan, Process, ROLES, Role, Run, Watch};
use super::world::{Event, World, say};

impl World {
    /// Half of it to three halves lie between two attempts of cron's.
    pub fn attempts_every(&self) -> Time {
        match self.quiet {
            Some(_) => self.profile.base_ttl * SECOND / 8 + SECOND,
            None => self.profile.cron_every,
        }
    }

    pub fn cron(&mut self, place: usize) {
        let every = self.attempts_every();
        let next = every / 2 + self.chance.below(every);
        self.at(next, Event::Cron(place));
        let (host, container) = self.places[place];
        let here = &self.hosts[host];
        if here.up && here.frozen.is_none() && self.free_again.is_none() {
            self.attempt(host, container);
        }
    }

    fn attempt(&mut self, host: usize, container: usize) {
        let number = self.runs.len();
        let quiet = self.quiet.is_some();
        let c = &mut self.chance;
        let ttl = if self.profile.kind.is_lockfile() {
            self.profile.base_ttl
        } else {
            [1, 1, 1, 2, 4][c.index(5)] * self.profile.base_ttl / 2
        };
        let unit = self.profile.base_ttl * SECOND;
        let plan = Plan {
            ttl: Duration::from_secs(ttl.max(2)),
            wait: if quiet || c.permille(700) {
                0
            } else {
                c.below(3 * unit)
            },
            lasts: if quiet {
                SECOND
            } else {
                c.delay(2 * self.profile.lasts, 10 * self.profile.lasts) + 10 * MS
            },
            children: if quiet { 0 } else { c.index(3) },
            children_last: c.below(4 * self.profile.lasts) + MS,
            children_have_lock: c.permille(600),
            ignores_term: c.permille(300),
            kill_after: Duration::from_nanos(c.below(unit)),
        };
        let place = Place {
            host,
            boot: self.hosts[host].boot,
            container,
        };
        let now = self.hosts[host].clock(container, self.now);
        let process = Process {
            alive: true,
            stopped: false,
            able_since: 0,
            alarm: 0,
            next: Time::MAX,
        };
        let owner = format!("{:016x}", self.chance.next())
            .parse()
            .expect("a run id");
        self.runs.push(Run {
            owner,
            place,
            processes: [
                process,
                process,
                process,
                Process {
                    alive: false,
                    ..process
                },
            ],
            inbox: [const { VecDeque::new() }; 4],
            keeper: Keeper::Begin,
            busy: false,
            guard: Guard {
                fence: Fence::new(plan.kill_after, None, now),
                front_gone: false,
                spawning: false,
                started: false,
                over: false,
                recorded: false,
                reported: false,
                give_up: None,
            },
            suicide: 0,
            front: Front {
                give_up: self.now + plan.wait + 30 * SECOND,
                ..Front::default()
            },
            until: self.now + plan.wait,
            unnamed_until: None,
            step: Pending::Another,
            seen: None,
            sending: None,
            recorded_by_another: false,
            lost_file: false,
            generation: self.store.generation,
            lock: None,
            token: None,
            tree: Vec::new(),
            plan,
            watch: Watch::default(),
        });
        self.active.push(number);
        say!(self, number, "front", "an attempt begins");
        self.wake_soon(number, Role::Keeper);
        self.wake_soon(number, Role::Front);
    }

    pub fn be_quiet(&mut self) {
        self.quiet = Some(self.now);
        self.settled = self.settles();
        say!(self, usize::MAX, "world", "no more faults");
        self.store.full_until = 0;
        self.store.slow_until = 0;
        self.profile.errors = 0;
        for host in 0..self.hosts.len() {
            self.hosts[host].cut_until = self.hosts[host].cut_until.min(self.now);
            if self.hosts[host].frozen.is_some() {
                self.thaw(host);
            }
            self.at(SECOND, Event::Reboot(host));
        }
        for run in self.active.clone() {
            for role in ROLES {
                self.at(MS, Event::Continue(run, role));
            }
            for member in 0..self.runs[run].tree.len() {
                let ends = self.chance.below(10 * SECOND);
                self.at(ends, Event::Ends(run, member));
            }
            self.runs[run].plan.lasts = SECOND;
            self.runs[run].plan.children_last = SECOND;
        }
        for place in 0..self.places.len() {
            self.at(2 * SECOND, Event::Cron(place));
        }
    }
}
