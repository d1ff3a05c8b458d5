//! The other side: may somebody who wants the lock take it from a holder that did not release it?
//!
//! 1. *At once*, if the kernel proves the holder gone: the holder's boot is ours, the grant was made on the
//!    very lock file that we hold locked now (device and inode), and that file's system is local. Keeper,
//!    guard and everyone who inherited the descriptor are gone then, or the file would still be locked.
//!    In a *local* store another boot proves it as well, whatever the file: nobody but this kernel can mount that
//!    file system, and the boot that the holder lived in is over.
//! 2. *After the holder's own TTL*, on the observer's own clock, in which nothing changed that a living holder
//!    changes. First sight is stamped after the read and "now" before it, so that both errors make the wait longer.
//!    A sighting that says something else, or that lies in the future, means that the count starts over.
//!
//! Whoever wants the lock holds its kernel lock as it sees it when it asks here; on a mount where kernel locks
//! don't reach the holder that says nothing, and rule 2 alone decides.
//!
//! Not guaranteed: anything about a machine whose clocks were stopped from outside without its kernel's knowledge.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Boot;
use crate::name::Token;

/// A file by device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// What a living holder changes at each heartbeat, and what nobody else changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The grant.
    pub token: Token,
    /// Its renewals in the database.
    pub row_seq: u64,
    /// Its renewals in the lock file; `None`: that file does not know the grant.
    pub slot_seq: Option<u64>,
    /// The lock file that was looked into: in another one the renewals could not be seen.
    pub file: FileId,
}

/// That `mark` was seen, and when for the first time, on the observer's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// What was seen.
    pub mark: Mark,
    /// First sight, read from the clock after the look.
    pub first: Boot,
}

/// A grant that was not released, as seen by somebody who holds the lock file's kernel lock.
#[derive(Debug, Clone, Copy)]
pub struct Unreleased {
    /// What a living holder changes.
    pub mark: Mark,
    /// The lock file that it was granted on.
    pub granted_on: FileId,
    /// The holder's boot id is ours; `None` if one of the two is not known.
    pub same_boot: Option<bool>,
    /// The lock file's system is local: no network, no FUSE.
    pub local_file: bool,
    /// The store is a local one: its kernel lock is the authority.
    pub local_store: bool,
    /// The holder's recorded TTL.
    pub ttl: Duration,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The kernel proves the holder gone: sweep this machine, then take the lock.
    TakeAtOnce,
    /// The holder's lease is over: sweep, lay the claim, look again, then take the lock.
    TakeLapsed,
    /// Remember the sighting; nothing before `until`.
    Wait {
        /// What to keep for the next look, be it this process's or another's.
        sighting: Sighting,
        /// When the lease is over if nothing changes.
        until: Boot,
    },
}

/// Decides. `before` and `after` are the clock before and after the look; `known` is what is remembered from
/// earlier looks under the same boot id and time namespace.
pub fn decide(seen: &Unreleased, known: Option<&Sighting>, before: Boot, after: Boot) -> Decision {
    let proven = match seen.same_boot {
        Some(true) => seen.mark.file == seen.granted_on,
        Some(false) => seen.local_store,
        None => false,
    };
    if proven && seen.local_file {
        return Decision::TakeAtOnce;
    }
    match known.filter(|sighting| sighting.mark == seen.mark && sighting.first <= before) {
        Some(sighting) if before.since(sighting.first) >= seen.ttl => Decision::TakeLapsed,
        Some(&sighting) => Decision::Wait {
            sighting,
            until: sighting.first + seen.ttl,
        },
        None => Decision::Wait {
            sighting: Sighting {
                mark: seen.mark,
                first: after,
            },
            until: after + seen.ttl,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const FILE: FileId = FileId { dev: 1, ino: 2 };
    const OTHER: FileId = FileId { dev: 1, ino: 3 };
    const TTL: Duration = Duration::from_secs(45);

    fn mark(slot_seq: u64) -> Mark {
        Mark {
            token: Token(7),
            row_seq: 0,
            slot_seq: Some(slot_seq),
            file: FILE,
        }
    }

    fn unreleased(mark: Mark) -> Unreleased {
        Unreleased {
            mark,
            granted_on: FILE,
            same_boot: Some(false),
            local_file: false,
            local_store: false,
            ttl: TTL,
        }
    }

    fn at(secs: u64) -> Boot {
        Boot(0) + Duration::from_secs(secs)
    }

    // boot, file, local file system, local store
    #[rstest]
    #[case::same_boot_and_file(Some(true), FILE, true, true, true)]
    #[case::also_in_a_shared_store(Some(true), FILE, true, false, true)]
    #[case::the_file_was_replaced(Some(true), OTHER, true, true, false)]
    #[case::not_over_a_network(Some(true), FILE, false, false, false)]
    #[case::a_local_store_after_a_reboot(Some(false), FILE, true, true, true)]
    #[case::whatever_the_device_is_called_now(Some(false), OTHER, true, true, true)]
    #[case::another_machine(Some(false), FILE, true, false, false)]
    #[case::a_local_store_that_was_carried_to_a_network(Some(false), FILE, false, true, false)]
    #[case::nobody_knows_the_boot(None, FILE, true, true, false)]
    fn the_kernel_proves_it(
        #[case] same_boot: Option<bool>,
        #[case] granted_on: FileId,
        #[case] local_file: bool,
        #[case] local_store: bool,
        #[case] at_once: bool,
    ) {
        let seen = Unreleased {
            granted_on,
            same_boot,
            local_file,
            local_store,
            ..unreleased(mark(3))
        };
        let decision = decide(&seen, None, at(100), at(101));
        assert_eq!(decision == Decision::TakeAtOnce, at_once, "{decision:?}");
    }

    #[rstest]
    #[case::first_sight(None, 100, None)]
    #[case::it_renewed(Some((2, 10)), 100, None)]
    #[case::a_sighting_from_the_future(Some((3, 101)), 100, None)]
    #[case::not_long_enough(Some((3, 56)), 100, Some(101))]
    #[case::long_enough(Some((3, 55)), 100, Some(100))]
    fn a_lease_lapses(
        #[case] known: Option<(u64, u64)>,
        #[case] now: u64,
        #[case] until: Option<u64>,
    ) {
        let known = known.map(|(seq, first)| Sighting {
            mark: mark(seq),
            first: at(first),
        });
        let decision = decide(&unreleased(mark(3)), known.as_ref(), at(now), at(now + 1));
        let expected = match until {
            None => Decision::Wait {
                sighting: Sighting {
                    mark: mark(3),
                    first: at(now + 1),
                },
                until: at(now + 1) + TTL,
            },
            Some(until) if until <= now => Decision::TakeLapsed,
            Some(until) => Decision::Wait {
                sighting: known.expect("a sighting"),
                until: at(until),
            },
        };
        assert_eq!(decision, expected);
    }

    proptest! {
        /// A holder renews at most `ttl` apart; observers look whenever they like, each going on from what the last one kept.
        #[test]
        fn nobody_takes_over_from_one_who_renews(
            ttl_s in 2u64..100,
            gaps in prop::collection::vec(1u64..1000, 1..60),
            looks in prop::collection::vec((1u64..3000, 0u64..50), 1..120),
        ) {
            let ttl = Duration::from_secs(ttl_s);
            // renewals: gaps are thousandths of the TTL, so always below it
            let step = |n: u64| ttl * u32::try_from(n).unwrap_or(u32::MAX) / 1000;
            let mut renewals = vec![at(1)];
            for gap in gaps {
                renewals.push(renewals[renewals.len() - 1] + step(gap));
            }
            let end = renewals[renewals.len() - 1];
            let (mut now, mut known) = (at(1), None);
            for (pause, took) in looks {
                let before = now + step(pause);
                let after = before + step(took);
                if before >= end { break; }
                let seq = u64::try_from(renewals.iter().filter(|&&r| r <= before).count()).unwrap_or(0);
                let seen = Unreleased { ttl, ..unreleased(mark(seq)) };
                match decide(&seen, known.as_ref(), before, after) {
                    Decision::Wait { sighting, .. } => known = Some(sighting),
                    other => prop_assert!(false, "{other:?}"),
                }
                now = after;
            }
        }

        /// From a holder that has stopped, the lock is taken after the TTL and before long, by attempts that each look once.
        #[test]
        fn a_dead_holder_is_taken_over_by_one_shot_attempts(pause_s in 1u64..600) {
            let mut known = None;
            let mut now = at(1000);
            let first = now;
            for _ in 0..1000 {
                match decide(&unreleased(mark(9)), known.as_ref(), now, now) {
                    Decision::Wait { sighting, .. } => known = Some(sighting),
                    _ => break,
                }
                now = now + Duration::from_secs(pause_s);
            }
            prop_assert!(now.since(first) >= TTL);
            prop_assert!(now.since(first) < TTL + Duration::from_secs(pause_s));
        }
    }
}
