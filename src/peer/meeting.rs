//! How two doctors find each other, though a third may be about, and though others left their files when they crashed.
//!
//! Each shows whom it would go with, and once both would go with each other, that it will. Nobody changes what they will
//! while the other one stands by it. But what they show next may come from a look that they took before, so it is only a
//! pair once the other has shown twice more that it stands by it; who knows that shows it, and shows nothing else any more.

use std::collections::HashMap;
use std::io;
use std::thread::sleep;
use std::time::Duration;

use super::PROTOCOL;
use super::mailbox::{self, Mailbox, Sign};
use crate::clock::Boot;
use crate::name::RunId;
use crate::store::Place;

/// How often the others are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Whose sign has not changed for so long is gone, or busy.
const SILENT: Duration = Duration::from_secs(10);

/// Who came.
#[derive(Debug, PartialEq, Eq)]
pub enum Met {
    /// This one.
    Peer(RunId),
    /// One whose joblock has another script: its version.
    Foreign(String),
    /// Nobody in that time. The hosts of those who were seen, and had a pair already.
    Nobody(Vec<String>),
    /// Nobody wants to know any more.
    Ended,
}

/// What to show next, by the signs of those who are alive; `since`: the beat that the other had when it was first seen to go with
/// this one, after this one had shown that it would.
fn next(own: &RunId, mine: &Sign, alive: &[(RunId, Sign)], since: &mut Option<u64>) -> Sign {
    let mut sign = Sign {
        beat: mine.beat + 1,
        ..mine.clone()
    };
    let of = |id: &RunId| alive.iter().find(|(other, _)| other == id).map(|(_, s)| s);
    if let Some(theirs) = mine.paired.as_ref().and_then(of)
        && theirs.offer.as_ref() == Some(own)
    {
        if theirs.paired.as_ref() == Some(own) {
            let since = *since.get_or_insert(theirs.beat);
            sign.met = theirs.met || theirs.beat >= since + 2;
        }
        return sign;
    }
    *since = None;
    sign.paired = None;
    let free = alive
        .iter()
        .filter(|(_, s)| s.paired.is_none() || s.paired.as_ref() == Some(own));
    // first who already said that they will
    let best = free.min_by_key(|(id, s)| (s.paired.is_none(), id.clone()));
    sign.offer = best.map(|(id, _)| id.clone());
    if let Some((id, theirs)) = best
        && theirs.offer.as_ref() == Some(own)
        && mine.offer.as_ref() == Some(id)
    {
        sign.paired = Some(id.clone());
    }
    sign
}

/// Who has been seen, and when they last changed.
#[derive(Default)]
struct Seen(HashMap<RunId, (u64, Option<Boot>)>);

impl Seen {
    /// Whether the one with this sign is alive: it changed while we looked, and not long ago.
    fn is_alive(&mut self, id: &RunId, beat: u64, now: Boot) -> bool {
        let (last, changed) = self.0.entry(id.clone()).or_insert((beat, None));
        if *last != beat {
            (*last, *changed) = (beat, Some(now));
        }
        changed.is_some_and(|at| now.since(at) < SILENT)
    }
}

/// Waits for another doctor, `limit` at most; `alive` is called at each look, and says
/// whether anybody still wants to know.
///
/// # Errors
/// If our own files can't be written, or the folder not be read.
pub fn meet(
    mailbox: &Mailbox,
    limit: Duration,
    alive: &mut dyn FnMut() -> bool,
) -> io::Result<Met> {
    let mut sign = Sign {
        protocol: PROTOCOL,
        joblock: env!("CARGO_PKG_VERSION").to_owned(),
        host: Place::here().host,
        beat: 0,
        offer: None,
        paired: None,
        met: false,
    };
    let mut since = None;
    let (mut seen, mut busy) = (Seen::default(), Vec::new());
    let until = Boot::now() + limit;
    mailbox.show(&sign)?;
    loop {
        if !alive() {
            return Ok(Met::Ended);
        }
        let mut signs = Vec::new();
        for id in mailbox.others()? {
            let Some(theirs) = mailbox::sign(&mailbox.folder, &id) else {
                continue;
            };
            if !seen.is_alive(&id, theirs.beat, Boot::now()) {
                continue;
            }
            if theirs.protocol != PROTOCOL {
                return Ok(Met::Foreign(theirs.joblock));
            }
            if theirs.paired.is_some() && theirs.paired.as_ref() != Some(&mailbox.id) {
                busy.push(theirs.host.clone());
            }
            signs.push((id, theirs));
        }
        sign = next(&mailbox.id, &sign, &signs, &mut since);
        mailbox.show(&sign)?;
        if sign.met
            && let Some(peer) = sign.paired
        {
            return Ok(Met::Peer(peer));
        }
        if Boot::now() > until && sign.paired.is_none() {
            busy.sort();
            busy.dedup();
            return Ok(Met::Nobody(busy));
        }
        // no two of them in step
        let odd = Boot::now().0 % 100;
        sleep(LOOK + Duration::from_millis(odd));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u64) -> RunId {
        format!("{n:016x}").parse().expect("an id")
    }

    fn fresh() -> Sign {
        Sign {
            protocol: PROTOCOL,
            joblock: String::new(),
            host: String::new(),
            beat: 0,
            offer: None,
            paired: None,
            met: false,
        }
    }

    #[test]
    fn who_never_changes_is_not_there() {
        let mut seen = Seen::default();
        let at = |s| Boot(0) + Duration::from_secs(s);
        assert!(!seen.is_alive(&id(1), 7, at(0)) && !seen.is_alive(&id(1), 7, at(1)));
        assert!(seen.is_alive(&id(1), 8, at(2)) && seen.is_alive(&id(1), 8, at(5)));
        assert!(!seen.is_alive(&id(1), 8, at(12)));
    }

    /// Doctors that look at what stands there when it is their turn, and write what they decided at a later turn.
    fn play(doctors: usize, turns: &[usize]) -> Vec<Option<usize>> {
        let mut shown = vec![fresh(); doctors];
        let mut decided: Vec<Option<Sign>> = vec![None; doctors];
        let mut since = vec![None; doctors];
        let mut met: Vec<Option<usize>> = vec![None; doctors];
        for &turn in turns {
            let me = turn % doctors;
            if met[me].is_some() {
                continue;
            }
            if let Some(sign) = decided[me].take() {
                if sign.met {
                    met[me] = (0..doctors).find(|&o| sign.paired == Some(id(o as u64)));
                }
                shown[me] = sign;
            } else {
                // who has shown nothing did not come yet
                let others = (0..doctors).filter(|&o| o != me && shown[o].beat > 0);
                let alive: Vec<_> = others.map(|o| (id(o as u64), shown[o].clone())).collect();
                let since = &mut since[me];
                decided[me] = Some(next(&id(me as u64), &shown[me], &alive, since));
            }
        }
        met
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn two_always_meet_and_of_more_a_pair_does(
            doctors in 2..5_usize,
            turns in proptest::collection::vec(0..60_usize, 500),
        ) {
            // in step, those who run after each other might do so for ever: real ones look at odd moments
            let met = play(doctors, &turns);
            let pairs = met.iter().flatten().count();
            prop_assert!(pairs >= 2, "{:?}", met);
            for (me, other) in met.iter().enumerate() {
                if let Some(other) = other {
                    prop_assert_eq!(met[*other], Some(me), "{:?}", met);
                }
            }
        }
    }
}
