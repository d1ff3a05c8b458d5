//! Every exit code that joblock itself can end with. No other file has such a number.
//!
//! The job's own code, and `128 + n` for a job that signal `n` ended, pass through unchanged.
//! The numbers follow timeout(1) (124 to 127), sysexits.h (69 `EX_UNAVAILABLE`, 75 `EX_TEMPFAIL`)
//! and, for `check`, the Monitoring Plugins guidelines (0 to 3).

use std::process::ExitCode;

/// Success; also a start that was skipped because the job succeeded within its window.
pub const OK: u8 = 0;
/// The store can't be used: the job was not started.
pub const STORE_UNUSABLE: u8 = 69;
/// The lock is held by another run (`--conflict-exit-code` replaces it).
pub const LOCK_HELD: u8 = 75;
/// The lock was lost or revoked, and the job was killed.
pub const LOCK_LOST: u8 = 79;
/// The job ran over its time limit, also when it took SIGKILL to end it.
pub const TIMED_OUT: u8 = 124;
/// joblock's own failure, wrong usage included.
pub const OWN_FAILURE: u8 = 125;
/// The command was found and can't be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended the job.
pub const SIGNAL_BASE: u8 = 128;

/// `assert`: the caller does not run under a live lock.
pub const ASSERT_NOT_HELD: u8 = 1;

/// `check`: all is well.
pub const CHECK_OK: u8 = 0;
/// `check`: somebody should look before the next night.
pub const CHECK_WARNING: u8 = 1;
/// `check`: somebody should look now.
pub const CHECK_CRITICAL: u8 = 2;
/// `check`: joblock could not tell, its own errors included.
pub const CHECK_UNKNOWN: u8 = 3;

/// The code for a job that signal `signal` (1 to 64) ended.
pub fn of_signal(signal: i32) -> u8 {
    SIGNAL_BASE.saturating_add(u8::try_from(signal).unwrap_or(0))
}

/// The standard library's form of `code`.
pub fn code(code: u8) -> ExitCode {
    ExitCode::from(code)
}
