//! What a thread plays in a process namespace of its own: who goes through /proc there finds the world's own processes, and not what else
//! the machine does, which would be other calls each time, and more of them the busier it is.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Does `work` in a thread whose commands are apart, once [`with_its_proc`] has prepared them; without the right to do that, they are where they
/// would be anyway.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let alone = || {
        let _namespace = may().then(Namespace::begin);
        work()
    };
    thread::scope(|s| s.spawn(alone).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Gives `command`, which is started in an [`apart`] thread, the /proc of its own namespace.
pub fn with_its_proc(command: &mut Command) {
    if !may() {
        return;
    }
    let own_proc = || {
        // SAFETY: mounts are this process's own from here on; it is about to execute its program.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        let recursively = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change(c"/", recursively)?;
        mount(c"proc", c"/proc", c"proc", MountFlags::empty(), None)?;
        Ok(())
    };
    // SAFETY: three system calls between fork and exec, on constants.
    unsafe {
        command.pre_exec(own_proc);
    }
}

/// Whether this machine allows it, tried once.
fn may() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| {
        let mut trial = Command::new("unshare");
        trial.args(["--pid", "--fork", "--mount-proc", "true"]);
        trial.output().expect("unshare").status.success()
    })
}

/// Its first process, whose end is the end of all of them (pid_namespaces(7)).
struct Namespace(Child);

impl Namespace {
    /// For what the calling thread starts from now on. Once in its life, and it starts no thread any more.
    fn begin() -> Namespace {
        // SAFETY: where children of this thread come to be; nothing of this process changes.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.expect("a process namespace");
        // it reaps whose parents are gone
        let mut init = Command::new("sh");
        init.args(["-c", "sleep infinity & wait"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // SAFETY: one system call between fork and exec.
        unsafe {
            init.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        Namespace(init.spawn().expect("a first process"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
