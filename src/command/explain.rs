//! `joblock run --explain`: what would be done and where each part comes from. Starts nothing, writes
//! nothing, creates nothing.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::{Value, json};

use super::Setting;
use crate::cli::mistakes::quoted;
use crate::cli::{Global, RunArgs};
use crate::duration;
use crate::exit;
use crate::plan::{self, Leftovers, Planned, Source, Wait, store_url_text};

/// One part of the plan.
struct Part {
    name: &'static str,
    /// For people.
    text: String,
    /// For programs.
    value: Value,
    source: String,
}

/// Prints the plan of `args`.
pub fn run(args: &RunArgs, global: &Global) -> anyhow::Result<u8> {
    let setting = Setting::read(global)?;
    let planned = plan::plan(
        args,
        setting.file.as_ref(),
        setting.store,
        &setting.environment,
    )?;
    let parts = parts(&planned);
    let text = if args.json {
        as_json(&parts)
    } else {
        as_text(&parts)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(exit::OK)
}

fn as_text(parts: &[Part]) -> String {
    let widest = |of: fn(&Part) -> &str| {
        parts
            .iter()
            .map(|p| of(p).chars().count())
            .max()
            .unwrap_or(0)
    };
    let (name, text) = (widest(|p| p.name), widest(|p| &p.text).min(48));
    let mut out = String::new();
    for part in parts {
        let _ = writeln!(
            out,
            "{:name$}  {:text$}  [{}]",
            part.name, part.text, part.source
        );
    }
    out
}

fn as_json(parts: &[Part]) -> String {
    let plan: serde_json::Map<_, _> = parts
        .iter()
        .map(|p| {
            (
                p.name.replace(' ', "_"),
                json!({ "value": p.value, "source": p.source }),
            )
        })
        .collect();
    format!("{:#}\n", json!({ "version": 1, "plan": plan }))
}

fn part(name: &'static str, text: String, source: &Source) -> Part {
    Part {
        name,
        value: Value::from(text.clone()),
        text,
        source: source.to_string(),
    }
}

fn parts(planned: &Planned) -> Vec<Part> {
    let (plan, from) = (&planned.plan, &planned.sources);
    let shown = plan.shown_command();
    let words: Vec<_> = shown
        .iter()
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    let command = shown
        .iter()
        .map(|w| quoted(w))
        .collect::<Vec<_>>()
        .join(" ");
    let mut parts = vec![
        part("job", plan.job.to_string(), &Source::CommandLine),
        part(
            "store",
            store_url_text(&plan.store).to_string_lossy().into_owned(),
            &from.store,
        ),
        part("lock", plan.lock.to_string(), &from.lock),
        Part {
            value: json!(words),
            ..part("command", command, &from.command)
        },
        part("trigger", plan.trigger.to_string(), &from.trigger),
        freshness(planned),
    ];
    parts.extend(waiting(planned));
    parts.extend([
        part(
            "time limit",
            plan.time_limit
                .map_or_else(|| "none".to_owned(), duration::text),
            &from.time_limit,
        ),
        part(
            "kill after",
            duration::text(plan.kill_after),
            &from.kill_after,
        ),
        Part {
            value: json!(plan.signal),
            ..part("signal", signal_text(plan.signal), &from.signal)
        },
        part(
            "leftovers",
            leftovers_text(plan.leftovers).to_owned(),
            &from.leftovers,
        ),
        Part {
            value: json!(plan.capture),
            ..part(
                "capture",
                plan.capture
                    .map_or_else(|| "nothing".to_owned(), |n| format!("{n} bytes")),
                &from.capture,
            )
        },
        part(
            "ttl",
            plan.ttl.map_or_else(|| "45s".to_owned(), duration::text),
            &from.ttl,
        ),
        part(
            "keep",
            plan.keep
                .map_or_else(|| "forever".to_owned(), duration::text),
            &from.keep,
        ),
    ]);
    if let Some(reason) = &plan.accept_unsafe_mount {
        let source = &from.accept_unsafe_mount;
        parts.push(part("accept unsafe mount", reason.clone(), source));
    }
    if let Some(reason) = &plan.reason {
        parts.push(part("reason", reason.clone(), &from.reason));
    }
    if let Some(id) = &plan.store_id {
        parts.insert(
            2,
            part(
                "store id",
                id.clone(),
                &Source::Default("from the jobs file"),
            ),
        );
    }
    parts
}

/// What happens while the lock is held.
fn waiting(planned: &Planned) -> [Part; 3] {
    let (plan, from) = (&planned.plan, &planned.sources);
    [
        Part {
            value: wait_value(plan.wait),
            ..part("wait", wait_text(plan.wait), &from.wait)
        },
        Part {
            value: json!(plan.max_waiters),
            ..part(
                "max waiters",
                plan.max_waiters
                    .map_or_else(|| "any number".to_owned(), |n| n.to_string()),
                &from.max_waiters,
            )
        },
        Part {
            value: json!(plan.conflict_exit_code),
            ..part(
                "if held",
                format!("exit with {}", plan.conflict_exit_code),
                &from.conflict_exit_code,
            )
        },
    ]
}

fn freshness(planned: &Planned) -> Part {
    let (plan, from) = (&planned.plan, &planned.sources);
    let text = match (plan.fresh, from.fresh_out_of_force) {
        (Some(fresh), _) => format!(
            "skipped if it succeeded within {}",
            duration::text(fresh.within)
        ),
        (None, Some(within)) => {
            format!(
                "the window of {} holds for schedule and startup, not for {}",
                duration::text(within),
                plan.trigger
            )
        }
        (None, None) => "never skipped".to_owned(),
    };
    let value = json!(plan.fresh.map(|f| duration::text(f.within)));
    Part {
        name: "freshness",
        text,
        value,
        source: from.fresh.to_string(),
    }
}

fn wait_text(wait: Wait) -> String {
    match wait {
        Wait::No => "no".to_owned(),
        Wait::For(length) => format!("at most {}", duration::text(length)),
        Wait::Forever => "forever".to_owned(),
    }
}

fn wait_value(wait: Wait) -> Value {
    match wait {
        Wait::No => json!("0s"),
        Wait::For(length) => json!(duration::text(length)),
        Wait::Forever => json!("forever"),
    }
}

fn signal_text(signal: i32) -> String {
    crate::cli::signal_name(signal).map_or_else(|| signal.to_string(), |name| format!("SIG{name}"))
}

fn leftovers_text(leftovers: Leftovers) -> &'static str {
    match leftovers {
        Leftovers::End => "ended with the job",
        Leftovers::WaitFor => "waited for",
    }
}
