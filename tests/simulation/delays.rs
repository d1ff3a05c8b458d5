//! How long a lock may stay with a holder that is dead, though somebody asks for it. As in `rules.rs`, the arithmetic is the design's, written
//! down once more, and true time is what counts.
//!
//! While anything may go wrong: whoever looks TTL·(1+ρ) or more after what was seen from its place was first kept, and sees the
//! same, is not told to wait. That needs no slack: what the product measures begins before the sighting is kept, and ends as this does.
//!
//! When nothing goes wrong any more: the lock is granted again within the time that [`World::check_delay`] adds up.

use crate::lease::takeover::{Mark, Unreleased};

use super::machine::{Place, SECOND, Time};
use super::world::World;

/// What is kept for those who look from one place.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    mark: Mark,
    since: Time,
}

impl World {
    /// The sighting of `run` is in the store.
    pub fn sighting_kept(&mut self, run: usize, mark: Mark) {
        let (now, asked) = (self.now, self.runs[run].watch.asked);
        let place = self.runs[run].place;
        let kept = self.kept.entry(place).or_insert(Kept { mark, since: now });
        // who asked before it stood there distrusts it, and may keep its own much later, if it is stopped meanwhile
        if kept.mark != mark || asked < kept.since {
            *kept = Kept { mark, since: now };
        }
    }

    /// `run` looked, and was told to wait.
    pub fn told_to_wait(&mut self, run: usize, seen: &Unreleased) {
        let (place, asked): (Place, Time) = (self.runs[run].place, self.runs[run].watch.asked);
        let Some(kept) = self.kept.get(&place).filter(|kept| kept.mark == seen.mark) else {
            return;
        };
        let ttl = u64::try_from(seen.ttl.as_nanos()).expect("short");
        let stood_still = self.hosts[place.host]
            .unstalled
            .is_some_and(|at| at > kept.since);
        if asked >= kept.since + slowest(ttl) && !stood_still {
            let waited = (asked - kept.since) / SECOND;
            self.violate(format!(
                "run {run} is told to wait {waited} s after the holder was first seen silent"
            ));
        }
    }

    /// The faults are over, nothing is left of a run that had the lock, and what was on its way has come to its end. From then on an attempt begins
    /// at each place [`World::longest_pause`] apart at most. So one looks first within a pause, and the first one that looks TTL·(1+ρ) after that, which is again
    /// within a pause, takes the lock. Each may meet some of the slowest answers that there are, a fifteenth of a TTL with
    /// its question, or find the kernel lock taken by one that does: three of them are allowed for.
    pub fn check_delay(&mut self) {
        let (Some(quiet), None) = (self.quiet, self.free_again) else {
            return;
        };
        let runs = &self.runs;
        let held = |run: &usize| runs[*run].token.is_some() && !runs[*run].is_gone();
        if self.active.iter().any(held) {
            self.emptied = None;
            return;
        }
        let emptied = *self.emptied.get_or_insert(self.now);
        let from = emptied.max(self.settled).max(quiet + 2 * SECOND);
        if self.now <= from {
            return;
        }
        let slack = self.profile.base_ttl * SECOND / 5;
        if self.now > from + slowest(self.waited_for()) + 2 * self.longest_pause() + slack {
            self.violate("the lock of a dead holder is not free in time".into());
        }
    }

    /// Between two attempts at a place, at most.
    fn longest_pause(&self) -> Time {
        self.attempts_every() * 3 / 2
    }

    /// The lease of whoever did not release the lock, as those who look know it.
    fn waited_for(&self) -> Time {
        let row = self.store.tables.row.as_ref();
        let slot = self
            .store
            .path
            .and_then(|file| self.store.files[file].newest());
        let row = row.filter(|row| !row.released).map(|row| row.ttl);
        let slot = slot.filter(|slot| !slot.released).map(|slot| slot.ttl);
        u64::try_from(row.max(slot).unwrap_or_default().as_nanos()).expect("short")
    }
}

/// As true time, on the slowest clock.
fn slowest(time: Time) -> Time {
    time / 99 * 100 + 100
}
