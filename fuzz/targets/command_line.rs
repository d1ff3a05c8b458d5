//! Command lines and environments: an answer, or a mistake with an exit code of the table; what is accepted can be planned or is refused in words.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use joblock::cli::mistakes::{self, Stop};
use joblock::cli::{Cli, Verb};
use joblock::config::JobsFile;
use joblock::exit;
use joblock::plan::{self, Environment, locate_store, parse_store_url, store_url_text};

use super::{Input, bounded};

const JOBS: &str = "store = \"sqlite:/f.db\"
[jobs.a]
command = [\"true\"]
unless-succeeded-within = \"6h\"
[jobs.b]
lock = \"a\"
";

pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte().unwrap_or_default();
    let environment = environment(&mut input, flags);
    let mut args = vec![OsString::from("joblock")];
    while !input.0.is_empty() {
        args.push(OsStr::from_bytes(input.until(0)).to_owned());
    }
    match mistakes::parse(&args) {
        Ok(cli) => accepted(&cli, &environment, flags & 1 == 1, data.len()),
        Err(Stop::Answer(text)) => assert!(text.ends_with('\n')),
        Err(Stop::Mistake { text, code }) => {
            assert!(text.ends_with('\n') && !text.trim().is_empty());
            let known = [exit::OWN_FAILURE, exit::CHECK_UNKNOWN, exit::STORE_UNUSABLE];
            assert!(known.contains(&code), "{code}: {text}");
        }
    }
}

/// Each part of it up to a NUL; empty is unset.
fn environment(input: &mut Input<'_>, flags: u8) -> Environment {
    let mut variable = || {
        let bytes = input.until(0);
        (!bytes.is_empty()).then(|| OsStr::from_bytes(bytes).to_owned())
    };
    Environment {
        store: variable(),
        trigger: variable(),
        trigger_unit: variable(),
        state_home: variable().map(PathBuf::from),
        home: variable().map(PathBuf::from),
        cwd: "/here".into(),
        euid: if flags & 2 == 0 { 1000 } else { 0 },
        uid: 1000,
        is_pid_1: flags & 4 != 0,
        terminal: flags & 8 != 0,
        system_folder: flags & 16 != 0,
        timer_and_invocation: flags & 32 != 0,
        ancestors: Vec::new(),
        config: None,
    }
}

fn accepted(cli: &Cli, environment: &Environment, with_file: bool, given: usize) {
    let file = with_file
        .then(|| JobsFile::parse("/etc/joblock/joblock.toml".as_ref(), JOBS).expect("a jobs file"));
    let located = locate_store(cli.global.store.as_deref(), file.as_ref(), environment);
    let store = match located {
        Ok(store) => store,
        Err(e) => return bounded(&e.to_string(), given),
    };
    let text = store_url_text(&store.url);
    assert_eq!(parse_store_url(&text, "/x".as_ref()), Ok(store.url.clone()));
    if let Verb::Run(args) = &cli.verb {
        match plan::plan(args, file.as_ref(), store, environment) {
            Ok(planned) => assert!(!planned.plan.command.is_empty()),
            Err(e) => bounded(&e.to_string(), given),
        }
    }
}
