//! Whether the kernel's OOM killer struck: the `oom_kill` counter of a memory cgroup, version 1 (`memory.oom_control`)
//! or 2 (`memory.events`), or of its nearest ancestor that is left (cgroups(7), the kernel's cgroup-v2.rst and memcg_test).
//!
//! A SIGKILL alone proves nothing. A counter tells of the whole cgroup: where others share it, `yes` may be about them.
//! A version 1 counter counts its own cgroup only, so an ancestor's says nothing of a child that is gone: `unknown`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::store::record::OutOfMemory;

/// A memory cgroup: the folder that holds its files, as this mount namespace sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryCgroup(PathBuf);

impl MemoryCgroup {
    /// The one that this process is in; `None` where no memory controller can be seen.
    pub fn own() -> Option<MemoryCgroup> {
        let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        locate(&cgroups, &mounts).map(MemoryCgroup)
    }

    /// The one that stands in a record.
    pub fn recorded(path: &str) -> MemoryCgroup {
        MemoryCgroup(PathBuf::from(path))
    }

    /// Its folder, for the record.
    pub fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    /// How often the OOM killer struck in it so far.
    pub fn oom_kills(&self) -> Option<u64> {
        self.0.ancestors().find_map(|folder| counter(folder, folder == self.0))
    }
}

/// Whether the counter grew from `before` to `now`.
pub fn verdict(before: Option<u64>, now: Option<u64>) -> OutOfMemory {
    match (before, now) {
        (Some(before), Some(now)) if now > before => OutOfMemory::Yes,
        (Some(before), Some(now)) if now == before => OutOfMemory::No,
        _ => OutOfMemory::Unknown,
    }
}

fn counter(folder: &Path, is_own: bool) -> Option<u64> {
    let version_2 = || fs::read_to_string(folder.join("memory.events")).ok();
    let version_1 = || is_own.then(|| fs::read_to_string(folder.join("memory.oom_control")).ok()).flatten();
    let text = version_2().or_else(version_1)?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// From the texts of /proc/self/cgroup and /proc/self/mountinfo (cgroups(7), proc_pid_mountinfo(5)).
fn locate(cgroups: &str, mounts: &str) -> Option<PathBuf> {
    // Version 1 first: where its memory controller is mounted, version 2 has none.
    let controllers = |line: &str| -> Option<(String, String)> {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        Some((controllers.to_owned(), path.to_owned()))
    };
    let lines: Vec<_> = cgroups.lines().filter_map(controllers).collect();
    let in_hierarchy = |wanted: &dyn Fn(&str) -> bool, kind: &str, option: &str| {
        let path = &lines.iter().find(|(controllers, _)| wanted(controllers))?.1;
        mounts.lines().find_map(|line| below_mount(line, kind, option, path))
    };
    in_hierarchy(&|c| c.split(',').any(|c| c == "memory"), "cgroup", "memory")
        .or_else(|| in_hierarchy(&str::is_empty, "cgroup2", ""))
}

/// Where `path` of a hierarchy is below the mount that `line` tells of, if that is a mount of it.
fn below_mount(line: &str, kind: &str, option: &str, path: &str) -> Option<PathBuf> {
    let (mount, source) = line.split_once(" - ")?;
    let mount: Vec<&str> = mount.split(' ').collect();
    let source: Vec<&str> = source.split(' ').collect();
    let (root, point) = (mount.get(3)?, mount.get(4)?);
    if source.first() != Some(&kind) || !(option.is_empty() || source.get(2)?.split(',').any(|o| o == option)) {
        return None;
    }
    // In a container, the mount's root is the container's own cgroup, and the path may be seen from the host's root.
    let below = path.strip_prefix(root).filter(|_| *root != "/").unwrap_or(path);
    Some(Path::new(point).join(below.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::version_2("0::/system.slice/cron.service", "31 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "/sys/fs/cgroup/system.slice/cron.service")]
    #[case::version_1("4:memory:/jobs\n0::/", "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory", "/sys/fs/cgroup/memory/jobs")]
    #[case::container("4:memory:/docker/abc", "31 23 0:27 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory", "/sys/fs/cgroup/memory")]
    fn a_cgroup_is_found(#[case] cgroups: &str, #[case] mounts: &str, #[case] expected: &str) {
        assert_eq!(locate(cgroups, mounts), Some(PathBuf::from(expected)));
    }

    #[rstest]
    #[case(Some(1), Some(2), OutOfMemory::Yes)]
    #[case(Some(2), Some(2), OutOfMemory::No)]
    #[case(Some(3), Some(0), OutOfMemory::Unknown)]
    #[case(None, Some(2), OutOfMemory::Unknown)]
    fn only_a_counter_that_grew_is_a_proof(
        #[case] before: Option<u64>,
        #[case] now: Option<u64>,
        #[case] expected: OutOfMemory,
    ) {
        assert_eq!(verdict(before, now), expected);
    }
}
