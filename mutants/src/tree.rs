//! A copy of the project with all mutants in it, and the test programs built of that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::list::{Genre, Mutant};
use crate::schemata::{self, Not, Schemata};

/// Errors that come of a mutant's being one of several in a text, or of being chosen at run time; by itself it may compile.
const OF_THE_CHOICE: [&str; 14] = [
    "E0010", "E0015", "E0133", "E0381", "E0382", "E0499", "E0502", "E0505", "E0506", "E0507",
    "E0515", "E0597", "E0658", "E0716",
];

/// The copy.
pub struct Tree {
    /// Of the project.
    pub root: PathBuf,
    pub folder: PathBuf,
    pub hashes: Hashes,
    /// Mutants that are not in it.
    pub not: BTreeMap<u32, Not>,
}

/// What was found before holds for as long as they are the same.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hashes {
    /// The sources and the integration tests, but no unit tests.
    pub product: u64,
    pub all: u64,
}

/// A test program.
#[derive(Clone)]
pub struct Program {
    pub name: String,
    pub file: PathBuf,
    /// The library's own tests.
    pub unit: bool,
    /// Its source.
    pub source: PathBuf,
}

/// What cargo says, a line each.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Said {
    CompilerMessage {
        message: Message,
    },
    CompilerArtifact {
        target: Target,
        profile: Profile,
        executable: Option<PathBuf>,
    },
    #[serde(other)]
    Else,
}

#[derive(Deserialize)]
struct Message {
    level: String,
    message: String,
    code: Option<Code>,
    spans: Vec<At>,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct At {
    file_name: String,
    byte_start: usize,
    byte_end: usize,
    is_primary: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
    src_path: PathBuf,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

pub fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A source without its unit tests.
pub fn product(source: &str) -> &str {
    let tests = source.find("\n#[cfg(test)]\nmod tests {");
    &source[..tests.unwrap_or(source.len())]
}

/// Writes `text` unless it stands there already, so that cargo builds only what has changed.
fn put(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().context("no folder")?)?;
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// Of an environment that a test clears, what chooses the mutant is put back.
const CLEARED: (&str, &str) = (
    ".env_clear()",
    ".env_clear().envs(std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b\"MUTANT\")))",
);

/// The file as it is to be where `crate::mutant` is: in the library, and in the simulator, which is built of some of the library's files.
fn with_choice(file: &str, text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (from, to) = match file {
        "src/lib.rs" => ("pub mod name;", "pub mod mutant;\npub mod name;"),
        "tests/simulation.rs" => (
            "vec![\"src/clock.rs\".to_owned(), ",
            "vec![\"src/mutant.rs\".to_owned(), \"src/clock.rs\".to_owned(), ",
        ),
        "tests/simulation/program.rs" => (
            "#[path = \"../../src/name.rs\"]",
            "#[path = \"../../src/mutant.rs\"]\nmod mutant;\n#[path = \"../../src/name.rs\"]",
        ),
        _ if file.starts_with("tests/") && file.ends_with(".rs") => {
            let text = str::from_utf8(text)?;
            return Ok(text.replace(CLEARED.0, CLEARED.1).into_bytes());
        }
        _ => return Ok(text.to_owned()),
    };
    let text = str::from_utf8(text)?;
    ensure!(
        text.matches(from).count() == 1,
        "{file}: `{from}` is not there"
    );
    Ok(text.replace(from, to).into_bytes())
}

impl Tree {
    /// Copies what git knows of the project, but not yet the files of `mutants`.
    pub fn copy(root: &Path, to: PathBuf, mutants: &[Mutant]) -> anyhow::Result<Self> {
        let files = Command::new("git")
            .args(["ls-files", "-z"])
            .current_dir(root)
            .output()?;
        ensure!(files.status.success(), "git ls-files");
        let mut known = BTreeMap::new();
        for file in String::from_utf8(files.stdout)?.split_terminator('\0') {
            // no test reads those, and notes on survivors are written between two runs
            let of_no_test = file.starts_with("mutants/") || file.starts_with("docs/evidence/");
            if !of_no_test && root.join(file).is_file() {
                known.insert(file.to_owned(), fs::read(root.join(file))?);
            }
        }
        // what is deleted in the project would else be built on
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        let listing = to.with_file_name("files");
        if fs::read_to_string(&listing).ok() != Some(names.join("\n")) {
            let _ = fs::remove_dir_all(&to);
            put(&listing, names.join("\n").as_bytes())?;
        }
        let tested = ["src/", "tests/", "Cargo."];
        let tested = |file: &str| tested.iter().any(|begin| file.starts_with(begin));
        let tested: Vec<_> = known.iter().filter(|(file, _)| tested(file)).collect();
        let product: Vec<_> = tested
            .iter()
            .map(|(file, text)| (file, product(&String::from_utf8_lossy(text)).to_owned()))
            .collect();
        let choice = include_str!("mutant.rs");
        let hashes = Hashes {
            product: hash((product, choice)),
            all: hash((&tested, choice)),
        };
        let tree = Tree {
            root: root.to_owned(),
            folder: to,
            hashes,
            not: BTreeMap::new(),
        };
        let mutated: BTreeSet<&String> = mutants.iter().map(|m| &m.file).collect();
        for (file, text) in known.iter().filter(|(file, _)| !mutated.contains(file)) {
            let to = tree.folder.join(file);
            put(&to, &with_choice(file, text)?)?;
            fs::set_permissions(to, root.join(file).metadata()?.permissions())?;
        }
        put(
            &tree.folder.join("src/mutant.rs"),
            include_bytes!("mutant.rs"),
        )?;
        Ok(tree)
    }

    /// Writes the files with their mutants in them.
    fn mutate(&mut self, mutants: &[Mutant]) -> anyhow::Result<BTreeMap<String, Schemata>> {
        let files: BTreeSet<&String> = mutants.iter().map(|m| &m.file).collect();
        let mut written = BTreeMap::new();
        for file in files {
            let source = fs::read_to_string(self.root.join(file))?;
            let chosen: Vec<_> = mutants
                .iter()
                .filter(|m| m.file == *file && !self.not.contains_key(&m.number))
                .collect();
            let (schemata, rest) =
                schemata::make(&source, &chosen).with_context(|| file.clone())?;
            self.not.extend(rest);
            put(&self.folder.join(file), schemata.text.as_bytes())?;
            written.insert(file.clone(), schemata);
        }
        Ok(written)
    }

    /// Builds it with as many mutants as compile, and tells the test programs.
    pub fn build(&mut self, mutants: &[Mutant]) -> anyhow::Result<Vec<Program>> {
        // to try each error again would be to build twice
        let known = self
            .folder
            .with_file_name(format!("not-{:016x}.json", self.hashes.product));
        if let Ok(text) = fs::read(&known) {
            self.not = serde_json::from_slice(&text)?;
        }
        for what in [&["check", "--lib"][..], &["test", "--no-run"]] {
            loop {
                let schemata = self.mutate(mutants)?;
                let (errors, programs) = self.cargo(what)?;
                if errors.is_empty() {
                    if what[0] == "test" {
                        fs::write(known, serde_json::to_vec(&self.not)?)?;
                        return Ok(programs);
                    }
                    break;
                }
                let before = self.not.len();
                for error in &errors {
                    self.drop_who_is_to_blame(error, &schemata, mutants);
                }
                println!(
                    "{} errors, {} mutants less",
                    errors.len(),
                    self.not.len() - before
                );
                ensure!(
                    self.not.len() > before,
                    "it does not compile: {}",
                    errors[0].message
                );
            }
        }
        bail!("nothing was built")
    }

    pub fn cargo_command(&self) -> Command {
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", self.folder.with_file_name("build"))
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("RUSTFLAGS", "--cap-lints=allow");
        cargo
    }

    fn cargo(&self, what: &[&str]) -> anyhow::Result<(Vec<Message>, Vec<Program>)> {
        let mut cargo = self.cargo_command();
        cargo.args(what).args(["--locked", "--message-format=json"]);
        let output = cargo.stderr(Stdio::inherit()).output().context("cargo")?;
        let (mut errors, mut programs) = (Vec::new(), Vec::new());
        for line in output
            .stdout
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
        {
            match serde_json::from_slice(line)? {
                Said::CompilerMessage { message }
                    if message.level == "error" && !message.spans.is_empty() =>
                {
                    errors.push(message);
                }
                Said::CompilerArtifact {
                    target,
                    profile: Profile { test: true },
                    executable: Some(file),
                } if target.kind == ["test"] || target.kind == ["lib"] => programs.push(Program {
                    name: target.name,
                    file,
                    unit: target.kind == ["lib"],
                    source: target.src_path,
                }),
                _ => {}
            }
        }
        ensure!(
            output.status.success() || !errors.is_empty(),
            "cargo {what:?} failed"
        );
        Ok((errors, programs))
    }

    fn drop_who_is_to_blame(
        &mut self,
        error: &Message,
        schemata: &BTreeMap<String, Schemata>,
        mutants: &[Mutant],
    ) {
        let mut spans: Vec<&At> = error.spans.iter().collect();
        spans.sort_by_key(|at| !at.is_primary);
        let who = |at: &&At| {
            schemata
                .get(&at.file_name)?
                .of(&(at.byte_start..at.byte_end))
        };
        let Some(who) = spans.iter().find_map(who) else {
            let at = &spans[0];
            // one that goes away with another
            println!(
                "no mutant's fault: {} at byte {}: {}",
                at.file_name, at.byte_start, error.message
            );
            return;
        };
        let code = error.code.as_ref().map_or("", |c| &c.code);
        for &n in who {
            let mutant = &mutants[n as usize - 1];
            let by_itself = OF_THE_CHOICE.contains(&code)
                || code.is_empty()
                || mutant.genre == Genre::StructField;
            let not = if by_itself {
                Not::Choosable
            } else {
                Not::Viable
            };
            println!(
                "{}: {code} {}",
                mutant.name,
                error.message.lines().next().unwrap_or_default()
            );
            self.not.entry(n).or_insert(not);
        }
    }
}
