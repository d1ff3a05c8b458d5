//! What kernel locks do in a folder, tried on a file that is made for it and removed again.
//!
//! It proves what holds on this machine. That locks reach other machines can only be tried from two of them.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::file::LockFile;
use crate::clock::Boot;
use crate::name::RunId;
use crate::store::{Finding, Level};

const SECOND_FILE: &str = "the lock excludes a second open file";
const SECOND_PROCESS: &str = "the lock excludes a second process";
const EXEC: &str = "the lock survives exec";
const KILL: &str = "the lock is freed by SIGKILL";
const POSIX: &str = "SQLite's locks exclude a second process";

#[expect(
    clippy::cast_possible_truncation,
    reason = "libc's constant and field differ in width"
)]
const EXCLUSIVE: libc::c_short = libc::F_WRLCK as libc::c_short;

/// How long a lock may take to be free after its holder was killed: file servers may take a moment.
const FREED_WITHIN: Duration = Duration::from_secs(5);

/// Tries everything; `posix`: SQLite's kind of lock too.
pub fn locks(folder: &Path, posix: bool) -> Vec<Finding> {
    let path = folder.join(format!("probe.{}", RunId::random()));
    let mut findings = Vec::new();
    if let Err(error) = try_locks(&path, posix, &mut findings) {
        // also where the mount table does not say so: ext4 after an error
        let (level, advice) = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                (Level::Warning, "; run doctor as a user who may write there")
            }
            io::ErrorKind::ReadOnlyFilesystem => (
                Level::Bad,
                "; no job starts there: see the kernel's log (dmesg), and remount it for writing",
            ),
            _ => (Level::Warning, ""),
        };
        let detail = format!(
            "{}: could not be tried to the end: {error}{advice}",
            folder.display()
        );
        findings.push(Finding {
            level,
            what: "locks".into(),
            detail,
        });
    }
    // it may never have been made
    let _ = fs::remove_file(&path);
    findings
}

fn proof(what: &str, holds: bool) -> Finding {
    let (level, detail) = if holds {
        (Level::Ok, "tried, it does")
    } else {
        (
            Level::Bad,
            "tried, it does not: no job is safe in this store, keep it on another file system",
        )
    };
    Finding {
        level,
        what: what.into(),
        detail: detail.into(),
    }
}

fn try_locks(path: &Path, posix: bool, findings: &mut Vec<Finding>) -> io::Result<()> {
    let ours = LockFile::open_or_create(path)?;
    let is_free = || LockFile::open_or_create(path)?.try_lock();
    if !ours.try_lock()? {
        return Err(io::Error::other("a new file is locked already"));
    }
    findings.push(proof(SECOND_FILE, !is_free()?));

    // Another program that has it by inheritance, and nobody else: what another thread starts meanwhile would inherit any descriptor
    // that is not closed on exec, so it is handed over as standard input.
    let inherited = ours.as_fd().try_clone_to_owned()?;
    drop(ours);
    let child = Command::new("sleep")
        .arg("60")
        .stdin(inherited)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match child {
        Ok(mut child) => {
            let kept = !is_free()?;
            findings.push(proof(SECOND_PROCESS, kept));
            findings.push(proof(EXEC, kept));
            child.kill()?;
            child.wait()?;
            let until = Boot::now() + FREED_WITHIN;
            let mut freed = is_free()?;
            while !freed && Boot::now() < until {
                std::thread::sleep(Duration::from_millis(10));
                freed = is_free()?;
            }
            findings.push(proof(KILL, freed));
        }
        Err(error) => {
            let detail = format!("not tried: the command `sleep` can't be started: {error}");
            findings.push(Finding {
                level: Level::Warning,
                what: EXEC.into(),
                detail,
            });
        }
    }
    if posix {
        findings.push(proof(POSIX, posix_excludes(path)?));
    }
    Ok(())
}

/// Whether a record lock (fcntl(2)) that we hold is refused to another process. It belongs to a process, so this takes
/// one, which opens the file itself, as each that uses SQLite does: a FUSE daemon may take two that share a descriptor for one.
pub fn posix_excludes(path: &Path) -> io::Result<bool> {
    let ours = LockFile::open_or_create(path)?;
    rustix::fs::fcntl_lock(&ours, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the child makes async-signal-safe calls on memory of its own and ends; it never returns.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: `path` ends in a NUL and lives on in the child.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
        // SAFETY: `flock` is a plain struct of integers, for which zeros are a value: the whole file.
        let mut whole: libc::flock = unsafe { std::mem::zeroed() };
        whole.l_type = EXCLUSIVE;
        // SAFETY: a descriptor that is not open makes the call fail, and `whole` outlives it.
        let taken = unsafe { libc::fcntl(fd, libc::F_SETLK, &raw const whole) } == 0;
        // SAFETY: ends this process without running anything of the parent's.
        unsafe { libc::_exit(i32::from(taken)) }
    }
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    let pid = rustix::process::Pid::from_raw(child);
    let status = rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty())
    })?;
    Ok(status.is_some_and(|(_, status)| status.exit_status() == Some(0)))
}
