//! A world: machines, a store, runs, and one queue of what happens when. Everything follows from the seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::clock::Boot;
use crate::lease::fence::Fence;
use crate::name::Token;

use super::chance::Chance;
use super::machine::{Host, MS, Place, SECOND, Time, US};
use super::run::{
    Answer, Ask, Front, Guard, Keeper, Member, Message, Pending, Plan, Process, ROLES, Role, Run, Watch,
};
use super::store::{Kind, Store};

/// One line of the trace.
macro_rules! say {
    ($world:expr, $run:expr, $role:expr, $($text:tt)*) => {
        if $world.trace {
            $world.line($run, $role, &format!($($text)*));
        }
    };
}
pub(crate) use say;

#[derive(Debug)]
pub enum Event {
    Wake(usize, Role, u64),
    /// The store does what was asked.
    Apply {
        run: usize,
        role: Role,
        ask: Box<Ask>,
        /// It takes the process's own doing; else it is with the kernel or the server already.
        by_itself: bool,
        /// It comes to pass although its process has died.
        late: bool,
    },
    Answered(usize, Role, Box<Answer>),
    Spawn(usize),
    /// A member of the tree is killed.
    Dies(usize, usize),
    /// A member ends by itself.
    Ends(usize, usize),
    Suicide(usize, u64),
    Cron(usize),
    Fault,
    Continue(usize, Role),
    Thaw(usize, Time),
    Reboot(usize),
    Quiet,
}

struct Entry(Time, u64, Event);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// What a seed's world is like.
#[derive(Debug, Clone)]
pub struct Profile {
    pub kind: Kind,
    /// Mean time between faults.
    pub fault_every: Time,
    /// Which faults happen, by their bits in `faults.rs`.
    pub faults: u32,
    /// I/O on a lost mount waits; else it fails after a while.
    pub hard_mount: bool,
    /// Of a thousand steps of the store, so many give an error.
    pub errors: u64,
    pub cron_every: Time,
    pub base_ttl: u64,
    pub lasts: Time,
    pub ends: Time,
}

pub struct World {
    pub now: Time,
    queue: BinaryHeap<Reverse<Entry>>,
    count: u64,
    pub chance: Chance,
    pub profile: Profile,
    pub hosts: Vec<Host>,
    /// Where attempts are made.
    pub places: Vec<(usize, usize)>,
    pub store: Store,
    pub runs: Vec<Run>,
    /// Runs of which something lives.
    pub active: Vec<usize>,
    /// What waits until its machine is thawed, or its process goes on.
    deferred: Vec<(usize, Event)>,
    held: Vec<(usize, Role, Event)>,
    pub quiet: Option<Time>,
    pub trace: bool,
    pub lines: Vec<String>,
    pub violation: Option<String>,
    pub newest: Option<Token>,
    /// The newest token that what the jobs write to has seen.
    pub register: Option<Token>,
    /// Nothing that is left knows the newest token.
    pub tokens_unknown: bool,
    pub living: Vec<usize>,
    pub free_again: Option<Time>,
    pub tallies: Tallies,
}

/// What was tried, so that a simulator that tries nothing can be told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tallies {
    pub grants: u64,
    pub at_once: u64,
    pub lapsed: u64,
    pub lost: u64,
    pub faults: u64,
    pub fenced: u64,
}

impl World {
    pub fn new(seed: u64, trace: bool) -> Self {
        let mut chance = Chance::new(seed);
        let kind = [
            Kind::Local,
            Kind::Reach,
            Kind::NoReach,
            Kind::NoReach,
            Kind::FileForGood,
            Kind::FileLease,
        ][chance.index(6)];
        let machines = if kind == Kind::Local {
            1
        } else {
            chance.between(3, 7)
        };
        let hosts: Vec<_> = (0..machines)
            .map(|_| {
                let drift = match chance.below(3) {
                    0 => -10_000,
                    1 => 10_000,
                    _ => i64::try_from(chance.below(20_001)).expect("small") - 10_000,
                };
                let base = chance.below(400_000 * SECOND);
                let offsets = [0, chance.below(100_000 * SECOND)];
                Host::new(drift, base, offsets)
            })
            .collect();
        let mut places = Vec::new();
        for host in 0..hosts.len() {
            places.push((host, 0));
            if kind == Kind::Local || chance.permille(300) {
                places.push((host, 1));
            }
        }
        let base_ttl = [2, 9, 45, 45, 45, 120][chance.index(6)];
        let profile = Profile {
            kind,
            fault_every: base_ttl * SECOND * [1, 2, 4, 10][chance.index(4)] / 4,
            faults: if chance.permille(150) {
                u32::MAX
            } else {
                u32::try_from(chance.next() & chance.next() & 0xffff_ffff).expect("32 bits")
                    | 1 << chance.below(20)
            },
            hard_mount: chance.permille(600),
            errors: [0, 0, 2, 20, 80][chance.index(5)],
            cron_every: base_ttl * SECOND * [1, 2, 4][chance.index(3)] / 2,
            base_ttl,
            lasts: base_ttl * SECOND * [1, 4, 20][chance.index(3)] / 8,
            ends: base_ttl * SECOND * chance.between(8, 20),
        };
        let mut world = World {
            now: SECOND,
            queue: BinaryHeap::new(),
            count: 0,
            chance,
            profile,
            hosts,
            places,
            store: Store::new(),
            runs: Vec::new(),
            active: Vec::new(),
            deferred: Vec::new(),
            held: Vec::new(),
            quiet: None,
            trace,
            lines: Vec::new(),
            violation: None,
            newest: None,
            register: None,
            tokens_unknown: false,
            living: Vec::new(),
            free_again: None,
            tallies: Tallies::default(),
        };
        if trace {
            let text = format!("{:?}", world.profile);
            world.lines.push(text);
        }
        for place in 0..world.places.len() {
            let at = world.chance.below(world.profile.cron_every);
            world.at(at, Event::Cron(place));
        }
        let first = world.chance.below(2 * world.profile.fault_every);
        world.at(first, Event::Fault);
        let ends = world.profile.ends;
        world.at(ends, Event::Quiet);
        world
    }

    /// After `delay` from now.
    pub fn at(&mut self, delay: Time, event: Event) {
        self.count += 1;
        self.queue
            .push(Reverse(Entry(self.now + delay, self.count, event)));
    }

    pub fn line(&mut self, run: usize, role: &str, text: &str) {
        let place = self.runs.get(run).map(|r| r.place);
        let token = self
            .runs
            .get(run)
            .and_then(|r| r.token)
            .map_or(String::new(), |t| format!(" token {t}"));
        let line = match place {
            Some(p) => format!(
                "{:>14.6} host {}.{} run {run}{token} {role}: {text}",
                seconds(self.now),
                p.host,
                p.container
            ),
            None => format!("{:>14.6} {role}: {text}", seconds(self.now)),
        };
        self.lines.push(line);
    }

    pub fn violate(&mut self, text: String) {
        if self.violation.is_none() {
            if self.trace {
                self.line(usize::MAX, "VIOLATION", &text);
            }
            self.violation = Some(text);
        }
    }

    /// Goes on until the end, or until a rule is broken.
    pub fn go(&mut self) {
        let limit = self.profile.ends + 60 * 60 * SECOND;
        while let Some(Reverse(Entry(time, _, event))) = self.queue.pop() {
            self.now = time;
            if self.now > limit {
                self.violate("the world does not come to its end".into());
            }
            self.happens(event);
            self.check();
            if self.violation.is_some() || self.is_over() {
                break;
            }
        }
        if self.violation.is_none() {
            self.check_history();
        }
    }

    fn is_over(&self) -> bool {
        self.free_again.is_some_and(|at| {
            self.now > at + 200 * SECOND
                || (self.active.is_empty() && self.now > at + 5 * SECOND)
        })
    }

    fn happens(&mut self, event: Event) {
        let bound = match &event {
            Event::Wake(run, ..)
            | Event::Answered(run, ..)
            | Event::Spawn(run)
            | Event::Dies(run, _)
            | Event::Ends(run, _)
            | Event::Suicide(run, _) => Some(*run),
            Event::Apply { run, by_itself, .. } if *by_itself => Some(*run),
            _ => None,
        };
        if let Some(run) = bound {
            let place = self.runs[run].place;
            let host = &self.hosts[place.host];
            let exists = host.up && host.boot == place.boot;
            if exists && host.frozen.is_some() {
                self.deferred.push((place.host, event));
                return;
            }
            let survives = matches!(event, Event::Apply { .. });
            if !exists && !survives {
                return;
            }
        }
        match event {
            Event::Wake(run, role, alarm) => self.wakes(run, role, alarm),
            Event::Apply { .. } => self.applies(event),
            Event::Answered(run, role, answer) => self.answered(run, role, answer),
            Event::Spawn(run) => self.spawns(run),
            Event::Dies(run, member) | Event::Ends(run, member) => self.member_ends(run, member),
            Event::Suicide(run, setting) => {
                if self.runs[run].suicide == setting && self.runs[run].alive(Role::Guard) {
                    say!(self, run, "guard", "killed by its own timer");
                    self.kill(run, Role::Guard);
                }
            }
            Event::Cron(place) => self.cron(place),
            Event::Fault => {
                if self.quiet.is_none() {
                    self.fault();
                    let next = self.chance.below(2 * self.profile.fault_every) + MS;
                    self.at(next, Event::Fault);
                }
            }
            Event::Continue(run, role) => self.goes_on(run, role),
            Event::Thaw(host, frozen) => {
                if self.hosts[host].frozen == Some(frozen) {
                    self.thaw(host);
                }
            }
            Event::Reboot(host) => {
                if !self.hosts[host].up {
                    self.hosts[host].reboot(self.now);
                    self.locks_of_a_machine_that_is_back(host);
                    say!(self, usize::MAX, "host", "{host} is up again");
                }
            }
            Event::Quiet => self.be_quiet(),
        }
    }

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

    fn goes_on(&mut self, run: usize, role: Role) {
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

    fn wakes(&mut self, run: usize, role: Role, alarm: u64) {
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
        self.chance.delay(2 * MS, self.profile.base_ttl * SECOND / 90)
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

    pub fn clock(&self, run: usize) -> Boot {
        let place = self.runs[run].place;
        self.hosts[place.host].clock(place.container, self.now)
    }

    pub fn send(&mut self, run: usize, to: Role, message: Message) {
        if self.runs[run].alive(to) {
            self.runs[run].inbox[to as usize].push_back(message);
            self.wake_soon(run, to);
        }
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

    fn member_ends(&mut self, run: usize, member: usize) {
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

    fn spawns(&mut self, run: usize) {
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

    fn cron(&mut self, place: usize) {
        let every = match self.quiet {
            Some(_) => self.profile.base_ttl * SECOND / 8 + SECOND,
            None => self.profile.cron_every,
        };
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

    fn be_quiet(&mut self) {
        self.quiet = Some(self.now);
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

    /// The store's answer is on its way; a question is put.
    pub fn ask(&mut self, run: usize, role: Role, ask: Ask) {
        if role == Role::Keeper {
            self.runs[run].busy = true;
        }
        let slow = self.now < self.store.slow_until;
        let (usual, most) = match (self.profile.kind, slow) {
            (Kind::Local, false) => (2 * MS, 100 * MS),
            (_, false) => (10 * MS, self.profile.base_ttl * SECOND / 30),
            (_, true) => (self.profile.base_ttl * SECOND / 6, self.profile.base_ttl * SECOND),
        };
        let delay = US + self.chance.delay(usual, most);
        let by_itself = self.chance.permille(500);
        let late = self.chance.permille(300);
        self.at(
            delay,
            Event::Apply {
                run,
                role,
                ask: Box::new(ask),
                by_itself,
                late,
            },
        );
        self.harm_at_the_store(run, role, delay);
    }
}

pub fn seconds(time: Time) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let nanos = time as f64;
    nanos / 1e9
}

pub fn name(role: Role) -> String {
    format!("{role:?}").to_lowercase()
}
