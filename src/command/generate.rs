//! `joblock generate`: man pages, completion scripts and, for those, the names of jobs.

mod completions;
mod man;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};

use anyhow::Context;

use super::{go_on_where_it_may_hang, jobs_file};
use crate::cli::{Generate, GenerateArgs, Global};
use crate::exit;
use crate::plan::{self, Environment};
use crate::store::{self, Purpose};

/// Makes what is asked for.
pub fn run(args: &GenerateArgs, global: &Global) -> anyhow::Result<u8> {
    match &args.what {
        Generate::Man {
            directory: Some(directory),
            ..
        } => {
            for page in man::pages()? {
                let folder = directory.join(format!("man{}", page.section));
                fs::create_dir_all(&folder)
                    .with_context(|| format!("can't make {}", folder.display()))?;
                let path = folder.join(&page.file);
                fs::write(&path, &page.roff)
                    .with_context(|| format!("can't write {}", path.display()))?;
            }
        }
        Generate::Man {
            directory: None, ..
        } => {
            let main = man::pages()?
                .into_iter()
                .next()
                .context("there is no page")?;
            io::stdout().write_all(&main.roff)?;
        }
        Generate::Completions { shell } => {
            io::stdout().write_all(completions::script(*shell).as_bytes())?;
        }
        Generate::Jobs => {
            let names: String = job_names(global)
                .into_iter()
                .map(|name| name + "\n")
                .collect();
            // A shell that completes wants words or silence.
            let _ = io::stdout().write_all(names.as_bytes());
        }
    }
    Ok(exit::OK)
}

/// The jobs of the jobs file and of the history; what can't be read is left out.
fn job_names(global: &Global) -> BTreeSet<String> {
    let environment = Environment::read();
    let file = jobs_file(global, &environment).ok().flatten();
    let mut names: BTreeSet<String> = file
        .iter()
        .flat_map(|f| f.jobs.keys())
        .map(ToString::to_string)
        .collect();
    let located = plan::locate_store(global.store.as_deref(), file.as_ref(), &environment);
    if let Ok(located) = located
        && go_on_where_it_may_hang(&located.url).is_ok()
        && let Ok(store) = store::open(&located.url, Purpose::Read, located.pinned.as_deref())
    {
        names.extend(store.jobs().unwrap_or_default());
    }
    names
}
