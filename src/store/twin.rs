//! Two machines that an NFSv4 server takes for one: it knows a client by its host name, and drops all locks of the one when the other
//! mounts. It is seen by who has locks now, before another job is put under such a lock.
//!
//! A machine of our name is another one if it has another machine id. Copies of one disk image have the same, and some have none: there,
//! another boot that gave a sign of life after this machine's own boot is another machine's, by the wall clocks.
//!
//! Not guaranteed: that it is seen. A container does not know by which name its machine mounts, and of two that have no job running
//! neither sees the other.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Holder, Locks, Place, StoreError, remote};
use crate::clock::{Boot, Wall};

/// The inode of the first namespace of host names (`PROC_UTS_INIT_INO` of the kernel), which mounts are made in.
const FIRST_UTS: &str = "uts:[4026531838]";

/// What an NFSv4 server knows this machine by, and what it really is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NfsClient {
    /// Protocol, host name, and what was set to make it unique.
    pub name: String,
    /// `/etc/machine-id`; empty where there is none.
    pub machine: String,
}

fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    Some(if text == "(null)" {
        String::new()
    } else {
        text.to_owned()
    })
}

/// What was set to tell this machine from others of its name (nfs(5)), empty where nothing was; `None`: the kernel does not tell.
pub fn unique_id() -> Option<String> {
    let of_namespace = line("/sys/fs/nfs/net/nfs_client/identifier").filter(|id| !id.is_empty());
    of_namespace.or_else(|| line("/sys/module/nfs/parameters/nfs4_unique_id"))
}

impl NfsClient {
    /// Of this machine, if `path` lies on such a mount and it can be told.
    pub fn of(path: &Path) -> Option<Self> {
        let mount = remote::on_the_way(path)?;
        let version = mount.value("vers")?;
        let uts = fs::read_link("/proc/self/ns/uts").ok()?;
        if mount.nfs() != Some(4) || uts != Path::new(FIRST_UTS) {
            return None;
        }
        let unique = unique_id()?;
        let host = rustix::system::uname();
        Some(NfsClient {
            name: format!(
                "NFSv{version} {} {unique}",
                host.nodename().to_string_lossy()
            ),
            machine: line("/etc/machine-id").unwrap_or_default(),
        })
    }

    /// Whether it is another machine of our name. `boots`: whether its boot is another one, and when ours was; `last`: when it gave a sign of
    /// life.
    fn is_twin(&self, other: &NfsClient, boots: (bool, Wall), last: Wall) -> bool {
        let known = !self.machine.is_empty() && !other.machine.is_empty();
        let (another_boot, ours) = boots;
        let is_another = known && self.machine != other.machine || another_boot && last > ours;
        self.name == other.name && is_another
    }
}

/// Another machine of our name that has a lock of this store and gives signs of life: what to do about it.
pub fn find(locks: &dyn Locks, own: &NfsClient, now: Wall) -> Result<Option<String>, StoreError> {
    let here = Place::here();
    let up = Boot::now().since(Boot(0)).as_millis();
    let booted = Wall(now.0.saturating_sub(i64::try_from(up).unwrap_or(i64::MAX)));
    for lock in locks.locks()? {
        let seen = locks.inspect(&lock)?;
        let Some((holder, last)) = seen.holder.as_ref().zip(seen.last_sign()) else {
            continue;
        };
        let another_boot = here.known_same_boot(&holder.place) == Some(false);
        let is_twin = |other| own.is_twin(other, (another_boot, booted), last);
        if seen.silence(now).is_none() && holder.nfs.as_ref().is_some_and(is_twin) {
            return Ok(Some(words(holder, lock.as_str())));
        }
    }
    Ok(None)
}

fn words(holder: &Holder, lock: &str) -> String {
    let host = &holder.place.host;
    format!(
        "another machine that is called {host}, too, has the lock {lock} (run {}): an NFSv4 server takes the two for one, and drops the \
         locks of each when the other mounts; give this one a name of its own, or set nfs4_unique_id on both (in /etc/modprobe.d: \
         options nfs nfs4_unique_id=SOMETHING-OF-ITS-OWN), and mount again",
        holder.run_id.short()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn client(name: &str, machine: &str) -> NfsClient {
        NfsClient {
            name: name.into(),
            machine: machine.into(),
        }
    }

    const OTHER: (bool, Wall) = (true, Wall(1000));

    #[rstest]
    #[case::itself(client("NFSv4.2 blue ", "1"), (false, Wall(1000)), false)]
    #[case::itself_before_its_boot(client("NFSv4.2 blue ", "1"), (true, Wall(2001)), false)]
    #[case::a_copy_with_its_id(client("NFSv4.2 blue ", "1"), OTHER, true)]
    #[case::another_name(client("NFSv4.2 green ", "2"), OTHER, false)]
    #[case::set_apart(client("NFSv4.2 blue two", "2"), OTHER, false)]
    #[case::another_protocol(client("NFSv4.0 blue ", "2"), OTHER, false)]
    #[case::twin(client("NFSv4.2 blue ", "2"), OTHER, true)]
    #[case::twin_by_its_id(client("NFSv4.2 blue ", "2"), (false, Wall(3000)), true)]
    #[case::without_an_id(client("NFSv4.2 blue ", ""), OTHER, true)]
    #[case::this_boot_without_an_id(client("NFSv4.2 blue ", ""), (false, Wall(1000)), false)]
    #[case::our_boot_before_this_one(client("NFSv4.2 blue ", ""), (true, Wall(2001)), false)]
    fn two_machines_with_one_name(
        #[case] other: NfsClient,
        #[case] boots: (bool, Wall),
        #[case] twin: bool,
    ) {
        let own = client("NFSv4.2 blue ", "1");
        assert_eq!(own.is_twin(&other, boots, Wall(2000)), twin);
    }

    #[test]
    fn a_local_file_system_knows_no_clients() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(NfsClient::of(dir.path()), None);
    }
}
