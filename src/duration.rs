//! Durations as people write them: `90`, `0.5`, `90s`, `15m`, `26h`, `7d`, `1h30m`, `forever`.
//!
//! Months and years are refused: their length isn't fixed, and humantime's `M` (a month) is one
//! slipped shift key away from `m` (a minute).

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// The longest duration that has an end. Whoever wants more means `forever`.
pub const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

/// The shortest duration but 0: what is printed has no smaller unit, and 0 means something else.
const SHORTEST: Duration = Duration::from_millis(1);

/// The shortest `--ttl`: below it the lease's arithmetic has no room for a slow disk.
pub const SHORTEST_TTL: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "90, 0.5, 90s, 15m, 26h, 7d, 1h30m";

/// A length of time, perhaps without an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// So long; at most [`LONGEST`].
    For(Duration),
    /// `forever` or `infinity`.
    Forever,
}

impl Span {
    /// The length, if it is longer than nothing and has an end. For limits, where 0 means none.
    pub fn limit(self) -> Option<Duration> {
        match self {
            Span::For(d) if !d.is_zero() => Some(d),
            Span::For(_) | Span::Forever => None,
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Span::For(d) => f.pad(&text(*d)),
            Span::Forever => f.pad("forever"),
        }
    }
}

/// Why a text is no duration. Displays as a fragment that says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Nothing stands there.
    #[error("a duration can't be empty: write one like {EXAMPLES} or forever")]
    Empty,
    /// A minus sign stands before it.
    #[error("a duration can't be negative: {0:?}")]
    Negative(String),
    /// A unit that isn't one of ours.
    #[error("{text:?} has the unit {unit:?}: the units are ms, s, m, h, d and w (m is minutes)")]
    Unit {
        /// The whole text.
        text: String,
        /// The unit.
        unit: String,
    },
    /// Not made of numbers and units.
    #[error("{0:?} is no duration: write one like {EXAMPLES}")]
    Malformed(String),
    /// Over [`LONGEST`].
    #[error("{0:?} is too long: at most 36500d, or forever where that makes sense")]
    TooLong(String),
    /// Above zero, yet below a millisecond: it would be printed as 0, which means something else.
    #[error("{0:?} is too short to be measured: write 0 or at least 1ms")]
    TooShort(String),
    /// `forever` where an end is needed.
    #[error("{0:?} has no end, but one is needed here: write one like {EXAMPLES}")]
    Endless(String),
    /// A number where only a length with its unit is safe.
    #[error("{0:?} has no unit: write {0}d for days, or {0}s if you mean seconds")]
    NoUnit(String),
    /// A TTL below [`SHORTEST_TTL`].
    #[error("{0:?} is too short for a lease: at least 2s")]
    ShortTtl(String),
    /// Zero, where that says nothing.
    #[error("{0:?} says nothing here: give more than 0, or leave the option out")]
    Zero(String),
}

const UNITS: &[&str] = &[
    "ms", "millis", "msec", "s", "sec", "secs", "second", "seconds", "m", "min", "mins", "minute",
    "minutes", "h", "hr", "hrs", "hour", "hours", "d", "day", "days", "w", "week", "weeks",
];

impl FromStr for Span {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(DurationError::Empty);
        }
        if trimmed == "forever" || trimmed == "infinity" {
            return Ok(Span::Forever);
        }
        if trimmed.starts_with('-') {
            return Err(DurationError::Negative(text.to_owned()));
        }
        let parsed = if is_plain(trimmed) {
            seconds(trimmed)?
        } else {
            with_units(trimmed)?
        };
        if parsed > LONGEST {
            return Err(DurationError::TooLong(text.to_owned()));
        }
        if parsed < SHORTEST && trimmed.bytes().any(|b| matches!(b, b'1'..=b'9')) {
            return Err(DurationError::TooShort(text.to_owned()));
        }
        Ok(Span::For(parsed))
    }
}

/// `90`, `0.5`.
fn is_plain(text: &str) -> bool {
    let dots = text.bytes().filter(|&b| b == b'.').count();
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    digits > 0 && dots <= 1 && digits + dots == text.len()
}

fn seconds(text: &str) -> Result<Duration, DurationError> {
    let seconds = text
        .parse::<f64>()
        .map_err(|_| DurationError::Malformed(text.to_owned()))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| DurationError::TooLong(text.to_owned()))
}

fn with_units(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed(text.to_owned());
    let known = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == ' ';
    if !text.chars().all(known) || !text.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(malformed());
    }
    for unit in text
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|u| !u.is_empty())
    {
        if !UNITS.contains(&unit) {
            return Err(DurationError::Unit {
                text: text.to_owned(),
                unit: unit.to_owned(),
            });
        }
    }
    humantime::parse_duration(text).map_err(|e| match e {
        humantime::DurationError::NumberOverflow => DurationError::TooLong(text.to_owned()),
        _ => malformed(),
    })
}

/// For options where 0 and `forever` both have a meaning.
pub fn span(text: &str) -> Result<Span, DurationError> {
    text.parse()
}

/// For options that need an end; 0 is allowed.
pub fn finite(text: &str) -> Result<Duration, DurationError> {
    match text.parse()? {
        Span::For(d) => Ok(d),
        Span::Forever => Err(DurationError::Endless(text.to_owned())),
    }
}

/// For a window: more than 0, and with an end.
pub fn window(text: &str) -> Result<Duration, DurationError> {
    match finite(text)? {
        d if d.is_zero() => Err(DurationError::Zero(text.to_owned())),
        d => Ok(d),
    }
}

/// For how long something is kept: more than 0, perhaps for ever.
pub fn keep(text: &str) -> Result<Span, DurationError> {
    let number = |c: char| c.is_ascii_digit() || c == '.';
    match text.parse()? {
        Span::For(d) if d.is_zero() => Err(DurationError::Zero(text.to_owned())),
        // 90 would be seconds, and is meant as days: no history comes back
        _ if text.trim().chars().all(number) => Err(DurationError::NoUnit(text.to_owned())),
        span => Ok(span),
    }
}

/// For `--ttl`.
pub fn ttl(text: &str) -> Result<Duration, DurationError> {
    match finite(text)? {
        d if d < SHORTEST_TTL => Err(DurationError::ShortTtl(text.to_owned())),
        d => Ok(d),
    }
}

/// The shortest text that [`Span`] reads back as `duration`: `1h30m`, `0s`.
pub fn text(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut out = String::new();
    for (unit, seconds) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if rest >= seconds {
            let _ = write!(out, "{}{unit}", rest / seconds);
            rest %= seconds;
        }
    }
    if duration.subsec_millis() > 0 {
        let _ = write!(out, "{}ms", duration.subsec_millis());
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("90", 90_000)]
    #[case("0", 0)]
    #[case("0.5", 500)]
    #[case(".5", 500)]
    #[case("90s", 90_000)]
    #[case("15m", 900_000)]
    #[case("15min", 900_000)]
    #[case("26h", 26 * 3_600_000)]
    #[case("7d", 7 * 86_400_000)]
    #[case("2w", 14 * 86_400_000)]
    #[case("1h30m", 5_400_000)]
    #[case("1h 30m", 5_400_000)]
    #[case("250ms", 250)]
    #[case("0s", 0)]
    #[case("36500d", 36_500 * 86_400_000)]
    fn durations(#[case] text: &str, #[case] millis: u64) {
        assert_eq!(text.parse(), Ok(Span::For(Duration::from_millis(millis))));
    }

    #[rstest]
    #[case("forever")]
    #[case("infinity")]
    fn endless(#[case] text: &str) {
        assert_eq!(text.parse(), Ok(Span::Forever));
        assert!(matches!(finite(text), Err(DurationError::Endless(_))));
    }

    #[rstest]
    #[case("", "can't be empty")]
    #[case("  ", "can't be empty")]
    #[case("-1", "can't be negative")]
    #[case("-5m", "can't be negative")]
    #[case("5x", "has the unit \"x\"")]
    #[case("15M", "has the unit \"M\"")]
    #[case("1y", "has the unit \"y\"")]
    #[case("NaN", "is no duration")]
    #[case("inf", "is no duration")]
    #[case("1e3", "has the unit \"e\"")]
    #[case("+5", "is no duration")]
    #[case("1.2.3", "is no duration")]
    #[case("1h30", "is no duration")]
    #[case("m", "is no duration")]
    #[case("1,5", "is no duration")]
    #[case("٣", "is no duration")]
    #[case("99999999999999999999999999", "is too long")]
    #[case("18446744073709551615d", "is too long")]
    #[case("99999999999999999999999999d", "is too long")]
    #[case("36501d", "is too long")]
    #[case("0.0000000001", "is too short")]
    #[case("0.00081", "is too short")]
    fn no_durations(#[case] text: &str, #[case] says: &str) {
        let message = text.parse::<Span>().unwrap_err().to_string();
        assert!(message.contains(says), "{text:?}: {message}");
    }

    #[test]
    fn a_ttl_has_at_least_two_seconds() {
        assert!(ttl("1.9").is_err());
        assert_eq!(ttl("2"), Ok(Duration::from_secs(2)));
    }

    #[test]
    fn a_window_is_more_than_nothing() {
        assert!(matches!(window("0"), Err(DurationError::Zero(_))));
        assert_eq!(window("6h"), Ok(Duration::from_secs(21_600)));
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "\\PC{0,40}") {
            let _ = text.parse::<Span>();
        }

        #[test]
        fn what_is_written_is_read_back(millis in 0u64..=3_153_600_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(text(duration).parse(), Ok(Span::For(duration)));
        }
    }
}
