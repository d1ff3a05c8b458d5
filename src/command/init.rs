//! `joblock init`: makes a store, with the folder that it lies in. Doing it again does no harm.

use std::fs;
use std::io::{self, Write};

use anyhow::{Context, bail};

use super::{Setting, go_on_where_it_may_hang};
use crate::cli::{Global, InitArgs};
use crate::exit;
use crate::guess;
use crate::output::say;
use crate::plan::{Environment, machines_store, parse_store_url};
use crate::store::folder::{self, Group};
use crate::store::mount::lies;
use crate::store::{self, Purpose, StoreUrl};

/// Makes the store that is meant and says what was made.
pub fn run(args: &InitArgs, global: &Global) -> anyhow::Result<u8> {
    let url = shared(meant(args, global)?, args.shared)?;
    let group = args.group.as_deref().map(group).transpose()?;
    go_on_where_it_may_hang(&url)?;
    let mut did = folder::prepare(&url, group.as_ref())?;
    let existed = store::open(&url, Purpose::Read, None).is_ok();
    let lies = lies::of_store(&url)?;
    let about = store::open(&url, Purpose::Run, None)?.about();
    if let Some(group) = &group {
        // what opening it made, should the folder's habits not have done it already
        folder::prepare(&url, Some(group))?;
    }
    let kind = if about.shared { "shared" } else { "local" };
    let verb = if existed { "found" } else { "made" };
    did.push(format!(
        "{verb} the store {} ({kind}, on {})",
        about.url, about.file_system
    ));
    did.push(format!(
        "its id is {}; store-id = \"{}\" in the jobs file pins it",
        about.id, about.id
    ));
    if !lies.is_empty() {
        say(format_args!(
            "the store is not safe, and no job will be started with it: {}; but with --accept-unsafe-mount REASON",
            lies::listed(&lies)
        ));
    }
    let mut out = io::stdout();
    for line in did {
        writeln!(out, "{line}")?;
    }
    Ok(exit::OK)
}

fn meant(args: &InitArgs, global: &Global) -> anyhow::Result<StoreUrl> {
    match (&global.store, args.system) {
        (Some(text), _) => {
            let cwd = Environment::read().cwd;
            parse_store_url(text, &cwd).context("--store")
        }
        (None, true) => Ok(machines_store()),
        (None, false) => Ok(Setting::read(global)?.store.url),
    }
}

fn shared(url: StoreUrl, wanted: bool) -> anyhow::Result<StoreUrl> {
    match url {
        StoreUrl::Sqlite {
            path,
            shared,
            server_lease,
        } => Ok(StoreUrl::Sqlite {
            path,
            shared: shared || wanted,
            server_lease,
        }),
        StoreUrl::Lockfile { .. } if wanted => {
            bail!(
                "--shared is for sqlite: stores; a lockfile: store is for as many hosts as its file system"
            )
        }
        url @ StoreUrl::Lockfile { .. } => Ok(url),
    }
}

fn group(name: &str) -> anyhow::Result<Group> {
    let groups = fs::read_to_string("/etc/group").context("/etc/group can't be read")?;
    if let Some(group) = Group::find(name, &groups) {
        return Ok(group);
    }
    let names = groups.lines().filter_map(|line| line.split(':').next());
    bail!(
        "no group {name:?} in /etc/group{}",
        guess::did_you_mean(name, names)
    )
}
