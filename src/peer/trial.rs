//! The script that two doctors go through, the same on both sides: each holds locks on files of its own, and tries the other's.
//!
//! Between any two steps both wait for each other. What one step shows changes nothing of the next ones, so that the two
//! can't get out of step. Moments are each side's own BOOTTIME; how the two clocks lie to each other comes from the letters,
//! each of which says when it was sent.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::{Errno, FdFlags};
use serde::{Deserialize, Serialize};

use super::link::{LOOK, Link, Trouble, short};
use super::side::Side;
use super::sqlite::{self, SqliteSeen};
use crate::clock::Boot;
use crate::name::RunId;
use crate::store::lockfile::file::{self, LockFile};
use crate::store::lockfile::slots;

/// How long both hold their locks while the other one tries again and again.
pub const HELD_FOR: Duration = Duration::from_secs(8);
/// How often that is.
const AGAIN: Duration = Duration::from_millis(400);
/// How long a lock that was let go of may take to be free.
const FREE_WITHIN: Duration = Duration::from_secs(10);
/// How long a lock whose holder was killed may take to be free.
pub const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(30);

/// What came of trying to take a lock that the other side holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It was not tried.
    #[default]
    NotTried,
    /// As it should be.
    Refused,
    /// It was granted a second time.
    Taken,
    /// Neither.
    Failed(String),
}

/// What one side saw of one kind of lock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockSeen {
    /// Its own lock, which it could not take.
    pub own: Option<String>,
    /// The other's lock, just taken.
    pub held: Answer,
    /// When it let go of its own.
    pub released: Option<Boot>,
    /// When it had the other's, after that was let go of.
    pub freed: Option<Boot>,
    /// Its own file, which the other one has locked by now.
    pub crossed: Answer,
    /// Its own lock again, after it was closed and opened: why it could not be taken.
    pub own_again: Option<String>,
    /// The other's lock, again and again while it is held: the worst of all answers.
    pub later: Answer,
    /// After how many milliseconds that was.
    pub later_ms: u64,
}

/// What one side saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// flock(2), the kind that `lockfile:` and the lock files beside a database rely on.
    pub flock: LockSeen,
    /// fcntl(2), the kind that SQLite relies on.
    pub posix: LockSeen,
    /// Why its own held lock could no longer be read through at the end, which means that it was lost.
    pub lost: Option<String>,
    /// The other's lock while only a child process of the other one has it.
    pub inherited: Answer,
    /// Why it could start no child process.
    pub no_child: Option<String>,
    /// When it killed its child process, which had its locks.
    pub killed: Option<Boot>,
    /// When it had the other's lock after that, asking again and again.
    pub polled: Option<Boot>,
    /// The same for one for which it had waited in the kernel.
    pub woken: Option<Boot>,
    /// What was wrong with what the other one wrote, if something was.
    pub data: Option<String>,
    /// When it made a file whose name the other one had looked for before.
    pub name_made: Option<Boot>,
    /// When it saw the other's.
    pub name_seen: Option<Boot>,
    /// SQLite's transactions.
    pub sqlite: SqliteSeen,
    /// The smallest difference between its clock and the time of sending in the other's letters, in milliseconds of the wall clock.
    pub wall_ahead_ms: Option<i64>,
    /// The same in nanoseconds of BOOTTIME.
    pub boot_ahead_ns: Option<i64>,
}

/// A locked file; dropped, it is free.
enum Locked {
    Flock(LockFile),
    Posix(#[expect(dead_code, reason = "it is locked as long as it is open")] File),
}

#[derive(Clone, Copy)]
enum Kind {
    Flock,
    Posix,
}

impl Kind {
    fn end(self) -> &'static str {
        match self {
            Kind::Flock => ".flock",
            Kind::Posix => ".posix",
        }
    }

    /// Opens the file and takes its lock; `None`: it is taken.
    fn take(self, path: &Path) -> io::Result<Option<Locked>> {
        match self {
            Kind::Flock => {
                let lock = LockFile::open_or_create(path)?;
                Ok(lock.try_lock()?.then_some(Locked::Flock(lock)))
            }
            Kind::Posix => {
                let file = file::open(path, true, false)?;
                match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => Ok(Some(Locked::Posix(file))),
                    Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    fn try_theirs(self, link: &Link<'_>) -> Answer {
        answer(&self.take(&link.theirs(self.end())))
    }

    /// Takes a lock that should be free, or will be soon.
    fn take_soon(
        self,
        path: &Path,
        link: &mut Link<'_>,
        limit: Duration,
    ) -> Result<Locked, String> {
        let until = Boot::now() + limit;
        loop {
            link.alive("a lock that was let go of");
            match self.take(path) {
                Ok(Some(locked)) => return Ok(locked),
                Ok(None) if Boot::now() < until => sleep(LOOK),
                Ok(None) => return Err("it is taken".to_owned()),
                Err(error) => return Err(short(&error)),
            }
        }
    }
}

fn answer(taken: &io::Result<Option<Locked>>) -> Answer {
    match taken {
        Ok(Some(_)) => Answer::Taken,
        Ok(None) => Answer::Refused,
        Err(error) => Answer::Failed(short(error)),
    }
}

const KINDS: [Kind; 2] = [Kind::Flock, Kind::Posix];

impl Report {
    fn of(&mut self, kind: Kind) -> &mut LockSeen {
        match kind {
            Kind::Flock => &mut self.flock,
            Kind::Posix => &mut self.posix,
        }
    }
}

/// Goes through the script. The answers: the other side, what we saw, what it saw.
///
/// # Errors
/// Why it ended before its end.
pub fn run(link: &mut Link<'_>, here: &Side) -> Result<(Side, Report, Report), Trouble> {
    let there = link.exchange("hello", here)?;
    let mut report = Report::default();
    let done = if here.is_taken_for(&there) {
        tell(link, &mut report)
    } else {
        steps(link, &mut report)
    };
    match done {
        Ok(theirs) => Ok((there, report, theirs)),
        Err(trouble) => Err(Trouble {
            there: Some(Box::new(there)),
            ..trouble
        }),
    }
}

fn steps(link: &mut Link<'_>, report: &mut Report) -> Result<Report, Trouble> {
    make_files(link, report)?;
    let own = hold_and_try(link, report)?;
    write_and_read(link, report)?;
    take_over(link, report, own)?;
    report.sqlite = sqlite::play(link)?;
    tell(link, report)
}

fn tell(link: &mut Link<'_>, report: &mut Report) -> Result<Report, Trouble> {
    report.name_seen = link.name_seen;
    (report.wall_ahead_ms, report.boot_ahead_ns) = (link.wall_ahead_ms, link.boot_ahead_ns);
    let theirs = link.exchange("what was seen", report)?;
    // whoever has heard all of it removes its files: that the other one can't be read any more is as good as its word
    let _ = link.exchange("the end", &());
    Ok(theirs)
}

fn make_files(link: &mut Link<'_>, report: &mut Report) -> Result<(), Trouble> {
    for end in [".flock", ".posix", ".wait", ".data"] {
        file::create(&link.own(end)).map_err(|e| Trouble {
            step: "files".to_owned(),
            why: format!("can't make a file: {e}"),
            there: None,
        })?;
    }
    let name = link.theirs(".name");
    let _ = name.symlink_metadata();
    link.exchange("files", &())?;
    report.name_made = Some(Boot::now());
    let _ = file::create(&link.own(".name"));
    link.name = Some(name);
    Ok(())
}

fn hold_and_try(link: &mut Link<'_>, report: &mut Report) -> Result<Option<LockFile>, Trouble> {
    let mut own = Vec::new();
    for kind in KINDS {
        match kind.take_soon(&link.own(kind.end()), link, Duration::ZERO) {
            Ok(locked) => own.push(locked),
            Err(error) => report.of(kind).own = Some(error),
        }
    }
    link.exchange("both hold a lock", &())?;
    for kind in KINDS {
        report.of(kind).held = kind.try_theirs(link);
    }
    link.exchange("both tried the other's", &())?;

    for kind in KINDS {
        report.of(kind).released = Some(Boot::now());
    }
    drop(own);
    link.exchange("both let go", &())?;
    let mut theirs = Vec::new();
    for kind in KINDS {
        if let Ok(locked) = kind.take_soon(&link.theirs(kind.end()), link, FREE_WITHIN) {
            report.of(kind).freed = Some(Boot::now());
            theirs.push(locked);
        }
    }
    link.exchange("both hold the other's", &())?;
    for kind in KINDS {
        report.of(kind).crossed = answer(&kind.take(&link.own(kind.end())));
    }
    link.exchange("both tried their own", &())?;
    drop(theirs);
    link.exchange("both let go again", &())?;

    let mut own = Vec::new();
    for kind in KINDS {
        match kind.take_soon(&link.own(kind.end()), link, FREE_WITHIN) {
            Ok(locked) => own.push(locked),
            Err(error) => report.of(kind).own_again = Some(error),
        }
    }
    link.exchange("both hold their own again", &())?;
    let since = Boot::now();
    while Boot::now().since(since) < HELD_FOR {
        link.alive("a lock that is held for long");
        for kind in KINDS {
            let found = kind.try_theirs(link);
            let seen = report.of(kind);
            if seen.later != Answer::Taken && found != Answer::Refused
                || seen.later == Answer::NotTried
            {
                let took = Boot::now().since(since);
                seen.later_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                seen.later = found;
            }
        }
        sleep(AGAIN);
    }
    let mut flock = None;
    for locked in own {
        if let Locked::Flock(file) = locked {
            report.lost = slots::touch(&file).err().map(|e| short(&e));
            flock = Some(file);
        }
    }
    link.exchange("both held a lock for long", &())?;
    Ok(flock)
}

/// Twice, so that the second time something else must be read from a file that was read already.
fn write_and_read(link: &mut Link<'_>, report: &mut Report) -> Result<(), Trouble> {
    for round in ["data", "other data"] {
        let own = RunId::random().to_string();
        let written = file::open(&link.own(".data"), true, false)
            .and_then(|mut file| file.write_all(own.as_bytes()).and(file.sync_all()));
        let theirs = link.exchange(round, &own)?;
        // a client may go by what it remembers for a while: that is slow, and not wrong
        let until = Boot::now() + FREE_WITHIN;
        let (text, read) = loop {
            let mut text = String::new();
            let read = file::open(&link.theirs(".data"), false, false)
                .and_then(|file| file.take(1000).read_to_string(&mut text));
            if text == theirs || Boot::now() > until {
                break (text, read);
            }
            sleep(LOOK);
        };
        report.data = match (&report.data, written, read) {
            (Some(known), ..) => Some(known.clone()),
            (None, Err(error), _) => Some(format!("it can't be written: {}", short(&error))),
            (None, _, Err(error)) => Some(format!("it can't be read: {}", short(&error))),
            _ if text != theirs => Some("something else is read than was written".to_owned()),
            _ => None,
        };
        link.exchange("data was read", &())?;
    }
    Ok(())
}

/// A child process that has these descriptors, and nobody else; it ends with us.
fn hand_to_child(locks: &[LockFile]) -> io::Result<Child> {
    let inheritable = |flags: FdFlags| {
        let mut all = locks.iter();
        all.try_for_each(|lock| rustix::io::fcntl_setfd(lock.as_fd(), flags))
    };
    inheritable(FdFlags::empty())?;
    let child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    inheritable(FdFlags::CLOEXEC)?;
    child
}

fn take_over(
    link: &mut Link<'_>,
    report: &mut Report,
    flock: Option<LockFile>,
) -> Result<(), Trouble> {
    let wait = LockFile::open_or_create(&link.own(".wait"))
        .and_then(|lock| Ok(lock.try_lock()?.then_some(lock)));
    let locks: Vec<_> = flock.into_iter().chain(wait.ok().flatten()).collect();
    let mut child = match hand_to_child(&locks) {
        Ok(child) => Some(child),
        Err(error) => {
            report.no_child = Some(format!("the command `cat` can't be started: {error}"));
            None
        }
    };
    drop(locks);
    link.exchange("only child processes have the locks", &())?;
    report.inherited = Kind::Flock.try_theirs(link);
    let (sender, receiver) = mpsc::sync_channel(1);
    if let Ok(lock) = LockFile::open_or_create(&link.theirs(".wait")) {
        // one that is never woken stays in the kernel, and goes with this process
        let waiting = std::thread::Builder::new()
            .name("flock".into())
            .spawn(move || {
                if lock.lock().is_ok() {
                    let _ = sender.send(Boot::now());
                }
            });
        drop(waiting);
    }
    link.exchange("both wait for the other's", &())?;
    report.killed = Some(Boot::now());
    if let Some(child) = &mut child {
        let _ = child.kill().and_then(|()| child.wait());
    }
    let theirs = Kind::Flock.take_soon(&link.theirs(".flock"), link, TAKEN_OVER_WITHIN);
    report.polled = theirs.is_ok().then(Boot::now);
    let until = Boot::now() + TAKEN_OVER_WITHIN;
    loop {
        link.alive("a lock whose holder was killed");
        match receiver.recv_timeout(LOOK) {
            Ok(at) => {
                report.woken = Some(at);
                break;
            }
            Err(mpsc::RecvTimeoutError::Timeout) if Boot::now() < until => {}
            Err(_) => break,
        }
    }
    drop(theirs);
    link.exchange("both took over", &())?;
    Ok(())
}
