//! The values of the jobs file's keys: of the right kind, and right.

use std::collections::BTreeMap;

use toml::de::DeValue;

use crate::cli;
use crate::duration::{self, Span};
use crate::guess;
use crate::redact::{self, Pattern};
use crate::store::record::Outcome;

/// The most output that can be kept: it goes through memory and into one row.
const MOST_CAPTURE: u64 = 16 << 20;

/// Why a value is wrong.
pub enum Fault {
    /// Not of the kind that the key wants.
    Kind,
    /// Of the right kind, but not a part of it.
    Part {
        /// `element 2`, or a key.
        part: String,
        /// Its kind.
        kind: &'static str,
    },
    /// Of the right kind, but…
    Text(String),
}

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        Fault::Text(error.to_string())
    }
}

pub fn text_of<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Fault> {
    value.as_str().ok_or(Fault::Kind)
}

pub fn flag(value: &DeValue<'_>) -> Result<bool, Fault> {
    value.as_bool().ok_or(Fault::Kind)
}

/// `90` and `0.5` may stand without quotes.
pub fn number_or_text(value: &DeValue<'_>) -> Result<String, Fault> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        _ => Err(Fault::Kind),
    }
}

pub fn span(value: &DeValue<'_>) -> Result<Span, Fault> {
    Ok(number_or_text(value)?.parse()?)
}

pub fn keep(value: &DeValue<'_>) -> Result<Span, Fault> {
    Ok(duration::keep(&number_or_text(value)?)?)
}

pub fn exit_code(value: &DeValue<'_>) -> Result<u8, Fault> {
    let number = value.as_integer().ok_or(Fault::Kind)?;
    number
        .as_str()
        .parse()
        .map_err(|_| Fault::Text(format!("{number} is no exit code: write 0 to 255")))
}

pub fn patterns(value: &DeValue<'_>) -> Result<Vec<Pattern>, Fault> {
    texts(value)?
        .iter()
        .map(|text| Ok(redact::pattern(text)?))
        .collect()
}

pub fn waiters(value: &DeValue<'_>) -> Result<u32, Fault> {
    let number = value.as_integer().ok_or(Fault::Kind)?;
    let parsed = number.as_str().parse().ok();
    parsed.filter(|n| (1..=1000).contains(n)).ok_or_else(|| {
        Fault::Text(format!(
            "{number} waiters can't be: write 1 to 1000, or leave wait out"
        ))
    })
}

pub fn texts(value: &DeValue<'_>) -> Result<Vec<String>, Fault> {
    let array = value.as_array().ok_or(Fault::Kind)?;
    (1..)
        .zip(array)
        .map(|(n, v)| Ok(part(&format!("element {n}"), v.get_ref())?.to_owned()))
        .collect()
}

fn part<'v>(name: &str, value: &'v DeValue<'_>) -> Result<&'v str, Fault> {
    value.as_str().ok_or_else(|| Fault::Part {
        part: name.to_owned(),
        kind: value.type_str(),
    })
}

pub fn command(value: &DeValue<'_>) -> Result<Vec<String>, Fault> {
    if let Some(line) = value.as_str() {
        let words: Vec<_> = line.split_whitespace().map(|w| format!("{w:?}")).collect();
        return Err(Fault::Text(format!(
            "a command is an array, not one text: write [{}], or [\"sh\", \"-c\", {line:?}] if a shell must read it",
            words.join(", ")
        )));
    }
    let words = texts(value)?;
    match words.first() {
        None => Err(Fault::Text(
            "the array is empty: give a program, or leave the key out".to_owned(),
        )),
        Some(program) if program.is_empty() => {
            Err(Fault::Text("the program's name is empty".to_owned()))
        }
        Some(_) if words.iter().any(|w| w.contains('\0')) => Err(Fault::Text(
            "an argument can't have a NUL character".to_owned(),
        )),
        Some(_) => Ok(words),
    }
}

pub fn tags(value: &DeValue<'_>) -> Result<BTreeMap<String, String>, Fault> {
    let table = value.as_table().ok_or(Fault::Kind)?;
    let mut tags = BTreeMap::new();
    for (key, value) in table {
        let tag = format!(
            "{}={}",
            key.get_ref(),
            part(key.get_ref(), value.get_ref())?
        );
        let (key, value) = cli::tag(&tag).map_err(Fault::Text)?;
        tags.insert(key, value);
    }
    Ok(tags)
}

pub fn capture(value: &DeValue<'_>) -> Result<Option<usize>, Fault> {
    let text = number_or_text(value)?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => Some(1),
        "K" | "k" | "KB" | "KiB" => Some(1 << 10),
        "M" | "MB" | "MiB" => Some(1 << 20),
        _ => None,
    };
    let bytes = digits
        .trim()
        .parse::<u64>()
        .ok()
        .zip(unit)
        .and_then(|(n, unit)| n.checked_mul(unit));
    match bytes {
        Some(0) => Ok(None),
        Some(n) if n <= MOST_CAPTURE => Ok(usize::try_from(n).ok()),
        _ => Err(Fault::Text(format!(
            "{text:?} is no size up to 16M: write a number of bytes, 64K or 1M"
        ))),
    }
}

pub fn uuid(value: &DeValue<'_>) -> Result<String, Fault> {
    let text = text_of(value)?;
    let right = text.len() == 36
        && text.char_indices().all(|(i, c)| {
            if [8, 13, 18, 23].contains(&i) {
                c == '-'
            } else {
                c.is_ascii_hexdigit()
            }
        });
    if right {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Fault::Text(format!(
            "{text:?} is no UUID: write the one that joblock doctor prints"
        )))
    }
}

pub fn outcomes(value: &DeValue<'_>) -> Result<Vec<Outcome>, Fault> {
    let words = texts(value)?;
    if words.is_empty() {
        return Err(Fault::Text(
            "the array is empty: name outcomes, like [\"failed\", \"lost\"]".to_owned(),
        ));
    }
    let ends = || {
        Outcome::ALL
            .iter()
            .copied()
            .filter(|o| *o != Outcome::Running)
    };
    words
        .iter()
        .map(|word| {
            ends().find(|o| o.as_str() == word).ok_or_else(|| {
                let all: Vec<_> = ends().map(Outcome::as_str).collect();
                let guess = guess::did_you_mean(word, all.iter().copied());
                let rest = if guess.is_empty() {
                    format!(": there are {}", all.join(", "))
                } else {
                    guess
                };
                Fault::Text(format!("unknown outcome {word:?}{rest}"))
            })
        })
        .collect()
}

pub fn webhook(value: &DeValue<'_>) -> Result<String, Fault> {
    let text = text_of(value)?;
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let right = host.is_some_and(|h| !h.is_empty() && !h.starts_with('/'))
        && !text.contains(char::is_whitespace);
    if right {
        Ok(text.to_owned())
    } else {
        Err(Fault::Text(format!(
            "{text:?} is no URL: write https://HOST/PATH"
        )))
    }
}
