//! `history`: attempts, newest first.

use serde::Serialize;

use super::Page;
use super::json::RunJson;
use super::record::{duration, outcome_cell, token, user};
use super::table::{Words, table};
use crate::store::record::RunRecord;

/// As a table. Nothing for no attempts: the caller says so on stderr.
pub fn text(page: &Page, runs: &[RunRecord]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let rows = runs
        .iter()
        .map(|run| {
            vec![
                run.run_id.short().into(),
                run.job.as_str().into(),
                outcome_cell(run),
                started(page, run),
                duration(page, run).into(),
                run.host.as_str().into(),
                run.trigger.as_str().into(),
                user(&run.who).into(),
                token(run).into(),
            ]
        })
        .collect();
    table(page, &["run", "job", "outcome", "started", "took", "host", "trigger", "who", "token"], rows)
}

fn started(page: &Page, run: &RunRecord) -> Words {
    page.when(run.started).into()
}

/// `history --json`.
#[derive(Debug, Serialize)]
pub struct HistoryJson<'a> {
    runs: Vec<RunJson<'a>>,
}

impl<'a> HistoryJson<'a> {
    /// Of these runs, in this order.
    pub fn new(runs: &'a [RunRecord]) -> Self {
        HistoryJson { runs: runs.iter().map(RunJson::from).collect() }
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
            "a1b2c3", "person-sync", "failed (exit 3)", "2026-11-22 08:56:40 (3 min ago)", "30 s", "green",
            "schedule", "root (sudo: ann)", "5",
        ];
        let mut rest = row;
        for cell in cells {
            let at = rest.find(cell).unwrap_or_else(|| panic!("{cell} is missing or out of order in {row:?}"));
            rest = &rest[at + cell.len()..];
        }
    }

    #[test]
    fn a_refused_attempt_names_the_holders_host() {
        assert!(text(&page(None), &[run("sync", 60, Outcome::Refused)]).contains("held by blue"));
    }

    #[test]
    fn eighty_columns_are_enough() {
        let runs: Vec<_> = Outcome::ALL.iter().map(|o| run("person-placement-training-body", 90_000, *o)).collect();
        let text = text(&page(Some(80)), &runs);
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    }

    #[test]
    fn no_attempts_no_table() {
        assert_eq!(text(&page(None), &[]), "");
    }
}
