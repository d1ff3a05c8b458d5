//! Where this process stands: which boot, which clock, which pids.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::Place;
use crate::kernel_file;

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
