//! `doctor`: what was found, and a verdict.

use serde::Serialize;

use super::Page;
use super::json::{StoreJson, kind};
use super::table::{Tone, Words, paint, table};
use super::text::visible;
use crate::peer::Outcome;
use crate::peer::side::Side;
use crate::peer::verdict::{Measured, measured};
use crate::store::{About, Finding, Level};

/// The worst of the findings; all is well where nothing was found.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|f| f.level).max().unwrap_or(Level::Ok)
}

fn tone(level: Level) -> Tone {
    match level {
        Level::Ok => Tone::Good,
        Level::Warning => Tone::Warn,
        Level::Bad => Tone::Bad,
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Bad => "bad",
    }
}

fn verdict(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    match (count(Level::Bad), count(Level::Warning)) {
        (0, 0) => "all is well".to_owned(),
        (0, 1) => "it works; 1 thing could be better".to_owned(),
        (0, n) => format!("it works; {n} things could be better"),
        (1, _) => "don't rely on it: 1 thing is bad".to_owned(),
        (n, _) => format!("don't rely on it: {n} things are bad"),
    }
}

/// As a list with the verdict below; `repeat`: and with what is not well once more, for who reads the end of a long list.
pub fn text(page: &Page, about: Option<&About>, findings: &[Finding], repeat: bool) -> String {
    let mut out = String::new();
    if let Some(about) = about {
        out.push_str(&store_line(about));
        out.push('\n');
    }
    let row = |f: &Finding| {
        vec![
            Words::toned(word(f.level), tone(f.level)),
            f.what.as_str().into(),
            f.detail.as_str().into(),
        ]
    };
    out.push_str(&table(
        page,
        &["", "looked at", "found"],
        findings.iter().map(row).collect(),
    ));
    out.push_str(&paint(page, tone(worst(findings)), &verdict(findings)));
    out.push('\n');
    for finding in findings.iter().filter(|f| repeat && f.level > Level::Ok) {
        let line = format!("- {}: {}", finding.what, finding.detail);
        out.push_str(&visible(&line));
        out.push('\n');
    }
    out
}

/// `store sqlite:/var/lib/joblock/joblock.db (local, ext4, id 0d9f…, format 1)`.
pub fn store_line(about: &About) -> String {
    format!(
        "store {} ({}, {}, id {}, format {})",
        about.url,
        kind(about),
        about.file_system,
        about.id,
        about.format
    )
}

/// `doctor --json`.
#[derive(Debug, Serialize)]
pub struct DoctorJson<'a> {
    store: Option<StoreJson<'a>>,
    verdict: Level,
    findings: &'a [Finding],
    peer: Option<PeerJson<'a>>,
}

/// What `--peer` adds.
#[derive(Debug, Serialize)]
struct PeerJson<'a> {
    came: bool,
    here: Option<&'a Side>,
    there: Option<&'a Side>,
    measured: Option<Measured>,
}

impl<'a> From<&'a Outcome> for PeerJson<'a> {
    fn from(outcome: &'a Outcome) -> Self {
        let both = match outcome {
            Outcome::Through(both) => Some(both),
            _ => None,
        };
        let there = match outcome {
            Outcome::Broken { there, .. } => there.as_deref(),
            _ => both.map(|both| &both.there),
        };
        PeerJson {
            came: there.is_some() || matches!(outcome, Outcome::Foreign(_)),
            here: both.map(|both| &both.here),
            there,
            measured: both
                .filter(|both| !both.here.is_taken_for(&both.there))
                .map(|both| measured(both)),
        }
    }
}

impl<'a> DoctorJson<'a> {
    /// Of these findings.
    pub fn new(
        about: Option<&'a About>,
        findings: &'a [Finding],
        outcome: Option<&'a Outcome>,
    ) -> Self {
        DoctorJson {
            store: about.map(StoreJson::from),
            verdict: worst(findings),
            findings,
            peer: outcome.map(PeerJson::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::record::tests::page;
    use rstest::rstest;

    fn finding(level: Level) -> Finding {
        Finding {
            level,
            what: "the journal".into(),
            detail: "wal".into(),
        }
    }

    #[rstest]
    #[case(&[Level::Ok], Level::Ok, "all is well")]
    #[case(&[Level::Ok, Level::Warning], Level::Warning, "it works; 1 thing could be better")]
    #[case(&[Level::Bad, Level::Warning, Level::Bad], Level::Bad, "don't rely on it: 2 things are bad")]
    fn the_worst_decides(#[case] levels: &[Level], #[case] expected: Level, #[case] said: &str) {
        let findings: Vec<_> = levels.iter().copied().map(finding).collect();
        assert_eq!(worst(&findings), expected);
        assert!(text(&page(None), None, &findings, false).ends_with(&format!("{said}\n")));
    }

    #[test]
    fn the_store_is_named_first() {
        let about = About {
            url: "sqlite:/j.db".into(),
            id: "0d9f".into(),
            shared: true,
            format: 1,
            file_system: "nfs4".into(),
        };
        let text = text(&page(None), Some(&about), &[finding(Level::Ok)], true);
        assert!(
            text.starts_with("store sqlite:/j.db (shared, nfs4, id 0d9f, format 1)\n"),
            "{text}"
        );
    }
}
