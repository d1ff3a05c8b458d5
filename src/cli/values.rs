//! Values of options and arguments that are checked while they are parsed.

use std::str::FromStr;

use crate::name::{JobName, NameError, RunId};

/// A run or a job, as given to `show`, `logs` and `rerun`. `decade` can be both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(String);

impl Target {
    /// The text as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As the name of a job, if it can be one.
    pub fn as_job(&self) -> Option<JobName> {
        self.0.parse().ok()
    }

    /// As a run id or the beginning of one: 6 to 16 digits.
    pub fn as_run_prefix(&self) -> Option<&str> {
        let digits = self
            .0
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (digits && (RunId::SHORT..=RunId::DIGITS).contains(&self.0.len()))
            .then_some(self.0.as_str())
    }
}

impl FromStr for Target {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let target = Target(text.to_owned());
        match text.parse::<JobName>() {
            Err(e) if target.as_run_prefix().is_none() => Err(e),
            _ => Ok(target),
        }
    }
}

/// Most characters that a reason can have.
pub const REASON_LIMIT: usize = 1000;

/// A reason: any text of 1 to [`REASON_LIMIT`] characters.
pub fn reason(text: &str) -> Result<String, String> {
    match text.chars().count() {
        0 => Err("a reason can't be empty: say why, or leave the option out".to_owned()),
        n if n > REASON_LIMIT => Err(format!(
            "a reason has at most {REASON_LIMIT} characters, this one has {n}"
        )),
        _ => Ok(text.to_owned()),
    }
}

/// A reason that says something: it is all that later tells why a job was let run where it is not safe.
pub fn unsafe_reason(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err(
            "say why the job may run although two of it could: it stands in each run's record"
                .to_owned(),
        );
    }
    reason(text)
}

/// `KEY=VALUE`; KEY is made like a job's name.
pub fn tag(text: &str) -> Result<(String, String), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(format!("{text:?} has no value: write KEY=VALUE"));
    };
    key.parse::<JobName>().map_err(|e| e.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

const SIGNALS: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ABRT", libc::SIGABRT),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("PIPE", libc::SIGPIPE),
    ("XCPU", libc::SIGXCPU),
    ("VTALRM", libc::SIGVTALRM),
];

/// A signal that can end a job: `TERM`, `SIGTERM`, `15`.
pub fn signal(text: &str) -> Result<i32, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = SIGNALS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|&(_, number)| number);
    let stops = [
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGCHLD,
    ];
    match by_name.or_else(|| text.parse().ok()) {
        Some(n) if (1..=64).contains(&n) && !stops.contains(&n) => Ok(n),
        Some(n) => Err(format!(
            "signal {n} can't end a job: write TERM, SIGTERM or 15"
        )),
        None => Err(format!(
            "{text:?} is no signal that ends a job: write TERM, SIGTERM or 15"
        )),
    }
}

/// The name of a signal that [`signal`] knows by name, without `SIG`.
pub fn signal_name(number: i32) -> Option<&'static str> {
    SIGNALS
        .iter()
        .find(|&&(_, known)| known == number)
        .map(|&(name, _)| name)
}
