//! Starts the job's first process, as its caller would have: same mask, same dispositions, same closed streams.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};

use super::signals;

/// What the job's first process gets.
pub struct Spawn<'a> {
    /// Program and arguments; the program is looked for in `$PATH` (execvp(3)).
    pub command: &'a [OsString],
    /// Added to the environment.
    pub variables: &'a [(String, OsString)],
    /// Standard output and error where they are not the caller's own.
    pub streams: [Option<OwnedFd>; 2],
    /// The locked descriptor, which stays open over exec.
    pub lock: Option<BorrowedFd<'a>>,
    /// Put it into a process group of its own.
    pub own_group: bool,
}

impl Spawn<'_> {
    /// Forks and executes. Must be called from the main thread: `PR_SET_PDEATHSIG` means the death of the *thread* that
    /// forked (prctl(2)).
    ///
    /// # Errors
    /// What execvp(3) or fork(2) failed with.
    pub fn start(self) -> io::Result<Pid> {
        let [stdout, stderr] = self.streams;
        let piped = [false, stdout.is_some(), stderr.is_some()];
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(stdout) = stdout {
            command.stdout(Stdio::from(stdout));
        }
        if let Some(stderr) = stderr {
            command.stderr(Stdio::from(stderr));
        }
        let parent = rustix::process::getpid();
        let lock = self.lock.map(|fd| fd.as_raw_fd());
        let own_group = self.own_group;
        // SAFETY: the closure calls system calls only, and reads statics and copies; nothing that allocates or locks.
        unsafe {
            command.pre_exec(move || prepare(parent, lock, own_group, piped));
        }
        let child = command.spawn()?;
        Ok(Pid::from_child(&child))
    }
}

fn prepare(parent: Pid, lock: Option<RawFd>, own_group: bool, piped: [bool; 3]) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        // The guard died between fork and prctl: its death signal will never come.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    if own_group {
        rustix::process::setpgid(None, None)?;
    }
    // SAFETY: fcntl(2) and close(2) on descriptors of this process, which is about to become the job.
    unsafe {
        if let Some(lock) = lock
            && libc::fcntl(lock, libc::F_SETFD, 0) == -1
        {
            return Err(io::Error::last_os_error());
        }
        for fd in 0..3 {
            if signals::was_closed(fd) && !piped[usize::try_from(fd).unwrap_or(0)] {
                libc::close(fd);
            }
        }
    }
    signals::restore_callers();
    Ok(())
}
