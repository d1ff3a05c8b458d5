//! Locks whose holder is elsewhere and gives no sign of life: for how long, and whether time frees them.
//!
//! That depends on what the *holder's* machine has the store by, which its grant tells: of two machines one may have an export by
//! NFSv3 and the other by NFSv4. Only where an older joblock did not write it down is it taken to be as here.
//!
//! Not guaranteed: that a silent holder is gone. It may be stopped, or cut off, and have the lock all the same.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mount::{self, Mount};
use super::{Holder, Observed, Place, StoreUrl};
use crate::clock::Wall;

/// A longer source would take the room that others need in a holder.
const SOURCE: usize = 512;

/// What becomes of a machine's lock when the machine is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeing {
    /// The file server gives it away after a lease.
    pub leased: bool,
    /// It stays, on an NFSv3 server: `server:/export`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stays_on: Option<String>,
}

impl Freeing {
    /// On this machine, whose store was opened before: its file system is touched. `None`: the kernel does not tell.
    pub fn of(store: &StoreUrl) -> Option<Self> {
        let database = store.database();
        let named = store.server_lease().is_some() && !mount::is_local_at(&database).ok()?;
        Some(Self::by(&mount::of(&database)?, named))
    }

    /// By this mount; `named`: the store's URL says how long the server's lease is.
    fn by(mount: &Mount, named: bool) -> Self {
        Freeing {
            leased: named || mount.nfs() == Some(4),
            stays_on: stays_on(mount),
        }
    }
}

/// NFS version 3 has no leases: its server keeps a lock until the client tells that it was restarted (`sm-notify`), or somebody
/// frees all locks of a file system.
fn stays_on(mount: &Mount) -> Option<String> {
    let local = ["nolock", "local_lock=flock", "local_lock=all"];
    if mount.nfs().is_none_or(|version| version > 3) || local.iter().any(|o| mount.has(o)) {
        return None;
    }
    let fits = mount.source.len() <= SOURCE;
    Some(if fits {
        mount.source.clone()
    } else {
        String::new()
    })
}

/// What to do about a lock whose holder's machine, `host`, is gone and has the store by `mount`; `None`: it is freed by itself.
pub fn way_on(mount: &Mount, host: &str) -> Option<String> {
    Some(way(&stays_on(mount)?, host))
}

/// `source` may be another's word, and what is printed here is run by root: what a shell might take for more than a path is not printed.
fn way(source: &str, host: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:[]@%+,".contains(c);
    let (server, export) = source
        .split_once(":/")
        .filter(|_| source.chars().all(plain))
        .unwrap_or(("the server", "EXPORT"));
    format!(
        "an NFSv3 server keeps the locks of a machine that is gone, however long: boot {host}, which frees them as it starts (sm-notify); \
         or, if {host} stays off, run on {server}: echo /{export} > /proc/fs/nfsd/unlock_filesystem \
         (that frees the locks of all NFSv3 clients on that file system, so let no other job run on it then)"
    )
}

impl Holder {
    /// How its lock is freed if its machine is gone, where no time does that. `mount`: finds out what this machine has the store by.
    pub fn way_to_free(&self, mount: impl FnOnce() -> Option<Mount>) -> Option<String> {
        let host = &self.place.host;
        match &self.freeing {
            Some(freeing) => Some(way(freeing.stays_on.as_deref()?, host)),
            None => way_on(&mount()?, host),
        }
    }
}

impl Observed {
    /// For how long a holder has given no sign of life whose processes can't be seen from `here`.
    pub fn silence_elsewhere(&self, here: &Place, now: Wall) -> Option<Duration> {
        let holder = self.holder.as_ref()?;
        let silent = self.silence(now)?;
        (!holder.place.same_pids(here)).then_some(silent)
    }

    /// What to do about a lock whose holder is on another machine and silent, if no time frees it, with how long it has been silent.
    pub fn to_free(
        &self,
        here: &Place,
        mount: impl FnOnce() -> Option<Mount>,
        now: Wall,
    ) -> Option<String> {
        let silent = self.silence_elsewhere(here, now)?;
        let holder = self.holder.as_ref()?;
        // its kernel would have freed it
        if holder.place.same_boot(here) {
            return None;
        }
        let way = holder.way_to_free(mount)?;
        Some(format!(
            "{} has given no sign of life for {} s, and {way}",
            holder.place.host,
            silent.as_secs()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::record::tests::{NOW, ago, holder_of};
    use rstest::rstest;

    fn mount(kind: &str, options: &str) -> Mount {
        Mount {
            point: "/mnt/a".into(),
            source: "srv:/export/data".into(),
            kind: kind.into(),
            options: options.into(),
            root: "/".into(),
        }
    }

    #[rstest]
    #[case::v3("nfs", "rw,vers=3,local_lock=none", false, true)]
    #[case::v4("nfs4", "rw,vers=4.2,local_lock=none", true, false)]
    #[case::v4_by_option("nfs", "rw,vers=4", true, false)]
    #[case::locks_that_do_not_reach("nfs", "rw,vers=3,local_lock=flock", false, false)]
    #[case::no_locks("nfs", "rw,vers=3,nolock", false, false)]
    #[case::another("cifs", "rw,vers=3.0", false, false)]
    fn a_mount_decides(
        #[case] kind: &str,
        #[case] options: &str,
        #[case] leased: bool,
        #[case] stays: bool,
    ) {
        let mount = mount(kind, options);
        let stays_on = stays.then(|| mount.source.clone());
        let found = Freeing::by(&mount, false);
        assert_eq!(found, Freeing { leased, stays_on });
        assert!(Freeing::by(&mount, true).leased);
    }

    #[test]
    fn a_long_source_does_not_fill_a_holder() {
        let mut mount = mount("nfs", "rw,vers=3");
        mount.source = format!("srv:/{}", "a".repeat(4000));
        let freeing = Freeing::by(&mount, false);
        let size = serde_json::to_vec(&freeing).expect("JSON").len();
        assert!(freeing.stays_on.is_some() && size < SOURCE, "{size}");
    }

    fn silent(freeing: Option<Freeing>) -> Observed {
        Observed {
            holder: Some(Holder {
                freeing,
                ..holder_of("sync")
            }),
            heartbeat: Some(ago(100)),
            ..Observed::nobody()
        }
    }

    fn on(source: &str) -> Freeing {
        Freeing {
            leased: false,
            stays_on: Some(source.into()),
        }
    }

    #[test]
    fn the_holders_mount_tells_how_its_lock_is_freed() {
        let (three, four) = (mount("nfs", "rw,vers=3"), mount("nfs4", "rw,vers=4.2"));
        let seen_by = |mount: &Mount, seen: &Observed| {
            seen.to_free(&Place::here(), || Some(mount.clone()), NOW)
        };
        let stays = silent(Some(on("srv:/srv/jobs")));
        let said = seen_by(&four, &stays).expect("it stays");
        for part in [
            "blue has given no sign of life for 100 s",
            "boot blue",
            "on srv: echo /srv/jobs > /proc/fs/nfsd/unlock_filesystem",
        ] {
            assert!(said.contains(part), "{said}");
        }
        let leased = Freeing {
            leased: true,
            stays_on: None,
        };
        assert_eq!(seen_by(&three, &silent(Some(leased))), None);
        // an older joblock wrote nothing down
        let said = seen_by(&three, &silent(None)).expect("as here");
        assert!(said.contains("on srv: echo /export/data > "), "{said}");
        assert_eq!(seen_by(&four, &silent(None)), None);
        let lives = Observed {
            heartbeat: Some(ago(1)),
            ..stays
        };
        assert_eq!(seen_by(&three, &lives), None);
    }

    #[rstest]
    #[case("srv:/data; reboot")]
    #[case("srv:/$(reboot)")]
    #[case("srv:/a\u{1b}[2J")]
    #[case("")]
    fn what_a_holder_says_is_no_command(#[case] source: &str) {
        let said = way(source, "blue");
        assert!(
            said.contains("on the server: echo /EXPORT > /proc"),
            "{said}"
        );
    }
}
