//! Whether the kernel's OOM killer struck: the `oom_kill` counter of a memory cgroup, version 1 (`memory.oom_control`)
//! or 2 (`memory.events`), or of its nearest ancestor that is left (cgroups(7), the kernel's cgroup-v2.rst and memcg_test).
//!
//! A SIGKILL alone proves nothing. A counter tells of the whole cgroup: where others share it, `yes` may be about them.
//! A version 1 counter counts its own cgroup only, so an ancestor's says nothing of a child that is gone: `unknown`.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup;
use crate::store::record::OutOfMemory;

/// A memory cgroup: the folder that holds its files, as this mount namespace sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryCgroup(PathBuf);

impl MemoryCgroup {
    /// The one that this process is in; `None` where no memory controller can be seen.
    pub fn own() -> Option<MemoryCgroup> {
        cgroup::Seen::own()?.memory().map(MemoryCgroup)
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

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
