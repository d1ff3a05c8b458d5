//! Every interleaving of one holder's heartbeats, several takers and a stale writer on a shared store, tried out.
//!
//! The protocol (see `store::sqlite::grant`) is modelled step by step, each step one atomic read or write of what both
//! sides share; the decisions are the real ones. Clocks are left out in the taker's favour: it may find the lease
//! lapsed at any time after its look. What must hold then: when a taker commits over a grant, no heartbeat of that grant that was
//! *written after the taker's look* has succeeded or ever will. (Those before are the timing's business: they were sent a
//! whole TTL ago.)

use std::collections::HashSet;

use super::heartbeat::{Answer, Wishes, answer};
use crate::name::Token;

/// How many heartbeats each holder has in it.
const BEATS: u8 = 2;
const TAKERS: usize = 3;

/// Variants of the protocol that must be found wanting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rules {
    AsBuilt,
    /// The taker does not look again after its claim.
    NoSecondLook,
    /// A taker that gives up takes its claim back.
    ClaimsTakenBack,
    /// The holder reads the claim before it writes its slot.
    ReadBeforeWrite,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Taker {
    Idle,
    /// Saw this grant at this renewal.
    Looked(u8, u8),
    Claimed(u8, u8),
    LookedAgain(u8, u8),
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Holder {
    None,
    /// Between heartbeats: so many were begun.
    Calm(u8),
    /// The first half of a heartbeat is done.
    Half(u8),
    Killed,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    row: u8,
    /// The renewal that stands in each grant's slots, by token; a grant's slots are its own here.
    slots: [u8; TAKERS + 2],
    claims: [u8; 4],
    holders: [Holder; TAKERS + 2],
    /// The newest renewal of each grant that succeeded.
    succeeded: [u8; TAKERS + 2],
    /// The renewal at which each grant was taken over.
    taken_at: [Option<u8>; TAKERS + 2],
    takers: [Taker; TAKERS],
}

impl World {
    fn new() -> Self {
        let mut holders = [Holder::None; TAKERS + 2];
        holders[1] = Holder::Calm(0);
        World {
            row: 1,
            slots: [0; TAKERS + 2],
            claims: [0; 4],
            holders,
            succeeded: [0; TAKERS + 2],
            taken_at: [None; TAKERS + 2],
            takers: [Taker::Idle; TAKERS],
        }
    }

    fn is_sound(&self) -> bool {
        self.taken_at
            .iter()
            .zip(self.succeeded)
            .all(|(taken, succeeded)| taken.is_none_or(|at| succeeded <= at))
    }

    fn claim_seen_by(&self, token: u8) -> bool {
        let claim = self.claims[usize::from(token) % 4];
        let wishes = Wishes {
            claimed: (claim != 0).then(|| Token(claim.into())),
            ..Wishes::default()
        };
        answer(Token(token.into()), wishes) == Answer::Lost
    }

    fn step_holder(&mut self, token: u8, rules: Rules) {
        let at = usize::from(token);
        let write_first = rules != Rules::ReadBeforeWrite;
        self.holders[at] = match self.holders[at] {
            Holder::Calm(n) if write_first => {
                self.slots[at] = n + 1;
                Holder::Half(n + 1)
            }
            Holder::Calm(_) | Holder::Half(_)
                if self.claim_seen_by(token)
                    && (write_first || matches!(self.holders[at], Holder::Calm(_))) =>
            {
                Holder::Killed
            }
            Holder::Calm(n) => Holder::Half(n + 1),
            Holder::Half(n) => {
                self.slots[at] = self.slots[at].max(n);
                self.succeeded[at] = n;
                Holder::Calm(n)
            }
            other => other,
        };
    }

    fn step_taker(&mut self, i: usize, rules: Rules) {
        self.takers[i] = match self.takers[i] {
            Taker::Idle => Taker::Looked(self.row, self.slots[usize::from(self.row)]),
            Taker::Looked(token, seq) => {
                self.claims[usize::from(token) % 4] = token;
                if rules == Rules::NoSecondLook {
                    Taker::LookedAgain(token, seq)
                } else {
                    Taker::Claimed(token, seq)
                }
            }
            Taker::Claimed(token, seq) if self.slots[usize::from(token)] == seq => {
                Taker::LookedAgain(token, seq)
            }
            Taker::Claimed(token, _) => {
                if rules == Rules::ClaimsTakenBack {
                    self.claims[usize::from(token) % 4] = 0;
                }
                Taker::Done
            }
            Taker::LookedAgain(token, seq) => {
                if self.row == token {
                    self.taken_at[usize::from(token)] = Some(seq);
                    self.row += 1;
                    self.holders[usize::from(self.row)] = Holder::Calm(0);
                }
                Taker::Done
            }
            Taker::Done => Taker::Done,
        };
    }
}

/// Goes through everything that can happen; the number of states, or the first one that is not sound.
fn explore(rules: Rules) -> Result<usize, World> {
    let mut seen = HashSet::new();
    let mut open = vec![World::new()];
    while let Some(world) = open.pop() {
        if !world.is_sound() {
            return Err(world);
        }
        if !seen.insert(world.clone()) {
            continue;
        }
        // whoever is never picked again has crashed or is stopped
        for token in 1..=world.row {
            if !matches!(
                world.holders[usize::from(token)],
                Holder::Calm(BEATS) | Holder::None | Holder::Killed
            ) {
                let mut next = world.clone();
                next.step_holder(token, rules);
                open.push(next);
            }
        }
        for i in 0..TAKERS {
            if world.takers[i] != Taker::Done {
                let mut next = world.clone();
                next.step_taker(i, rules);
                open.push(next);
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn holder_and_takers_never_miss_each_other() {
    let states = explore(Rules::AsBuilt).expect("sound");
    assert!(
        states > 10_000,
        "{states} states are too few to prove anything"
    );
}

#[test]
fn the_model_finds_the_faults_of_other_protocols() {
    for rules in [
        Rules::NoSecondLook,
        Rules::ClaimsTakenBack,
        Rules::ReadBeforeWrite,
    ] {
        assert!(explore(rules).is_err(), "{rules:?} passed");
    }
}
