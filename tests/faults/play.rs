//! What is played under the tracer: a few commands on a store of their own, one of them with a fault.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::apart::with_its_proc;
use crate::calls::{self, Kind, Seen};
use crate::tracer::{Act, Call, Event, Role, Status, Tracees, Watch, follow, joblock};

/// The lease that is asked for: the shortest.
pub const TTL: u64 = 2;
/// Over the TTL: how long the next start on a store with a lease may wait.
const MARGIN: u64 = 15;
/// How long a request may take before the operator insists, if nothing is wrong with the keeper, who must hear it.
const PATIENCE: Duration = Duration::from_secs(60);
/// And if something is, or a start does not say that it waits: many heartbeats.
const IMPATIENCE: Duration = Duration::from_secs(3);
/// How long one step may take before it counts as stuck: longer than any of joblock's own limits.
const STUCK: Duration = Duration::from_secs(100);

/// What a job leaves behind, each in a session of its own and to be found by one thing only: the lock's descriptor, the mark in its
/// environment, or, if it has one, the job's cgroup.
const LEAVES: &str = r#"
    uncgroup='for procs in /sys/fs/cgroup/unified/cgroup.procs /sys/fs/cgroup/cgroup.procs; do
        [ -w $procs ] && echo $$ >$procs; done'
    unlock='for fd in /proc/$$/fd/*; do fd=${fd##*/}; [ $fd -gt 2 ] && eval "exec $fd>&-"; done'
    mute='exec </dev/null >/dev/null 2>&1'
    setsid bash -c "$mute; $uncgroup; touch \"$HERE/left.locked\"; exec env -i /bin/sleep 1000" &
    setsid bash -c "$mute; $uncgroup; $unlock; touch \"$HERE/left.marked\"; exec sleep 1000" &
    left=2
    if grep -q /joblock- /proc/self/cgroup; then
        setsid bash -c "$mute; $unlock; touch \"$HERE/left.grouped\"; exec env -i /bin/sleep 1000" &
        left=3
    fi
    until [ "$(ls "$HERE" | grep -c ^left)" = $left ]; do sleep 0.01; done;"#;

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kept {
    Local,
    Shared,
    Lockfile,
}

impl Kept {
    pub const ALL: [Kept; 3] = [Kept::Local, Kept::Shared, Kept::Lockfile];

    pub fn url(self, folder: &Path) -> String {
        let folder = folder.display();
        match self {
            Kept::Local => format!("sqlite:{folder}/joblock.db"),
            Kept::Shared => format!("sqlite:{folder}/joblock.db?shared"),
            Kept::Lockfile => format!("lockfile:{folder}"),
        }
    }

    pub fn database(self, folder: &Path) -> PathBuf {
        folder.join(if self == Kept::Lockfile {
            "history.db"
        } else {
            "joblock.db"
        })
    }

    pub fn spool(self, folder: &Path) -> PathBuf {
        folder.join(if self == Kept::Lockfile {
            "spool"
        } else {
            "joblock.db.spool"
        })
    }
}

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scenario {
    /// Not played for its own sake: a run that leaves the history that the others begin with.
    Earlier,
    /// A run on a store with a history.
    Run,
    /// The first run, which makes the store.
    Creation,
    /// A run on a store that was made before joblock knew all of today's columns and tables.
    Older,
    /// A run with `--keep`, after which the keeper deletes old attempts.
    Slice,
    /// A run after one that was killed as a whole while its job ran, and whose job left something behind.
    Takeover,
    /// A run that folds in what waits in the spool.
    Spooled,
    /// A start while another run holds the lock.
    Refused,
    /// A start that waits while another run holds the lock, then runs.
    Waiting,
    /// A run that is stopped; the fault is in one of the run's own processes.
    Stopped,
    /// A run that is stopped; the fault is in the command that asks for it.
    Stop,
    /// A run that is unlocked; the fault is in one of the run's own processes.
    Unlocked,
    /// A run that is unlocked; the fault is in the command that asks for it.
    Unlock,
    /// Old attempts are deleted.
    Prune,
}

impl Scenario {
    pub const ALL: [Scenario; 13] = [
        Scenario::Run,
        Scenario::Creation,
        Scenario::Older,
        Scenario::Slice,
        Scenario::Takeover,
        Scenario::Spooled,
        Scenario::Refused,
        Scenario::Waiting,
        Scenario::Stopped,
        Scenario::Stop,
        Scenario::Unlocked,
        Scenario::Unlock,
        Scenario::Prune,
    ];
}

/// A command of a scenario. The reason that its run gives is its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// A run of long ago.
    Earlier,
    /// The run that holds the lock when the scenario begins, or was killed before.
    Holder,
    /// The run that the scenario is about.
    First,
    /// `stop` or `unlock`.
    Asker,
    /// The same once more, without a fault.
    Again,
    /// The start after it.
    Next,
}

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Who::Earlier => "earlier",
            Who::Holder => "holder",
            Who::First => "first",
            Who::Asker => "asker",
            Who::Again => "again",
            Who::Next => "next",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Starts a command; the one with the fault is stopped at each call.
    Start(Who),
    /// Waits until its job runs, or it is gone.
    Begun(Who),
    /// SIGKILL to joblock's own processes.
    KillOwn(Who),
    /// Waits until they and the job's first process are gone, and what that left is all that there is.
    OnlyLeft(Who),
    /// Waits until it says that it waits for the lock, or it is gone; not for long, as its words may be what fails.
    Waits(Who),
    /// Lets jobs that wait end.
    Release,
    /// Waits until all its processes are gone.
    Gone(Who),
    /// If the run is still there: the same request again where the fault was in the first; else what an operator does at
    /// last, SIGTERM to front.
    Insist,
    /// Keeps a copy of the store as it is.
    Keep,
}

impl Scenario {
    /// Whose calls the fault is in.
    pub fn victim(self) -> Who {
        match self {
            Scenario::Stop | Scenario::Unlock | Scenario::Prune => Who::Asker,
            Scenario::Earlier => Who::Earlier,
            _ => Who::First,
        }
    }

    fn steps(self) -> Vec<Step> {
        use Step::{Begun, Gone, Insist, Keep, KillOwn, OnlyLeft, Release, Start, Waits};
        use Who::{Asker, First, Holder, Next};
        let mut steps = match self {
            Scenario::Earlier => return vec![Start(Who::Earlier), Gone(Who::Earlier)],
            Scenario::Run
            | Scenario::Creation
            | Scenario::Older
            | Scenario::Slice
            | Scenario::Spooled => vec![Start(First), Gone(First)],
            Scenario::Prune => vec![
                Start(Asker),
                Gone(Asker),
                Start(Who::Again),
                Gone(Who::Again),
            ],
            Scenario::Takeover => vec![
                Start(Holder),
                Begun(Holder),
                KillOwn(Holder),
                OnlyLeft(Holder),
                Start(First),
                Gone(First),
            ],
            Scenario::Refused => vec![
                Start(Holder),
                Begun(Holder),
                Start(First),
                Gone(First),
                Release,
                Gone(Holder),
            ],
            Scenario::Waiting => vec![
                Start(Holder),
                Begun(Holder),
                Start(First),
                Waits(First),
                Release,
                Gone(Holder),
                Gone(First),
            ],
            Scenario::Stopped | Scenario::Stop | Scenario::Unlocked | Scenario::Unlock => {
                vec![
                    Start(First),
                    Begun(First),
                    Start(Asker),
                    Insist,
                    Gone(Asker),
                    Gone(First),
                ]
            }
        };
        steps.extend([Keep, Start(Next), Gone(Next)]);
        steps
    }

    /// Whether the job of `who` waits until it is released.
    fn waits(self, who: Who) -> bool {
        match who {
            Who::Holder => true,
            Who::First => matches!(
                self,
                Scenario::Stopped | Scenario::Stop | Scenario::Unlocked | Scenario::Unlock
            ),
            _ => false,
        }
    }
}

/// One system call of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub role: Role,
    pub number: i64,
    pub nth: u32,
    pub seen: Seen,
}

/// A point and what happens there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub point: Point,
    pub kind: Kind,
    pub forever: bool,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Point {
            role,
            number,
            nth,
            seen,
        } = &self.point;
        let then = if self.forever { " from then on" } else { "" };
        write!(
            f,
            "{role:?} {}({number}) #{nth} on {:?}: {:?}{then}",
            seen.name, seen.target, self.kind
        )
    }
}

/// What a command left.
#[derive(Debug, Clone)]
pub struct Done {
    pub status: Status,
    pub stdout: String,
    pub stderr: String,
}

/// A store in a folder of its own, and everything that is seen of what happens on it.
pub struct World {
    pub kept: Kept,
    pub scenario: Scenario,
    folder: TempDir,
    release: File,
    /// How each command ended.
    pub done: HashMap<Who, Done>,
    /// Front was sent SIGTERM, as the request led to nothing.
    pub insisted: bool,
    /// What must never be, seen while it happened.
    pub wrong: Vec<String>,
}

/// A folder in memory, where there is one.
fn folder() -> TempDir {
    let shm = Path::new("/dev/shm");
    let made = tempfile::Builder::new().prefix("joblock-").tempdir_in(shm);
    made.or_else(|_| TempDir::new()).expect("a folder")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            // not fs::copy, whose one system call the tracer's ticks may interrupt
            fs::write(to, fs::read(entry.path()).expect("a file")).expect("a copy");
        }
    }
}

impl World {
    /// With the store of `template` in it, if that has one.
    pub fn new(kept: Kept, scenario: Scenario, template: Option<&Path>) -> World {
        let folder = folder();
        let store = folder.path().join("store");
        match template {
            Some(template) => copy(template, &store),
            None => fs::create_dir(&store).expect("a folder"),
        }
        let fifo = folder.path().join("go");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .expect("a FIFO");
        // for reading too: so it opens at once, and what is written waits for the job
        let release = File::options()
            .read(true)
            .write(true)
            .open(fifo)
            .expect("the FIFO");
        World {
            kept,
            scenario,
            folder,
            release,
            done: HashMap::new(),
            insisted: false,
            wrong: Vec::new(),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// The store as it was before the next start.
    pub fn kept_copy(&self) -> PathBuf {
        self.path().join("kept")
    }

    /// What the jobs wrote: `begin` or `end`, the command's name, token, run id.
    pub fn witness(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.path().join("witness")).unwrap_or_default();
        text.lines()
            .map(|line| line.split(' ').map(str::to_owned).collect())
            .collect()
    }

    pub fn saw(&self, what: &str, who: Who) -> bool {
        self.witness()
            .iter()
            .any(|line| line[0] == what && line[1] == who.name())
    }

    /// How many processes the holder's job left, at least two.
    fn left_by_job(&self) -> usize {
        let names = fs::read_dir(self.path()).expect("the folder");
        let left = names.filter(|entry| {
            let name = entry.as_ref().expect("an entry").file_name();
            name.to_string_lossy().starts_with("left.")
        });
        left.count().max(2)
    }

    /// The commands, joblock itself first.
    pub fn command(&self, who: Who) -> Command {
        let mut command = Command::new(joblock());
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path());
        let url = self.kept.url(&self.store());
        if matches!(who, Who::Asker | Who::Again) {
            let verb = match self.scenario {
                Scenario::Stopped | Scenario::Stop => "stop",
                Scenario::Prune => "prune",
                _ => "unlock",
            };
            command.args([verb, "--store", &url]);
            if self.scenario == Scenario::Prune {
                command.args(["--keep", "1h", "--trust-clock", "job"]);
            } else {
                command.args(["--reason", who.name(), "job"]);
            }
            if self.scenario == Scenario::Unlocked {
                command.arg("--kill");
            }
        } else {
            // only what the fault is in needs a lease that is over soon
            let ttl = format!("{}s", if who == Who::Next { 45 } else { TTL });
            command.args([
                "run",
                "--store",
                &url,
                "--trigger",
                "other",
                "--ttl",
                &ttl,
                "--kill-after",
                "2s",
            ]);
            command.args(["--reason", who.name()]);
            if self.scenario == Scenario::Slice {
                command.args(["--keep", "1h"]);
            }
            if self.scenario == Scenario::Waiting && who == Who::First {
                command.args(["-w", "1h", "--max-waiters", "1"]);
            } else if who == Who::Next && self.kept != Kept::Local {
                command.args(["-w", &format!("{}s", TTL + MARGIN)]);
            } else {
                command.arg("-n");
            }
            let wait = if self.scenario.waits(who) {
                "read line <\"$HERE/go\";"
            } else {
                ""
            };
            let name = who.name();
            let code = if who == Who::First { 7 } else { 0 };
            let before = if self.scenario == Scenario::Takeover && who == Who::Holder {
                LEAVES
            } else {
                ""
            };
            let script = format!(
                "{before} echo \"begin {name} $JOBLOCK_TOKEN $JOBLOCK_RUN_ID\" >>\"$HERE/witness\"; echo hello; {wait}
                 echo \"end {name} $JOBLOCK_TOKEN $JOBLOCK_RUN_ID\" >>\"$HERE/witness\"; exit {code}"
            );
            command
                .args(["job", "--", "/bin/sh", "-c", &script])
                .env("HERE", self.path());
        }
        let file = |what: &str| {
            File::create(self.path().join(format!("{}.{what}", who.name())))
                .expect("a file for the output")
        };
        command
            .stdin(std::process::Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"));
        with_its_proc(&mut command);
        command
    }

    fn text(&self, who: Who, what: &str) -> String {
        let bytes =
            fs::read(self.path().join(format!("{}.{what}", who.name()))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn release(&mut self) {
        let _ = self.release.write_all(b"go\ngo\n");
    }
}

/// Follows the steps; with a fault, or listing the points.
struct Play<'a> {
    world: &'a mut World,
    fault: Option<&'a Fault>,
    points: Option<&'a mut Vec<Point>>,
    steps: Vec<Step>,
    commands: HashMap<Who, usize>,
    since: Instant,
    /// The fault's point was reached.
    hit: bool,
    /// `main` has begun in the victim.
    main: bool,
    /// The pids of jobs that run.
    jobs: Vec<i32>,
    store: String,
}

impl Play<'_> {
    fn command_of(&self, who: Who) -> Option<usize> {
        self.commands.get(&who).copied()
    }

    fn is_victim(&self, call: &Call) -> bool {
        self.command_of(self.world.scenario.victim()) == Some(call.command)
    }

    /// `true`: the step is done.
    fn advance(&mut self, step: Step, tracees: &mut Tracees) -> bool {
        let gone = |who: Who| {
            self.command_of(who)
                .is_none_or(|number| tracees.alive(number).is_empty())
        };
        match step {
            Step::Start(who) => {
                let calls = who == self.world.scenario.victim();
                let number = tracees
                    .start(self.world.command(who), calls)
                    .expect("joblock starts");
                self.commands.insert(who, number);
                true
            }
            Step::Begun(who) => self.world.saw("begin", who) || gone(who),
            Step::KillOwn(who) => {
                let of = self.command_of(who);
                let there = of.map_or_else(Vec::new, |number| tracees.alive(number));
                kill_own(&there);
                true
            }
            Step::OnlyLeft(who) => self.command_of(who).is_none_or(|number| {
                let left = tracees.alive(number);
                left.len() == self.world.left_by_job()
                    && left
                        .iter()
                        .all(|&(pid, role)| role == Role::Job && sleeps(pid))
            }),
            Step::Waits(who) => {
                self.world.text(who, "err").contains("waiting for job")
                    || gone(who)
                    || self.since.elapsed() >= IMPATIENCE
            }
            Step::Release => {
                self.world.release();
                true
            }
            Step::Gone(who) => gone(who),
            Step::Insist => {
                let first = self.command_of(Who::First).expect("it was started");
                if tracees.alive(first).is_empty() {
                    return true;
                }
                let deaf = self
                    .fault
                    .is_some_and(|fault| fault.point.role == Role::Keeper);
                let patience = if deaf { IMPATIENCE } else { PATIENCE };
                let asked = self
                    .command_of(Who::Asker)
                    .and_then(|number| tracees.status(number));
                if asked.is_none_or(|status| status == Status::Exited(0))
                    && self.since.elapsed() < patience
                {
                    return false;
                }
                if self.world.scenario.victim() == Who::Asker {
                    self.steps
                        .splice(1..1, [Step::Start(Who::Again), Step::Gone(Who::Again)]);
                } else {
                    self.world.insisted = true;
                    signal(tracees.pid(first), libc::SIGTERM);
                }
                true
            }
            Step::Keep => {
                copy(&self.world.store(), &self.world.kept_copy());
                true
            }
        }
    }

    fn note_ends(&mut self, tracees: &Tracees) {
        for (&who, &number) in &self.commands {
            if let Some(status) = tracees.status(number)
                && !self.world.done.contains_key(&who)
            {
                let done = Done {
                    status,
                    stdout: String::new(),
                    stderr: String::new(),
                };
                self.world.done.insert(who, done);
            }
        }
    }
}

impl Watch for Play<'_> {
    fn enter(&mut self, call: &Call) -> Act {
        if !self.is_victim(call) || calls::is_of_debug_build(call) {
            return Act::Go;
        }
        // the last thing that the runtime does before `main`
        let of_joblock = self.main;
        self.main |= call.number == libc::SYS_sigaltstack;
        if let Some(points) = &mut self.points {
            points.push(Point {
                role: call.role,
                number: call.number,
                nth: call.nth,
                seen: calls::see(call, &self.store, of_joblock),
            });
            return Act::Go;
        }
        let Some(fault) = self.fault else {
            return Act::Go;
        };
        let mut here = (call.role, call.number, call.nth)
            == (fault.point.role, fault.point.number, fault.point.nth);
        if here && !matches!(fault.kind, Kind::KillAtEntry | Kind::KillAtExit) {
            // who is scheduled when moves the counts: it may be another call this time
            let seen = calls::see(call, &self.store, of_joblock);
            here = seen.target == fault.point.seen.target
                && seen.kinds.contains(&(fault.kind, fault.forever));
        }
        let again = self.hit && fault.forever && call.role == fault.point.role && {
            let seen = calls::see(call, &self.store, of_joblock);
            seen.target == fault.point.seen.target && seen.kinds.contains(&(fault.kind, true))
        };
        if !(here || again) {
            return Act::Go;
        }
        self.hit = true;
        match (fault.kind, fault.kind.errno()) {
            (Kind::KillAtEntry, _) => Act::Kill,
            (Kind::Short, _) => Act::Shorten(call.arguments[2] / 2),
            // a descriptor is closed even by a close that fails
            (_, Some(errno)) if call.number == libc::SYS_close => Act::DoneAndFail(errno),
            (_, Some(errno)) => Act::Fail(errno),
            _ => Act::Go,
        }
    }

    fn leave(&mut self, call: &Call, _result: i64) -> Act {
        match self.fault {
            Some(Fault {
                point,
                kind: Kind::KillAtExit,
                ..
            }) if self.hit
                && self.is_victim(call)
                && (call.role, call.number, call.nth) == (point.role, point.number, point.nth) =>
            {
                Act::Kill
            }
            _ => Act::Go,
        }
    }

    fn event(&mut self, pid: i32, command: usize, role: Role, event: Event, tracees: &Tracees) {
        match event {
            Event::Executes if role == Role::Job && !self.jobs.contains(&pid) => {
                // the first program of a job: no process of another command's job may be there any more
                for (&who, &other) in &self.commands {
                    let left = tracees
                        .alive(other)
                        .into_iter()
                        .find(|&(pid, role)| role == Role::Job && lives(pid));
                    if let (true, Some((pid, _))) = (other != command, left) {
                        self.world.wrong.push(format!(
                            "a second job began while pid {pid} of {}'s was alive",
                            who.name()
                        ));
                    }
                }
                self.jobs.push(pid);
            }
            _ => {}
        }
    }

    fn turn(&mut self, tracees: &mut Tracees) -> bool {
        self.note_ends(tracees);
        while let Some(&step) = self.steps.first() {
            if !self.advance(step, tracees) {
                if self.since.elapsed() < STUCK {
                    return false;
                }
                let left: Vec<_> = self
                    .commands
                    .iter()
                    .map(|(who, n)| (who.name(), tracees.alive(*n)))
                    .collect();
                self.world
                    .wrong
                    .push(format!("stuck at {step:?}; there are {left:?}"));
                return true;
            }
            self.steps.remove(0);
            self.since = Instant::now();
        }
        true
    }
}

/// SIGKILL to joblock's own among these, so that none of them acts on another's end: the keeper is the last to act, and the others are
/// stopped before. They stay so as long as this thread, their tracer, does not let them go on.
fn kill_own(there: &[(i32, Role)]) {
    let own = |role: fn(Role) -> bool| {
        there
            .iter()
            .filter(move |(_, r)| role(*r))
            .map(|(pid, _)| *pid)
    };
    let (keeper, others) = (
        own(|role| role == Role::Keeper),
        own(|role| !matches!(role, Role::Keeper | Role::Job)),
    );
    for pid in others.clone() {
        signal(pid, libc::SIGSTOP);
        while state(pid).is_some_and(|state| state != 't' && state != 'Z') {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    keeper
        .chain(others)
        .for_each(|pid| signal(pid, libc::SIGKILL));
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: kill(2) on a tracee of ours, which is not reaped yet.
    unsafe {
        libc::kill(pid, signal);
    }
}

/// Whether it is alive and executes sleep(1), as each that [`LEAVES`] leaves does in the end.
fn sleeps(pid: i32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name == "sleep\n" && lives(pid)
}

/// Whether it is there and no zombie.
fn lives(pid: i32) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// As proc_pid_stat(5) has it.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Plays the scenario on `world`. `false`: the fault's point was not reached.
pub fn play(world: &mut World, fault: Option<&Fault>, points: Option<&mut Vec<Point>>) -> bool {
    let store = world.store();
    let mut play = Play {
        steps: world.scenario.steps(),
        store: String::from_utf8_lossy(store.as_os_str().as_bytes()).into_owned(),
        world,
        fault,
        points,
        commands: HashMap::new(),
        since: Instant::now(),
        hit: false,
        main: false,
        jobs: Vec::new(),
    };
    let in_time = follow(&mut play, 3 * STUCK);
    let hit = play.hit;
    if !in_time {
        world.wrong.push("it took too long".into());
    }
    for who in [
        Who::Earlier,
        Who::Holder,
        Who::First,
        Who::Asker,
        Who::Again,
        Who::Next,
    ] {
        let (stdout, stderr) = (world.text(who, "out"), world.text(who, "err"));
        if let Some(done) = world.done.get_mut(&who) {
            done.stdout = stdout;
            done.stderr = stderr;
        }
    }
    hit
}
