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
pub mod status;
pub mod stop;
pub mod unlock;

use std::ffi::OsStr;
use std::path::Path;

use crate::cli::Global;
use crate::config::{self, JobsFile};
use crate::plan::{self, Environment, Located, Planned};
use crate::store::StoreError;

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

/// The jobs file, if there is one.
pub fn jobs_file(
    global: &Global,
    environment: &Environment,
) -> Result<Option<JobsFile>, config::ConfigError> {
    let variable: Option<&OsStr> = environment.config.as_deref();
    config::load(global.config.as_deref(), variable, environment.euid)
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
    /// `OVERLAYFS_SUPER_MAGIC`, statfs(2).
    const OVERLAY: rustix::fs::FsWord = 0x794c_7630;
    let kind = path
        .ancestors()
        .find_map(|folder| rustix::fs::statfs(folder).ok());
    kind.is_some_and(|fs| fs.f_type == OVERLAY)
}
