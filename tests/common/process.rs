//! Processes as /proc shows them, known by pid *and* start time.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use rustix::process::{Pid, Signal, kill_process};

/// A process that is not mistaken for a later one with its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its pid here.
    pub pid: i32,
    /// Field 22 of its stat.
    start: u64,
}

/// What `proc_pid_stat(5)` says.
struct Stat {
    state: u8,
    parent: i32,
    session: i32,
    start: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything: what follows begins after the last one.
    let after = text.iter().rposition(|&b| b == b')')? + 2;
    let text = std::str::from_utf8(&text[after..]).ok()?;
    let fields: Vec<&str> = text.split(' ').collect();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

impl Process {
    /// The process that has this pid now.
    pub fn of(pid: i32) -> Option<Process> {
        stat(pid).map(|s| Process {
            pid,
            start: s.start,
        })
    }

    fn stat(self) -> Option<Stat> {
        stat(self.pid).filter(|s| s.start == self.start)
    }

    /// Whether it is there and no zombie.
    pub fn lives(self) -> bool {
        self.stat().is_some_and(|s| !b"ZX".contains(&s.state))
    }

    /// Whether a signal has stopped it.
    pub fn is_stopped(self) -> bool {
        self.stat().is_some_and(|s| s.state == b'T')
    }

    /// Its session.
    pub fn session(self) -> Option<i32> {
        self.stat().map(|s| s.session)
    }

    /// Sends it a signal; nothing happens if it is gone.
    pub fn kill(self, signal: i32) {
        if self.stat().is_some()
            && let (Some(pid), Some(signal)) =
                (Pid::from_raw(self.pid), Signal::from_named_raw(signal))
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Its children now.
    pub fn children(self) -> Vec<Process> {
        all()
            .filter(|p| p.stat().is_some_and(|s| s.parent == self.pid))
            .collect()
    }

    /// Its children, their children and so on, without itself.
    pub fn descendants(self) -> Vec<Process> {
        let mut found = self.children();
        let mut next = 0;
        while next < found.len() {
            found.extend(found[next].children());
            next += 1;
        }
        found
    }
}

fn all() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Process::of)
}

/// The processes of a session.
pub fn in_session(session: i32) -> Vec<Process> {
    all().filter(|p| p.session() == Some(session)).collect()
}

/// Whether its environment, as it was at its last exec, has a variable of this name.
pub fn has_variable(process: Process, name: &str) -> bool {
    let begin = [name.as_bytes(), b"="].concat();
    fs::read(format!("/proc/{}/environ", process.pid)).is_ok_and(|environment| {
        environment
            .split(|&b| b == 0)
            .any(|v| v.starts_with(&begin))
    })
}

/// The living processes whose environment, as it was at their last exec, has `name=value`.
pub fn with_environment(name: &str, value: &OsStr) -> Vec<Process> {
    let wanted = [name.as_bytes(), b"=", value.as_bytes()].concat();
    all()
        .filter(|p| {
            fs::read(format!("/proc/{}/environ", p.pid))
                .is_ok_and(|environment| environment.split(|&b| b == 0).any(|v| v == wanted))
                && p.lives()
        })
        .collect()
}
