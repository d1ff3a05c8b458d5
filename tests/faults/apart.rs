//! What a thread plays in a process namespace of its own: who goes through /proc there finds the world's own processes, and not what else
//! the machine does, which would be other calls each time, and more of them the busier it is.

use std::cell::Cell;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::thread;

thread_local! {
    static APART: Cell<bool> = const { Cell::new(false) };
}

/// Does `work` in a thread whose commands are apart, once [`with_its_proc`] has prepared them; without the right to do that, they are where they
/// would be anyway.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let alone = || {
        let _namespace = Namespace::begin();
        work()
    };
    thread::scope(|s| s.spawn(alone).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Gives `command` the /proc of its own namespace.
pub fn with_its_proc(command: &mut Command) {
    if !APART.get() {
        return;
    }
    // SAFETY: three system calls between fork and exec, on constants.
    unsafe {
        command.pre_exec(|| {
            checked(libc::unshare(libc::CLONE_NEWNS))?;
            let (none, proc) = (ptr::null(), c"proc".as_ptr());
            let private = libc::MS_REC | libc::MS_PRIVATE;
            checked(libc::mount(none, c"/".as_ptr(), none, private, ptr::null()))?;
            checked(libc::mount(proc, c"/proc".as_ptr(), proc, 0, ptr::null()))
        });
    }
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Its first process, whose end is the end of all of them (pid_namespaces(7)).
struct Namespace(Child);

impl Namespace {
    /// For what the calling thread starts from now on, if it may. Once in its life, and it starts no thread any more.
    fn begin() -> Option<Namespace> {
        let mut trial = Command::new("unshare");
        trial.args(["--pid", "--fork", "--mount-proc", "true"]);
        let output = trial.output().expect("unshare");
        if !output.status.success() {
            return None;
        }
        // SAFETY: unshare(2) takes a number; what it changes is where children of this thread come to be.
        checked(unsafe { libc::unshare(libc::CLONE_NEWPID) }).expect("a process namespace");
        // it reaps whose parents are gone
        let mut init = Command::new("sh");
        init.args(["-c", "sleep infinity & wait"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // SAFETY: one system call between fork and exec.
        unsafe {
            init.pre_exec(|| checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)));
        }
        APART.set(true);
        Some(Namespace(init.spawn().expect("a first process")))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
