//! The lab in this folder (see `lab`), booted once for a test program and gone with it, whatever ends it.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::common::{Finished, Running, finish, joblock, may_use_root, start, wait_until};

/// The machines that mount the export.
pub const CLIENTS: [&str; 2] = ["blue", "green"];

/// What listens there is reached from all machines, whatever is cut.
pub const HERE: &str = "10.99.1.254";

/// Where the clients have the export.
pub const MOUNT: &str = "/mnt/a";

/// The NFSv4 server's lease, as `lab` sets it.
pub const LEASE: Duration = Duration::from_secs(10);

/// Three machines that run.
pub struct Lab {
    folder: PathBuf,
    /// By which options each client is to have the export.
    mounts: [String; 2],
    /// A test has begun that did not come to its end: nobody knows what it left.
    in_use: AtomicBool,
    _until_end_of_input: ChildStdin,
    _process: Child,
}

static LAB: OnceLock<Result<Mutex<Lab>, String>> = OnceLock::new();

/// Whether everything is asked for, at its full length (`make nfs`); else what the tests are cut down to has to do.
pub fn full() -> bool {
    std::env::var_os("JOBLOCK_NFS").is_some_and(|length| length == "full")
}

/// The lab for one test at a time, both clients with the export mounted by `mount`'s options. `None`: left out, where
/// somebody said that it is known not to run here.
#[track_caller]
pub fn borrow(mount: &str) -> Option<MutexGuard<'static, Lab>> {
    borrow_each([mount, mount])
}

/// As [`borrow`], with options for blue and options for green.
#[track_caller]
pub fn borrow_each(mounts: [&str; 2]) -> Option<MutexGuard<'static, Lab>> {
    if !may_use_root("machines of its own, with their network") {
        return None;
    }
    match LAB.get_or_init(|| Lab::boot().map(Mutex::new)) {
        Ok(lab) => {
            let mut lab = lab.lock().unwrap_or_else(PoisonError::into_inner);
            lab.mounts = mounts.map(str::to_owned);
            lab.make_ready();
            Some(lab)
        }
        Err(why) => {
            assert!(
                std::env::var_os("JOBLOCK_TESTS_WITHOUT_ROOT").is_some_and(|v| v == "1"),
                "the NFS lab can't run here, and nothing is proved without it \
                 (leave it out with JOBLOCK_TESTS_WITHOUT_ROOT=1): {why}"
            );
            println!("left out: the NFS lab can't run here: {why}");
            None
        }
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nfs/lab")
}

impl Lab {
    fn boot() -> Result<Lab, String> {
        // the lab removes it: this process may not live to do it
        let folder = TempDir::with_prefix("nfs-lab-")
            .map_err(|e| e.to_string())?
            .keep();
        let mut process = command(&folder)
            .arg("keep")
            .env("LAB_TTL", if full() { "14400" } else { "900" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let (Some(stdin), Some(stdout), Some(mut stderr)) = (
            process.stdin.take(),
            process.stdout.take(),
            process.stderr.take(),
        ) else {
            return Err("no pipes to it".into());
        };
        let ready = BufReader::new(stdout)
            .lines()
            .any(|line| line.is_ok_and(|l| l == "ready"));
        if !ready {
            let mut why = String::new();
            let _ = stderr.read_to_string(&mut why);
            let _ = process.wait();
            return Err(why);
        }
        let host = folder.join("host");
        for (from, name) in [
            (joblock(), "joblock"),
            (
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nfs/eat.pl"),
                "eat.pl",
            ),
            (
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nfs/job.pl"),
                "job.pl",
            ),
            (
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nfs/load.sh"),
                "load.sh",
            ),
        ] {
            fs::copy(from, host.join(name)).map_err(|e| format!("{from}: {e}"))?;
        }
        Ok(Lab {
            folder,
            mounts: Default::default(),
            in_use: AtomicBool::new(false),
            _until_end_of_input: stdin,
            _process: process,
        })
    }

    /// Machines that work, as they were at first or after another test that came to its end, and have the export as it is wanted now.
    fn make_ready(&self) {
        if self.in_use.swap(true, Ordering::Relaxed) {
            for host in CLIENTS {
                self.verb("kill", host);
                self.verb("heal", host);
            }
            for host in ["srv", "blue", "green"] {
                self.verb("kill", host);
                self.verb("boot", host);
            }
            self.x("srv", "rm -f /export/fill").expect(0);
        }
        for host in CLIENTS {
            self.mount(host);
        }
    }

    /// The test is through, and left the clients in order.
    pub fn give_back(&self) {
        self.in_use.store(false, Ordering::Relaxed);
    }

    /// `lab VERB HOST`.
    #[track_caller]
    pub fn verb(&self, verb: &str, host: &str) {
        finish(
            command(&self.folder)
                .args([verb, host])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )
        .expect(0);
    }

    /// Begins a command on a machine.
    #[track_caller]
    pub fn start(&self, host: &str, line: &str) -> Running {
        start(
            command(&self.folder)
                .args(["x", host, line])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )
    }

    /// Runs a command on a machine, to its end; its standard error comes with its output.
    #[track_caller]
    pub fn x(&self, host: &str, line: &str) -> Finished {
        self.start(host, line).finish()
    }

    /// A client has the export by the options that the test wants, also if it had it by others or was just powered on.
    #[track_caller]
    pub fn mount(&self, host: &str) {
        let blue = host == CLIENTS[0];
        let options = &self.mounts[usize::from(!blue)];
        let line = format!("cat /run/mounted-as 2>/dev/null; grep ' {MOUNT} nfs' /proc/mounts");
        let now = self.x(host, &line).out();
        if now.lines().count() == 2 && now.lines().next() == Some(options) {
            return;
        }
        self.x(
            host,
            &format!("! grep -q ' {MOUNT} nfs' /proc/mounts || umount {MOUNT}"),
        )
        .expect(0);
        self.mount_at(host, options, MOUNT);
        self.x(host, &format!("echo '{options}' >/run/mounted-as"))
            .expect(0);
    }

    /// Mounts the export at a folder of a client's; `/mnt/a` to `/mnt/d` are there.
    #[track_caller]
    pub fn mount_at(&self, host: &str, options: &str, folder: &str) {
        // what version 4 exports has a root of its own
        let export = if options.contains("vers=3") {
            "srv:/export/data"
        } else {
            "srv:/data"
        };
        // A server that was only just booted does not offer every version yet.
        wait_until("the export is mounted", || {
            let line = format!("mount -t nfs -o {options} {export} {folder}");
            self.x(host, &line).code() == 0
        });
    }

    /// A folder of the export's that is the test's own.
    #[track_caller]
    pub fn folder(&self, name: &str) -> String {
        let path = format!("{MOUNT}/{name}");
        self.x("green", &format!("mkdir {path}")).expect(0);
        path
    }

    /// The network that [`HERE`] is in.
    #[track_caller]
    pub fn network(&self) -> File {
        let path = finish(
            command(&self.folder)
                .arg("netns")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )
        .expect(0)
        .out();
        File::open(path.trim()).expect("the lab's network")
    }

    /// Waits until a process of a machine is in one of these states of `ps`.
    #[track_caller]
    pub fn wait_for_state(&self, host: &str, pid: i64, states: &str) {
        wait_until(&format!("{pid} on {host} in state {states}"), || {
            let line = format!("ps -o state= -p {pid}");
            self.x(host, &line)
                .out()
                .trim()
                .chars()
                .any(|state| states.contains(state))
        });
    }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(script());
    command.env("LAB_RUN", folder).env(
        "LAB_CACHE",
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("nfs-lab"),
    );
    command
}
