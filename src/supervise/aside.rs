//! What may hang on a dead mount goes on in a process of its own. One that sleeps uninterruptibly there can't be killed, but
//! nobody has to wait for it: the process that the user started passes its output on, and leaves it behind when it gives no
//! sign of life.
//!
//! Not for stores on local file systems: it costs a fork.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::pump::{Pump, Streams};
use super::{ANSWER, fork_with_code};
use crate::exit;

/// What separates signs of life from the answer of [`ask`].
const ANSWERED: u8 = 0;

/// To the process that watches this one.
static SIGNS: OnceLock<OwnedFd> = OnceLock::new();

/// Which of the two processes this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The new one, which goes on.
    Aside,
    /// The old one; the new one has ended with this code.
    Ended(u8),
    /// The old one; the new one gave no sign of life for as long as a store may take for an answer, and was left behind.
    Hangs,
}

/// Whether somebody watches this process already.
pub fn is_aside() -> bool {
    SIGNS.get().is_some()
}

/// The work gets on: another step begins.
pub fn sign_of_life() {
    if let Some(signs) = SIGNS.get() {
        let _ = write(signs, b".");
    }
}

/// Forks. The new process goes on, its output passed on by the old one, which comes back when the new one has ended or hangs.
///
/// # Errors
/// If there is no process or pipe to be had.
pub fn go_on() -> io::Result<Side> {
    let streams = Streams::with_terminals()?;
    let (from, signs) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: called while the process has one thread, so the child's copy of every lock and of the allocator is in order.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            let [out, err] = &streams.job;
            if let Some(out) = out {
                rustix::stdio::dup2_stdout(out)?;
            }
            if let Some(err) = err {
                rustix::stdio::dup2_stderr(err)?;
            }
            let _ = SIGNS.set(signs);
            Ok(Side::Aside)
        }
        pid => {
            let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::Other)?;
            let Streams { pumps, job } = streams;
            drop((job, signs));
            let watch = Watch {
                pid,
                from,
                heard: Vec::new(),
                pumps,
            };
            Ok(watch
                .until_the_end()
                .map_or(Side::Hangs, |(code, _)| Side::Ended(code)))
        }
    }
}

/// Has a new process find an answer; `None`: it hangs, and was left behind.
///
/// # Errors
/// If there is no process or pipe to be had, or the process was killed.
pub fn ask(work: impl FnOnce() -> Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let (from, signs) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut signs = Some(signs);
    let pid = fork_with_code(|| {
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        if let Some(signs) = signs.take() {
            let _ = SIGNS.set(signs);
        }
        let answer = work();
        let told = SIGNS.get().is_some_and(|signs| {
            write_all(signs.as_fd(), &[ANSWERED]).is_ok()
                && write_all(signs.as_fd(), &answer).is_ok()
        });
        if told { exit::OK } else { exit::OWN_FAILURE }
    })?;
    drop(signs);
    let watch = Watch {
        pid,
        from,
        heard: Vec::new(),
        pumps: Vec::new(),
    };
    match watch.until_the_end() {
        None => Ok(None),
        Some((exit::OK, heard)) => Ok(heard
            .iter()
            .position(|&byte| byte == ANSWERED)
            .map(|end| heard[end + 1..].to_vec())),
        Some(_) => Err(io::Error::other(
            "the process that looks at the store was killed",
        )),
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The old process.
struct Watch {
    pid: Pid,
    from: OwnedFd,
    heard: Vec<u8>,
    pumps: Vec<Pump>,
}

impl Watch {
    /// The exit code, and what was heard; `None`: the other gave no sign for too long.
    fn until_the_end(mut self) -> Option<(u8, Vec<u8>)> {
        let mut give_up = Instant::now() + ANSWER;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // it dies when its mount comes back
                let _ = kill_process(self.pid, Signal::KILL);
                return None;
            }
            let mut fds = vec![PollFd::new(&self.from, PollFlags::IN)];
            fds.extend(self.pumps.iter().flat_map(Pump::interests));
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
            let signs = fds[0].revents();
            let mut alive = !signs.is_empty();
            for pump in &mut self.pumps {
                pump.turn(&mut |_| alive = true);
                // a reader who takes his time holds the other up, too
                alive |= pump.has_more_to_write();
            }
            if !signs.is_empty() && !self.hear() {
                return Some((self.reap(), self.heard));
            }
            if alive {
                give_up = Instant::now() + ANSWER;
            }
        }
    }

    /// `false`: the other is gone.
    fn hear(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match read(&self.from, &mut bytes) {
            Ok(0) => false,
            Ok(n) => {
                self.heard.extend_from_slice(&bytes[..n]);
                true
            }
            Err(error) => error == Errno::INTR,
        }
    }

    /// What the other had still to say, and how it ended.
    fn reap(&mut self) -> u8 {
        for pump in &mut self.pumps {
            pump.drain(&mut |_| {});
        }
        while !self.pumps.iter().all(Pump::is_done) {
            let mut fds: Vec<_> = self.pumps.iter().flat_map(Pump::interests).collect();
            let _ = poll(&mut fds, None);
            for pump in &mut self.pumps {
                pump.turn(&mut |_| {});
            }
        }
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                Ok(Some((_, status))) => return code_of(status),
                _ => return exit::OWN_FAILURE,
            }
        }
    }
}

fn code_of(status: WaitStatus) -> u8 {
    let code = status
        .exit_status()
        .and_then(|code| u8::try_from(code).ok());
    code.or_else(|| status.terminating_signal().map(exit::of_signal))
        .unwrap_or(exit::OWN_FAILURE)
}
