//! What befalls a whole store while jobs run on it: its disk is full, it is read-only, its lock files are deleted or renamed, its database is moved away; on a
//! far store a mount hangs or fails, and a host loses power.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use super::arena::{Arena, Kind};
use super::fuse::Mood;
use super::host::Host;
use super::plan::TTL;
use super::random::Random;
use super::verdict::Verdict;

/// A small file system of an arena's own, in memory.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounted at `point`, everywhere in this mount namespace.
    pub fn mount(point: &Path) -> io::Result<SmallDisk> {
        rustix::mount::mount(
            "campaign",
            point,
            "tmpfs",
            MountFlags::empty(),
            Some(c"size=24m"),
        )?;
        Ok(SmallDisk(point.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Whether there is trouble, and whether there was any since somebody asked.
#[derive(Debug, Default)]
pub struct Calm(AtomicU64);

impl Calm {
    /// To be given to [`Calm::was_kept_since`].
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// No trouble began, went on or ended.
    pub fn was_kept_since(&self, then: u64) -> bool {
        then.is_multiple_of(2) && self.now() == then
    }

    fn turn(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Makes one trouble after the other until it is enough, and says how many of each there were.
pub fn make(arena: &Arena, mut random: Random, is_enough: &(dyn Fn() -> bool + Sync)) -> Verdict {
    let mut made = Verdict::default();
    while !is_enough() {
        pause(500 + random.below(2000), is_enough);
        arena.calm.turn();
        let what = one(arena, &mut random);
        // what was in the middle of something is in trouble still
        pause(100, is_enough);
        arena.calm.turn();
        made.count(what, 1);
    }
    made
}

fn pause(milliseconds: u64, is_enough: &(dyn Fn() -> bool + Sync)) {
    let end = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < end && !is_enough() {
        thread::sleep(Duration::from_millis(20));
    }
}

fn one(arena: &Arena, random: &mut Random) -> &'static str {
    let time = Duration::from_millis(200 + random.below(2500));
    if arena.kind == Kind::Far {
        return one_of_a_host(arena, random, time);
    }
    match random.below(9) {
        8 => move_the_database(arena, time),
        0..=2 => fill(&arena.store(), time),
        3 | 4 => read_only(&arena.store(), time),
        5 => lose_a_lock_file(arena, random, true),
        6 => lose_a_lock_file(arena, random, false),
        _ => "troubles that were none",
    }
}

fn one_of_a_host(arena: &Arena, random: &mut Random, time: Duration) -> &'static str {
    let at = usize::try_from(random.below(arena.hosts.len() as u64)).unwrap_or(0);
    let Host::Far(host) = &arena.hosts[at] else {
        return "troubles that were none";
    };
    let (mood, what) = match random.below(8) {
        7 => return move_the_database(arena, time),
        0 => (Mood::Hangs, "mounts that hung"),
        1 => (Mood::Fails(libc::EIO), "mounts that failed with EIO"),
        2 => (Mood::Fails(libc::ENOSPC), "mounts that were full"),
        3 => (Mood::Fails(libc::EROFS), "mounts that were read-only"),
        4 => return lose_a_lock_file(arena, random, true),
        5 => return lose_a_lock_file(arena, random, false),
        _ => {
            host.reboot().expect("a host that boots again");
            return "hosts that lost power";
        }
    };
    host.moods().set(mood);
    thread::sleep(if random.one_in(2) { time } else { time + TTL });
    host.moods().set(Mood::Well);
    what
}

fn fill(store: &Path, time: Duration) -> &'static str {
    let ballast = store.join("ballast");
    let Ok(mut file) = File::create(&ballast) else {
        return "troubles that were none";
    };
    let (zeros, end) = (vec![0; 1 << 16], Instant::now() + time);
    // what others free meanwhile is taken as well
    while Instant::now() < end {
        if file.write_all(&zeros).is_err() {
            // the rest of a block, byte by byte, makes no difference on tmpfs, which counts pages
            thread::sleep(Duration::from_millis(2));
        }
    }
    drop(file);
    fs::remove_file(&ballast).expect("the ballast can be thrown out");
    "full disks"
}

/// Only while nobody has a file open for writing: a kernel does not make a file system read-only under a writer.
fn read_only(store: &Path, time: Duration) -> &'static str {
    let remount = |flags| rustix::mount::mount_remount(store, flags, c"size=24m");
    let end = Instant::now() + Duration::from_secs(1);
    while remount(MountFlags::RDONLY).is_err() {
        if Instant::now() > end {
            return "troubles that were none";
        }
    }
    thread::sleep(time);
    remount(MountFlags::empty()).expect("it can be made writable again");
    "read-only file systems"
}

/// Moves the database away under whoever uses it, something that is none stands in its place, and moves it back. For good it is never
/// moved: its rows would be gone with it.
fn move_the_database(arena: &Arena, time: Duration) -> &'static str {
    let database = arena.history();
    let away = database.with_extension("away");
    let part = |of: &Path, end: &str| PathBuf::from(format!("{}{end}", of.display()));
    let swap = || {
        let (a, b) = (&database, &away);
        rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)
            .expect("they change places");
    };
    if fs::write(&away, "no database").is_err() {
        return "troubles that were none";
    }
    // in this order nobody ever finds no database, and would make one, or one without its log
    swap();
    let ends = ["-wal", "-shm", "-journal"];
    let moved = ends.map(|end| fs::rename(part(&database, end), part(&away, end)).is_ok());
    thread::sleep(time);
    for (end, _) in ends.into_iter().zip(moved).filter(|(_, moved)| *moved) {
        fs::rename(part(&away, end), part(&database, end)).expect("it comes back");
    }
    swap();
    fs::remove_file(&away).expect("what stood there is removed");
    "databases that were moved away"
}

fn lose_a_lock_file(arena: &Arena, random: &mut Random, for_good: bool) -> &'static str {
    let lock = &arena.locks[usize::try_from(random.below(arena.locks.len() as u64)).unwrap_or(0)];
    let folder = match arena.kind {
        Kind::Lockfile => arena.store(),
        _ => arena.store().join("joblock.db.locks"),
    };
    let path = folder.join(format!("{lock}.lock"));
    let lost = if for_good {
        fs::remove_file(&path)
    } else {
        fs::rename(&path, path.with_extension("lost"))
    };
    match (lost, for_good) {
        (Err(_), _) => "troubles that were none",
        (_, true) => "deleted lock files",
        (_, false) => "renamed lock files",
    }
}
