//! The runs that are recorded: one that makes the store, one after it, one that is killed as a whole, the one that takes
//! over from it, one that is stopped, one that is unlocked, one that is refused beside another, one whose end the database
//! can't take, so that it goes to the spool, and a last one, which folds that in.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::check::{Kept, Known, folder};
use crate::log::{Op, Recorder};
use crate::tracer::{Act, Call, Event, Role, Tracees, Watch, follow, joblock};

/// What was recorded.
pub struct Story {
    pub log: Vec<Op>,
    /// Token and run id of the runs whose jobs were started, by their names.
    began: HashMap<String, (i64, String)>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// `run`, with this name; its job waits to be ended, or not.
    Run(&'static str, bool),
    /// `stop` or `unlock`.
    Ask(&'static str),
    Begun(&'static str),
    /// SIGKILL to everything.
    KillAll(&'static str),
    /// Lets a job that waits end.
    Release,
    Gone(&'static str),
}

const STEPS: &[Step] = {
    use Step::{Ask, Begun, Gone, KillAll, Release, Run};
    &[
        Run("first", false),
        Gone("first"),
        Run("second", false),
        Gone("second"),
        Run("killed", true),
        Begun("killed"),
        KillAll("killed"),
        Gone("killed"),
        Run("taker", false),
        Gone("taker"),
        Run("stopped", true),
        Begun("stopped"),
        Ask("stop"),
        Gone("stop"),
        Gone("stopped"),
        Run("unlocked", true),
        Begun("unlocked"),
        Ask("unlock"),
        Gone("unlock"),
        Gone("unlocked"),
        Run("holder", true),
        Begun("holder"),
        Run("refused", false),
        Gone("refused"),
        Release,
        Gone("holder"),
        Run("spooled", false),
        Gone("spooled"),
        Run("last", false),
        Gone("last"),
    ]
};

/// The outcome that a command's own words and exit code told.
fn outcome(name: &str) -> &'static str {
    match name {
        "stopped" => "stopped",
        "unlocked" => "lost",
        "holder" => "succeeded",
        _ => "failed",
    }
}

struct Play<'a> {
    kept: Kept,
    folder: &'a Path,
    recorder: Recorder,
    steps: &'static [Step],
    numbers: HashMap<&'static str, usize>,
    release: File,
    has_failed: bool,
}

impl Play<'_> {
    fn command(&self, name: &str, job: Option<bool>) -> Command {
        let mut command = Command::new(joblock());
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder)
            .env("HERE", self.folder);
        let url = self.kept.url(&self.folder.join("store"));
        if let Some(waits) = job {
            let wait = if waits {
                "read line <\"$HERE/go\"; exit 0;"
            } else {
                ""
            };
            let script = format!(
                "echo \"{name} $JOBLOCK_TOKEN $JOBLOCK_RUN_ID\" >>\"$HERE/witness\"; echo hello; {wait} exit 7"
            );
            command.args([
                "run",
                "--store",
                &url,
                "--trigger",
                "other",
                "--ttl",
                "2s",
                "-n",
                "job",
                "--",
                "/bin/sh",
                "-c",
                &script,
            ]);
        } else {
            command.args([name, "--store", &url, "--reason", "test", "job"]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn witness(&self) -> String {
        fs::read_to_string(self.folder.join("witness")).unwrap_or_default()
    }

    fn advance(&mut self, step: Step, tracees: &mut Tracees) -> bool {
        match step {
            Step::Run(name, waits) => self.start(name, Some(waits), tracees),
            Step::Ask(name) => self.start(name, None, tracees),
            Step::Begun(name) => return self.witness().lines().any(|line| line.starts_with(name)),
            Step::KillAll(name) => tracees.kill(self.numbers[name]),
            Step::Release => self.release.write_all(b"go\n").expect("the FIFO"),
            Step::Gone(name) => return tracees.alive(self.numbers[name]).is_empty(),
        }
        true
    }

    /// Whether this is the first sync after the job of `spooled` was started: that of its end.
    fn fails(&mut self, call: &Call) -> bool {
        let began = |op: &Op| matches!(op, Op::Began(name) if name == "spooled");
        let fails = !self.has_failed
            && call.role == Role::Keeper
            && self.numbers.get("spooled") == Some(&call.command)
            && self.recorder.log.iter().any(began);
        self.has_failed |= fails;
        fails
    }

    fn start(&mut self, name: &'static str, job: Option<bool>, tracees: &mut Tracees) {
        let number = tracees
            .start(self.command(name, job), true)
            .expect("joblock starts");
        self.numbers.insert(name, number);
        self.recorder.commands.insert(number, name.to_owned());
    }
}

impl Watch for Play<'_> {
    fn enter(&mut self, call: &Call) -> Act {
        if call.number == libc::SYS_fdatasync && self.fails(call) {
            return Act::Fail(libc::EIO);
        }
        self.recorder.enter(call)
    }

    fn leave(&mut self, call: &Call, result: i64) -> Act {
        self.recorder.leave(call, result)
    }

    fn event(&mut self, pid: i32, command: usize, role: Role, event: Event, others: &Tracees) {
        self.recorder.event(pid, command, role, event, others);
    }

    fn turn(&mut self, tracees: &mut Tracees) -> bool {
        while let Some((&step, rest)) = self.steps.split_first() {
            if !self.advance(step, tracees) {
                return false;
            }
            self.steps = rest;
        }
        true
    }
}

/// Plays the runs on a new store, and records what they do to its files. On a slow machine a lease of two seconds may be
/// lost: that is another story, and this one is begun again.
pub fn record(kept: Kept) -> Story {
    let as_told = |op: &Op| match op {
        Op::Reported(name, code) => {
            *code
                == match name.as_str() {
                    "stopped" => 143,
                    "unlocked" => 79,
                    "refused" => 75,
                    "stop" | "unlock" | "holder" => 0,
                    _ => 7,
                }
        }
        _ => true,
    };
    let stories = std::iter::repeat_with(|| record_once(kept)).take(10);
    let mut right = stories.filter(|story| story.log.iter().all(as_told));
    right.next().expect("a story in which no lease is lost")
}

fn record_once(kept: Kept) -> Story {
    let folder = folder();
    let store = folder.path().join("store");
    fs::create_dir(&store).expect("a folder");
    let fifo = folder.path().join("go");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a FIFO");
    let mut play = Play {
        kept,
        folder: folder.path(),
        recorder: Recorder::new(&store),
        steps: STEPS,
        numbers: HashMap::new(),
        release: File::options()
            .read(true)
            .write(true)
            .open(fifo)
            .expect("the FIFO"),
        has_failed: false,
    };
    assert!(
        follow(&mut play, Duration::from_secs(120)),
        "stuck before {:?}",
        play.steps.first()
    );
    assert!(
        play.recorder.unknown.is_empty(),
        "{:?}",
        play.recorder.unknown
    );
    let mut began = HashMap::new();
    for line in play.witness().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        began.insert(
            words[0].to_owned(),
            (words[1].parse().expect("a token"), words[2].to_owned()),
        );
    }
    assert!(play.has_failed, "nothing went to the spool");
    Story {
        log: play.recorder.log,
        began,
    }
}

/// What the world outside knew after so many operations.
pub fn known(story: &Story, at: usize) -> Known {
    let mut known = Known::default();
    for op in &story.log[..at] {
        match op {
            Op::Began(name) => known.began.extend(story.began.get(name).cloned()),
            Op::Reported(name, code) if [0, 7, 79, 143].contains(code) => {
                if let Some((_, id)) = story.began.get(name) {
                    known.ended.push((id.clone(), outcome(name)));
                }
            }
            _ => {}
        }
    }
    known
}
