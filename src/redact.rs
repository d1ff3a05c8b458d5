//! Hides parts of a command before anything of it is stored or printed: `--redact`, and `redact` in the jobs file.
//!
//! Not guaranteed: anything about what a pattern does not match. One that is spread over two arguments is not matched,
//! and neither output, nor reason, nor tags are looked at. The command itself runs with its arguments as they are, and the
//! system shows them to every user (`ps`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

/// What stands in the place of what was hidden.
pub const HIDDEN: &str = "***";

/// A compiled pattern may take so much memory: a mistake in it must not take all.
const LARGEST: usize = 1 << 20;

/// A pattern: a regular expression over bytes. Its first group is hidden, or all that it matches if it has none.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// Why a text is no pattern. Displays as a fragment that says where it goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// It would match nothing, everywhere.
    #[error("a pattern can't be empty: leave it out, or write what is to be hidden")]
    Empty,
    /// No regular expression.
    #[error("the pattern {pattern:?} is wrong at character {at}: {why}")]
    Syntax {
        /// As given.
        pattern: String,
        /// Where, from 1.
        at: usize,
        /// What.
        why: String,
    },
    /// Too much of one.
    #[error("the pattern {0:?} is too large: write it shorter, or as several")]
    Large(String),
}

/// Reads a pattern.
pub fn pattern(text: &str) -> Result<Pattern, PatternError> {
    if text.is_empty() {
        return Err(PatternError::Empty);
    }
    // Arguments are bytes, and without Unicode's tables a pattern costs a start next to nothing.
    let built = RegexBuilder::new(text)
        .unicode(false)
        .size_limit(LARGEST)
        .build();
    match built {
        Ok(regex) => Ok(Pattern {
            text: text.to_owned(),
            regex,
        }),
        Err(regex::Error::CompiledTooBig(_)) => Err(PatternError::Large(text.to_owned())),
        Err(_) => Err(located(text)),
    }
}

fn located(text: &str) -> PatternError {
    let parsed = regex_syntax::ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .build()
        .parse(text);
    let (offset, why) = match parsed {
        Err(regex_syntax::Error::Parse(error)) => {
            (error.span().start.offset, error.kind().to_string())
        }
        Err(regex_syntax::Error::Translate(error)) => {
            (error.span().start.offset, error.kind().to_string())
        }
        _ => (0, "it can't be understood".to_owned()),
    };
    PatternError::Syntax {
        pattern: text.to_owned(),
        at: 1 + text[..offset].chars().count(),
        why,
    }
}

/// `command` with what `patterns` hide; the same if they hide nothing of it.
pub fn redacted(command: &[OsString], patterns: &[Pattern]) -> Vec<OsString> {
    command
        .iter()
        .map(|argument| {
            patterns.iter().fold(argument.clone(), |argument, pattern| {
                pattern.hide(&argument)
            })
        })
        .collect()
}

impl Pattern {
    fn hide(&self, argument: &OsStr) -> OsString {
        let bytes = argument.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let mut copied = 0;
        for found in self.regex.captures_iter(bytes) {
            // a group that took no part in the match does not spare the rest of it
            let Some(part) = found.get(1).or_else(|| found.get(0)) else {
                continue;
            };
            if !part.is_empty() {
                out.extend(&bytes[copied..part.start()]);
                out.extend(HIDDEN.as_bytes());
                copied = part.end();
            }
        }
        out.extend(&bytes[copied..]);
        OsString::from_vec(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn hidden(patterns: &[&str], argument: &[u8]) -> Vec<u8> {
        let patterns: Vec<_> = patterns.iter().map(|p| pattern(p).unwrap()).collect();
        let command = [OsString::from_vec(argument.to_vec())];
        redacted(&command, &patterns).remove(0).into_vec()
    }

    #[rstest]
    #[case::whole(&["hunter2"], "-phunter2", "-p***")]
    #[case::group(&["password=(.*)"], "--password=a b", "--password=***")]
    #[case::first_group(&["(a)(b)"], "xaby", "x***by")]
    #[case::group_without_a_part(&["(a)?b"], "xb", "x***")]
    #[case::every_match(&["t=([^&]*)"], "t=1&u=2&t=3", "t=***&u=2&t=***")]
    #[case::url(&["://[^:/@]*:([^@]*)@"], "postgres://app:s3cret@db/x", "postgres://app:***@db/x")]
    #[case::case(&["(?i)TOKEN=(.+)"], "Token=1", "Token=***")]
    #[case::classes(&[r"\bk\w+\d\b"], "a key1 b", "a *** b")]
    #[case::several(&["a", "b"], "abc", "******c")]
    #[case::nothing_of_nothing(&["x*"], "ab", "ab")]
    #[case::empty_group(&["p=(.*)"], "p=", "p=")]
    #[case::not_there(&["z"], "ab", "ab")]
    #[case::more_than_ascii(&["schlüssel=(.*)"], "schlüssel=süß", "schlüssel=***")]
    #[case::lines(&["(?s)KEY(.*)"], "KEY1\n2", "KEY***")]
    fn parts_are_hidden(#[case] patterns: &[&str], #[case] argument: &str, #[case] shown: &str) {
        assert_eq!(
            String::from_utf8_lossy(&hidden(patterns, argument.as_bytes())),
            shown
        );
    }

    #[test]
    fn bytes_that_are_no_utf8_are_hidden_and_kept_as_others_are() {
        assert_eq!(hidden(&["k=(.+)"], b"\xffk=\xfe\xff"), b"\xffk=***");
    }

    #[test]
    fn what_is_spread_over_two_arguments_is_not_matched() {
        let command = ["--password".into(), "secret".into()];
        let patterns = [pattern("--password.(.*)").unwrap()];
        assert_eq!(redacted(&command, &patterns), command);
    }

    #[rstest]
    #[case("a(b", "at character 2: unclosed group")]
    #[case("ä[z-a]", "at character 3: invalid character class range")]
    #[case("(?<=a)b", "at character 1: look-around")]
    #[case("*", "at character 1: repetition operator missing expression")]
    #[case("", "can't be empty")]
    #[case(r"\w{1000}{1000}", "too large")]
    fn bad_patterns_say_where(#[case] text: &str, #[case] says: &str) {
        let message = pattern(text).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
}
