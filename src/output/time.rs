//! Times as people say them.

use std::time::Duration;

use chrono::{DateTime, Datelike, Local, NaiveDateTime};

use super::Page;
use crate::clock::Wall;
use crate::schedule::Zone;

impl Page {
    fn local(&self, at: Wall) -> NaiveDateTime {
        let utc: DateTime<chrono::Utc> = at.to_datetime();
        match self.zone {
            Zone::Local => utc.with_timezone(&Local).naive_local(),
            Zone::Named(tz) => utc.with_timezone(&tz).naive_local(),
        }
    }

    /// The reader's local date and time: `2026-11-22 01:29:03`.
    pub fn stamp(&self, at: Wall) -> String {
        self.local(at).format("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// The same, on a terminal as short as it can be understood today: `01:29:03`, `11-21 01:29`, `2025-11-21`.
    pub fn short_stamp(&self, at: Wall) -> String {
        if self.width.is_none() {
            return self.stamp(at);
        }
        let (then, now) = (self.local(at), self.local(self.now));
        let pattern = if then.date() == now.date() {
            "%H:%M:%S"
        } else if then.year() == now.year() {
            "%m-%d %H:%M"
        } else {
            "%Y-%m-%d"
        };
        then.format(pattern).to_string()
    }

    /// `3 min ago`, `in 5 h`, `now`.
    pub fn distance(&self, at: Wall) -> String {
        match (self.now.since(at), at.since(self.now)) {
            (Some(past), _) if past.as_secs() > 0 => format!("{} ago", about(past)),
            (_, Some(ahead)) if ahead.as_secs() > 0 => format!("in {}", about(ahead)),
            _ => "now".to_owned(),
        }
    }

    /// The time and how far off it is: `01:29:03 (3 min ago)`.
    pub fn when(&self, at: Wall) -> String {
        format!("{} ({})", self.short_stamp(at), self.distance(at))
    }
}

/// A duration in one unit, rounded down: `12 s`, `3 min`, `5 h`, `8 d`.
pub fn about(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min", s / 60),
        // Up to two days in hours: "26 h" tells a night from a day and a night.
        3_600..172_800 => format!("{} h", s / 3_600),
        _ => format!("{} d", s / 86_400),
    }
}

/// How long something took, in two units: `40 ms`, `1.3 s`, `41 s`, `3 min 20 s`, `5 h 12 min`, `2 d 3 h`.
pub fn took(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0 => format!("{} ms", d.subsec_millis()),
        1..10 => format!("{}.{} s", s, d.subsec_millis() / 100),
        10..60 => format!("{s} s"),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// Memory as people say it, from KiB: `640 KiB`, `12 MiB`, `1.9 GiB`.
pub fn memory(kib: u64) -> String {
    const MIB: u64 = 1_024;
    const GIB: u64 = 1_024 * 1_024;
    match kib {
        0..MIB => format!("{kib} KiB"),
        MIB..GIB => format!("{} MiB", kib / MIB),
        _ => format!("{}.{} GiB", kib / GIB, kib % GIB * 10 / GIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn page(width: Option<u16>) -> Page {
        // 2026-11-22 09:00:00 in London, which is UTC then.
        Page {
            now: Wall(1_795_338_000_000),
            width,
            colour: false,
            zone: Zone::Named(chrono_tz::Europe::London),
        }
    }

    fn before(seconds: i64) -> Wall {
        Wall(page(None).now.0 - seconds * 1_000)
    }

    #[rstest]
    #[case(0, "now")]
    #[case(1, "1 s ago")]
    #[case(59, "59 s ago")]
    #[case(60, "1 min ago")]
    #[case(200, "3 min ago")]
    #[case(3_600, "1 h ago")]
    #[case(26 * 3_600, "26 h ago")]
    #[case(49 * 3_600, "2 d ago")]
    #[case(-5, "in 5 s")]
    #[case(-5 * 3_600 - 1, "in 5 h")]
    fn distances(#[case] seconds: i64, #[case] said: &str) {
        assert_eq!(page(None).distance(before(seconds)), said);
    }

    #[rstest]
    #[case(60, "08:59:00")]
    #[case(10 * 3_600, "11-21 23:00")]
    #[case(400 * 86_400, "2025-10-18")]
    fn stamps_are_short_on_a_terminal(#[case] seconds: i64, #[case] said: &str) {
        assert_eq!(page(Some(80)).short_stamp(before(seconds)), said);
    }

    #[test]
    fn stamps_are_whole_in_a_pipe() {
        assert_eq!(
            page(None).when(before(60)),
            "2026-11-22 08:59:00 (1 min ago)"
        );
    }

    #[test]
    fn summer_time_is_that_of_the_moment_shown() {
        // 2026-07-01 00:00 UTC is one o'clock in London, although now is winter.
        assert_eq!(
            page(None).stamp(Wall(1_782_864_000_000)),
            "2026-07-01 01:00:00"
        );
    }

    #[rstest]
    #[case(40, "40 ms")]
    #[case(1_300, "1.3 s")]
    #[case(41_900, "41 s")]
    #[case(200_000, "3 min 20 s")]
    #[case(18_720_000, "5 h 12 min")]
    #[case(183_600_000, "2 d 3 h")]
    fn durations(#[case] millis: u64, #[case] said: &str) {
        assert_eq!(took(Duration::from_millis(millis)), said);
    }

    #[rstest]
    #[case(640, "640 KiB")]
    #[case(12_300, "12 MiB")]
    #[case(1_992_294, "1.8 GiB")]
    fn amounts_of_memory(#[case] kib: u64, #[case] said: &str) {
        assert_eq!(memory(kib), said);
    }
}
