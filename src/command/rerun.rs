//! `joblock rerun`: the same command under the same lock, linked to the run that it repeats. Never "fresh".

use std::env;

use anyhow::{Context, bail};

use super::reading::Reading;
use super::{Setting, run, where_it_may_hang};
use crate::cli::{Global, RerunArgs};
use crate::exit;
use crate::plan::{self, Source};
use crate::store::trust;

/// Runs it.
pub fn run(args: &RerunArgs, global: &Global) -> anyhow::Result<u8> {
    let setting = Setting::read(global)?;
    let (database, parts) = (setting.store.url.database(), setting.store.url.parts());
    let Some(last) = where_it_may_hang(&setting.store.url, || {
        Reading::open(global)?.one(&args.target)
    })?
    else {
        return Ok(exit::OWN_FAILURE);
    };
    let planned = plan::rerun(
        args,
        &last,
        setting.file.as_ref(),
        setting.store,
        &setting.environment,
    )?;
    // A command from the history may name files from where it was given; one of the jobs file must not depend on that.
    if matches!(planned.sources.command, Source::History(_)) {
        // Whoever can write the history can write any command there, and any user's name beside it.
        let other = where_it_may_hang(&planned.plan.store, || {
            Ok(trust::other_writer(&database, &parts))
        })?;
        if let Some(who) = other {
            bail!(
                "{who} can write the history, so no command is taken from there: write joblock run {job} -- COMMAND, or give {job} a command in the jobs file",
                job = last.job
            );
        }
        env::set_current_dir(&last.cwd).with_context(|| {
            format!(
                "the folder of that run, {}, can't be entered",
                last.cwd.display()
            )
        })?;
    }
    run::start(&planned, &setting.environment)
}
