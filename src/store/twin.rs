//! Two machines that an NFSv4 server takes for one: it knows a client by its host name, and drops all locks of the one when the other
//! mounts. It is seen by who has locks now, before another job is put under such a lock.
//!
//! Not guaranteed: that it is seen. A container does not know by which name its machine mounts; copies of one disk image may have the
//! same machine id, too; and of two that have no job running neither sees the other.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Holder, Locks, StoreError, remote};
use crate::clock::Wall;

/// The inode of the first namespace of host names (`PROC_UTS_INIT_INO` of the kernel), which mounts are made in.
const FIRST_UTS: &str = "uts:[4026531838]";

/// What an NFSv4 server knows this machine by, and what it really is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NfsClient {
    /// Protocol, host name, and what was set to make it unique.
    pub name: String,
    /// `/etc/machine-id`.
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
            machine: line("/etc/machine-id").filter(|id| !id.is_empty())?,
        })
    }

    fn is_twin(&self, other: &NfsClient) -> bool {
        self.name == other.name && self.machine != other.machine
    }
}

/// Another machine of our name that has a lock of this store and gives signs of life: what to do about it.
pub fn find(locks: &dyn Locks, own: &NfsClient, now: Wall) -> Result<Option<String>, StoreError> {
    for lock in locks.locks()? {
        let seen = locks.inspect(&lock)?;
        let Some(holder) = &seen.holder else { continue };
        if seen.silence(now).is_none()
            && holder.nfs.as_ref().is_some_and(|other| own.is_twin(other))
        {
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

    #[rstest]
    #[case::itself(client("NFSv4.2 blue ", "1"), false)]
    #[case::another_name(client("NFSv4.2 green ", "2"), false)]
    #[case::set_apart(client("NFSv4.2 blue two", "2"), false)]
    #[case::another_protocol(client("NFSv4.0 blue ", "2"), false)]
    #[case::twin(client("NFSv4.2 blue ", "2"), true)]
    fn two_machines_with_one_name(#[case] other: NfsClient, #[case] twin: bool) {
        assert_eq!(client("NFSv4.2 blue ", "1").is_twin(&other), twin);
    }

    #[test]
    fn a_local_file_system_knows_no_clients() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(NfsClient::of(dir.path()), None);
    }
}
