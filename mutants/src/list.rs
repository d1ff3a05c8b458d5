//! The mutants: cargo-mutants' own list of them.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

/// What is mutated: what decides, and the stores.
pub const FILES: [&str; 2] = ["src/lease/**", "src/store/**"];

/// In lines and columns, both from 1 on.
#[derive(Deserialize, Clone, Copy)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

#[derive(Deserialize, Clone, Copy)]
pub struct Span {
    pub start: Position,
}

#[derive(Deserialize)]
pub struct Function {
    pub return_type: String,
    pub span: Span,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Genre {
    FnValue,
    BinaryOperator,
    UnaryOperator,
    MatchArm,
    MatchArmGuard,
    StructField,
}

#[derive(Deserialize)]
pub struct Mutant {
    /// What chooses it at run time.
    #[serde(skip)]
    pub number: u32,
    /// `src/lease/fence.rs:132:36: delete ! in Fence::end`.
    pub name: String,
    /// The name without the position, which every edit changes; if several have the same, all but the first have a number: `… #2`.
    #[serde(skip)]
    pub title: String,
    pub file: String,
    pub genre: Genre,
    pub replacement: String,
    pub span: Span,
    pub function: Option<Function>,
}

/// What cargo-mutants would try in the project at `root`.
pub fn of(root: &Path) -> anyhow::Result<Vec<Mutant>> {
    let mut list = Command::new("cargo");
    list.args(["mutants", "--list", "--json"]).current_dir(root);
    for files in FILES {
        list.args(["-f", files]);
    }
    let output = list.output().context("cargo")?;
    if !output.status.success() {
        bail!(
            "cargo mutants: {}\n`cargo install cargo-mutants` installs it",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let mut mutants: Vec<Mutant> = serde_json::from_slice(&output.stdout)?;
    let mut times = HashMap::new();
    for (number, mutant) in (1..).zip(&mut mutants) {
        mutant.number = number;
        let position = mutant.name.splitn(4, ':');
        let text = position.last().unwrap_or_default().trim_start();
        let title = format!("{}: {text}", mutant.file);
        let time: &mut u32 = times.entry(title.clone()).or_default();
        *time += 1;
        mutant.title = match *time {
            1 => title,
            n => format!("{title} #{n}"),
        };
    }
    ensure!(
        mutants.len() < 1 << 14,
        "more mutants than src/mutant.rs has room for"
    );
    Ok(mutants)
}
