//! Machines and their clocks. True time is the world's own and nobody in it can read it.

use crate::clock::Boot;

/// True time in nanoseconds.
pub type Time = u64;

pub const SECOND: Time = 1_000_000_000;
pub const MS: Time = 1_000_000;
pub const US: Time = 1_000;

/// Where a process stands: what must be equal before numbers may be compared, see `store::Place`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub host: usize,
    pub boot: u32,
    /// The container: a time namespace and a pid namespace of its own.
    pub container: usize,
}

impl Place {
    pub fn same_boot(self, other: Place) -> bool {
        (self.host, self.boot) == (other.host, other.boot)
    }
}

#[derive(Debug, Clone)]
pub struct Host {
    pub boot: u32,
    pub up: bool,
    booted: Time,
    /// How far this clock is off, in millionths.
    drift: i64,
    /// What the clock showed at boot.
    base: u64,
    /// What each container's BOOTTIME shows besides.
    offsets: [u64; 2],
    /// How long the clock stood still unseen.
    stalled: Time,
    /// Frozen with all its processes, and until when.
    pub frozen: Option<Time>,
    /// While it is frozen, the clock stands still too.
    stall_began: Option<Time>,
    /// When it was last thawed, and how long what runs there may take to notice.
    pub thawed: Time,
    /// When its clock last went on after it had stood still unseen.
    pub unstalled: Option<Time>,
    /// Cut off from the store from then until then.
    pub cut_since: Time,
    pub cut_until: Time,
    pub frozen_since: Time,
    pub down_since: Time,
    /// The server last heard of it then.
    pub contact: Time,
    /// What the wall clock is off by.
    pub wall: i64,
}

impl Host {
    pub fn new(drift: i64, base: u64, offsets: [u64; 2]) -> Self {
        Host {
            boot: 1,
            up: true,
            booted: 0,
            drift,
            base,
            offsets,
            stalled: 0,
            frozen: None,
            stall_began: None,
            thawed: 0,
            unstalled: None,
            cut_since: 0,
            cut_until: 0,
            frozen_since: 0,
            down_since: 0,
            contact: 0,
            wall: 0,
        }
    }

    pub fn reboot(&mut self, now: Time) {
        self.boot += 1;
        self.up = true;
        self.booted = now;
        self.base = 3 * SECOND;
        self.stalled = 0;
        self.frozen = None;
        self.stall_began = None;
    }

    pub fn freeze(&mut self, now: Time, until: Time, clock_too: bool) {
        self.frozen = Some(until);
        self.frozen_since = now;
        self.stall_began = clock_too.then_some(now);
    }

    pub fn thaw(&mut self, now: Time) {
        self.frozen = None;
        self.thawed = now;
        if let Some(began) = self.stall_began.take() {
            self.stalled += now - began;
            self.unstalled = Some(now);
        }
    }

    /// BOOTTIME in `container` at `now`.
    pub fn clock(&self, container: usize, now: Time) -> Boot {
        let now = self.stall_began.unwrap_or(now);
        let run = now.saturating_sub(self.booted + self.stalled);
        let shown = u128::from(run) * u128::from(1_000_000u64.saturating_add_signed(self.drift))
            / 1_000_000;
        Boot(self.base + self.offsets[container] + u64::try_from(shown).unwrap_or(u64::MAX))
    }

    /// The wall clock. Nothing about a lock is decided by it, and [`super::planted`] has a bug that does.
    pub fn wall_clock(&self, now: Time) -> Boot {
        Boot((now + 1_000_000 * SECOND).saturating_add_signed(self.wall))
    }

    /// When BOOTTIME in `container` will show `at`.
    pub fn when(&self, container: usize, at: Boot) -> Time {
        let shown = at.0.saturating_sub(self.base + self.offsets[container]);
        let run = u128::from(shown) * 1_000_000
            / u128::from(1_000_000u64.saturating_add_signed(self.drift));
        u64::try_from(run).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
            + self.booted
            + self.stalled
            + 2
    }
}
