//! Where a process stands: which boot, which clock, which pids.

use std::os::unix::fs::MetadataExt;
use std::{fmt, fs};

use serde::{Deserialize, Serialize};

use crate::kernel_file;

/// A process by pid and start time (field 22 of `proc_pid_stat(5)`, clock ticks since boot), so that a
/// reused pid is not taken for it. Comparable only within one boot, pid namespace and time namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid, in the pid namespace that the holder names.
    pub pid: i32,
    /// Its start time in clock ticks since boot.
    pub start: u64,
}

/// The three processes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    /// The caller's child.
    pub front: ProcessId,
    /// The one that does the store's I/O.
    pub keeper: ProcessId,
    /// The parent of the job.
    pub guard: ProcessId,
}

impl fmt::Display for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Processes {
            front,
            keeper,
            guard,
        } = self;
        write!(
            f,
            "front {}, keeper {}, guard {}",
            front.pid, keeper.pid, guard.pid
        )
    }
}

/// Which clock, which pids: what must be equal before two processes' numbers may be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Inode of `/proc/self/ns/time` and the BOOTTIME offset, as text; empty where the kernel has no time namespaces.
    pub time_ns: String,
    /// Inode of `/proc/self/ns/pid`.
    pub pid_ns: u64,
    /// The host name, for people: containers share names.
    pub host: String,
}

impl Place {
    /// Whether the two are the same boot of the same machine. One whose boot id could not be read equals none.
    pub fn same_boot(&self, other: &Place) -> bool {
        !self.boot_id.is_empty() && self.boot_id == other.boot_id
    }

    /// The same; `None`: the boot id of one of them could not be read.
    pub fn known_same_boot(&self, other: &Place) -> Option<bool> {
        let known = !self.boot_id.is_empty() && !other.boot_id.is_empty();
        known.then(|| self.same_boot(other))
    }

    /// Whether BOOTTIME readings of the two may be compared.
    pub fn same_clock(&self, other: &Place) -> bool {
        self.same_boot(other) && self.time_ns == other.time_ns
    }

    /// Whether pids and start times of the two may be compared.
    pub fn same_pids(&self, other: &Place) -> bool {
        self.same_clock(other) && self.pid_ns != 0 && self.pid_ns == other.pid_ns
    }
}

impl Place {
    /// This process's own. What can't be read stays empty, and an empty boot id equals no other (see [`Place::same_clock`]).
    pub fn here() -> Self {
        let inode = |path: &str| fs::metadata(path).map(|m| m.ino()).ok();
        let time_ns = inode("/proc/self/ns/time").map(|ino| {
            let offsets = kernel_file::text("/proc/self/timens_offsets").unwrap_or_default();
            // "boottime  <seconds> <nanoseconds>", time_namespaces(7)
            let boottime = offsets
                .lines()
                .find(|l| l.starts_with("boottime"))
                .unwrap_or_default();
            let offset: Vec<_> = boottime.split_whitespace().skip(1).collect();
            format!("{ino}:{}", offset.join("."))
        });
        Place {
            boot_id: kernel_file::text("/proc/sys/kernel/random/boot_id")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            time_ns: time_ns.unwrap_or_default(),
            pid_ns: inode("/proc/self/ns/pid").unwrap_or_default(),
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_place_is_its_own_and_a_place_without_a_boot_id_is_nobodys() {
        let here = Place::here();
        assert!(here.same_pids(&here));
        assert!(!here.host.is_empty());
        let nowhere = Place {
            boot_id: String::new(),
            ..here.clone()
        };
        assert!(!nowhere.same_clock(&nowhere));
        assert_eq!(nowhere.known_same_boot(&here), None);
        assert_eq!(here.known_same_boot(&here), Some(true));
        assert!(!here.same_boot(&Place {
            boot_id: "other".into(),
            ..here.clone()
        }));
        assert!(!here.same_clock(&Place {
            time_ns: "1:2".into(),
            ..here.clone()
        }));
        assert!(!here.same_pids(&Place {
            pid_ns: 0,
            ..here.clone()
        }));
    }
}
