//! Control groups (cgroups(7)): where this process is, and one of its own for a job, where one can be made.
//!
//! A job's cgroup is what finds a process that left its parents, its descriptors and its environment behind. It is made
//! in the version 2 hierarchy below the caller's own cgroup; where that is not allowed, the job does without.

use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::clock::Boot;
use crate::kernel_file;
use crate::name::RunId;

/// What /proc says of the calling process.
pub struct Seen {
    /// /proc/self/cgroup.
    pub cgroups: String,
    /// /proc/self/mountinfo.
    pub mounts: String,
}

impl Seen {
    /// Reads it; `None` without /proc.
    pub fn own() -> Option<Seen> {
        let cgroups = kernel_file::text("/proc/self/cgroup").ok()?;
        let mounts = kernel_file::text("/proc/self/mountinfo").ok()?;
        Some(Seen { cgroups, mounts })
    }

    /// The folder of the cgroup that counts this process's memory.
    pub fn memory(&self) -> Option<PathBuf> {
        // Version 1 first: where its memory controller is mounted, version 2 has none.
        self.folder(|c| c.split(',').any(|c| c == "memory"), "cgroup", "memory")
            .or_else(|| self.version_2())
    }

    /// A container's id: the 64 hexadecimal digits that engines put into the cgroup's path or, where a cgroup namespace
    /// hides that, into the paths of what they mount.
    pub fn container(&self) -> Option<String> {
        [&self.cgroups, &self.mounts]
            .into_iter()
            .find_map(|text| container_id(text))
    }

    fn version_2(&self) -> Option<PathBuf> {
        self.folder(str::is_empty, "cgroup2", "")
    }

    fn folder(&self, wanted: impl Fn(&str) -> bool, kind: &str, option: &str) -> Option<PathBuf> {
        let path = self.cgroups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            wanted(controllers).then_some(path)
        })?;
        self.mounts
            .lines()
            .find_map(|line| below_mount(line, kind, option, path))
    }
}

/// Where `path` of a hierarchy is below the mount that `line` tells of, if that is a mount of it (proc_pid_mountinfo(5)).
fn below_mount(line: &str, kind: &str, option: &str, path: &str) -> Option<PathBuf> {
    let (mount, source) = line.split_once(" - ")?;
    let mount: Vec<&str> = mount.split(' ').collect();
    let source: Vec<&str> = source.split(' ').collect();
    let (root, point) = (mount.get(3)?, mount.get(4)?);
    if source.first() != Some(&kind)
        || !(option.is_empty() || source.get(2)?.split(',').any(|o| o == option))
    {
        return None;
    }
    // In a container, the mount's root is the container's own cgroup, and the path may be seen from the host's root.
    let below = path
        .strip_prefix(root)
        .filter(|_| *root != "/")
        .unwrap_or(path);
    Some(Path::new(point).join(below.trim_start_matches('/')))
}

fn container_id(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .find(|word| {
            word.len() == 64 && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
        .map(str::to_owned)
}

/// What `cgroup.events` says (the kernel's cgroup-v2.rst).
pub fn populated(events: &str) -> bool {
    events.contains("populated 1")
}

/// Whether `folder` itself, not what a link leads to, is a folder of a cgroup file system. In others a name like `cgroup.kill` may
/// be anything, a FIFO at which whoever opens it waits for ever.
///
/// # Errors
/// If that can't be seen, though something may be there.
pub fn is_cgroup(folder: &Path) -> rustix::io::Result<bool> {
    /// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC`, statfs(2).
    const MAGIC: [u64; 2] = [0x0027_e0eb, 0x6367_7270];
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::empty()).and_then(rustix::fs::fstatfs) {
        Ok(found) => Ok(u64::try_from(found.f_type).is_ok_and(|magic| MAGIC.contains(&magic))),
        Err(error) if is_of_nobody(error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is asked for was removed, never made, or is hidden from this user; or no folder can be called that.
fn is_of_nobody(error: Errno) -> bool {
    let gone = matches!(error, Errno::NOENT | Errno::NODEV | Errno::NOTDIR);
    let hidden = matches!(error, Errno::ACCESS | Errno::PERM);
    gone || hidden || matches!(error, Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL)
}

/// A job's own cgroup. The value names it; it exists between [`JobCgroup::make`] and [`JobCgroup::remove`].
#[derive(Debug, Clone)]
pub struct JobCgroup(PathBuf);

impl JobCgroup {
    /// The name for the job of `run`; nothing is made yet.
    pub fn of(run: &RunId, seen: &Seen) -> Option<JobCgroup> {
        Some(JobCgroup(seen.version_2()?.join(Self::name(run))))
    }

    /// What the job's cgroup of `run` is called: by a digest, as everybody sees the names of cgroups, and whoever knows the id of
    /// a run can write in a store of his own that it is dead, and have it ended from there.
    pub fn name(run: &RunId) -> String {
        let digest = Sha256::digest(run.as_str());
        let half = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
        format!("joblock-{}", half.collect::<String>())
    }

    /// The one that stands in a store as the holder's of `run`. A store may say what it likes: `None` unless it is a cgroup,
    /// and one that was made for that run. Everybody may write down the cgroup of some daemon.
    ///
    /// # Errors
    /// As [`is_cgroup`]: something of the run may be in it.
    pub fn recorded(path: &str, run: &RunId) -> rustix::io::Result<Option<JobCgroup>> {
        let path = Path::new(path);
        let plain = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
        let is_of_run = path.is_absolute()
            && path.components().all(plain)
            && path.file_name() == Some(Self::name(run).as_ref());
        let is_its_own = is_of_run && is_cgroup(path)?;
        Ok(is_its_own.then(|| JobCgroup(path.to_owned())))
    }

    /// Its folder, for the store.
    pub fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    /// Makes it, and opens its folder for a process to be started in. `None`: not allowed here.
    pub fn make(&self) -> Option<fs::File> {
        fs::create_dir(&self.0).ok()?;
        // Without cgroup.kill (before Linux 5.14) it would be of no use.
        let folder = fs::File::open(&self.0)
            .ok()
            .filter(|_| self.0.join("cgroup.kill").exists());
        if folder.is_none() {
            self.remove();
        }
        folder
    }

    /// SIGKILL to every process in it, also to those that are being forked.
    pub fn kill(&self) {
        if let Ok(mut kill) = fs::OpenOptions::new()
            .write(true)
            .open(self.0.join("cgroup.kill"))
        {
            let _ = kill.write_all(b"1");
        }
    }

    /// Whether a process is in it, or below it. One that is there and can't be read counts as populated.
    pub fn is_populated(&self) -> bool {
        match fs::read_to_string(self.0.join("cgroup.events")) {
            Ok(events) => populated(&events),
            Err(error) => !Errno::from_io_error(&error).is_some_and(is_of_nobody),
        }
    }

    /// Kills and waits until nobody is in it, at most until `deadline`; says whether nobody is.
    pub fn end(&self, deadline: Boot) -> bool {
        while self.is_populated() {
            self.kill();
            if Boot::now() >= deadline {
                return false;
            }
            // There is nothing to poll that tells of the end of processes which are not one's children.
            std::thread::sleep(Duration::from_millis(2));
        }
        self.remove();
        true
    }

    /// Removes it; one that is still populated stays.
    pub fn remove(&self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::a_daemons("/sys/fs/cgroup/system.slice/ssh.service")]
    #[case::another_runs("/sys/fs/cgroup/joblock-00ff00ff00ff0001")]
    #[case::above("/sys/fs/cgroup/NAME/..")]
    #[case::around("/sys/fs/cgroup/x/../NAME")]
    #[case::relative("NAME")]
    #[case::no_cgroup("/tmp/NAME")]
    fn a_store_can_t_name_any_cgroup(#[case] path: &str) {
        let run = "00ff00ff00ff00ff".parse().expect("a run id");
        let path = path.replace("NAME", &JobCgroup::name(&run));
        assert!(JobCgroup::recorded(&path, &run).expect("seen").is_none());
        assert!(!is_cgroup(Path::new("/tmp")).expect("seen"));
    }

    #[test]
    fn the_name_of_a_cgroup_does_not_tell_the_runs_id() {
        let name = |run: &str| JobCgroup::name(&run.parse().expect("a run id"));
        // printf 00ff00ff00ff00ff | sha256sum
        assert_eq!(name("00ff00ff00ff00ff"), "joblock-0aa8593366da1229");
        assert_ne!(name("00ff00ff00ff00ff"), name("00ff00ff00ff00fe"));
    }

    #[test]
    fn a_container_id_is_found_in_a_cgroup_path() {
        let id = "3f".repeat(32);
        assert_eq!(
            container_id(&format!("0::/system.slice/docker-{id}.scope")),
            Some(id)
        );
        assert_eq!(container_id("0::/user.slice/user-1000.slice"), None);
    }

    #[rstest]
    #[case::version_2(
        "0::/system.slice/cron.service",
        "31 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
        "/sys/fs/cgroup/system.slice/cron.service"
    )]
    #[case::version_1(
        "4:memory:/jobs\n0::/",
        "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
        "/sys/fs/cgroup/memory/jobs"
    )]
    #[case::container(
        "4:memory:/docker/abc",
        "31 23 0:27 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
        "/sys/fs/cgroup/memory"
    )]
    fn a_cgroup_is_found(#[case] cgroups: &str, #[case] mounts: &str, #[case] expected: &str) {
        assert_eq!(
            Seen {
                cgroups: cgroups.into(),
                mounts: mounts.into()
            }
            .memory(),
            Some(PathBuf::from(expected))
        );
    }
}
