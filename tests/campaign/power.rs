//! The campaign must be able to fail: with no lock, with a lock that a killed wrapper lets go of, and with a lease whose arithmetic is broken,
//! its witness reports overlaps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::arena::{Arena, Kind, Starter};
use super::plan::{Attempt, FRONT, KEEPER, PATIENCE, TTL, Torment};
use super::witness::{Findings, Witness};
use super::worker;
use crate::common::{LIMIT, wait_until};

/// Three workers at one lock make such attempts, until there is an overlap or the time is over.
fn findings(kind: Kind, starter: Starter, like: &Attempt) -> Findings {
    let witness = Witness::new();
    let arena = Arena::new(kind, 1, witness.address()).with(starter);
    let end = Instant::now() + LIMIT;
    thread::scope(|scope| {
        for me in 0..3 {
            let (arena, witness) = (&arena, &witness);
            scope.spawn(move || {
                for n in 0.. {
                    if !witness.is_content() || Instant::now() > end {
                        break;
                    }
                    let attempt = Attempt {
                        id: (me << 32) | n,
                        host: usize::try_from(me).unwrap_or(0) % arena.hosts.len(),
                        ..like.clone()
                    };
                    worker::make(arena, witness, attempt, 0);
                }
            });
        }
    });
    wait_until("the end of the jobs", || {
        arena.processes().is_empty() && !witness.is_watching()
    });
    witness.finish()
}

/// A job that takes so long, and what is done to it.
fn attempt(takes: Duration, family: &'static str, torment: Torment) -> Attempt {
    Attempt {
        id: 0,
        lock: 0,
        host: 0,
        wait: Some(PATIENCE),
        limit: None,
        family,
        takes,
        code: 0,
        torment,
    }
}

/// Without a lock.
pub fn no_lock() -> Findings {
    let plain = attempt(Duration::from_millis(200), "", Torment::None);
    findings(Kind::Local, Starter::NoLock, &plain)
}

/// flock(1) with `-o`, whose job does not have the lock's descriptor, killed under its job.
pub fn flock_with_a_killed_wrapper() -> Findings {
    let killed = attempt(Duration::from_secs(2), "", Torment::Kill(FRONT, false));
    findings(Kind::Local, Starter::FlockO, &killed)
}

/// The product itself, but with a lease that others take over after a third of its time.
pub fn a_lease_taken_over_too_early() -> Findings {
    let since = Instant::now();
    let starter = Starter::Joblock(broken());
    println!("the broken copy was built in {:.0?}", since.elapsed());
    let stopped = Torment::Stop(KEEPER, TTL * 2);
    findings(Kind::Far, starter, &attempt(TTL * 3, "i", stopped))
}

/// A copy of joblock, mutated and built beside the tests.
fn broken() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("broken");
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir_all(&copy).expect("a folder for the copy");
    copy_folder(&root.join("src"), &copy.join("src"));
    fs::copy(root.join("Cargo.lock"), copy.join("Cargo.lock")).expect("Cargo.lock");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml");
    let manifest = replaced(&manifest, "name = \"joblock\"", "name = \"joblock-broken\"");
    let manifest = replaced(
        &manifest,
        "[[bench]]\nname = \"beside_flock\"\nharness = false\n",
        "",
    );
    let manifest = manifest + "\n[lib]\nname = \"joblock\"\n\n[workspace]\n";
    fs::write(copy.join("Cargo.toml"), manifest).expect("Cargo.toml");
    let takeover = copy.join("src/lease/takeover.rs");
    let source = fs::read_to_string(&takeover).expect("takeover.rs");
    let source = replaced(&source, ">= seen.ttl =>", ">= seen.ttl / 3 =>");
    let source = replaced(
        &source,
        "until: sighting.first + seen.ttl,",
        "until: sighting.first + seen.ttl / 3,",
    );
    fs::write(&takeover, source).expect("takeover.rs");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("target/");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--quiet", "--bin", "joblock-broken"])
        .arg("--target-dir")
        .arg(target)
        .current_dir(&copy)
        // it is a debug build of its own, whatever is tested beside it
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_BUILD_RUSTFLAGS")
        .output()
        .expect("cargo");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    target.join("debug/joblock-broken")
}

fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(
        text.contains(old),
        "there is no {old:?} to be replaced any more"
    );
    text.replacen(old, new, 1)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).expect("a copy");
        }
    }
}
