//! The three processes that hold every run.
//!
//! ```text
//! caller
//!    │ signals, job control, exit code, output
//!  front ──── guard ──── the job
//!    │
//!  keeper ─── store
//! ```
//!
//! Any one of them may die or hang, and the job still can't outlive its lock. What is not guaranteed: a process that hides
//! from both its parent links and its environment after guard *and* front or keeper are gone is not found (`tree`); a
//! process in uninterruptible sleep dies only when its device answers.

pub mod aside;
pub mod cgroup;
pub mod front;
pub mod guard;
pub mod keeper;
pub mod memory;
pub mod messages;
pub mod origin;
pub mod outcome;
pub mod process;
pub mod pump;
pub mod signals;
pub mod spawn;
pub mod tail;
pub mod timer;
pub mod tree;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use crate::exit;

/// How long the store may take for an answer, over the time that the user waits for the lock. A server that calls a delegation back, or
/// was restarted, takes about half of it.
pub const ANSWER: Duration = Duration::from_secs(30);

/// Forks; `child` runs in the new process, which ends with it, with exit code 0, or 125 if it panicked.
///
/// # Errors
/// fork(2)'s.
fn fork(child: impl FnOnce()) -> io::Result<Pid> {
    fork_with_code(|| {
        child();
        exit::OK
    })
}

/// The same, with the exit code that `child` comes to.
fn fork_with_code(child: impl FnOnce() -> u8) -> io::Result<Pid> {
    // SAFETY: called while the process has one thread, so the child's copy of every lock and of the allocator is in order.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(exit::OWN_FAILURE);
            // SAFETY: _exit(2) ends this process without running the exit handlers that belong to its parent.
            unsafe { libc::_exit(code.into()) }
        }
        pid => Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

/// Puts /dev/null in the place of the caller's streams, so that nobody who reads them waits for this process.
fn give_up_streams() {
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}
