//! A file a command: wiring only, no SQL, no system calls. Each has `run(&args, &global)`, which
//! returns the exit code.

pub mod assert;
pub mod check;
pub mod doctor;
pub mod explain;
pub mod generate;
pub mod history;
pub mod init;
pub mod logs;
pub mod prune;
pub mod reading;
pub mod rerun;
pub mod run;
pub mod show;
mod silent;
pub mod status;
pub mod stop;
pub mod unlock;

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process;

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::Global;
use crate::config::{self, JobsFile};
use crate::output;
use crate::plan::{self, Environment, Located, Planned};
use crate::store::{StoreError, StoreUrl, mount, remote};
use crate::supervise::aside::{self, Side};

/// What every command begins with: the surroundings, the jobs file and the store's place. Nothing of
/// the store was touched yet.
#[derive(Debug)]
pub struct Setting {
    /// The surroundings.
    pub environment: Environment,
    /// The jobs file, if there is one.
    pub file: Option<JobsFile>,
    /// Which store.
    pub store: Located,
}

impl Setting {
    /// Reads the environment and the jobs file, and finds out which store is meant.
    pub fn read(global: &Global) -> anyhow::Result<Setting> {
        let environment = Environment::read();
        let file = jobs_file(global, &environment)?;
        let store = plan::locate_store(global.store.as_deref(), file.as_ref(), &environment)?;
        Ok(Setting {
            environment,
            file,
            store,
        })
    }
}

/// Where the store's mount may not answer, what touches it goes on in another process from here on, and this one comes back only
/// with the error that the store did not answer; see [`aside`].
pub fn go_on_where_it_may_hang(store: &StoreUrl) -> anyhow::Result<()> {
    if aside::is_aside() {
        return Ok(());
    }
    let Some(mount) = remote::on_the_way(&store.database()) else {
        return Ok(());
    };
    output::note_terminal();
    match aside::go_on().context("no process to look at the store with")? {
        Side::Aside => Ok(()),
        Side::Ended(code) => process::exit(code.into()),
        Side::Hangs => Err(StoreError::Unusable(remote::silent(&mount)).into()),
    }
}

/// Has `find` look at a store whose mount may not answer, in another process then; this one goes on with what was found.
pub fn where_it_may_hang<T: Serialize + DeserializeOwned>(
    store: &StoreUrl,
    find: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let Some(mount) = remote::on_the_way(&store.database()) else {
        return find();
    };
    let work = || {
        let found: Found<T> = find().map_err(|error| {
            let of_store = error.chain().any(<dyn Error>::is::<StoreError>);
            (of_store, format!("{error:#}"))
        });
        serde_json::to_vec(&found).unwrap_or_default()
    };
    let answer = aside::ask(work).context("no process to look at the store with")?;
    let Some(answer) = answer else {
        return Err(StoreError::Unusable(remote::silent(&mount)).into());
    };
    let found: Found<T> = serde_json::from_slice(&answer).context("no answer about the store")?;
    found.map_err(|(of_store, why)| {
        if of_store {
            StoreError::Unusable(why).into()
        } else {
            anyhow::Error::msg(why)
        }
    })
}

/// What was found in another process, or why not, and whether it is the store's fault.
type Found<T> = Result<T, (bool, String)>;

/// The jobs file, if there is one.
pub fn jobs_file(global: &Global, environment: &Environment) -> anyhow::Result<Option<JobsFile>> {
    let variable: Option<&OsStr> = environment.config.as_deref();
    let named = global.config.as_deref().or(variable.map(Path::new));
    if let Some(path) = named
        && !aside::is_aside()
        && let Some(mount) = remote::on_the_way(path)
    {
        // Whether it can be read is the file's own matter; this is about being answered.
        let look = || fs::metadata(path).map_or(Vec::new(), |_| vec![1]);
        if aside::ask(look)
            .context("no process to look at the jobs file with")?
            .is_none()
        {
            let silent = format!(
                "the jobs file {}: {}",
                path.display(),
                remote::silent(&mount)
            );
            return Err(StoreError::Unusable(silent).into());
        }
    }
    Ok(config::load(
        global.config.as_deref(),
        variable,
        environment.euid,
    )?)
}

/// Refuses a store that only this container can see; see [`plan::refuse_private_store`].
pub fn refuse_private_store(
    planned: &Planned,
    environment: &Environment,
) -> Result<(), StoreError> {
    plan::refuse_private_store(
        &planned.plan.store,
        environment.is_pid_1,
        planned.private_store,
        is_on_overlay,
    )
}

/// Asked of the nearest folder that is there: the store itself may not have been created yet.
fn is_on_overlay(path: &Path) -> bool {
    // which may not answer
    if remote::on_the_way(path).is_some() {
        return false;
    }
    let found = path
        .ancestors()
        .find_map(|folder| mount::is_overlay_at(folder).ok());
    found == Some(true)
}
