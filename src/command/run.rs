//! `joblock run`: the story of a run. What holds it while it goes on is told in [`crate::supervise`].

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::{Setting, refuse_private_store};
use crate::cli::{Global, RunArgs};
use crate::output::say;
use crate::plan::{self, Environment, Planned, Source};
use crate::store::{StoreError, StoreUrl, remote};
use crate::supervise::front;

/// Runs it.
pub fn run(args: &RunArgs, global: &Global) -> anyhow::Result<u8> {
    let setting = Setting::read(global)?;
    let planned = plan::plan(
        args,
        setting.file.as_ref(),
        setting.store,
        &setting.environment,
    )?;
    start(&planned, &setting.environment)
}

/// Starts what is planned and follows it to its end; the exit code.
pub fn start(planned: &Planned, environment: &Environment) -> anyhow::Result<u8> {
    refuse_private_store(planned, environment)?;
    if matches!(planned.sources.store, Source::Default(_)) {
        make_default_folder(&planned.plan.store, planned.store_unasked)?;
    }
    Ok(front::run(&planned.plan)?)
}

/// The folder of a store that nobody named is made at its first use; one that somebody named must be there, or the
/// jobs of a night without its mount would all lock an empty folder.
fn make_default_folder(store: &StoreUrl, users_own: bool) -> Result<(), StoreError> {
    let StoreUrl::Sqlite { path, .. } = store else {
        return Ok(());
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    // on a mount that may not answer, only the keeper looks
    if remote::on_the_way(folder).is_some() || folder.is_dir() {
        return Ok(());
    }
    let mode = if users_own { 0o700 } else { 0o750 };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .map_err(|error| {
            StoreError::Unusable(format!(
                "{} can't be made: {error}; name another store with --store",
                folder.display()
            ))
        })?;
    if users_own && io::IsTerminal::is_terminal(&io::stderr()) {
        say(format_args!(
            "locks and history are kept in {}",
            path.display()
        ));
    }
    Ok(())
}
