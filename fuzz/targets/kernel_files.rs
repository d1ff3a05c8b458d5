//! What the kernel's own files could say, read by each who reads them: nothing in them is taken for what it is not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use joblock::plan::name_and_parent;
use joblock::store::folder::Group;
use joblock::store::mount::{self, lease, lies, lies::Around};
use joblock::store::record::{OomCounter, OutOfMemory};
use joblock::supervise::cgroup::{self, JobCgroup, Seen};
use joblock::supervise::{memory, process, tree};

use super::Input;

pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let which = input.byte().unwrap_or_default();
    let text = String::from_utf8_lossy(input.0);
    match which % 6 {
        0 => stat(&text),
        1 => mounts(&text),
        2 => cgroups(&text),
        3 => counter(input.0),
        4 => lockers(&text),
        _ => drop(Group::find("staff", &text)),
    }
}

fn stat(text: &str) {
    let by_bytes = name_and_parent(text.as_bytes());
    let Some(stat) = process::parse_stat(text) else {
        return;
    };
    assert!(text.contains(&stat.name));
    if let Some((_, Some(parent))) = by_bytes {
        assert_eq!(
            parent.as_raw_nonzero().get(),
            stat.parent,
            "two readers, two answers"
        );
    }
}

fn mounts(text: &str) {
    for path in ["/", "/mnt/a b", "/a\\b"] {
        let path = Path::new(path);
        if let Some(found) = mount::find(text, path) {
            assert!(path.starts_with(&found.point));
            let seen = Around::default();
            let (both, one) = (
                lies::judge(&found, lies::LOCKFILE, &seen),
                lies::judge(&found, lies::SQLITE, &seen),
            );
            assert!(one.iter().all(|lie| both.contains(lie)));
            assert!(lies::layers(&found).iter().all(|layer| layer.is_absolute()));
        }
        let _ = lease::in_mountstats(text, path);
    }
}

fn cgroups(text: &str) {
    let (cgroups, mounts) = text.split_once('\0').unwrap_or((text, ""));
    let seen = Seen {
        cgroups: cgroups.to_owned(),
        mounts: mounts.to_owned(),
    };
    if let Some(id) = seen.container() {
        assert!(id.len() == 64 && text.contains(&id));
    }
    let _ = seen.memory();
    let run = "0123456789abcdef".parse().expect("a run id");
    if let Some(cgroup) = JobCgroup::of(&run, &seen) {
        assert!(cgroup.path().ends_with(&JobCgroup::name(&run)));
    }
}

fn counter(text: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("memory.events"), text).expect("written");
    fs::write(folder.path().join("cgroup.events"), text).expect("written");
    let id = fs::metadata(folder.path()).expect("it is there").ino();
    let before = |kills| OomCounter {
        folder: folder.path().to_owned(),
        id,
        kills,
    };
    let never_more = memory::verdict(&[before(u64::MAX)]);
    assert_ne!(never_more, OutOfMemory::Yes, "more than there can be");
    let since_0 = memory::verdict(&[before(0)]);
    assert!(since_0 != OutOfMemory::No || text.windows(9).any(|w| w == b"oom_kill "));
    let _ = cgroup::populated(&String::from_utf8_lossy(text));
}

fn lockers(text: &str) {
    for line in text.lines() {
        if let Some(pid) = tree::locker(line) {
            assert!(line.starts_with("lock:") && line.contains("FLOCK"));
            assert!(pid >= 0 && line.split_whitespace().any(|word| word.parse() == Ok(pid)));
        }
    }
}
