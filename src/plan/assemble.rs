//! Puts a plan together: for each part the command line's word, else the jobs file's, else the default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use super::{
    CAPTURE, Environment, Fresh, KILL_AFTER, Leftovers, Located, PlanError, Planned, RunPlan,
    Source, Sources, Wait, trigger,
};
use crate::cli::{RerunArgs, RunArgs, StartArgs};
use crate::config::{At, Job, JobsFile, UnknownJob};
use crate::duration::Span;
use crate::exit;
use crate::guess;
use crate::name::{JobName, LockName, RunId};
use crate::redact::Pattern;
use crate::store::record::{RunRecord, Trigger};

/// The plan of `joblock run`.
pub fn plan(
    args: &RunArgs,
    file: Option<&JobsFile>,
    store: Located,
    environment: &Environment,
) -> Result<Planned, PlanError> {
    let entry = Entry::of(&args.job, file)?;
    let (command, command_source) = command_of(args, file, &entry)?;
    let declared = entry.get(|j| j.lock.as_ref());
    if let (Some(given), Some(place)) = (&args.lock, entry.place()) {
        let lock = declared
            .as_ref()
            .map_or_else(|| args.job.clone().into(), |(lock, _)| lock.clone());
        if *given != lock {
            return Err(PlanError::TwoLocks {
                job: args.job.clone(),
                lock,
                place,
            });
        }
    }
    let (lock, lock_source) = match (&args.lock, declared) {
        (Some(lock), _) => (lock.clone(), Source::Option("--lock")),
        (None, Some((lock, source))) => (lock, source),
        (None, None) => (args.job.clone().into(), Source::Default("the job's name")),
    };
    let what = What {
        job: args.job.clone(),
        command,
        command_source,
        lock,
        lock_source,
        repeats: None,
    };
    let mut planned = assemble(what, &args.start, file, &entry, store, environment)?;
    match (
        args.unless_succeeded_within,
        entry.get(|j| j.unless_succeeded_within.as_ref()),
    ) {
        (Some(within), _) => {
            planned.plan.fresh = Some(Fresh { within });
            planned.sources.fresh = Source::Option("--unless-succeeded-within");
        }
        (None, Some((within, source))) => {
            planned.sources.fresh = source;
            if matches!(planned.plan.trigger, Trigger::Schedule | Trigger::Startup) {
                planned.plan.fresh = Some(Fresh { within });
            } else {
                planned.sources.fresh_out_of_force = Some(within);
            }
        }
        (None, None) => {}
    }
    Ok(planned)
}

/// The plan of `joblock rerun`: what `run` did, again, under the same lock. Never "fresh".
pub fn rerun(
    args: &RerunArgs,
    run: &RunRecord,
    file: Option<&JobsFile>,
    store: Located,
    environment: &Environment,
) -> Result<Planned, PlanError> {
    let entry = Entry::of(&run.job, file)?;
    let (command, command_source) = match entry.get(|j| j.command.as_ref()) {
        Some((words, source)) => (words.into_iter().map(OsString::from).collect(), source),
        None if run.command.is_empty() => {
            return Err(PlanError::NothingToRepeat(run.run_id.clone()));
        }
        None if run.redacted => {
            return Err(PlanError::Redacted(run.run_id.clone(), run.job.clone()));
        }
        None if run.who.uid != environment.uid => {
            return Err(PlanError::OthersCommand {
                run: run.run_id.clone(),
                user: run.who.user.clone(),
            });
        }
        None => (run.command.clone(), Source::History(run.run_id.clone())),
    };
    let (lock, lock_source) = entry
        .get(|j| j.lock.as_ref())
        .unwrap_or_else(|| (run.lock.clone(), Source::History(run.run_id.clone())));
    let repeats = Some(run.run_id.clone());
    let what = What {
        job: run.job.clone(),
        command,
        command_source,
        lock,
        lock_source,
        repeats,
    };
    assemble(what, &args.start, file, &entry, store, environment)
}

/// What the jobs file says of one job.
struct Entry<'a>(Option<(&'a JobsFile, &'a Job)>);

impl<'a> Entry<'a> {
    fn of(name: &JobName, file: Option<&'a JobsFile>) -> Result<Self, UnknownJob> {
        let Some(file) = file else {
            return Ok(Entry(None));
        };
        Ok(Entry(file.job(name)?.map(|job| (file, job))))
    }

    fn get<T: Clone + 'a>(
        &self,
        key: impl FnOnce(&'a Job) -> Option<&'a At<T>>,
    ) -> Option<(T, Source)> {
        let (file, job) = self.0?;
        let at = key(job)?;
        Some((
            at.value.clone(),
            Source::File {
                path: file.path.clone(),
                line: at.line,
            },
        ))
    }

    /// Where the job stands in the jobs file.
    fn place(&self) -> Option<Source> {
        self.0.map(|(file, job)| Source::File {
            path: file.path.clone(),
            line: job.line,
        })
    }

    /// The option's value, else the file's; `source` is told which of them it is.
    fn pick<T: Clone + 'a>(
        &self,
        source: &mut Source,
        option: Option<T>,
        name: &'static str,
        key: impl FnOnce(&'a Job) -> Option<&'a At<T>>,
    ) -> Option<T> {
        let found = match option {
            Some(value) => (value, Source::Option(name)),
            None => self.get(key)?,
        };
        *source = found.1;
        Some(found.0)
    }
}

fn command_of(
    args: &RunArgs,
    file: Option<&JobsFile>,
    entry: &Entry<'_>,
) -> Result<(Vec<OsString>, Source), PlanError> {
    let job = || args.job.clone();
    match (args.command.is_empty(), entry.get(|j| j.command.as_ref())) {
        (false, Some((_, source))) if !args.override_command => Err(PlanError::TwoCommands {
            job: job(),
            place: source,
        }),
        (false, _) => Ok((args.command.clone(), Source::CommandLine)),
        (true, _) if args.override_command => Err(PlanError::NothingToOverride(job())),
        (true, Some((words, source))) => {
            Ok((words.into_iter().map(OsString::from).collect(), source))
        }
        (true, None) => {
            let why = match (file, entry.0) {
                (None, _) => "none is given, and there is no jobs file".to_owned(),
                (Some(file), Some((_, known))) => {
                    format!(
                        "none is given, and {}:{} has none",
                        file.path.display(),
                        known.line
                    )
                }
                (Some(file), None) => {
                    let guess = guess::did_you_mean(
                        args.job.as_str(),
                        file.jobs.keys().map(JobName::as_str),
                    );
                    format!(
                        "none is given, and {} doesn't name the job{guess}",
                        file.path.display()
                    )
                }
            };
            Err(PlanError::NoCommand { job: job(), why })
        }
    }
}

/// What is run, before it is known how.
struct What {
    job: JobName,
    command: Vec<OsString>,
    command_source: Source,
    lock: LockName,
    lock_source: Source,
    repeats: Option<RunId>,
}

fn assemble(
    what: What,
    start: &StartArgs,
    file: Option<&JobsFile>,
    entry: &Entry<'_>,
    store: Located,
    environment: &Environment,
) -> Result<Planned, PlanError> {
    let (trigger, trigger_source) = trigger::trigger(start.trigger, environment)?;
    let mut from = Sources::of(
        store.source,
        what.command_source,
        what.lock_source,
        trigger_source,
    );
    let plan = RunPlan {
        store: store.url,
        store_id: store.pinned,
        job: what.job.clone(),
        lock: what.lock,
        lock_is_declared: matches!(from.lock, Source::File { .. }),
        ttl: entry.pick(&mut from.ttl, start.ttl, "--ttl", |j| j.ttl.as_ref()),
        wait: wait(start, entry, &mut from.wait),
        max_waiters: entry.pick(
            &mut from.max_waiters,
            start.max_waiters,
            "--max-waiters",
            |j| j.max_waiters.as_ref(),
        ),
        conflict_exit_code: entry
            .pick(
                &mut from.conflict_exit_code,
                start.conflict_exit_code,
                "--conflict-exit-code",
                |j| j.conflict_exit_code.as_ref(),
            )
            .unwrap_or(exit::LOCK_HELD),
        fresh: None,
        time_limit: entry
            .pick(
                &mut from.time_limit,
                start.time_limit,
                "--time-limit",
                |j| j.time_limit.as_ref(),
            )
            .and_then(Span::limit),
        kill_after: entry
            .pick(
                &mut from.kill_after,
                start.kill_after,
                "--kill-after",
                |j| j.kill_after.as_ref(),
            )
            .unwrap_or(KILL_AFTER),
        signal: entry
            .pick(&mut from.signal, start.signal, "--signal", |j| {
                j.signal.as_ref()
            })
            .unwrap_or(libc::SIGTERM),
        leftovers: leftovers(start, entry, &mut from.leftovers),
        trigger,
        accept_unsafe_mount: entry.pick(
            &mut from.accept_unsafe_mount,
            start.accept_unsafe_mount.clone(),
            "--accept-unsafe-mount",
            |j| j.accept_unsafe_mount.as_ref(),
        ),
        reason: entry.pick(&mut from.reason, start.reason.clone(), "--reason", |j| {
            j.reason.as_ref()
        }),
        tags: tags(start, entry),
        capture: entry
            .pick(
                &mut from.capture,
                start.no_capture.then_some(None),
                "--no-capture",
                |j| j.capture.as_ref(),
            )
            .unwrap_or(Some(CAPTURE)),
        keep: keep(start, &what.job, file, &mut from.keep),
        verbosity: match (start.quiet, start.verbose) {
            (true, _) => -1,
            (_, true) => 1,
            _ => entry.get(|j| j.verbosity.as_ref()).map_or(0, |(v, _)| v),
        },
        command: what.command,
        redact: patterns(start, file, entry),
        repeats: what.repeats,
    };
    if start.max_waiters.is_some() && plan.wait == Wait::No {
        return Err(PlanError::NobodyWaits);
    }
    let private_in_file = || {
        entry
            .get(|j| j.private_store.as_ref())
            .is_some_and(|(yes, _)| yes)
    };
    Ok(Planned {
        plan,
        private_store: start.private_store || private_in_file(),
        store_unasked: store.unasked,
        sources: from,
    })
}

fn wait(start: &StartArgs, entry: &Entry<'_>, source: &mut Source) -> Wait {
    let (option, name) = if start.nonblock {
        (Some(Span::For(Duration::ZERO)), "--nonblock")
    } else {
        (start.wait, "--wait")
    };
    match entry.pick(source, option, name, |j| j.wait.as_ref()) {
        None | Some(Span::For(Duration::ZERO)) => Wait::No,
        Some(Span::For(length)) => Wait::For(length),
        Some(Span::Forever) => Wait::Forever,
    }
}

fn leftovers(start: &StartArgs, entry: &Entry<'_>, source: &mut Source) -> Leftovers {
    let option = start.wait_for_children.then_some(true);
    let wait = entry.pick(source, option, "--wait-for-children", |j| {
        j.wait_for_children.as_ref()
    });
    match wait {
        Some(true) => Leftovers::WaitFor,
        Some(false) | None => Leftovers::End,
    }
}

/// A job that the file doesn't name is kept for as long as the file says of all.
fn keep(
    start: &StartArgs,
    job: &JobName,
    file: Option<&JobsFile>,
    source: &mut Source,
) -> Option<Duration> {
    let (span, from) = match (start.keep, file) {
        (Some(span), _) => (span, Source::Option("--keep")),
        (None, file) => {
            let file = file?;
            let At { value, line } = file.keep(job)?;
            let path = file.path.clone();
            (*value, Source::File { path, line: *line })
        }
    };
    *source = from;
    span.limit()
}

/// All that anybody asked for: whoever gives a pattern means to hide more, not less.
fn patterns(start: &StartArgs, file: Option<&JobsFile>, entry: &Entry<'_>) -> Vec<Pattern> {
    let of_file = file.iter().flat_map(|file| &file.redact);
    let of_job = entry.0.iter().flat_map(|(_, job)| &job.redact);
    of_file
        .chain(of_job)
        .chain(&start.redact)
        .cloned()
        .collect()
}

/// The file's, and the command line's over them.
fn tags(start: &StartArgs, entry: &Entry<'_>) -> BTreeMap<String, String> {
    let mut tags = entry.0.map(|(_, job)| job.tags.clone()).unwrap_or_default();
    tags.extend(start.tags.iter().cloned());
    tags
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::mistakes;
    use crate::cli::{Cli, Verb};
    use crate::output::record::tests::run as run_of;
    use crate::plan::locate_store;
    use crate::store::record::Outcome;

    const FILE: &str = r#"
        [jobs.sync]
        command = ["from-the-file"]
        lock = "people"
        wait = "5m"
        time-limit = "3h"
        capture = "1K"
        verbose = true
        tags = { team = "search", kind = "nightly" }
        wait-for-children = true
        unless-succeeded-within = "6h"
        accept-unsafe-mount = "one machine"
    "#;

    fn verb(line: &str) -> Verb {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let Cli { verb, .. } = mistakes::parse(&args).unwrap();
        verb
    }

    fn file(text: &str) -> JobsFile {
        JobsFile::parse(Path::new("/etc/joblock/joblock.toml"), text).unwrap()
    }

    fn here() -> (Environment, Located) {
        let environment = Environment {
            uid: 1000,
            cwd: "/".into(),
            ..Environment::default()
        };
        let store = locate_store(Some("sqlite:/s.db".as_ref()), None, &environment).unwrap();
        (environment, store)
    }

    fn run(line: &str, text: &str) -> Planned {
        let Verb::Run(args) = verb(line) else {
            panic!("{line}")
        };
        let (environment, store) = here();
        plan(&args, Some(&file(text)), store, &environment).unwrap()
    }

    fn again(line: &str, text: &str, last: &RunRecord) -> Result<Planned, PlanError> {
        let Verb::Rerun(args) = verb(line) else {
            panic!("{line}")
        };
        let (environment, store) = here();
        rerun(&args, last, Some(&file(text)), store, &environment)
    }

    fn recorded(uid: u32) -> RunRecord {
        let mut record = run_of("sync", 60, Outcome::Failed);
        record.who.uid = uid;
        record.command = vec!["from-history".into()];
        record.lock = "of-old".parse().unwrap();
        record
    }

    #[test]
    fn the_file_speaks_where_the_command_line_is_silent() {
        let Planned { plan, sources, .. } = run("joblock run sync", FILE);
        assert_eq!(plan.command, ["from-the-file"]);
        assert_eq!(
            (plan.lock.as_str(), plan.lock_is_declared),
            ("people", true)
        );
        assert_eq!(plan.wait, Wait::For(Duration::from_secs(300)));
        assert_eq!(plan.time_limit, Some(Duration::from_secs(3 * 3600)));
        assert_eq!((plan.capture, plan.verbosity), (Some(1024), 1));
        assert_eq!(plan.leftovers, Leftovers::WaitFor);
        assert_eq!(sources.wait.to_string(), "/etc/joblock/joblock.toml:5");
        assert_eq!(plan.accept_unsafe_mount.as_deref(), Some("one machine"));
        let line = "joblock run sync --accept-unsafe-mount two";
        let plan = run(line, FILE).plan;
        assert_eq!(plan.accept_unsafe_mount.as_deref(), Some("two"));
    }

    #[test]
    fn the_command_line_wins() {
        let line = "joblock run sync --lock people -n -t 0 --no-capture -q --tag team=ops --override -- true";
        let Planned { plan, sources, .. } = run(line, FILE);
        assert_eq!(plan.command, ["true"]);
        assert_eq!(
            (plan.lock.as_str(), plan.lock_is_declared),
            ("people", false)
        );
        assert_eq!(
            (plan.wait, plan.time_limit, plan.capture),
            (Wait::No, None, None)
        );
        assert_eq!(plan.verbosity, -1);
        assert_eq!(
            (plan.tags["team"].as_str(), plan.tags["kind"].as_str()),
            ("ops", "nightly")
        );
        assert_eq!(sources.wait, Source::Option("--nonblock"));
    }

    #[test]
    fn silence_on_both_sides_means_the_defaults() {
        let Planned {
            plan,
            private_store,
            ..
        } = run("joblock run sync -- true", "");
        assert_eq!(
            (plan.wait, plan.time_limit, plan.fresh),
            (Wait::No, None, None)
        );
        assert_eq!(
            (plan.kill_after, plan.signal, plan.capture),
            (KILL_AFTER, 15, Some(CAPTURE))
        );
        assert_eq!(
            (plan.conflict_exit_code, plan.ttl, plan.leftovers),
            (exit::LOCK_HELD, None, Leftovers::End)
        );
        assert_eq!(
            (plan.lock.as_str(), plan.lock_is_declared, private_store),
            ("sync", false, false)
        );
    }

    #[test]
    fn a_rerun_takes_the_file_s_command_and_lock_and_is_never_fresh() {
        let last = recorded(4711);
        let Planned { plan, .. } =
            again("joblock rerun sync --trigger schedule", FILE, &last).unwrap();
        assert_eq!(plan.command, ["from-the-file"]);
        assert_eq!(
            (plan.lock.as_str(), plan.repeats.as_ref()),
            ("people", Some(&last.run_id))
        );
        assert_eq!(plan.fresh, None);
    }

    #[test]
    fn a_rerun_from_history_is_for_the_user_who_recorded_it() {
        let Planned { plan, sources, .. } =
            again("joblock rerun sync", "", &recorded(1000)).unwrap();
        assert_eq!(
            (plan.command[0].as_os_str(), plan.lock.as_str()),
            ("from-history".as_ref(), "of-old")
        );
        assert!(matches!(sources.command, Source::History(_)));
        for uid in [0, 1001] {
            let refused = again("joblock rerun sync", "", &recorded(uid));
            assert!(
                matches!(refused, Err(PlanError::OthersCommand { .. })),
                "{uid}"
            );
        }
    }

    #[test]
    fn a_record_without_a_command_can_t_be_repeated() {
        let mut last = recorded(1000);
        last.command.clear();
        assert!(matches!(
            again("joblock rerun sync", "", &last),
            Err(PlanError::NothingToRepeat(_))
        ));
    }
}
