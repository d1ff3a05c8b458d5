//! A job's schedule, as its crontab line says it: when it was due, when it is due next.
//!
//! joblock starts nothing by itself. Moments are minutes; a fixed time that summer time skips is due
//! right after the gap, one that it repeats is due once, as cron(8) does it.

use chrono::{DateTime, Local, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use thiserror::Error;

use crate::clock::Wall;

/// Where the schedule's clock hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// The machine's own.
    Local,
    /// One of the IANA database: `Europe/London`.
    Named(Tz),
}

/// A schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: Zone,
}

/// Why a text is no schedule. Displays as a fragment that says what to write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScheduleError {
    /// Not five fields, or a field that says nothing.
    #[error(
        "{expression:?} is no schedule: {why}; write five fields as in crontab(5), like \"29 1 * * *\", or @daily"
    )]
    Malformed {
        /// As given.
        expression: String,
        /// The parser's words.
        why: String,
    },
    /// `@reboot`.
    #[error("@reboot has no time at which it is due: leave the schedule out")]
    Reboot,
    /// The 30th of February.
    #[error("{0:?} never comes: look at its day and month")]
    Never(String),
    /// Not in the IANA database.
    #[error("{name:?} is no time zone{guess}: write one like \"Europe/London\"")]
    Zone {
        /// As given.
        name: String,
        /// `, did you mean …?`, or nothing.
        guess: String,
    },
}

/// A time zone by its name.
pub fn zone(name: &str) -> Result<Zone, ScheduleError> {
    name.parse().map(Zone::Named).map_err(|_| {
        let names = chrono_tz::TZ_VARIANTS.iter().map(|tz| tz.name());
        ScheduleError::Zone {
            name: name.to_owned(),
            guess: crate::guess::did_you_mean(name, names),
        }
    })
}

impl Schedule {
    /// From the five fields of a crontab line, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    pub fn parse(expression: &str, zone: Zone) -> Result<Self, ScheduleError> {
        let malformed = |why: String| ScheduleError::Malformed {
            expression: expression.to_owned(),
            why,
        };
        let fields: Vec<&str> = expression.split_whitespace().collect();
        // the parser's words about what it was given go to terminals
        if expression.chars().any(|c| c.is_control() && c != '\t') {
            return Err(malformed("it has a control character".to_owned()));
        }
        let line = fields.join(" ");
        if line.eq_ignore_ascii_case("@reboot") {
            return Err(ScheduleError::Reboot);
        }
        if fields.len() != 5 && !(fields.len() == 1 && line.starts_with('@')) {
            return Err(malformed(format!("it has {} fields", fields.len())));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser
            .parse(&line)
            .map_err(|e| malformed(e.to_string().to_lowercase()))?;
        let schedule = Schedule { cron, zone };
        // Any day does: what comes at all comes within the eight years between two leap years.
        match schedule.next_due(Wall(1_700_000_000_000)) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never(expression.to_owned())),
        }
    }

    /// The time zone it is read in.
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// The latest moment at or before `now` at which it was due.
    pub fn previous_due(&self, now: Wall) -> Option<Wall> {
        match self.zone {
            Zone::Local => self.previous_in(&Local, now),
            Zone::Named(zone) => self.previous_in(&zone, now),
        }
    }

    /// The first moment after `now` at which it will be due.
    pub fn next_due(&self, now: Wall) -> Option<Wall> {
        match self.zone {
            Zone::Local => self.next_in(&Local, now),
            Zone::Named(zone) => self.next_in(&zone, now),
        }
    }

    fn previous_in<Z: TimeZone>(&self, zone: &Z, now: Wall) -> Option<Wall> {
        let due = self
            .cron
            .find_previous_occurrence(&whole_second(now).with_timezone(zone), true)
            .ok()?;
        Some(Wall(due.timestamp_millis()))
    }

    fn next_in<Z: TimeZone>(&self, zone: &Z, now: Wall) -> Option<Wall> {
        let due = self
            .cron
            .find_next_occurrence(&whole_second(now).with_timezone(zone), false)
            .ok()?;
        Some(Wall(due.timestamp_millis()))
    }
}

/// Fractions of a second cut off: croner takes them along into its answers.
fn whole_second(now: Wall) -> DateTime<Utc> {
    DateTime::from_timestamp(now.0.div_euclid(1000), 0).unwrap_or_default()
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.zone {
            Zone::Local => f.write_str(self.cron.as_str()),
            Zone::Named(zone) => write!(f, "{} {zone}", self.cron.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn london(expression: &str) -> Schedule {
        Schedule::parse(expression, zone("Europe/London").unwrap()).unwrap()
    }

    fn at(text: &str) -> Wall {
        Wall(
            DateTime::parse_from_rfc3339(text)
                .unwrap()
                .timestamp_millis(),
        )
    }

    fn utc(moment: Option<Wall>) -> String {
        moment
            .unwrap()
            .to_datetime()
            .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
    }

    #[rstest]
    #[case::plain(
        "29 1 * * *",
        "2026-11-22T00:00:00Z",
        "2026-11-21T01:29:00.000Z",
        "2026-11-22T01:29:00.000Z"
    )]
    #[case::on_the_dot(
        "29 1 * * *",
        "2026-11-22T01:29:00.500Z",
        "2026-11-22T01:29:00.000Z",
        "2026-11-23T01:29:00.000Z"
    )]
    #[case::a_moment_before(
        "29 1 * * *",
        "2026-11-22T01:28:59.999Z",
        "2026-11-21T01:29:00.000Z",
        "2026-11-22T01:29:00.000Z"
    )]
    #[case::summer(
        "29 1 * * *",
        "2026-07-01T12:00:00Z",
        "2026-07-01T00:29:00.000Z",
        "2026-07-02T00:29:00.000Z"
    )]
    // On 29 March 2026 at 01:00 London's clocks jump to 02:00: 01:29 is due at the jump, which is 01:00 UTC.
    #[case::skipped(
        "29 1 * * *",
        "2026-03-29T00:30:00Z",
        "2026-03-28T01:29:00.000Z",
        "2026-03-29T01:00:00.000Z"
    )]
    #[case::skipped_seen_later(
        "29 1 * * *",
        "2026-03-29T12:00:00Z",
        "2026-03-29T01:00:00.000Z",
        "2026-03-30T00:29:00.000Z"
    )]
    // On 25 October 2026 at 02:00 they go back to 01:00: 01:29 comes at 00:29 UTC and again at 01:29 UTC, and is due once.
    #[case::repeated(
        "29 1 * * *",
        "2026-10-25T00:00:00Z",
        "2026-10-24T00:29:00.000Z",
        "2026-10-25T00:29:00.000Z"
    )]
    #[case::repeated_between(
        "29 1 * * *",
        "2026-10-25T01:00:00Z",
        "2026-10-25T00:29:00.000Z",
        "2026-10-26T01:29:00.000Z"
    )]
    #[case::repeated_after(
        "29 1 * * *",
        "2026-10-25T03:00:00Z",
        "2026-10-25T00:29:00.000Z",
        "2026-10-26T01:29:00.000Z"
    )]
    // What comes every hour goes on coming every hour.
    #[case::hourly(
        "5 * * * *",
        "2026-10-25T01:10:00Z",
        "2026-10-25T01:05:00.000Z",
        "2026-10-25T02:05:00.000Z"
    )]
    #[case::monday_is_one(
        "0 6 * * 1",
        "2026-11-22T12:00:00Z",
        "2026-11-16T06:00:00.000Z",
        "2026-11-23T06:00:00.000Z"
    )]
    #[case::sunday_is_seven(
        "0 6 * * 7",
        "2026-11-22T12:00:00Z",
        "2026-11-22T06:00:00.000Z",
        "2026-11-29T06:00:00.000Z"
    )]
    #[case::named_day(
        "0 6 * * mon-fri",
        "2026-11-21T12:00:00Z",
        "2026-11-20T06:00:00.000Z",
        "2026-11-23T06:00:00.000Z"
    )]
    #[case::either_day(
        "0 6 13 * 1",
        "2026-11-12T12:00:00Z",
        "2026-11-09T06:00:00.000Z",
        "2026-11-13T06:00:00.000Z"
    )]
    #[case::daily(
        "@daily",
        "2026-11-22T12:00:00Z",
        "2026-11-22T00:00:00.000Z",
        "2026-11-23T00:00:00.000Z"
    )]
    #[case::leap_day(
        "0 0 29 2 *",
        "2026-11-22T12:00:00Z",
        "2024-02-29T00:00:00.000Z",
        "2028-02-29T00:00:00.000Z"
    )]
    fn due(
        #[case] expression: &str,
        #[case] now: &str,
        #[case] previous: &str,
        #[case] next: &str,
    ) {
        let schedule = london(expression);
        assert_eq!(
            (
                utc(schedule.previous_due(at(now))),
                utc(schedule.next_due(at(now)))
            ),
            (previous.into(), next.into())
        );
    }

    #[rstest]
    #[case("", "it has 0 fields")]
    #[case("29 1 * *", "it has 4 fields")]
    #[case("0 29 1 * * *", "it has 6 fields")]
    #[case("61 1 * * *", "is no schedule")]
    #[case("29 1 * * xyz", "is no schedule")]
    #[case("@sometimes", "is no schedule")]
    #[case("* * * * \u{1b}[2J", "it has a control character")]
    #[case("29 1 * *\n*", "it has a control character")]
    #[case("@reboot", "leave the schedule out")]
    #[case("0 0 30 2 *", "never comes")]
    fn no_schedules(#[case] expression: &str, #[case] says: &str) {
        let message = Schedule::parse(expression, Zone::Local)
            .unwrap_err()
            .to_string();
        assert!(message.contains(says), "{message}");
    }

    #[test]
    fn a_time_zone_is_guessed() {
        let message = zone("Europe/Lodnon").unwrap_err().to_string();
        assert!(
            message.contains("did you mean \"Europe/London\"?"),
            "{message}"
        );
    }
}
