//! A tracer on ptrace(2): starts programs, follows all that they fork, and stops at each system call of each of them.
//!
//! It knows each process by the part that it has in a run (front, guard and keeper in the order of front's forks, the
//! recorder that front forks at the end, the job), counts each part's calls by number, and asks a [`Watch`] what to do at each:
//! let it go, kill the process for real, or make the call fail or write less than it was told to.
//!
//! One tracer belongs to one thread (ptrace(2)): several may work side by side. Nothing outlives a tracer.
#![allow(
    dead_code,
    reason = "each test program uses its own part of the tracer"
)]

pub mod older;
mod registers;

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io, ptr};

/// The program under test: `JOBLOCK_BINARY`, such as a release build, or the one that cargo built for this test.
pub fn joblock() -> PathBuf {
    std::env::var_os("JOBLOCK_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_joblock").into(), PathBuf::from)
}

/// What a process is to the command that was started first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The command itself; of `run`, front.
    Front,
    /// Front's first child.
    Guard,
    /// Front's second child.
    Keeper,
    /// Any later child of front's.
    Recorder,
    /// What the guard started, until it executes the job's program.
    Starting,
    /// The job's program, and all that it starts.
    Job,
}

/// A system call of a traced process.
#[derive(Debug, Clone)]
pub struct Call {
    /// The process (or thread) that makes it.
    pub pid: i32,
    /// Which of the commands started by [`Tracer::start`] it belongs to.
    pub command: usize,
    /// What the process is there.
    pub role: Role,
    /// The call's number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// The how manieth call with this number of all processes of this role of this command, from 1.
    pub nth: u32,
}

/// What to do with a call at its entry or its exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Go,
    /// SIGKILL to its process. At the entry: the call is not done.
    Kill,
    /// At the entry: the call is not done, and fails with this error.
    Fail(i32),
    /// At the entry: the call is done, and fails with this error all the same.
    DoneAndFail(i32),
    /// At the entry: the call writes only so many bytes.
    Shorten(u64),
    /// At the entry: its process stays where it is, and is asked about again when something else has happened.
    Hold,
}

/// What happened to a process, besides its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It executes a program: the first for a job's process is the job's start.
    Executes,
    /// It is gone.
    Ended(Status),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// Who looks at every call.
pub trait Watch {
    /// Before the call. The process is stopped.
    fn enter(&mut self, call: &Call) -> Act;
    /// After the call. The process is stopped; a result that was forced upon it is already in place.
    fn leave(&mut self, _call: &Call, _result: i64) -> Act {
        Act::Go
    }
    /// Something else happened. `others`: the tracees that are there.
    fn event(&mut self, _pid: i32, _command: usize, _role: Role, _event: Event, _others: &Tracees) {
    }
    /// Called whenever something happened, and some fifty times a second if nothing does: may start commands. `true`: enough.
    fn turn(&mut self, _tracer: &mut Tracees) -> bool {
        false
    }
}

#[derive(Debug, Clone)]
struct Task {
    group: i32,
    command: usize,
    role: Role,
    calls: bool,
    children: u32,
    executed: bool,
    /// The call that it is in, and what its exit must come to.
    inside: Option<(Call, Forced)>,
    /// It stands at the entry of this call and may not go on yet.
    held: Option<Call>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forced {
    No,
    Result(i64),
    /// The third argument as it was.
    Third(u64),
}

/// The commands that were started and the processes that there are.
#[derive(Default)]
pub struct Tracees {
    tasks: HashMap<i32, Task>,
    /// Stopped before their parent's stop told of them.
    early: Vec<i32>,
    counts: HashMap<(usize, Role, i64), u32>,
    /// How each command ended.
    ended: BTreeMap<usize, Status>,
    first: Vec<i32>,
}

impl Tracees {
    /// Starts a command and follows it. `calls`: stops at each of its calls; else only at what [`Event`] tells. The answer is
    /// its number, from 0.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub fn start(&mut self, mut command: Command, calls: bool) -> io::Result<usize> {
        // SAFETY: one system call, between fork and exec.
        unsafe {
            command.pre_exec(|| {
                if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == -1 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let mut status = 0;
        // SAFETY: waitpid(2) and ptrace(2) on a child of this thread, which stops at its exec.
        unsafe {
            while libc::waitpid(pid, &raw mut status, libc::__WALL) == -1 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            if !libc::WIFSTOPPED(status) {
                return Err(io::Error::other("the program did not stop at its exec"));
            }
            let options = libc::PTRACE_O_TRACESYSGOOD
                | libc::PTRACE_O_TRACEFORK
                | libc::PTRACE_O_TRACEVFORK
                | libc::PTRACE_O_TRACECLONE
                | libc::PTRACE_O_TRACEEXEC
                | libc::PTRACE_O_EXITKILL;
            if libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        let number = self.first.len();
        self.first.push(pid);
        let task = Task {
            group: pid,
            command: number,
            role: Role::Front,
            calls,
            children: 0,
            executed: true,
            inside: None,
            held: None,
        };
        self.tasks.insert(pid, task);
        self.go_on(pid, 0);
        Ok(number)
    }

    /// How a command ended, if it has.
    pub fn status(&self, command: usize) -> Option<Status> {
        self.ended.get(&command).copied()
    }

    /// The pid of a command's first process.
    pub fn pid(&self, command: usize) -> i32 {
        self.first[command]
    }

    /// The processes of a command that are there, threads not counted apart.
    pub fn alive(&self, command: usize) -> Vec<(i32, Role)> {
        let groups = self
            .tasks
            .iter()
            .filter(|(pid, task)| task.command == command && **pid == task.group);
        groups.map(|(pid, task)| (*pid, task.role)).collect()
    }

    /// Whether there is none left.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// SIGKILL to what is left of a command.
    pub fn kill(&self, command: usize) {
        for (pid, _) in self.alive(command) {
            kill(pid, libc::SIGKILL);
        }
    }

    fn go_on(&self, pid: i32, signal: i32) {
        let calls = self.tasks.get(&pid).is_some_and(|t| t.calls);
        let how = if calls {
            libc::PTRACE_SYSCALL
        } else {
            libc::PTRACE_CONT
        };
        // SAFETY: a tracee that is stopped, or dead by now, which is no error here.
        unsafe {
            libc::ptrace(how, pid, 0, libc::c_long::from(signal));
        }
    }

    fn adopt(&mut self, parent: i32, child: i32) {
        let Some(from) = self.tasks.get_mut(&parent) else {
            return;
        };
        let thread = fs::metadata(format!("/proc/{}/task/{child}", from.group)).is_ok();
        if !thread {
            from.children += 1;
        }
        let role = match from.role {
            role if thread => role,
            Role::Front => match from.children {
                1 => Role::Guard,
                2 => Role::Keeper,
                _ => Role::Recorder,
            },
            Role::Guard => Role::Starting,
            role => role,
        };
        let task = Task {
            group: if thread { from.group } else { child },
            role,
            children: 0,
            executed: false,
            inside: None,
            held: None,
            ..from.clone()
        };
        self.tasks.insert(child, task);
        if let Some(at) = self.early.iter().position(|&pid| pid == child) {
            self.early.swap_remove(at);
            self.go_on(child, 0);
        }
    }
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: kill(2) on a tracee of ours, which is not reaped yet.
    unsafe {
        libc::kill(pid, signal);
    }
}

/// Follows what `watch` starts until nothing is left, `watch` has enough, or `limit` is over; what is left then is killed.
/// `false`: the limit was over.
pub fn follow(watch: &mut dyn Watch, limit: Duration) -> bool {
    let _ticks = Ticks::begin();
    let end = Instant::now() + limit;
    let mut tracees = Tracees::default();
    let in_time = loop {
        if watch.turn(&mut tracees) || tracees.is_empty() {
            break true;
        }
        if Instant::now() >= end {
            break false;
        }
        step(&mut tracees, watch);
        ask_again(&mut tracees, watch);
    };
    while !tracees.is_empty() {
        for command in 0..tracees.first.len() {
            tracees.kill(command);
        }
        step(&mut tracees, &mut Nobody);
    }
    in_time
}

/// Lets everything happen.
struct Nobody;

impl Watch for Nobody {
    fn enter(&mut self, _: &Call) -> Act {
        Act::Go
    }
}

/// Handles one stop.
fn step(tracees: &mut Tracees, watch: &mut dyn Watch) {
    let mut status = 0;
    // SAFETY: waitpid(2) into a variable of ours. Other threads' children are not touched.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    if pid == -1 {
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => tracees.tasks.clear(),
            other => panic!("waitpid: {other:?}"),
        }
        return;
    }
    if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
        let status = if libc::WIFEXITED(status) {
            Status::Exited(libc::WEXITSTATUS(status))
        } else {
            Status::Killed(libc::WTERMSIG(status))
        };
        if let Some(task) = tracees.tasks.remove(&pid) {
            if tracees.first[task.command] == pid {
                tracees.ended.insert(task.command, status);
            }
            if task.group == pid {
                watch.event(pid, task.command, task.role, Event::Ended(status), tracees);
            }
        }
        return;
    }
    let signal = libc::WSTOPSIG(status);
    let event = status >> 16;
    if signal == libc::SIGTRAP | 0x80 {
        at_call(tracees, watch, pid);
    } else if signal == libc::SIGTRAP && event != 0 {
        at_event(tracees, watch, pid, event);
    } else if !tracees.tasks.contains_key(&pid) {
        // a child whose parent's stop is still to come
        tracees.early.push(pid);
    } else if signal == libc::SIGSTOP && is_new(tracees, pid) {
        tracees.go_on(pid, 0);
    } else {
        tracees.go_on(pid, signal);
    }
}

/// Every child that is followed begins with a SIGSTOP of ptrace's own.
fn is_new(tracees: &mut Tracees, pid: i32) -> bool {
    tracees.tasks.get_mut(&pid).is_some_and(|task| {
        let new = !task.executed;
        task.executed = true;
        new
    })
}

fn at_event(tracees: &mut Tracees, watch: &mut dyn Watch, pid: i32, event: i32) {
    match event {
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
            let mut child: libc::c_ulong = 0;
            // SAFETY: writes an unsigned long.
            let asked = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, &raw mut child) };
            if asked == 0
                && let Ok(child) = i32::try_from(child)
            {
                tracees.adopt(pid, child);
            }
        }
        libc::PTRACE_EVENT_EXEC => {
            if let Some(task) = tracees.tasks.get_mut(&pid) {
                if task.role == Role::Starting {
                    // what follows is the job's own
                    task.role = Role::Job;
                    task.calls = false;
                    task.inside = None;
                }
                let (command, role) = (task.command, task.role);
                watch.event(pid, command, role, Event::Executes, tracees);
            }
        }
        _ => {}
    }
    tracees.go_on(pid, 0);
}

fn at_call(tracees: &mut Tracees, watch: &mut dyn Watch, pid: i32) {
    // SAFETY: plain data, which the kernel fills to the size that it is told.
    let info = unsafe {
        let mut info: libc::ptrace_syscall_info = std::mem::zeroed();
        let size = size_of::<libc::ptrace_syscall_info>();
        libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, &raw mut info);
        info
    };
    let Some(task) = tracees.tasks.get_mut(&pid) else {
        return;
    };
    let act = match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            // SAFETY: the kernel says which part of the union is filled.
            let entry = unsafe { info.u.entry };
            let count = tracees
                .counts
                .entry((task.command, task.role, entry.nr.cast_signed()))
                .or_default();
            *count += 1;
            let call = Call {
                pid,
                command: task.command,
                role: task.role,
                number: entry.nr.cast_signed(),
                arguments: entry.args,
                nth: *count,
            };
            return decide(tracees, watch, call);
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => {
            // SAFETY: as above.
            let mut result = unsafe { info.u.exit.sval };
            match task.inside.take() {
                Some((call, forced)) => {
                    match forced {
                        Forced::No => {}
                        Forced::Result(instead) => {
                            result = instead;
                            let _ = registers::set_result(pid, instead);
                        }
                        Forced::Third(was) => {
                            let _ = registers::set_third(pid, was);
                        }
                    }
                    watch.leave(&call, result)
                }
                None => Act::Go,
            }
        }
        _ => Act::Go,
    };
    if act == Act::Kill {
        kill(pid, libc::SIGKILL);
    }
    tracees.go_on(pid, 0);
}

/// Asks what to do with a call that is about to be made, and does it.
fn decide(tracees: &mut Tracees, watch: &mut dyn Watch, call: Call) {
    let pid = call.pid;
    let act = watch.enter(&call);
    let Some(task) = tracees.tasks.get_mut(&pid) else {
        return;
    };
    if act == Act::Hold {
        task.held = Some(call);
        return;
    }
    let forced = force(pid, act, &call);
    task.inside = Some((call, forced));
    if act == Act::Kill {
        kill(pid, libc::SIGKILL);
    }
    tracees.go_on(pid, 0);
}

fn ask_again(tracees: &mut Tracees, watch: &mut dyn Watch) {
    let held: Vec<Call> = tracees
        .tasks
        .values_mut()
        .filter_map(|task| task.held.take())
        .collect();
    for call in held {
        decide(tracees, watch, call);
    }
}

/// Does what is to be done at the entry; the answer is what is left for the exit.
fn force(pid: i32, act: Act, call: &Call) -> Forced {
    match act {
        Act::Go | Act::Hold => Forced::No,
        Act::Kill => {
            let _ = registers::skip(pid);
            Forced::No
        }
        Act::Fail(errno) => {
            let _ = registers::skip(pid);
            Forced::Result(-i64::from(errno))
        }
        Act::DoneAndFail(errno) => Forced::Result(-i64::from(errno)),
        Act::Shorten(length) => {
            let _ = registers::set_third(pid, length);
            Forced::Third(call.arguments[2])
        }
    }
}

/// Interrupts waitpid(2) some fifty times a second, so that a tracer looks at the time.
struct Ticks(libc::timer_t);

impl Ticks {
    fn begin() -> Ticks {
        extern "C" fn nothing(_: libc::c_int) {}
        // SAFETY: a handler that does nothing, without SA_RESTART, and a timer that signals this thread.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            libc::sigaction(libc::SIGUSR2, &raw const action, ptr::null_mut());
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGUSR2;
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer: libc::timer_t = ptr::null_mut();
            assert_eq!(
                libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer),
                0
            );
            let each = libc::timespec {
                tv_sec: 0,
                tv_nsec: 20_000_000,
            };
            let spec = libc::itimerspec {
                it_interval: each,
                it_value: each,
            };
            assert_eq!(
                libc::timer_settime(timer, 0, &raw const spec, ptr::null_mut()),
                0
            );
            Ticks(timer)
        }
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        // SAFETY: a timer of our own.
        unsafe {
            libc::timer_delete(self.0);
        }
    }
}

/// What a descriptor of a stopped process is open on: a path, or `pipe:[…]`, `socket:[…]`, `anon_inode:…`.
pub fn open_on(pid: i32, fd: u64) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()
}

/// If `call` opens a file: the address of its path, and its flags.
pub fn opening(call: &Call) -> Option<(u64, u64)> {
    let [first, second, third, ..] = call.arguments;
    match call.number {
        older::OPEN => Some((first, second)),
        libc::SYS_openat => Some((second, third)),
        // the flags are the first member of struct open_how
        libc::SYS_openat2 => {
            let flags = memory(call.pid, third, 8).try_into().ok()?;
            Some((second, u64::from_ne_bytes(flags)))
        }
        _ => None,
    }
}

/// Bytes of a stopped process's memory; fewer if not all can be read.
pub fn memory(pid: i32, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0_u8; length];
    let ours = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: length,
    };
    let Ok(address) = usize::try_from(address) else {
        return Vec::new();
    };
    let theirs = libc::iovec {
        iov_base: ptr::without_provenance_mut::<c_void>(address),
        iov_len: length,
    };
    // SAFETY: our part is a buffer of that length; theirs is checked by the kernel.
    let read = unsafe { libc::process_vm_readv(pid, &raw const ours, 1, &raw const theirs, 1, 0) };
    bytes.truncate(usize::try_from(read).unwrap_or(0));
    bytes
}

/// A string of a stopped process, up to its NUL.
pub fn string(pid: i32, address: u64) -> Vec<u8> {
    let mut text = Vec::new();
    loop {
        // never over the end of a page: the next may not be there
        let at = address + text.len() as u64;
        let some = memory(pid, at, usize::try_from(256 - at % 256).unwrap_or(256));
        if let Some(end) = some.iter().position(|&b| b == 0) {
            text.extend(&some[..end]);
            return text;
        }
        if some.is_empty() {
            return text;
        }
        text.extend(some);
    }
}
