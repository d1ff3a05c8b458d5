//! `history`: attempts, newest first.

use serde::Serialize;

use super::Page;
use super::json::RunJson;
use super::record::{duration, outcome, outcome_cell, token, tone, user};
use super::table::{Tone, Words, table};
use crate::store::record::RunRecord;

/// A terminal this wide shows an attempt on one line.
const ONE_LINE: u16 = 120;

/// As a table. Nothing for no attempts: the caller says so on stderr.
pub fn text(page: &Page, runs: &[RunRecord]) -> String {
    if runs.is_empty() {
        String::new()
    } else if page.width.is_some_and(|width| width < ONE_LINE) {
        table(
            page,
            &["run", "job", "outcome", "started", "on", "by"],
            runs.iter().map(|r| narrow(page, r)).collect(),
        )
    } else {
        let header = [
            "run", "job", "outcome", "started", "took", "host", "trigger", "who", "token",
        ];
        table(page, &header, runs.iter().map(|r| wide(page, r)).collect())
    }
}

fn wide(page: &Page, run: &RunRecord) -> Vec<Words> {
    vec![
        run.run_id.short().into(),
        run.job.as_str().into(),
        outcome_cell(run),
        page.when(run.started).into(),
        duration(page, run).into(),
        run.host.as_str().into(),
        run.trigger.as_str().into(),
        user(&run.who).into(),
        token(run).into(),
    ]
}

/// The same on two lines.
fn narrow(page: &Page, run: &RunRecord) -> Vec<Words> {
    let with = |first: String, word: &str, second: String| {
        let second = (!second.is_empty()).then(|| format!("{word}{second}"));
        Words::lines(
            [Some(first), second].into_iter().flatten().collect(),
            Tone::Plain,
        )
    };
    let took = duration(page, run);
    let took = (!took.is_empty()).then(|| format!("in {took}"));
    vec![
        run.run_id.short().into(),
        run.job.as_str().into(),
        Words::lines(
            [Some(outcome(run)), took].into_iter().flatten().collect(),
            tone(run.outcome),
        ),
        with(
            page.short_stamp(run.started),
            "",
            page.distance(run.started),
        ),
        with(run.host.clone(), "token ", token(run)),
        with(run.trigger.to_string(), "", user(&run.who)),
    ]
}

/// `history --json`.
#[derive(Debug, Serialize)]
pub struct HistoryJson<'a> {
    runs: Vec<RunJson<'a>>,
}

impl<'a> HistoryJson<'a> {
    /// Of these runs, in this order.
    pub fn new(runs: &'a [RunRecord]) -> Self {
        HistoryJson {
            runs: runs.iter().map(RunJson::from).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::record::tests::{page, run};
    use crate::store::record::Outcome;

    #[test]
    fn a_row_says_what_when_where_and_by_whom() {
        let text = text(&page(None), &[run("person-sync", 200, Outcome::Failed)]);
        let row = text.lines().nth(1).expect("a row");
        let cells = [
            "a1b2c3",
            "person-sync",
            "failed (exit 3)",
            "2026-11-22 08:56:40 (3 min ago)",
            "30 s",
            "green",
            "schedule",
            "root (sudo: ann)",
            "5",
        ];
        let mut rest = row;
        for cell in cells {
            let at = rest
                .find(cell)
                .unwrap_or_else(|| panic!("{cell} is missing or out of order in {row:?}"));
            rest = &rest[at + cell.len()..];
        }
    }

    #[test]
    fn a_refused_attempt_names_the_holders_host() {
        assert!(text(&page(None), &[run("sync", 60, Outcome::Refused)]).contains("held by blue"));
    }

    #[test]
    fn eighty_columns_are_enough() {
        let runs: Vec<_> = Outcome::ALL
            .iter()
            .map(|o| run("person-placement-training-body", 90_000, *o))
            .collect();
        let text = text(&page(Some(80)), &runs);
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    }

    #[test]
    fn no_attempts_no_table() {
        assert_eq!(text(&page(None), &[]), "");
    }
}
