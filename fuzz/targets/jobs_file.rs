//! The jobs file: it is read, or refused with a line that it has; what is accepted is in bounds, and every job of it can be planned.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use joblock::cli::{Verb, mistakes};
use joblock::clock::Wall;
use joblock::config::{ConfigError, JobsFile};
use joblock::duration::{LONGEST, SHORTEST_TTL};
use joblock::plan::{self, Environment};

use super::readable;

const PATH: &str = "/etc/joblock/joblock.toml";

pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match JobsFile::parse(Path::new(PATH), &text) {
        Ok(file) => accepted(&file),
        Err(error) => refused(&error, &text),
    }
}

fn refused(error: &ConfigError, text: &str) {
    let message = error.to_string();
    readable(&message, text.len());
    let ConfigError::Wrong { line, .. } = error else {
        panic!("{message}");
    };
    let lines = 1 + text.matches('\n').count();
    assert!(
        (1..=lines).contains(line),
        "line {line} of {lines}: {message}"
    );
    assert!(
        message.starts_with(&format!("{PATH}:{line}: ")),
        "{message}"
    );
}

fn accepted(file: &JobsFile) {
    for (name, job) in &file.jobs {
        assert!(
            job.ttl
                .as_ref()
                .is_none_or(|ttl| (SHORTEST_TTL..=LONGEST).contains(&ttl.value))
        );
        let kept = job.capture.as_ref().and_then(|at| at.value);
        assert!(kept.is_none_or(|bytes| bytes <= 16 << 20));
        if let Some(schedule) = &job.schedule {
            let now = Wall(1_792_890_000_000);
            assert!(schedule.value.next_due(now) > Some(now));
        }
        assert!(
            job.after
                .iter()
                .all(|before| file.jobs.contains_key(before))
        );
        assert!(!job.after.contains(name));
        let planned = planned(file, name.as_str());
        let Some(words) = &job.command else {
            continue;
        };
        let planned = planned.expect("a job with a command can be planned");
        assert!(!words.value[0].is_empty() && words.value.iter().all(|w| !w.contains('\0')));
        assert_eq!(planned.command.len(), words.value.len());
        assert!(planned.kill_after <= LONGEST && (1..=64).contains(&planned.signal));
        assert!(
            planned
                .time_limit
                .is_none_or(|limit| limit > Duration::ZERO)
        );
    }
}

fn planned(file: &JobsFile, job: &str) -> Option<plan::RunPlan> {
    let line = ["joblock", "run", job].map(OsString::from);
    let Verb::Run(args) = mistakes::parse(&line).expect("a name is a job's").verb else {
        panic!("run is run");
    };
    let environment = Environment {
        cwd: "/".into(),
        ..Environment::default()
    };
    let store = plan::locate_store(Some("sqlite:/s.db".as_ref()), Some(file), &environment);
    let store = store.expect("it is named");
    plan::plan(&args, Some(file), store, &environment)
        .ok()
        .map(|planned| planned.plan)
}
