//! Durations and moments: what is read is in bounds, is printed as what reads back the same, and no sum of it overflows.

use std::time::Duration;

use joblock::clock::{Boot, Wall};
use joblock::duration::{self, LONGEST, SHORTEST_TTL, Span};
use joblock::lease::timing::Timing;
use joblock::output::time::{about, took};
use joblock::schedule::{Zone, zone};
use joblock::when::When;

use super::{Input, readable};

pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let now = Wall(input.number());
    let Ok(text) = std::str::from_utf8(input.0) else {
        return;
    };
    match duration::span(text) {
        Ok(Span::For(d)) => length(d),
        Ok(Span::Forever) => assert!(duration::finite(text).is_err()),
        Err(e) => readable(&e.to_string(), text.len()),
    }
    match duration::window(text) {
        Ok(d) => assert!(!d.is_zero()),
        Err(e) => readable(&e.to_string(), text.len()),
    }
    match duration::ttl(text) {
        Ok(ttl) => lease(ttl),
        Err(e) => readable(&e.to_string(), text.len()),
    }
    match text.parse::<When>() {
        Ok(when) => moment(when, now),
        Err(e) => readable(&e.to_string(), text.len()),
    }
}

fn length(d: Duration) {
    assert!(d <= LONGEST);
    let printed = duration::text(d);
    let again = duration::finite(&printed).expect("what is printed can be read");
    let whole = Duration::from_millis(u64::try_from(d.as_millis()).expect("at most LONGEST"));
    assert_eq!(again, whole, "{d:?} was printed as {printed}");
    assert_eq!(duration::text(again), printed);
    assert!(
        d.is_zero() || !again.is_zero(),
        "{d:?} is printed as 0, which means something else"
    );
    let _ = (about(d), took(d));
    let _ = Boot(u64::MAX / 2) + d;
}

fn lease(ttl: Duration) {
    assert!((SHORTEST_TTL..=LONGEST).contains(&ttl));
    let (timing, sent) = (Timing::of(ttl), Boot(1));
    let in_order = [
        sent,
        sent + timing.heartbeat(),
        timing.term_at(sent),
        timing.kill_at(sent),
        timing.suicide_at(sent),
        timing.gone_at(sent),
        sent + timing.ttl(),
    ];
    assert!(in_order.is_sorted(), "{timing:?}");
    assert!(timing.gone_at(sent).since(sent) * 101 <= ttl * 99);
}

fn moment(when: When, now: Wall) {
    readable(&when.to_string(), 64);
    for name in ["Europe/London", "America/New_York", "Pacific/Kiritimati"] {
        let Ok(Zone::Named(zone)) = zone(name) else {
            panic!("no zone {name}");
        };
        let _ = when.resolve(now, &zone);
    }
}
