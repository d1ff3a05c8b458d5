//! The names that users give and the numbers that stores give: checked once, here, and carried as types.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text is no job, lock or run name. Displays as a fragment that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name can't be empty: give 1 to 128 of A-Z a-z 0-9 . _ @ + -")]
    Empty,
    /// The text has more than 128 characters.
    #[error("a name has at most 128 characters, this one has {0}")]
    TooLong(usize),
    /// A character that no name may have.
    #[error(
        "{name:?} has the character {bad:?}: a name is 1 to 128 of A-Z a-z 0-9 . _ @ + - and begins with a letter or digit"
    )]
    BadCharacter {
        /// The whole text.
        name: String,
        /// The first of them.
        bad: char,
    },
    /// A character that a name may have, but not begin with.
    #[error("{name:?} begins with {bad:?}: a name begins with a letter or digit")]
    BadBeginning {
        /// The whole text.
        name: String,
        /// Its first character.
        bad: char,
    },
    /// Sixteen hexadecimal digits are a run id, never a name.
    #[error("{0:?} is shaped like a run id (16 hexadecimal digits): choose another name")]
    LikeRunId(String),
    /// Not a run id, where one is needed.
    #[error("{0:?} is not a run id: 16 hexadecimal digits")]
    NotRunId(String),
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let name = || text.to_owned();
    let inside = |c: char| "._@+-".contains(c);
    let allowed = |c: char| c.is_ascii_alphanumeric() || inside(c);
    if let Some(bad) = text.chars().find(|&c| !allowed(c)) {
        return Err(NameError::BadCharacter { name: name(), bad });
    }
    if let Some(bad) = text.chars().next().filter(|&c| inside(c)) {
        return Err(NameError::BadBeginning { name: name(), bad });
    }
    if text.len() > 128 {
        return Err(NameError::TooLong(text.len()));
    }
    if is_run_id(text) {
        return Err(NameError::LikeRunId(text.to_owned()));
    }
    Ok(())
}

fn is_run_id(text: &str) -> bool {
    text.len() == RunId::DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text).map(|()| $name(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// The name of a job: `[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}`, not shaped like a run id. Safe as a file name.
    JobName
);
name!(
    /// The name of a lock; the same characters as a job's name. Safe as a file name.
    LockName
);

impl From<JobName> for LockName {
    /// A job's lock has the job's name unless told otherwise.
    fn from(job: JobName) -> LockName {
        LockName(job.0)
    }
}

/// A run's (or refused attempt's) random id: 64 random bits as 16 lower-case hexadecimal digits.
/// It is also the owner of a grant; containers share host names and pids, never this.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// How many digits a run id has.
    pub const DIGITS: usize = 16;
    /// How many of its first digits are enough on the command line.
    pub const SHORT: usize = 6;

    /// A new one from getrandom(2).
    pub fn random() -> Self {
        let mut bytes = [0u8; 8];
        let mut filled = 0;
        while filled < bytes.len() {
            if let Ok(n) =
                rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            {
                filled += n;
            }
        }
        RunId(format!("{:016x}", u64::from_ne_bytes(bytes)))
    }

    /// All 16 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..Self::SHORT]
    }
}

impl FromStr for RunId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_run_id(text) {
            Ok(RunId(text.to_owned()))
        } else {
            Err(NameError::NotRunId(text.to_owned()))
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A fencing token: the first grant of a lock has 1, each later one exactly one more, over
/// releases, crashes and revocations. Hand it to what the job writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Token(pub u64);

impl Token {
    /// The greatest that is read from anywhere: SQLite's integers hold the one after it too. What says that it is greater was
    /// not written by us, and to count on from there would begin at 0 again.
    pub const LAST: Token = Token(i64::MAX.unsigned_abs() - 1);

    /// The token of the grant after this one.
    #[must_use]
    pub fn next(self) -> Token {
        Token(self.0 + 1)
    }
}

/// A number that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} is no token: the greatest is {last}", last = Token::LAST)]
pub struct TokenError(u64);

impl TryFrom<u64> for Token {
    type Error = TokenError;

    fn try_from(number: u64) -> Result<Self, TokenError> {
        if number <= Self::LAST.0 {
            Ok(Token(number))
        } else {
            Err(TokenError(number))
        }
    }
}

impl From<Token> for u64 {
    fn from(token: Token) -> u64 {
        token.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a")]
    #[case("person-sync")]
    #[case("A.b_c@d+e-9")]
    #[case("decade")]
    #[case("deadbeefdeadbee")]
    fn good_names(#[case] text: &str) {
        assert!(text.parse::<JobName>().is_ok());
    }

    #[rstest]
    #[case("")]
    #[case("-a")]
    #[case(".a")]
    #[case("a/b")]
    #[case("a b")]
    #[case("ä")]
    #[case("a\nb")]
    #[case("deadbeefdeadbeef")]
    #[case(&"x".repeat(129))]
    fn bad_names(#[case] text: &str) {
        assert!(text.parse::<JobName>().is_err());
    }

    #[test]
    fn a_token_can_always_be_counted_on_and_stored() {
        assert_eq!(Token::try_from(Token::LAST.0), Ok(Token::LAST));
        assert!(i64::try_from(Token::LAST.next().0).is_ok());
        for number in [Token::LAST.0 + 1, u64::MAX] {
            assert_eq!(Token::try_from(number), Err(TokenError(number)));
            assert!(serde_json::from_str::<Token>(&number.to_string()).is_err());
        }
    }

    #[test]
    fn random_ids_parse_and_differ() {
        let (a, b) = (RunId::random(), RunId::random());
        assert_ne!(a, b);
        assert_eq!(a.as_str().parse::<RunId>().as_ref(), Ok(&a));
    }
}
