//! A world: machines, a store, runs, and one queue of what happens when. Everything follows from the seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use crate::clock::Boot;
use crate::name::Token;

use super::chance::Chance;
use super::delays::Kept;
use super::excuses::EXCUSES;
use super::machine::{Host, MS, Place, SECOND, Time, US};
use super::run::{Answer, Ask, Message, Role, Run};
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
    pub deferred: Vec<(usize, Event)>,
    pub held: Vec<(usize, Role, Event)>,
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
    /// Pairs that have been counted.
    pub excused: HashSet<(usize, usize)>,
    /// The sightings in the store, by true time.
    pub kept: HashMap<Place, Kept>,
    /// What was under way when the faults ended has come to its end then.
    pub settled: Time,
    /// Since then nothing is left of those who had the lock.
    pub emptied: Option<Time>,
    /// How many rows the history had.
    pub rows: usize,
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
    /// Pairs of trees that lived at once, by what excuses them.
    pub excused: [u64; EXCUSES.len()],
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
            excused: HashSet::new(),
            kept: HashMap::new(),
            settled: 0,
            emptied: None,
            rows: 0,
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

    /// When the last question that is on its way now is answered.
    pub fn settles(&self) -> Time {
        let under_way = |Reverse(Entry(time, _, event)): &Reverse<Entry>| {
            matches!(event, Event::Apply { .. } | Event::Answered(..)).then_some(*time)
        };
        self.queue.iter().filter_map(under_way).max().unwrap_or(0)
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
            self.now > at + 200 * SECOND || (self.active.is_empty() && self.now > at + 5 * SECOND)
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

    /// The store's answer is on its way; a question is put.
    pub fn ask(&mut self, run: usize, role: Role, ask: Ask) {
        if role == Role::Keeper {
            self.runs[run].busy = true;
        }
        let slow = self.now < self.store.slow_until;
        let (usual, most) = match (self.profile.kind, slow) {
            (Kind::Local, false) => (2 * MS, 100 * MS),
            (_, false) => (10 * MS, self.profile.base_ttl * SECOND / 30),
            (_, true) => (
                self.profile.base_ttl * SECOND / 6,
                self.profile.base_ttl * SECOND,
            ),
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
