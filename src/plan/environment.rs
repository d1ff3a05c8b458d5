//! What the surroundings say, read once, so that the plan itself can be tested by table.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::trigger::is_cron;
use crate::kernel_file;
use crate::store::remote;

/// The folder of the machine's own store.
pub const SYSTEM_FOLDER: &str = "/var/lib/joblock";

/// The surroundings of this process. [`Default`] is a place that says nothing, for tests.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an answer of its own, not a state"
)]
pub struct Environment {
    /// `$JOBLOCK_STORE`.
    pub store: Option<OsString>,
    /// `$JOBLOCK_CONFIG`.
    pub config: Option<OsString>,
    /// `$JOBLOCK_TRIGGER`.
    pub trigger: Option<OsString>,
    /// `$TRIGGER_UNIT`: systemd tells a service what started it, see systemd.exec(5).
    pub trigger_unit: Option<OsString>,
    /// `$TRIGGER_TIMER_REALTIME_USEC` and `$INVOCATION_ID` are both there: a systemd timer.
    pub timer_and_invocation: bool,
    /// `$XDG_STATE_HOME`.
    pub state_home: Option<PathBuf>,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// The working folder.
    pub cwd: PathBuf,
    /// The effective user id: whose rights count.
    pub euid: u32,
    /// The real user id: who it is in the history.
    pub uid: u32,
    /// This process is PID 1 of its namespace.
    pub is_pid_1: bool,
    /// The names of the processes above this one, its parent first, up to a cron; not looked for where the trigger is told.
    pub ancestors: Vec<String>,
    /// One of the standard streams is a terminal.
    pub terminal: bool,
    /// [`SYSTEM_FOLDER`] is there, or can't be looked at.
    pub system_folder: bool,
}

impl Environment {
    /// Of this process.
    pub fn read() -> Self {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        let timer = variable("TRIGGER_TIMER_REALTIME_USEC").is_some();
        Environment {
            store: variable("JOBLOCK_STORE"),
            config: variable("JOBLOCK_CONFIG"),
            trigger: variable("JOBLOCK_TRIGGER"),
            trigger_unit: variable("TRIGGER_UNIT"),
            timer_and_invocation: timer && variable("INVOCATION_ID").is_some(),
            state_home: variable("XDG_STATE_HOME").map(PathBuf::from),
            home: std::env::home_dir().filter(|h| !h.as_os_str().is_empty()),
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            euid: rustix::process::geteuid().as_raw(),
            uid: rustix::process::getuid().as_raw(),
            is_pid_1: std::process::id() == 1,
            ancestors: if variable("JOBLOCK_TRIGGER").is_none() {
                ancestors()
            } else {
                Vec::new()
            },
            terminal: std::io::stdin().is_terminal()
                || std::io::stdout().is_terminal()
                || std::io::stderr().is_terminal(),
            system_folder: system_folder(),
        }
    }
}

/// One on a mount that may not answer is there, if only as the place where it is mounted: it is not touched.
fn system_folder() -> bool {
    let folder = Path::new(SYSTEM_FOLDER);
    remote::on_the_way(folder).is_some() || folder.try_exists().unwrap_or(true)
}

/// Ends where /proc doesn't tell: at the namespace's PID 1, or at another user's process under `hidepid`.
fn ancestors() -> Vec<String> {
    // More generations than this above a job are a loop of reused pids.
    const MOST: usize = 64;
    let mut names = Vec::new();
    let mut pid = rustix::process::getppid();
    while let Some(parent) = pid.filter(|_| names.len() < MOST) {
        let Ok(stat) = kernel_file::read(format!("/proc/{}/stat", parent.as_raw_pid())) else {
            break;
        };
        let Some((name, above)) = name_and_parent(&stat) else {
            break;
        };
        pid = above.filter(|_| !is_cron(&name));
        names.push(name);
    }
    names
}

/// Fields 2 and 4 of `proc_pid_stat(5)`. The name stands in parentheses and may contain some itself.
pub fn name_and_parent(stat: &[u8]) -> Option<(String, Option<rustix::process::Pid>)> {
    let line = String::from_utf8_lossy(stat);
    let (name, rest) = line.split_once(" (")?.1.rsplit_once(") ")?;
    let parent: i32 = rest.split_whitespace().nth(1)?.parse().ok()?;
    Some((
        name.to_owned(),
        rustix::process::Pid::from_raw(parent.max(0)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let (name, parent) = name_and_parent(b"7 (a) b (c)) S 42 7 7 0").unwrap();
        assert_eq!(
            (name.as_str(), parent.map(rustix::process::Pid::as_raw_pid)),
            ("a) b (c)", Some(42))
        );
    }

    #[test]
    fn the_test_runner_has_ancestors() {
        assert!(!ancestors().is_empty());
    }
}
