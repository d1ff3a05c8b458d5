//! Whether the kernel's OOM killer struck: the `oom_kill` counter of a memory cgroup, version 1 (`memory.oom_control`)
//! or 2 (`memory.events`), or of its nearest ancestor that is left (cgroups(7), the kernel's cgroup-v2.rst).
//!
//! A SIGKILL alone proves nothing. A counter tells of the whole cgroup: where others share it, `yes` may be about them.
//! A version 1 counter counts its own cgroup only, so it says nothing of a child that is gone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::cgroup;
use crate::kernel_file;
use crate::store::record::{OomCounter, OutOfMemory};

/// The counters that an OOM kill of this process would move, nearest first; none where no memory controller can be seen.
pub fn counters(seen: &cgroup::Seen) -> Vec<OomCounter> {
    let Some(own) = seen.memory() else {
        return Vec::new();
    };
    own.ancestors()
        .filter_map(|folder| {
            let kills = read(folder, folder == own)?;
            Some(OomCounter {
                folder: folder.to_owned(),
                id: fs::metadata(folder).ok()?.ino(),
                kills,
            })
        })
        .collect()
}

/// What became of the counters that were read `before`. The nearest that is still there decides; the same path may be
/// another cgroup by now, or in another container, and that one's inode, the cgroup's id, differs.
///
/// Only counters of this boot may be asked about.
pub fn verdict(before: &[OomCounter]) -> OutOfMemory {
    // a store may name any folder
    verdict_in(before, |folder| cgroup::is_cgroup(folder).unwrap_or(false))
}

fn verdict_in(before: &[OomCounter], is_cgroup: fn(&Path) -> bool) -> OutOfMemory {
    let is_left = |c: &&OomCounter| {
        is_cgroup(&c.folder) && fs::metadata(&c.folder).is_ok_and(|m| m.ino() == c.id)
    };
    let nearest = before.iter().find(is_left);
    let now = nearest.and_then(|c| read(&c.folder, before.first() == Some(c)));
    compare(nearest.map(|c| c.kills), now)
}

fn compare(before: Option<u64>, now: Option<u64>) -> OutOfMemory {
    match (before, now) {
        (Some(before), Some(now)) if now > before => OutOfMemory::Yes,
        (Some(before), Some(now)) if now == before => OutOfMemory::No,
        _ => OutOfMemory::Unknown,
    }
}

fn read(folder: &Path, is_own: bool) -> Option<u64> {
    let version_2 = || kernel_file::text(folder.join("memory.events")).ok();
    let version_1 = || {
        is_own
            .then(|| kernel_file::text(folder.join("memory.oom_control")).ok())
            .flatten()
    };
    let text = version_2().or_else(version_1)?;
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn verdict_anywhere(before: &[OomCounter]) -> OutOfMemory {
        verdict_in(before, |_| true)
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
        assert_eq!(compare(before, now), expected);
    }

    #[test]
    fn the_nearest_cgroup_that_is_left_decides_and_another_at_its_path_does_not() {
        let root = tempfile::tempdir().expect("a folder");
        let counter = |name: &str, kills: u64| {
            let folder = root.path().join(name);
            fs::create_dir_all(&folder).expect("mkdir");
            fs::write(
                folder.join("memory.events"),
                format!("oom 9\noom_kill {kills}\n"),
            )
            .expect("write");
            let id = fs::metadata(&folder).expect("stat").ino();
            OomCounter { folder, id, kills }
        };
        let before = [counter("pod/container", 0), counter("pod", 3)];
        assert_eq!(verdict_anywhere(&before), OutOfMemory::No);
        counter("pod/container", 1);
        assert_eq!(verdict_anywhere(&before), OutOfMemory::Yes);
        let reused = [
            OomCounter {
                id: before[0].id + 1,
                ..before[0].clone()
            },
            before[1].clone(),
        ];
        assert_eq!(verdict_anywhere(&reused), OutOfMemory::No);
        fs::remove_dir_all(&before[0].folder).expect("remove");
        counter("pod", 4);
        assert_eq!(verdict_anywhere(&before), OutOfMemory::Yes);
        assert_eq!(verdict_anywhere(&[]), OutOfMemory::Unknown);
    }
}
