//! What /proc says of processes (proc_pid_stat(5), proc_pid_environ(5)). All of it may be stale when it is read;
//! whoever acts on it holds a pidfd first or is the parent.

use std::collections::HashMap;
use std::{fs, io};

use rustix::io::Errno;
use rustix::process::Pid;

use crate::kernel_file;
use crate::store::ProcessId;

/// A line of /proc/PID/stat, as far as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The process.
    pub id: ProcessId,
    /// Its parent.
    pub parent: i32,
    /// Its name.
    pub name: String,
    /// `Z` for a zombie, `X` for one that is dead.
    pub state: char,
}

impl Stat {
    /// Whether it runs or could run.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Reads the stat line of `pid`; `None` if there is no such process, or it can't be seen from here.
pub fn stat(pid: i32) -> Option<Stat> {
    try_stat(pid).ok().flatten()
}

/// As [`stat`], and tells what is not there from what could not be read.
fn try_stat(pid: i32) -> io::Result<Option<Stat>> {
    let line = seen(kernel_file::read(format!("/proc/{pid}/stat")))?;
    Ok(line.and_then(|line| parse_stat(&String::from_utf8_lossy(&line))))
}

/// `None` for what is gone or hidden from this user; an error is one of looking (too many open files), and says nothing
/// about what would have been seen.
pub fn seen<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ESRCH | libc::EACCES | libc::EPERM)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads a stat line. The name is in parentheses and may itself hold any of `) (`: the last `)` ends it.
pub fn parse_stat(line: &str) -> Option<Stat> {
    let (pid, rest) = line.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        id: ProcessId {
            pid: pid.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        },
        parent: fields.get(1)?.parse().ok()?,
        name: name.to_owned(),
        state: fields.first()?.chars().next()?,
    })
}

/// The calling process.
pub fn own() -> ProcessId {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    identify(pid)
}

/// `pid` with its start time; a start time of 0, which no process has, if it is gone.
pub fn identify(pid: i32) -> ProcessId {
    stat(pid).map_or(ProcessId { pid, start: 0 }, |s| s.id)
}

/// Whether `id` is alive, not a zombie, and not another process with the same pid. One that can't be looked at, as /proc hides
/// it from this user (`hidepid`, proc(5)) or as no file can be opened, counts as alive as long as somebody has its pid.
pub fn is_alive(id: ProcessId) -> bool {
    match stat(id.pid) {
        Some(stat) => stat.id == id && stat.is_alive(),
        None => {
            pid(id).is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(Errno::SRCH))
        }
    }
}

/// For a system call. What a store says is a pid may be any number, and a negative one means a group to kill(2).
pub fn pid(id: ProcessId) -> Option<Pid> {
    Pid::from_raw(id.pid.max(0))
}

/// Every process that can be seen.
///
/// # Errors
/// If /proc can't be looked at: then nothing is known of who is there.
pub fn all() -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    let Some(folder) = seen(fs::read_dir("/proc"))? else {
        return Ok(found);
    };
    for entry in folder {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            found.extend(try_stat(pid)?);
        }
    }
    Ok(found)
}

/// Everything below `root` that is alive, by parent links, without what lies below `but`.
///
/// # Errors
/// As [`all`].
pub fn descendants(root: i32, but: &[i32]) -> io::Result<Vec<Stat>> {
    let mut children: HashMap<i32, Vec<Stat>> = HashMap::new();
    for process in all()? {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            if !but.contains(&child.id.pid) {
                parents.push(child.id.pid);
                found.push(child);
            }
        }
    }
    found.retain(Stat::is_alive);
    Ok(found)
}

/// Parent, grandparent and so on, up to the last that can be seen; each is looked for when it is asked for.
pub fn ancestors(of: i32) -> impl Iterator<Item = Stat> {
    let parent = |process: &Stat| stat(process.parent);
    // pids are reused, so there might be no end
    std::iter::successors(stat(of), parent).skip(1).take(256)
}

/// The value of `name` in the environment that `pid` was started with. `None` also where it is hidden.
///
/// # Errors
/// As [`all`].
pub fn environment_value(pid: i32, name: &str) -> io::Result<Option<String>> {
    let environment = seen(kernel_file::read(format!("/proc/{pid}/environ")))?;
    Ok(environment.and_then(|environment| {
        environment.split(|&b| b == 0).find_map(|entry| {
            let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_process_can_have_as_a_pid_is_nobody() {
        for number in [0, -1, -4711, i32::MIN] {
            let id = ProcessId {
                pid: number,
                start: 0,
            };
            assert!(pid(id).is_none() && !is_alive(id));
        }
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_is_parsed() {
        let line = "42 (a) (b c) S 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 991 1 1";
        let stat = parse_stat(line).expect("it is a stat line");
        assert_eq!(
            stat.id,
            ProcessId {
                pid: 42,
                start: 991
            }
        );
        assert_eq!(
            (stat.parent, stat.name.as_str(), stat.state),
            (7, "a) (b c", 'S')
        );
    }

    // shows: pid-reuse local, shared, lockfile
    #[test]
    fn this_process_is_alive_and_its_reused_pid_is_not() {
        let own = own();
        assert!(is_alive(own));
        assert!(!is_alive(ProcessId {
            start: own.start + 1,
            ..own
        }));
    }
}
