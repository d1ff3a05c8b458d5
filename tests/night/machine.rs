//! The hosts of the night: namespaces and a memory cgroup of their own, nothing of which outlives the test.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::{LIMIT, until};

/// A memory cgroup, of version 1 or 2. Dropping it kills what is in it and removes it.
pub struct Cgroup {
    dir: PathBuf,
    v1: bool,
}

impl Cgroup {
    /// Makes one with a name that nobody else has. `limit`: bytes of memory.
    pub fn new(name: &str, limit: Option<u64>) -> Cgroup {
        let v1 = Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists();
        let root = Path::new(if v1 {
            "/sys/fs/cgroup/memory"
        } else {
            "/sys/fs/cgroup"
        });
        if !v1 {
            let on = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
            if !on.split_whitespace().any(|c| c == "memory") {
                fs::write(root.join("cgroup.subtree_control"), "+memory")
                    .expect("the night needs root and a memory cgroup: +memory in /sys/fs/cgroup/cgroup.subtree_control");
            }
        }
        remove_orphans(root);
        let dir = root.join(format!("joblock-night-{}-{name}", std::process::id()));
        fs::create_dir(&dir).unwrap_or_else(|e| {
            panic!(
                "the night needs root and a memory cgroup: {}: {e}",
                dir.display()
            )
        });
        let cgroup = Cgroup { dir, v1 };
        if let Some(bytes) = limit {
            let bytes = bytes.to_string();
            if v1 {
                cgroup
                    .write("memory.limit_in_bytes", &bytes)
                    .expect("memory limit");
                // absent where swap is not accounted for
                let _ = cgroup.write("memory.memsw.limit_in_bytes", &bytes);
            } else {
                cgroup.write("memory.max", &bytes).expect("memory limit");
                let _ = cgroup.write("memory.swap.max", "0");
            }
        }
        cgroup
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.dir.join(file), text)
    }

    /// How many processes of it the kernel's OOM killer has killed.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.v1 {
            "memory.oom_control"
        } else {
            "memory.events"
        };
        let text = fs::read_to_string(self.dir.join(file)).expect(file);
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("oom_kill "))
            .expect("a kernel that counts OOM kills");
        line.trim().parse().expect("a number")
    }

    /// The processes in it, by their pids here.
    pub fn pids(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|l| l.parse().ok()).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let gone = until(LIMIT, || {
            for pid in self.pids() {
                signal(pid, Signal::KILL);
            }
            match fs::remove_dir(&self.dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => None,
                _ => Some(()),
            }
        });
        if gone.is_none() {
            let left = format!(
                "{} can't be removed: processes {:?}",
                self.dir.display(),
                self.pids()
            );
            assert!(std::thread::panicking(), "{left}");
            eprintln!("{left}");
        }
    }
}

/// Removes what tests left that were killed themselves: their processes died with them, empty cgroups stay.
fn remove_orphans(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name
            .strip_prefix("joblock-night-")
            .and_then(|rest| rest.split('-').next());
        if maker.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Sends `signal`; a process that is gone already is fine.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// A host: its first process and all that it started, in namespaces of their own.
pub struct Machine {
    name: &'static str,
    bin: PathBuf,
    path: String,
    cgroup: Cgroup,
    unshare: Option<Child>,
    init: i32,
}

impl Machine {
    /// A host that is switched off. `night`: the folder with `bin/machine.sh`; `path`: its `$PATH`.
    pub fn new(name: &'static str, night: &Path, path: &str, limit: Option<u64>) -> Machine {
        let id = night.file_name().expect("a folder").to_string_lossy();
        let cgroup = Cgroup::new(&format!("{id}-{name}"), limit);
        Machine {
            name,
            bin: night.join("bin"),
            path: path.to_owned(),
            cgroup,
            unshare: None,
            init: 0,
        }
    }

    /// Its cgroup, which stays the same over restarts.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Starts it with `bin/PROGRAM` as its first process; all output goes to the end of `log`.
    pub fn boot(&mut self, program: &str, log: &Path) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("log");
        let mut command = Command::new("setpriv");
        // dies with this thread, whatever becomes of the test; the namespace dies with its first process
        command.args(["--pdeathsig", "KILL", "sh", "-c"]);
        command.arg("echo $$ >\"$0\" && exec unshare --uts --pid --mount --mount-proc --fork --kill-child \"$@\"");
        command.arg(self.cgroup.dir.join("cgroup.procs"));
        command
            .arg(self.bin.join("machine.sh"))
            .arg(self.name)
            .arg(self.bin.join(program));
        command
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", "/root")
            .current_dir("/");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log);
        self.unshare = Some(command.spawn().expect("setpriv of util-linux"));
        self.init = until(LIMIT, || {
            self.cgroup
                .pids()
                .into_iter()
                .find(|&pid| is_first_process(pid))
        })
        .unwrap_or_else(|| {
            panic!(
                "{} does not come up: is this root? is util-linux there?",
                self.name
            )
        });
    }

    /// A command on it, as if typed there; the caller starts it. With the first process's root: where the test itself
    /// runs in a chroot, the mount namespace's is another.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg("--target")
            .arg(self.init.to_string())
            .args(["--uts", "--pid", "--mount", "--root", "--wd", "--", program]);
        command
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", "/root")
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    /// The pids (as seen from here) of its processes that run `program`, whatever that is called in their root.
    pub fn running(&self, program: &Path) -> Vec<i32> {
        let file = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        let program = file(program).expect("the program");
        let runs = |pid: &i32| file(Path::new(&format!("/proc/{pid}/exe"))) == Some(program);
        self.cgroup.pids().into_iter().filter(runs).collect()
    }

    /// Its first process is killed, and by that, in the same moment, all others.
    pub fn kill(&mut self) {
        if let Some(mut unshare) = self.unshare.take() {
            signal(self.init, Signal::KILL);
            let _ = unshare.wait();
            until(LIMIT, || self.cgroup.pids().is_empty().then_some(())).unwrap_or_else(|| {
                panic!(
                    "{}: processes outlive their namespace: {:?}",
                    self.name,
                    self.cgroup.pids()
                )
            });
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut unshare) = self.unshare.take() {
            signal(self.init, Signal::KILL);
            signal(i32::try_from(unshare.id()).unwrap_or(0), Signal::KILL);
            let _ = unshare.wait();
        }
    }
}

fn is_first_process(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pids = status
        .lines()
        .find_map(|l| l.strip_prefix("NSpid:"))
        .unwrap_or_default();
    let pids: Vec<_> = pids.split_whitespace().collect();
    pids.len() > 1 && pids.last() == Some(&"1")
}
