//! What is attempted and what is done to it, all from a seed: the same seed gives each worker the same list of attempts
//! and torments. When they meet is up to the machine.

use std::time::Duration;

use super::arena::Kind;
use super::random::Random;

/// The processes of a run, as bits.
pub type Victims = u8;
/// The caller's child.
pub const FRONT: Victims = 1;
/// The one at the store.
pub const KEEPER: Victims = 2;
/// The job's parent.
pub const GUARD: Victims = 4;
/// The job's first process.
pub const JOB: Victims = 8;
/// What that started.
pub const FAMILY: Victims = 16;
/// joblock's own three.
pub const THREE: Victims = FRONT | KEEPER | GUARD;

/// What is done to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Torment {
    /// Nothing.
    None,
    /// SIGKILL, this long after its start, whatever it is doing then.
    KillEarly(Duration, Victims),
    /// SIGSTOP, this long after its start, and SIGCONT that much later.
    StopEarly(Duration, Victims, Duration),
    /// SIGKILL once the job lives; `true`: all of them stopped before, so that none acts on another's end.
    Kill(Victims, bool),
    /// SIGSTOP once the job lives, and SIGCONT that much later.
    Stop(Victims, Duration),
    /// SIGSTOP once the job lives, and after that time SIGKILL instead of SIGCONT.
    StopKill(Victims, Duration),
    /// Its cgroup, with everything of it in it, frozen for so long.
    Freeze(Duration),
}

impl Torment {
    /// Whom it is meant for.
    fn victims(self) -> Victims {
        match self {
            Torment::None | Torment::Freeze(_) => 0,
            Torment::KillEarly(_, victims)
            | Torment::StopEarly(_, victims, _)
            | Torment::Kill(victims, _)
            | Torment::Stop(victims, _)
            | Torment::StopKill(victims, _) => victims,
        }
    }
}

/// One start.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Unique in the campaign.
    pub id: u64,
    /// Which of the arena's locks.
    pub lock: usize,
    /// Which of the arena's hosts.
    pub host: usize,
    /// `-w`; `None`: `-n`.
    pub wait: Option<Duration>,
    /// `-t`.
    pub limit: Option<Duration>,
    /// The job's family, see job.c.
    pub family: &'static str,
    /// How long the job takes.
    pub takes: Duration,
    /// How it ends.
    pub code: u8,
    /// What is done to it.
    pub torment: Torment,
}

/// How long a waiter waits: far longer than any torment holds a lock.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Every lease of a campaign: short, so that many are taken over, but on a machine that does five other things a lease of two
/// seconds is lost for no other reason.
pub const TTL: Duration = Duration::from_secs(3);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Attempt {
    /// The next attempt of a worker on its lock, one in `torments` of them tormented.
    pub fn next(
        random: &mut Random,
        id: u64,
        kind: Kind,
        lock: usize,
        hosts: usize,
        torments: u64,
    ) -> Attempt {
        let host = usize::try_from(random.below(hosts as u64)).unwrap_or(0);
        let mut attempt = Attempt {
            id,
            lock,
            host,
            wait: (!random.one_in(8)).then_some(PATIENCE),
            limit: None,
            family: "",
            takes: Duration::ZERO,
            code: if random.one_in(8) {
                u8::try_from(1 + random.below(60)).unwrap_or(1)
            } else {
                0
            },
            torment: Torment::None,
        };
        if random.one_in(torments) {
            attempt.torment(random, kind);
            return attempt;
        }
        match random.below(60) {
            // one that holds for a moment, so that others wait for it and are refused
            0..=2 => attempt.takes = ms(random.below(30)),
            3 => {
                attempt.limit = Some(ms(20 + random.below(60)));
                attempt.takes = Duration::from_secs(200);
                attempt.family = random.pick(&["", "i"]);
            }
            4 => attempt.family = random.pick(&["d", "dc"]),
            _ => {}
        }
        attempt
    }

    fn torment(&mut self, random: &mut Random, kind: Kind) {
        let shortly = ms(random.below(400));
        let beyond = if kind.has_leases() {
            TTL + ms(200 + random.below(1500))
        } else {
            ms(random.below(800))
        };
        let at = Duration::from_micros(random.below(12_000));
        let any = u8::try_from(1 + random.below(31)).unwrap_or(1);
        let own = u8::try_from(1 + random.below(7)).unwrap_or(1);
        let at_once = random.one_in(2);
        self.takes = ms(100 + random.below(300));
        self.torment = match random.below(16) {
            0..=3 => Torment::KillEarly(at, own),
            4 => Torment::StopEarly(at, own, shortly),
            5 => Torment::StopEarly(at, own, beyond),
            6..=10 => Torment::Kill(any, at_once),
            11 => Torment::Stop(any, shortly),
            12 => Torment::Stop(any, beyond),
            13 => Torment::StopKill(any, shortly),
            14 => Torment::StopKill(any, beyond),
            _ => Torment::Freeze(beyond),
        };
        self.family = random.pick(&["", "", "i", "d", "dc", "id", "idc"]);
        if kind == Kind::Far && self.torment.victims() & THREE == THREE {
            // Not guaranteed: with all three gone or stopped, nobody on that host is left to end a daemon, and the other host
            // can't see it.
            self.family = random.pick(&["", "i"]);
        }
        match self.torment {
            // so that the end of a run is hit as well
            Torment::KillEarly(..) | Torment::StopEarly(..) if at_once => self.takes = ms(0),
            Torment::Stop(..) | Torment::StopKill(..) | Torment::Freeze(..) => {
                self.takes = beyond + ms(1000);
            }
            _ => {}
        }
    }
}
