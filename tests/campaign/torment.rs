//! What is done to the processes of a run: found by their parents alone, held by pidfd so that nobody else is hit.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::plan::{FAMILY, FRONT, GUARD, JOB, KEEPER, Victims};

/// A process that is not mistaken for a later one with its pid.
pub struct Target {
    pid: i32,
    pidfd: OwnedFd,
}

impl Target {
    /// The process that has this pid now.
    pub fn of(pid: i32) -> Option<Target> {
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        Some(Target { pid, pidfd })
    }

    /// Sends it a signal; nothing happens if it is gone.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Whether it is gone, after waiting for that for so long.
    pub fn is_gone_within(&self, limit: Duration) -> bool {
        let timeout = Timespec::try_from(limit).expect("a short time");
        let mut fds = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        matches!(poll(&mut fds, Some(&timeout)), Ok(1..))
    }

    fn is_stopped(&self) -> bool {
        state(self.pid).is_none_or(|(state, _)| b"TZX".contains(&state))
    }
}

/// State and parent, of proc_pid_stat(5).
fn state(pid: i32) -> Option<(u8, i32)> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = text.iter().rposition(|&b| b == b')')? + 2;
    let text = std::str::from_utf8(&text[after..]).ok()?;
    let mut fields = text.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// The children of a process with one thread, oldest first.
pub fn children(pid: i32) -> Vec<i32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Everything below a process.
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut found = children(pid);
    let mut next = 0;
    while next < found.len() {
        found.extend(children(found[next]));
        next += 1;
    }
    found
}

/// The processes of a run.
#[derive(Default)]
pub struct Family {
    front: Option<Target>,
    keeper: Option<Target>,
    guard: Option<Target>,
    job: Option<Target>,
    rest: Vec<Target>,
}

impl Family {
    /// As far as there are any yet: front's first child is the guard, the second one the keeper.
    pub fn begun(front: i32) -> Family {
        let children = children(front);
        let at = |n: usize| children.get(n).and_then(|&pid| Target::of(pid));
        Family {
            front: Target::of(front),
            guard: at(0),
            keeper: at(1),
            ..Family::default()
        }
    }

    /// All of it, for a run whose job has the pid `job`.
    pub fn whole(front: i32, job: i32) -> Family {
        let guard = state(job).map(|(_, parent)| parent);
        let Some(guard) = guard.filter(|guard| state(*guard).is_some_and(|(_, p)| p == front))
        else {
            // some of it is gone already
            return Family::begun(front);
        };
        let keeper = children(front).into_iter().find(|pid| *pid != guard);
        let rest = descendants(guard).into_iter().filter(|pid| *pid != job);
        Family {
            front: Target::of(front),
            keeper: keeper.and_then(Target::of),
            guard: Target::of(guard),
            job: Target::of(job),
            rest: rest.filter_map(Target::of).collect(),
        }
    }

    /// Whether there is a keeper already.
    pub fn has_a_keeper(&self) -> bool {
        self.keeper.is_some()
    }

    /// Who of it is meant, in an order that depends on `turn`.
    pub fn select(&self, victims: Victims, turn: u64) -> (Vec<&Target>, Victims) {
        let mut hit = 0;
        let mut found = Vec::new();
        for (bit, target) in [
            (FRONT, &self.front),
            (KEEPER, &self.keeper),
            (GUARD, &self.guard),
            (JOB, &self.job),
        ] {
            if let (true, Some(target)) = (victims & bit != 0, target) {
                found.push(target);
                hit |= bit;
            }
        }
        if victims & FAMILY != 0 && !self.rest.is_empty() {
            found.extend(&self.rest);
            hit |= FAMILY;
        }
        if !found.is_empty() {
            let middle = usize::try_from(turn).unwrap_or(0) % found.len();
            found.rotate_left(middle);
        }
        (found, hit)
    }

    /// Every process of it.
    pub fn pids(&self) -> Vec<i32> {
        let own = [&self.front, &self.keeper, &self.guard, &self.job];
        own.into_iter()
            .flatten()
            .chain(&self.rest)
            .map(|target| target.pid)
            .collect()
    }
}

/// SIGSTOP to all of them, until they are.
pub fn stop(targets: &[&Target]) {
    for target in targets {
        target.signal(Signal::STOP);
    }
    let end = Instant::now() + Duration::from_secs(30);
    while !targets.iter().all(|t| t.is_stopped()) && Instant::now() < end {
        thread::sleep(Duration::from_micros(200));
    }
}

/// Sends all of them a signal, one after the other.
pub fn signal(targets: &[&Target], signal: Signal) {
    for target in targets {
        target.signal(signal);
    }
}

/// A control group whose processes stand still, as if their machine did. Both versions of the kernel's freezer do.
pub struct Freezer {
    folders: Vec<PathBuf>,
    v2: bool,
}

impl Freezer {
    /// One with all processes of a run in it, frozen; `None`: there is no freezer here, or the run is gone.
    pub fn freeze(name: &str, front: i32, job: i32) -> Option<Freezer> {
        let (folder, v2) = place(name)?;
        fs::create_dir(&folder).ok()?;
        let mut freezer = Freezer {
            folders: vec![folder],
            v2,
        };
        let mut missing = true;
        // whoever is forked meanwhile is missed in one round and found in the next
        while missing {
            missing = false;
            let mut pids = Family::whole(front, job).pids();
            pids.sort_unstable();
            for pid in pids {
                missing |= freezer.put(pid);
            }
        }
        freezer.set(true);
        Some(freezer)
    }

    /// Puts a process in if it is not; says whether it was not.
    fn put(&mut self, pid: i32) -> bool {
        let folder = &self.folders[0];
        let procs = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        if procs.lines().any(|line| line == pid.to_string()) {
            return false;
        }
        fs::write(folder.join("cgroup.procs"), pid.to_string()).is_ok()
    }

    fn set(&self, frozen: bool) {
        for folder in &self.folders {
            let (file, word) = match (self.v2, frozen) {
                (false, true) => ("freezer.state", "FROZEN"),
                (false, false) => ("freezer.state", "THAWED"),
                (true, true) => ("cgroup.freeze", "1"),
                (true, false) => ("cgroup.freeze", "0"),
            };
            let _ = fs::write(folder.join(file), word);
            let end = Instant::now() + Duration::from_secs(30);
            while frozen && !self.is_frozen() && Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn is_frozen(&self) -> bool {
        let (file, word) = if self.v2 {
            ("cgroup.events", "frozen 1")
        } else {
            ("freezer.state", "FROZEN")
        };
        self.folders.iter().all(|folder| {
            fs::read_to_string(folder.join(file)).is_ok_and(|text| text.contains(word))
        })
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.set(false);
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.set(false);
        let end = Instant::now() + Duration::from_secs(30);
        for folder in &self.folders {
            while fs::remove_dir(folder).is_err() && folder.exists() && Instant::now() < end {
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Where a freezer of this name can be made, and whether it is one of version 2.
fn place(name: &str) -> Option<(PathBuf, bool)> {
    [
        ("/sys/fs/cgroup/freezer", false),
        ("/sys/fs/cgroup", true),
        ("/sys/fs/cgroup/unified", true),
    ]
    .into_iter()
    .map(|(root, v2)| (PathBuf::from(root), v2))
    .find(|(root, v2)| *v2 != root.join("tasks").exists() && root.join("cgroup.procs").exists())
    .map(|(root, v2)| (root.join(name), v2))
}
