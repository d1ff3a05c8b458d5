//! Ends process trees: the living job's, and what a run that is gone left on this machine.
//!
//! What it does not find: a process that dropped both the inherited descriptor and its environment after all three of
//! its run's own processes were gone. Nor does it see into a pid namespace that it is not above of.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::cgroup::JobCgroup;
use super::memory;
use super::process::{self, Stat};
use crate::clock::Boot;
use crate::kernel_file;
use crate::store::record::{OutOfMemory, RunRecord};
use crate::store::{Cleared, Clearing, Holder, Place, ProcessId};

/// How long a process that was sent SIGKILL may take to be gone before it counts as stuck: K at the default TTL.
const DEATH: Duration = Duration::from_secs(5);

/// How long front may take to end a job whose guard and keeper are dead, and to have its end recorded, on a machine that is busy.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// What /proc adds to the name of a file that was deleted.
const DELETED: &str = " (deleted)";

/// The environment variable that marks every process of a run.
pub const MARK: &str = "JOBLOCK_RUN_ID";

/// Sends `signal` to exactly the process `id`; a reused pid is not hit.
///
/// # Errors
/// `EPERM` for another user's process, `ESRCH` if it is gone.
pub fn signal(id: ProcessId, signal: i32) -> Result<(), Errno> {
    let pidfd = open(id)?;
    send(&pidfd, signal)
}

fn open(id: ProcessId) -> Result<OwnedFd, Errno> {
    let pid = process::pid(id).ok_or(Errno::SRCH)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    // The pidfd pins the process: if the start time is still right now, it was right when it was opened.
    if process::stat(id.pid).is_some_and(|s| s.id == id) {
        Ok(pidfd)
    } else {
        Err(Errno::SRCH)
    }
}

fn send(pidfd: &OwnedFd, signal: i32) -> Result<(), Errno> {
    // SAFETY: the number only goes to the kernel, which refuses what is no signal (EINVAL).
    let signal = unsafe { Signal::from_raw_unchecked(signal) };
    pidfd_send_signal(pidfd, signal)
}

/// Sends `with` to everything below this process, then SIGCONT, so that a stopped one can follow.
/// Says how many there were.
///
/// # Errors
/// If /proc can't be looked at; nothing was sent then.
pub fn terminate(with: i32) -> io::Result<u32> {
    let own = process::own().pid;
    let found = process::descendants(own, &[])?;
    for process in &found {
        let sent = signal(process.id, with);
        if sent.is_ok() && with != libc::SIGKILL {
            let _ = signal(process.id, libc::SIGCONT);
        } else if sent.is_err_and(|error| error != Errno::SRCH) && process.parent == own {
            // No pidfd to be had; the pid of a child that is not waited for is still its own.
            // SAFETY: kill(2) on our own child.
            unsafe {
                libc::kill(process.id.pid, with);
            }
        }
    }
    Ok(u32::try_from(found.len()).unwrap_or(u32::MAX))
}

/// Whether front, keeper or guard of `holder` is alive; `None` if that can't be seen from where this process is.
pub fn alive_here(holder: &Holder) -> Option<bool> {
    Tree::new(Place::here()).alive(holder)
}

/// Ends what is left of runs whose own processes are gone.
pub struct Tree {
    here: Place,
}

impl Tree {
    /// For the machine and the namespaces that this process is in.
    pub fn new(here: Place) -> Tree {
        Tree { here }
    }

    /// Whether front, keeper or guard of `holder` is alive; `None` if that can't be seen from here.
    pub fn alive(&self, holder: &Holder) -> Option<bool> {
        let three = holder.processes;
        self.here.same_pids(&holder.place).then(|| {
            [three.front, three.keeper, three.guard]
                .into_iter()
                .any(process::is_alive)
        })
    }

    /// Whether `holder`'s keeper, who alone sees what is asked of the run, is dead or stopped on this machine.
    pub fn keeper_is_deaf(&self, holder: &Holder) -> bool {
        let keeper = holder.processes.keeper;
        self.here.same_pids(&holder.place)
            && (!process::is_alive(keeper)
                || process::stat(keeper.pid).is_some_and(|s| s.state == 'T'))
    }

    /// Ends a whole run on this machine, its own processes too: guard and keeper by SIGKILL, so that front ends the job and
    /// has the end recorded; then front, if it does not, and what is left. `lock_file`: the lock's.
    ///
    /// Whoever may write the store may name any pids there. So guard and keeper are ended only if they run joblock's
    /// program and have the lock file open, and front only if it is their parent.
    pub fn end_run(&self, holder: &Holder, lock_file: &Path) -> Cleared {
        let three = holder.processes;
        if self.here.same_pids(&holder.place) {
            let (mut parents, mut sent) = (Vec::new(), Vec::new());
            for own in [three.guard, three.keeper] {
                let Ok(pidfd) = open(own) else { continue };
                if runs_joblock(own.pid) && has_open(own.pid, lock_file) {
                    parents.extend(process::stat(own.pid).map(|stat| stat.parent));
                    let _ = send(&pidfd, libc::SIGKILL);
                    sent.push(pidfd);
                }
            }
            // one that does not go is seen to be alive below
            for pidfd in sent {
                wait_for_death(&pidfd, Boot::now() + DEATH);
            }
            if let Ok(front) = open(three.front)
                && parents.contains(&three.front.pid)
                && runs_joblock(three.front.pid)
            {
                let _ = send(&front, libc::SIGCONT);
                if !wait_for_death(&front, Boot::now() + LAST_WORDS) {
                    let _ = send(&front, libc::SIGKILL);
                    wait_for_death(&front, Boot::now() + DEATH);
                }
            }
        }
        self.clear(holder, None)
    }

    /// What is left of `holder`'s job here, for people: pids, names and states. The run's own processes are not among them.
    pub fn left(&self, holder: &Holder) -> Vec<String> {
        Self::leftovers(holder, None)
            .map_or_else(|error| vec![unknown(&error)], |left| names(&left))
    }

    fn leftovers(holder: &Holder, lock_file: Option<(u64, u64)>) -> io::Result<Vec<Stat>> {
        let own = process::own().pid;
        // A living process of the keeper's pid that is not the keeper took the lock itself, and left it to nobody.
        let keeper = holder.processes.keeper;
        let taker_lives = process::stat(keeper.pid).is_some_and(|s| s.is_alive() && s.id != keeper);
        let lock_file = lock_file.filter(|_| !taker_lives);
        let mut left = Vec::new();
        for process in process::all()? {
            let pid = process.id.pid;
            if pid == own || !process.is_alive() {
                continue;
            }
            let mark = process::environment_value(pid, MARK)?;
            if mark.is_some_and(|id| id == holder.run_id.as_str())
                || lock_file.map_or(Ok(false), |(device, inode)| {
                    holds_the_lock(pid, device, inode, keeper.pid)
                })?
            {
                left.push(process);
            }
        }
        Ok(left)
    }
}

/// Nobody may begin while it is not known who is there.
fn unknown(error: &io::Error) -> String {
    format!("processes that can't be looked at: {error}")
}

fn names(processes: &[Stat]) -> Vec<String> {
    processes
        .iter()
        .map(|p| format!("pid {} ({}, state {})", p.id.pid, p.name, p.state))
        .collect()
}

impl Clearing for Tree {
    fn clear(&self, holder: &Holder, lock_file: Option<BorrowedFd<'_>>) -> Cleared {
        match (self.alive(holder), lock_file) {
            // Without an answer, but with its lock in somebody's hands, it may be the holder itself.
            (Some(true), _) | (None, Some(_)) => Cleared::Alive,
            _ => self.end(holder, lock_file),
        }
    }

    fn out_of_memory(&self, run: &RunRecord) -> OutOfMemory {
        // Counters begin again with each boot, and so do the ids of cgroups.
        if !self.here.boot_id.is_empty() && self.here.boot_id == run.boot_id {
            memory::verdict(&run.oom_counters)
        } else {
            OutOfMemory::Unknown
        }
    }
}

impl Tree {
    /// Ends what is in `holder`'s cgroup, carries its mark or has its locked descriptor, except this process.
    pub fn end(&self, holder: &Holder, lock_file: Option<BorrowedFd<'_>>) -> Cleared {
        let file = lock_file
            .and_then(|fd| rustix::fs::fstat(fd).ok())
            .map(|s| (s.st_dev, s.st_ino));
        let mut ended = 0;
        let deadline = Boot::now() + DEATH;
        if let Some(path) = &holder.cgroup {
            match JobCgroup::recorded(path, &holder.run_id) {
                Ok(Some(cgroup)) if !cgroup.end(deadline) => {
                    let what = "processes in its cgroup that SIGKILL does not end";
                    return Cleared::Stuck(what.into());
                }
                Ok(_) => {}
                Err(error) => return Cleared::Stuck(unknown(&error.into())),
            }
        }
        loop {
            let found = match Self::leftovers(holder, file) {
                Ok(found) => found,
                Err(error) => return Cleared::Stuck(unknown(&error)),
            };
            if found.is_empty() {
                return Cleared::Gone { ended };
            }
            let mut waited = false;
            for process in &found {
                let Ok(pidfd) = open(process.id) else {
                    continue;
                };
                if send(&pidfd, libc::SIGKILL).is_ok() {
                    ended += 1;
                    waited |= wait_for_death(&pidfd, deadline);
                }
            }
            if !waited || Boot::now() >= deadline {
                return match Self::leftovers(holder, file) {
                    Ok(left) if left.is_empty() => Cleared::Gone { ended },
                    Ok(left) => Cleared::Stuck(names(&left).join(", ")),
                    Err(error) => Cleared::Stuck(unknown(&error)),
                };
            }
        }
    }
}

/// Whether the program of `pid` is called what ours is; after an upgrade it is another file.
fn runs_joblock(pid: i32) -> bool {
    let name = |pid: &str| {
        let link = fs::read_link(Path::new("/proc").join(pid).join("exe")).ok()?;
        let name = link.file_name()?.to_str()?;
        Some(name.strip_suffix(DELETED).unwrap_or(name).to_owned())
    };
    name("self").is_some_and(|own| name(&pid.to_string()) == Some(own))
}

/// Whether `pid` has the file of this path open, be it deleted by now.
fn has_open(pid: i32, path: &Path) -> bool {
    let deleted = format!("{}{DELETED}", path.display());
    let folder = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"));
    folder.into_iter().flatten().flatten().any(|entry| {
        fs::read_link(entry.path()).is_ok_and(|link| link == path || link == Path::new(&deleted))
    })
}

/// A pidfd is readable once its process is gone (pidfd_open(2)).
fn wait_for_death(pidfd: &OwnedFd, deadline: Boot) -> bool {
    let left = deadline.since(Boot::now());
    let timeout = rustix::time::Timespec {
        tv_sec: left.as_secs().cast_signed(),
        tv_nsec: left.subsec_nanos().into(),
    };
    matches!(
        poll(
            &mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)],
            Some(&timeout)
        ),
        Ok(1..)
    )
}

/// Whether `pid` has the very open file that `keeper` took the flock(2) through, not merely the same file, as somebody who
/// waits for the lock does, or the one that the next run locked: fdinfo has a `lock:` line for such a descriptor only, and
/// names the process that took the lock (proc_pid_fdinfo(5), proc_locks(5)).
///
/// fdinfo is asked first, as the kernel alone answers it. To stat a file asks its file system, and any process here may have
/// one open on a mount that is dead: that would hold every start up, or refuse it.
fn holds_the_lock(pid: i32, device: u64, inode: u64, keeper: i32) -> io::Result<bool> {
    let process = Path::new("/proc").join(pid.to_string());
    let Some(folder) = process::seen(fs::read_dir(process.join("fd")))? else {
        return Ok(false);
    };
    for entry in folder {
        let Some(entry) = process::seen(entry)? else {
            continue;
        };
        let info = process::seen(kernel_file::text(
            process.join("fdinfo").join(entry.file_name()),
        ))?;
        let of_keeper = |info: String| {
            info.lines()
                .any(|line| may_be_of_keeper(line, keeper, inode))
        };
        if !info.is_some_and(of_keeper) {
            continue;
        }
        let file = process::seen(fs::metadata(entry.path()))?;
        if file.is_some_and(|m| m.dev() == device && m.ino() == inode) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a line of fdinfo may tell of the lock that `keeper`, who is gone, took on the file with this inode.
///
/// In a container, that is in a pid namespace that is not the first one, the kernel has no pid but 0 for who is gone. Then this
/// descriptor has the lock, as a file has but one, and if the next run had taken it from here its keeper would be named. A file with
/// another inode is not asked for its device either.
fn may_be_of_keeper(line: &str, keeper: i32, inode: u64) -> bool {
    match locker(line) {
        Some(0) => line.contains(&format!(":{inode} ")),
        pid => pid == Some(keeper),
    }
}

/// The pid that took the flock(2), from a line like `lock: 1: FLOCK  ADVISORY  WRITE 4711 08:02:1234 0 EOF`.
pub fn locker(line: &str) -> Option<i32> {
    let mut fields = line.strip_prefix("lock:")?.split_whitespace().skip(1);
    if fields.next()? != "FLOCK" {
        return None;
    }
    let pid: u32 = fields.nth(2)?.parse().ok()?;
    pid.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::name::RunId;
    use crate::store::Processes;
    use crate::store::record::{Trigger, Who};

    /// What can't be compared is not dead: a start that could not read its boot id once killed a live run.
    #[test]
    fn a_holder_that_cannot_be_told_dead_from_here_keeps_its_lock_and_its_job() {
        let mut job = std::process::Command::new("sleep")
            .arg("1000")
            .env(MARK, "0123456789abcdef")
            .spawn()
            .expect("a job");
        let own = process::own();
        let holder = Holder {
            run_id: "0123456789abcdef".parse::<RunId>().expect("a run id"),
            job: "a".into(),
            trigger: Trigger::Other,
            who: Who {
                uid: 0,
                user: "root".into(),
                sudo_user: None,
                terminal: None,
            },
            place: Place::here(),
            processes: Processes {
                front: own,
                keeper: own,
                guard: own,
            },
            cgroup: None,
            nfs: None,
            freeing: None,
            since: Wall::now(),
        };
        let nowhere = Place {
            boot_id: String::new(),
            ..Place::here()
        };
        let file = tempfile::tempfile().expect("a file");
        let cleared = Tree::new(nowhere).clear(&holder, Some(file.as_fd()));
        let lives = matches!(job.try_wait(), Ok(None));
        let _ = job.kill();
        let _ = job.wait();
        assert_eq!(cleared, Cleared::Alive);
        assert!(lives);
    }

    #[test]
    fn the_process_that_took_a_lock_is_read_from_fdinfo() {
        assert_eq!(
            locker("lock:\t1: FLOCK  ADVISORY  WRITE 4711 08:02:1234 0 EOF"),
            Some(4711)
        );
        assert_eq!(
            locker("lock:\t1: POSIX  ADVISORY  WRITE 4711 08:02:1234 0 EOF"),
            None
        );
        assert_eq!(locker("flags:\t0100002"), None);
    }

    #[test]
    fn a_lock_whose_taker_has_no_pid_here_may_be_of_the_keeper_on_the_very_file_only() {
        let line = |pid| format!("lock:\t1: FLOCK  ADVISORY  WRITE {pid} 08:02:1234 0 EOF");
        assert!(may_be_of_keeper(&line(4711), 4711, 1234));
        assert!(!may_be_of_keeper(&line(4712), 4711, 1234));
        assert!(may_be_of_keeper(&line(0), 4711, 1234));
        for other in [234, 123, 12345, 2] {
            assert!(!may_be_of_keeper(&line(0), 4711, other));
        }
    }
}
