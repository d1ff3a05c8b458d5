//! A host of the campaign: what starts a job there, and by which name it knows the store.
//!
//! A far host is a thread in namespaces of its own: its own mount of the store's folder, process ids and /proc, a boot id and a name, and no
//! sight of the cgroups of the others, so that all that two of them have in common is the store.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::{fs, mem};

use rustix::mount::{MountFlags, MountPropagationFlags};

use super::arena::job;
use super::fuse::{self, Moods};

/// See the module.
pub enum Host {
    /// This machine as it is.
    Here(String),
    /// One of its own.
    Far(Far),
}

impl Host {
    /// The store as it is called there.
    pub fn url(&self) -> &str {
        match self {
            Host::Here(url) => url,
            Host::Far(far) => &far.url,
        }
    }

    /// Starts `command` there.
    pub fn spawn(&self, mut command: Command) -> io::Result<Child> {
        match self {
            Host::Here(_) => command.spawn(),
            Host::Far(far) => far.spawn(command),
        }
    }
}

type Order = (Command, Sender<io::Result<Child>>);

/// A host that shares nothing but the store.
pub struct Far {
    url: String,
    moods: Moods,
    plan: Plan,
    machine: Mutex<Option<Machine>>,
}

/// What every boot of a host has in common.
#[derive(Clone)]
struct Plan {
    name: String,
    folder: PathBuf,
    point: PathBuf,
    /// Its file of this host's boot id.
    boot_id: PathBuf,
}

/// A host that runs.
struct Machine {
    orders: Sender<Order>,
    init: Child,
    thread: JoinHandle<()>,
}

impl Far {
    /// Boots one that mounts `folder` at a point below `place`.
    pub fn boot(name: &str, folder: &Path, place: &Path) -> io::Result<Far> {
        let point = place.join(name);
        fs::create_dir(&point)?;
        let plan = Plan {
            name: name.to_owned(),
            folder: folder.to_owned(),
            boot_id: place.join(format!("{name}.boot_id")),
            point,
        };
        let moods = Moods::new();
        let machine = Machine::boot(&plan, &moods)?;
        Ok(Far {
            url: format!("sqlite:{}/joblock.db", plan.point.display()),
            moods,
            plan,
            machine: Mutex::new(Some(machine)),
        })
    }

    /// How its mount works.
    pub fn moods(&self) -> &Moods {
        &self.moods
    }

    fn spawn(&self, command: Command) -> io::Result<Child> {
        let (sender, receiver) = channel();
        {
            let machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
            let machine = machine.as_ref().ok_or(io::ErrorKind::HostUnreachable)?;
            let _ = machine.orders.send((command, sender));
        }
        receiver
            .recv()
            .unwrap_or_else(|_| Err(io::ErrorKind::HostUnreachable.into()))
    }

    /// Pulls its plug and powers it on again: nothing of it lives on, and it has another boot id.
    pub fn reboot(&self) -> io::Result<()> {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(machine) = machine.take() {
            machine.cut();
        }
        *machine = Some(Machine::boot(&self.plan, &self.moods)?);
        Ok(())
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let machine = mem::take(
            self.machine
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner),
        );
        if let Some(machine) = machine {
            machine.cut();
        }
    }
}

impl Machine {
    fn boot(plan: &Plan, moods: &Moods) -> io::Result<Machine> {
        let (orders, inbox) = channel();
        let (ready, booted) = channel();
        let (plan, moods) = (plan.clone(), moods.clone());
        let thread = thread::Builder::new()
            .name(plan.name.clone())
            .spawn(move || match enter(&plan, moods) {
                Ok(machine) => {
                    let _ = ready.send(Ok(machine));
                    serve(&inbox);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            })?;
        let (init, server) = booted.recv().map_err(|_| io::Error::other("no host"))??;
        // in this thread's namespaces, as it looks into its own /proc
        thread::Builder::new().name("fuse".into()).spawn(server)?;
        Ok(Machine {
            orders,
            init,
            thread,
        })
    }

    /// The end of its first process is the end of all of them (pid_namespaces(7)).
    fn cut(mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
        drop(self.orders);
        let _ = self.thread.join();
    }
}

fn serve(inbox: &Receiver<Order>) {
    for (mut command, answer) in inbox {
        let _ = answer.send(command.spawn());
    }
}

/// Makes the calling thread the host's, and everything that it starts.
fn enter(plan: &Plan, moods: Moods) -> io::Result<(Child, fuse::Server)> {
    // made before the first process of the host is, which must be its init
    let job = job();
    unshare(libc::CLONE_FS | libc::CLONE_NEWNS | libc::CLONE_NEWUTS)?;
    let recursively = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", recursively)?;
    rustix::system::sethostname(plan.name.as_bytes())?;
    let server = fuse::mount(&plan.folder, &plan.point, moods)?;
    let hidden = "/sys/fs/cgroup";
    if Path::new(hidden).exists() {
        rustix::mount::mount("none", hidden, "tmpfs", MountFlags::empty(), None)?;
    }
    unshare(libc::CLONE_NEWPID)?;
    let mut init = Command::new(job)
        .arg("init")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ready = [0];
    let out = init.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    { out }.read_exact(&mut ready)?;
    fs::write(&plan.boot_id, boot_id()?)?;
    rustix::mount::mount_bind(&plan.boot_id, "/proc/sys/kernel/random/boot_id")?;
    Ok((init, server))
}

/// A new one for each boot.
fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/uuid")
}

fn unshare(what: libc::c_int) -> io::Result<()> {
    // SAFETY: unshare(2) takes a number and changes what the calling thread sees; nothing of ours is shared with others by it.
    let done = unsafe { libc::unshare(what) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
