//! Moments as people write them for `--since` and `--until`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use thiserror::Error;

use crate::clock::Wall;
use crate::duration::Span;

/// A moment, some kinds of it relative to "now" and to the local time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// With a time zone of its own, RFC 3339.
    Exact(DateTime<Utc>),
    /// On the local clock.
    Local(NaiveDateTime),
    /// The beginning of the day so many days ago: `today`, `yesterday`.
    Day(u64),
    /// So long before now.
    Ago(Duration),
}

/// Why a text is no moment. Displays as a fragment that says what to write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no moment: write 2026-11-22, \"2026-11-22 01:30\", 2026-11-22T01:30:00Z, today, yesterday, or 12h for 12 hours ago"
)]
pub struct WhenError(String);

impl FromStr for When {
    type Err = WhenError;

    fn from_str(text: &str) -> Result<Self, WhenError> {
        let text = text.trim();
        match text {
            "today" => return Ok(When::Day(0)),
            "yesterday" => return Ok(When::Day(1)),
            _ => {}
        }
        if let Ok(exact) = DateTime::parse_from_rfc3339(text) {
            return Ok(When::Exact(exact.with_timezone(&Utc)));
        }
        if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
            return Ok(When::Local(date.and_time(NaiveTime::MIN)));
        }
        for format in [
            "%Y-%m-%d %H:%M",
            "%Y-%m-%d %H:%M:%S",
            "%Y-%m-%dT%H:%M",
            "%Y-%m-%dT%H:%M:%S",
        ] {
            if let Ok(local) = NaiveDateTime::parse_from_str(text, format) {
                return Ok(When::Local(local));
            }
        }
        match text.parse() {
            Ok(Span::For(ago)) => Ok(When::Ago(ago)),
            Ok(Span::Forever) | Err(_) => Err(WhenError(text.to_owned())),
        }
    }
}

impl When {
    /// The moment itself, seen from `now` in the time zone `zone` (`chrono::Local` for people). A local
    /// time that a change of the clocks skipped or repeated is the earliest that can be meant.
    pub fn resolve<Z: TimeZone>(self, now: Wall, zone: &Z) -> Wall {
        let moment = match self {
            When::Exact(exact) => exact,
            When::Local(local) => in_zone(local, zone),
            When::Day(days) => {
                let today = now.to_datetime().with_timezone(zone).date_naive();
                let day = today.checked_sub_days(Days::new(days)).unwrap_or(today);
                in_zone(day.and_time(NaiveTime::MIN), zone)
            }
            When::Ago(ago) => {
                let millis = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                return Wall(now.0.saturating_sub(millis));
            }
        };
        Wall(moment.timestamp_millis())
    }
}

fn in_zone<Z: TimeZone>(local: NaiveDateTime, zone: &Z) -> DateTime<Utc> {
    if let Some(moment) = zone.from_local_datetime(&local).earliest() {
        return moment.with_timezone(&Utc);
    }
    // The clocks jumped over it: what they showed an hour later is as near as it gets.
    let hour = chrono::Duration::hours(1);
    let moment = local
        .checked_add_signed(hour)
        .and_then(|later| zone.from_local_datetime(&later).earliest());
    // none at the end of time as chrono knows it, either
    moment.map_or_else(|| local.and_utc(), |m| m.with_timezone(&Utc) - hour)
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::Exact(exact) => f.pad(&exact.to_rfc3339()),
            When::Local(local) => f.pad(&local.format("%Y-%m-%d %H:%M:%S").to_string()),
            When::Day(0) => f.pad("today"),
            When::Day(1) => f.pad("yesterday"),
            When::Day(n) => write!(f, "{n} days ago"),
            When::Ago(ago) => write!(f, "{} ago", crate::duration::text(*ago)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::Europe::London;
    use rstest::rstest;

    // 2026-10-25 12:00 UTC; at 02:00 of that day London's clocks went back to 01:00.
    const NOW: Wall = Wall(1_792_929_600_000);

    #[rstest]
    #[case("2026-10-25T01:30:00Z", "2026-10-25T01:30:00+00:00")]
    #[case("2026-10-25T01:30:00+02:00", "2026-10-24T23:30:00+00:00")]
    #[case("2026-10-25", "2026-10-24T23:00:00+00:00")]
    #[case("2026-10-24 12:00", "2026-10-24T11:00:00+00:00")]
    #[case("2026-10-24 12:00:30", "2026-10-24T11:00:30+00:00")]
    #[case("2026-10-24T12:00", "2026-10-24T11:00:00+00:00")]
    #[case::twice("2026-10-25 01:30", "2026-10-25T00:30:00+00:00")]
    #[case::skipped("2026-03-29 01:30", "2026-03-29T00:30:00+00:00")]
    #[case("today", "2026-10-24T23:00:00+00:00")]
    #[case("yesterday", "2026-10-23T23:00:00+00:00")]
    #[case("12h", "2026-10-25T00:00:00+00:00")]
    #[case("90", "2026-10-25T11:58:30+00:00")]
    fn moments(#[case] text: &str, #[case] is: &str) {
        let when: When = text.parse().unwrap();
        assert_eq!(when.resolve(NOW, &London).to_datetime().to_rfc3339(), is);
    }

    #[rstest]
    #[case("")]
    #[case("tomorrow")]
    #[case("2026-13-01")]
    #[case("2026-02-30 10:00")]
    #[case("forever")]
    #[case("-5m")]
    fn no_moments(#[case] text: &str) {
        let message = text.parse::<When>().unwrap_err().to_string();
        assert!(message.contains("is no moment: write"), "{message}");
    }
}
