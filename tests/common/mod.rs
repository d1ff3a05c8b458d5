//! The harness: a store of its own for every test, joblock on it, what the history says, and waiting for conditions.
//!
//! Nothing here sleeps to let something happen: [`wait_for`] asks again and again, up to [`LIMIT`], and then says what
//! it waited for. Every process that a test starts carries the test's mark in its environment, so that a test that
//! fails leaves nothing behind.
#![allow(
    dead_code,
    reason = "each test program uses its own part of the harness"
)]

pub mod evidence;
pub mod process;
pub mod terminal;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use process::Process;

/// How long a test waits for what must come: long enough for a machine that does five other things.
pub const LIMIT: Duration = Duration::from_secs(90);

/// The variable that carries a test's mark.
const MARK: &str = "JOBLOCK_TEST_MARK";

/// Asks until `look` has an answer; panics with `what` when none comes within [`LIMIT`].
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = look() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {LIMIT:?} for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks until `is_so`.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

/// For what must *not* happen: looks again and again for as long as `span`, and panics once `is_so` fails.
#[track_caller]
pub fn stays(what: &str, span: Duration, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(is_so(), "no longer true: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The program under test.
pub fn joblock() -> &'static str {
    env!("CARGO_BIN_EXE_joblock")
}

/// A script in tests/fixtures.
pub fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// False if this test can't run here because it needs root. That is a failure, unless somebody said that it is known.
#[track_caller]
pub fn may_use_root(why: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("JOBLOCK_TESTS_WITHOUT_ROOT").is_some_and(|v| v == "1"),
        "this test needs root ({why}): run it as root, or leave it out with JOBLOCK_TESTS_WITHOUT_ROOT=1"
    );
    println!("left out: needs root ({why})");
    false
}

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, where it went to us.
    pub stdout: Vec<u8>,
    /// Its standard error, where it went to us.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// The exit code; panics if a signal ended it.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("ended by a signal: {self}"))
    }

    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Panics unless the exit code is `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            self.out(),
            self.err()
        )
    }
}

/// A command that runs, its output being read.
pub struct Running {
    child: Child,
    stdout: Option<thread::JoinHandle<Vec<u8>>>,
    stderr: Option<thread::JoinHandle<Vec<u8>>>,
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Option<thread::JoinHandle<Vec<u8>>> {
    stream.map(|mut s| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = s.read_to_end(&mut bytes);
            bytes
        })
    })
}

impl Running {
    /// Its first process.
    pub fn process(&self) -> Process {
        Process::of(self.pid()).expect("a child that is not reaped has a line in /proc")
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }

    /// Waits for its end and for the end of its output.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let end = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("waited {LIMIT:?} for the end of pid {}", self.child.id());
            }
            thread::sleep(Duration::from_millis(2));
        };
        let read = |handle: Option<thread::JoinHandle<Vec<u8>>>| {
            handle.map_or_else(Vec::new, |h| {
                wait_until("the end of its output", || h.is_finished());
                h.join().expect("the reader")
            })
        };
        Finished {
            status,
            stdout: read(self.stdout.take()),
            stderr: read(self.stderr.take()),
        }
    }
}

/// Starts `command` with its output read into memory, unless the test has redirected it, and nothing on its input.
#[track_caller]
pub fn start(command: &mut Command) -> Running {
    let mut child = command
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    Running {
        stdout: collect(stdout),
        stderr: collect(stderr),
        child,
    }
}

/// Runs `command` to its end.
#[track_caller]
pub fn finish(command: &mut Command) -> Finished {
    start(command).finish()
}

/// A sqlite3 shell on a database of somebody's, which has done some statements and waits; killed when it is dropped.
pub struct Shell(Child);

impl Shell {
    /// One that has done `statements`, which ask for one line; and that line.
    #[track_caller]
    pub fn after(database: &Path, statements: &str) -> (Shell, String) {
        let mut shell = Command::new("sqlite3")
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sqlite3");
        let input = shell.stdin.as_mut().expect("its input");
        input.write_all(statements.as_bytes()).expect("statements");
        input.flush().expect("statements");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("its output"))
            .read_line(&mut line)
            .expect("an answer");
        (Shell(shell), line)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Which kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `sqlite:PATH`.
    Local,
    /// `sqlite:PATH?shared`.
    Shared,
    /// `lockfile:DIRECTORY`.
    Lockfile,
}

/// A store in a folder of its own, which also takes the test's marks and witnesses.
pub struct Store {
    folder: TempDir,
    url: String,
}

impl Store {
    /// A new one; joblock makes it at its first use.
    pub fn new(kind: Kind) -> Store {
        let folder = TempDir::new().expect("a folder for the test");
        let path = folder.path().join("store");
        fs::create_dir(&path).expect("a folder for the store");
        let path = path.display();
        let url = match kind {
            Kind::Local => format!("sqlite:{path}/joblock.db"),
            Kind::Shared => format!("sqlite:{path}/joblock.db?shared"),
            Kind::Lockfile => format!("lockfile:{path}"),
        };
        Store { folder, url }
    }

    /// `sqlite:`, local.
    pub fn local() -> Store {
        Store::new(Kind::Local)
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Uses the same folder by another URL.
    pub fn set_url(&mut self, url: String) {
        self.url = url;
    }

    /// The folder that the store itself is in.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// A file of the test's own, beside the store.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Adds the test's mark, takes away what the tests' own surroundings might say to joblock (a shell ignores SIGINT for what it
    /// runs in the background), closes standard input and reads the output.
    pub fn prepare(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"JOBLOCK_") {
                command.env_remove(name);
            }
        }
        command
            .env(MARK, self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: signal(2) is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                Ok(())
            });
        }
    }

    /// Any program, with the test's mark.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.prepare(&mut command);
        command
    }

    /// `joblock VERB --store URL`.
    pub fn joblock(&self, verb: &str) -> Command {
        let mut command = self.program(joblock());
        command.args([verb, "--store", &self.url]);
        command
    }

    /// `joblock run --store URL OPTIONS JOB -- COMMAND`.
    pub fn run(&self, options: &[&str], job: &str, command: &[&str]) -> Command {
        let mut run = self.joblock("run");
        run.args(options).arg(job).arg("--").args(command);
        run
    }

    /// The words `joblock run --store URL JOB --`, to stand before a command in somebody's script.
    pub fn prefix<'a>(&'a self, job: &'a str) -> [&'a str; 6] {
        [joblock(), "run", "--store", &self.url, job, "--"]
    }

    /// Runs `sh -c SCRIPT` as `job`, to its end.
    #[track_caller]
    pub fn sh(&self, options: &[&str], job: &str, script: &str) -> Finished {
        finish(&mut self.run(options, job, &["sh", "-c", script]))
    }

    /// What a reading verb answers with `--json`.
    #[track_caller]
    pub fn json(&self, verb: &str, arguments: &[&str]) -> Value {
        let mut command = self.joblock(verb);
        command.arg("--json").args(arguments);
        let done = finish(&mut command).expect(0);
        serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("no JSON: {e}\n{done}"))
    }

    /// The attempts of a job as `history --json` gives them, oldest first.
    #[track_caller]
    pub fn rows(&self, job: &str) -> Vec<Value> {
        let answer = self.json("history", &["-n", "100000", job]);
        let mut rows = answer["runs"]
            .as_array()
            .unwrap_or_else(|| panic!("no list of runs: {answer}"))
            .clone();
        rows.reverse();
        rows
    }

    /// The outcomes of a job's attempts, oldest first.
    #[track_caller]
    pub fn outcomes(&self, job: &str) -> Vec<String> {
        self.rows(job)
            .iter()
            .map(|row| row["outcome"].as_str().unwrap_or("?").to_owned())
            .collect()
    }

    /// Who holds the lock, once somebody does.
    #[track_caller]
    pub fn holder(&self, job: &str) -> Holder {
        wait_for("a holder in the status", || {
            let done = finish(self.joblock("status").args(["--json", job]));
            Holder::find(&serde_json::from_slice(&done.stdout).ok()?)
        })
    }

    /// The processes of this test's jobs: joblock's own three, which may be about to end, are not among them.
    pub fn of_jobs(&self) -> Vec<Process> {
        let mut found = self.marked();
        found.retain(|p| process::has_variable(*p, "JOBLOCK_RUN_ID"));
        found
    }

    /// Every process that carries this test's mark.
    pub fn marked(&self) -> Vec<Process> {
        process::with_environment(MARK, self.folder.path().as_os_str())
    }
}

impl Drop for Store {
    /// Ends what a failed test left: the processes that it marked, and no others.
    fn drop(&mut self) {
        for left in self.marked() {
            left.kill(9);
        }
    }
}

/// The three processes of the run that holds a lock.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The run.
    pub run_id: String,
    /// The caller's child.
    pub front: Process,
    /// The one that does the store's I/O.
    pub keeper: Process,
    /// The parent of the job.
    pub guard: Process,
}

impl Holder {
    /// The run whose front is `front`, found by the parents of its processes alone, once its job runs.
    #[track_caller]
    pub fn of_front(front: Process) -> Holder {
        wait_for("front's two children, one of them with a job", || {
            let children = front.children();
            let [a, b] = children[..] else { return None };
            let (guard, keeper) = match (a.children().is_empty(), b.children().is_empty()) {
                (false, true) => (a, b),
                (true, false) => (b, a),
                _ => return None,
            };
            Some(Holder {
                run_id: String::new(),
                front,
                keeper,
                guard,
            })
        })
    }

    /// Finds the holder wherever it stands in `status --json`.
    fn find(answer: &Value) -> Option<Holder> {
        if let Some(processes) = answer.get("processes") {
            let one = |name: &str| {
                let pid = processes[name]["pid"].as_i64()?;
                Process::of(i32::try_from(pid).ok()?)
            };
            return Some(Holder {
                run_id: answer["run_id"].as_str()?.to_owned(),
                front: one("front")?,
                keeper: one("keeper")?,
                guard: one("guard")?,
            });
        }
        match answer {
            Value::Array(list) => list.iter().find_map(Holder::find),
            Value::Object(map) => map.values().find_map(Holder::find),
            _ => None,
        }
    }
}

/// The text of a file, empty while there is none.
pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
