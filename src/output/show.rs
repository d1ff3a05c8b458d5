//! `show`: everything about one attempt.

use serde::Serialize;

use super::Page;
use super::json::{RunJson, TailJson};
use super::record::{duration, holder, outcome_cell, signal, user};
use super::table::{Tone, Words, list, paint, table};
use super::text::{command_line, visible};
use super::time::{memory, took};
use crate::store::record::{End, OutOfMemory, RunRecord, Tail, UnsafeMount};

/// How many of the last lines of output are shown.
const LINES: usize = 10;

/// As a list of names and values, then the end of the output.
pub fn text(page: &Page, run: &RunRecord, tail: Option<&Tail>) -> String {
    let mut rows: Vec<(&str, Words)> = vec![
        ("run", run.run_id.as_str().into()),
        ("job", run.job.as_str().into()),
        ("lock", run.lock.as_str().into()),
        ("outcome", outcome_cell(run)),
    ];
    let mut row = |name, words: Words| rows.push((name, words));
    if let Some(token) = run.token {
        row("token", token.to_string().into());
    }
    if let Some(holder_then) = &run.held_by {
        row("lock held by", holder(page, holder_then).into());
    }
    row("started", page.when(run.started).into());
    if let Some(end) = &run.end {
        row("ended", page.when(end.at).into());
    }
    let how_long = duration(page, run);
    if !how_long.is_empty() {
        row("took", how_long.into());
    }
    if let Some(end) = &run.end {
        ending(end, &mut row);
    }
    let terminal = run
        .who
        .terminal
        .as_deref()
        .map(|t| format!(" on {t}"))
        .unwrap_or_default();
    row("trigger", run.trigger.as_str().into());
    row(
        "who",
        format!("{} (uid {}){terminal}", user(&run.who), run.who.uid).into(),
    );
    if let Some(reason) = &run.reason {
        row("reason", reason.as_str().into());
    }
    for (key, value) in &run.tags {
        row("tag", format!("{key}={value}").into());
    }
    if let Some(repeated) = &run.repeats {
        row("repeats run", repeated.as_str().into());
    }
    row("host", format!("{} (pid {})", run.host, run.pid).into());
    row("boot", run.boot_id.as_str().into());
    if let Some(container) = &run.container {
        row("container", container.as_str().into());
    }
    if let Some(counter) = run.oom_counters.first() {
        row(
            "cgroup",
            counter.folder.to_string_lossy().into_owned().into(),
        );
    }
    row("command", command_line(&run.command).into());
    if run.redacted {
        row("redacted", "parts of the command were hidden".into());
    }
    if let Some(accepted) = &run.unsafe_mount {
        row("unsafe mount", unsafe_mount(accepted));
    }
    row("folder", run.cwd.to_string_lossy().into_owned().into());
    let notes = [
        run.note.as_ref(),
        run.end.as_ref().and_then(|e| e.note.as_ref()),
    ];
    for note in notes.into_iter().flatten() {
        row("note", Words::toned(note.as_str(), Tone::Warn));
    }
    let mut text = list(page, &rows);
    if let Some(tail) = tail.filter(|t| t.total > 0) {
        text.push_str(&output(page, tail));
    }
    text
}

/// Why it was started although the store's mount lies, and what was accepted.
fn unsafe_mount(unsafe_mount: &UnsafeMount) -> Words {
    let UnsafeMount { reason, accepted } = unsafe_mount;
    if accepted.is_empty() {
        return format!("would have been accepted ({reason}), and the mount was fine").into();
    }
    let text = format!("accepted ({reason}): {}", accepted.join("; "));
    Words::toned(text, Tone::Warn)
}

fn ending(end: &End, row: &mut impl FnMut(&'static str, Words)) {
    if let Some(code) = end.exit_code {
        row("exit code", code.to_string().into());
    }
    if let Some(number) = end.signal {
        row("signal", format!("{} ({number})", signal(number)).into());
    }
    let tone = if end.out_of_memory == OutOfMemory::Yes {
        Tone::Bad
    } else {
        Tone::Plain
    };
    row(
        "out of memory",
        Words::toned(end.out_of_memory.as_str(), tone),
    );
    if let Some(kib) = end.peak_memory_kib {
        row("peak memory", memory(kib).into());
    }
    if let Some(cpu) = end.cpu {
        row("cpu time", took(cpu).into());
    }
    if end.leaked > 0 {
        row(
            "left running",
            Words::toned(
                format!(
                    "{} {}, gone before the lock was free",
                    end.leaked,
                    if end.leaked == 1 {
                        "process"
                    } else {
                        "processes"
                    }
                ),
                Tone::Warn,
            ),
        );
    }
}

/// The last lines of the output, under a heading that says how much there is.
fn output(page: &Page, tail: &Tail) -> String {
    let whole = String::from_utf8_lossy(&tail.bytes);
    let lines: Vec<&str> = whole.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LINES)..];
    let kept = u64::try_from(tail.bytes.len()).unwrap_or(u64::MAX);
    let all = kept >= tail.total && shown.len() == lines.len();
    let heading = if all {
        format!("output ({} bytes):", tail.total)
    } else {
        format!(
            "the last lines of its output ({} bytes, `joblock logs` prints the {kept} kept):",
            tail.total
        )
    };
    let mut text = format!("\n{}\n", paint(page, Tone::Faint, &heading));
    for line in shown {
        text.push_str("  ");
        text.push_str(&visible(line));
        text.push('\n');
    }
    text
}

/// Runs that a prefix could mean, for people to choose from.
pub fn candidates(page: &Page, runs: &[RunRecord]) -> String {
    let row = |run: &RunRecord| {
        vec![
            run.run_id.as_str().into(),
            run.job.as_str().into(),
            outcome_cell(run),
            page.when(run.started).into(),
        ]
    };
    table(
        page,
        &["run", "job", "outcome", "started"],
        runs.iter().map(row).collect(),
    )
}

/// `show --json`.
#[derive(Debug, Serialize)]
pub struct ShowJson<'a> {
    run: RunJson<'a>,
    output: Option<TailJson>,
}

impl<'a> ShowJson<'a> {
    /// Of this run and its output.
    pub fn new(run: &'a RunRecord, tail: Option<&Tail>) -> Self {
        ShowJson {
            run: run.into(),
            output: tail.map(TailJson::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::record::tests::{page, run};
    use crate::store::record::Outcome;

    fn value<'a>(text: &'a str, name: &str) -> &'a str {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)
                    .filter(|rest| rest.starts_with("  "))
            })
            .unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .trim()
    }

    #[test]
    fn everything_about_a_run_is_there() {
        let mut record = run("sync", 200, Outcome::Signaled);
        record.reason = Some("the index was broken".into());
        record.tags.insert("ticket".into(), "OPS-7".into());
        record.repeats = Some("0123456789abcdef".parse().expect("a run id"));
        record.note = Some("first".into());
        let end = record.end.as_mut().expect("it has ended");
        end.note = Some("second".into());
        end.leaked = 2;
        end.out_of_memory = OutOfMemory::Unknown;
        let text = text(&page(None), &record, None);
        for (name, expected) in [
            ("run", "a1b2c3d4e5f60718"),
            ("outcome", "signaled (KILL)"),
            ("signal", "KILL (9)"),
            ("started", "2026-11-22 08:56:40 (3 min ago)"),
            ("took", "30 s"),
            ("out of memory", "unknown"),
            ("peak memory", "12 MiB"),
            ("cpu time", "1.2 s"),
            ("left running", "2 processes, gone before the lock was free"),
            ("who", "root (sudo: ann) (uid 0)"),
            ("reason", "the index was broken"),
            ("tag", "ticket=OPS-7"),
            ("repeats run", "0123456789abcdef"),
            ("host", "green (pid 4711)"),
            ("command", "sync 'all people'"),
            ("note", "first"),
        ] {
            assert_eq!(value(&text, name), expected);
        }
        assert!(text.contains("second"), "{text}");
    }

    #[test]
    fn a_refused_one_says_who_held_the_lock() {
        let text = text(&page(None), &run("sync", 60, Outcome::Refused), None);
        assert!(
            value(&text, "lock held by")
                .starts_with("run 00ff00 of sync on blue (pid 7), startup, root, since")
        );
    }

    #[test]
    fn only_the_last_lines_of_the_output() {
        let bytes: Vec<u8> = (0..30)
            .flat_map(|n| format!("line {n}\n").into_bytes())
            .collect();
        let tail = Tail {
            total: 9_000_000,
            bytes,
        };
        let text = text(&page(None), &run("sync", 60, Outcome::Failed), Some(&tail));
        assert!(
            text.contains("9000000 bytes")
                && text.contains("  line 29\n")
                && text.contains("  line 20\n"),
            "{text}"
        );
        assert!(!text.contains("line 19"), "{text}");
    }

    #[test]
    fn output_moves_no_cursor() {
        let tail = Tail {
            bytes: b"a\x1b[2J\xff".to_vec(),
            total: 7,
        };
        let text = text(&page(None), &run("sync", 60, Outcome::Failed), Some(&tail));
        assert!(text.ends_with("  a\\x1b[2J\u{fffd}\n"), "{text}");
    }

    #[test]
    fn candidates_show_their_whole_ids() {
        assert!(
            candidates(&page(None), &[run("sync", 60, Outcome::Failed)])
                .contains("a1b2c3d4e5f60718")
        );
    }
}
