//! Parse, dispatch, exit.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use joblock::cli::mistakes::{self, Stop};
use joblock::cli::{Cli, Verb};
use joblock::store::StoreError;
use joblock::{command, exit, output};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let cli = match mistakes::parse(&args) {
        Ok(cli) => cli,
        Err(Stop::Answer(text)) => {
            let _ = io::stdout().write_all(text.as_bytes());
            return exit::code(exit::OK);
        }
        Err(Stop::Mistake { text, code }) => {
            let _ = io::stderr().write_all(text.as_bytes());
            if code == exit::CHECK_UNKNOWN {
                // Monitoring looks at stdout only.
                let why = text.lines().next().unwrap_or_default();
                let why = why.trim_start_matches("joblock: ");
                let _ = io::stdout().write_all(output::check::unknown(why).as_bytes());
            }
            return exit::code(code);
        }
    };
    let code = dispatch(&cli).unwrap_or_else(|error| {
        if reader_is_gone(&error) {
            return exit::OK;
        }
        output::say(format_args!("{error:#}"));
        code_of(&cli.verb, &error)
    });
    exit::code(code)
}

fn dispatch(cli: &Cli) -> anyhow::Result<u8> {
    let global = &cli.global;
    match &cli.verb {
        Verb::Run(args) if args.explain => command::explain::run(args, global),
        Verb::Run(args) => command::run::run(args, global),
        Verb::Status(args) => command::status::run(args, global),
        Verb::History(args) => command::history::run(args, global),
        Verb::Show(args) => command::show::run(args, global),
        Verb::Logs(args) => command::logs::run(args, global),
        Verb::Rerun(args) => command::rerun::run(args, global),
        Verb::Stop(args) => command::stop::run(args, global),
        Verb::Unlock(args) => command::unlock::run(args, global),
        Verb::Assert(args) => command::assert::run(args, global),
        Verb::Check(args) => command::check::run(args, global),
        Verb::Doctor(args) => command::doctor::run(args, global),
        Verb::Generate(args) => command::generate::run(args, global),
        Verb::Prune(args) => command::prune::run(args, global),
        Verb::Init(args) => command::init::run(args, global),
    }
}

fn code_of(verb: &Verb, error: &anyhow::Error) -> u8 {
    let own = mistakes::code_of_mistakes(verb.name());
    let of_store = own == exit::OWN_FAILURE
        && error
            .chain()
            .any(|e| e.downcast_ref::<StoreError>().is_some());
    if of_store { exit::STORE_UNUSABLE } else { own }
}

/// `joblock history | head`: whoever stopped reading has what they wanted.
fn reader_is_gone(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<io::Error>())
        .any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
