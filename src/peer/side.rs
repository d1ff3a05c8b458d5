//! What one side says of itself before anything is tried.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::store::sqlite::schema;
use crate::store::{About, Place, StoreUrl, mount, twin};
use crate::supervise::origin;

/// Longer texts are cut, so that all of it fits into a letter.
const LONGEST: usize = 600;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The version of its joblock.
    pub joblock: String,
    /// The newest store format that it knows.
    pub format: i64,
    /// The store, as it calls it.
    pub url: String,
    /// The store's UUID.
    pub store_id: Option<String>,
    /// Why it can't be opened, if it can't.
    pub store_error: Option<String>,
    /// The store's locks are kernel locks alone: `lockfile:`, or a local `sqlite:` store.
    pub by_kernel_locks: bool,
    /// The host's name.
    pub host: String,
    /// Of its kernel.
    pub boot_id: String,
    /// Its user.
    pub user: String,
    /// That user's number.
    pub uid: u32,
    /// What the store's folder lies on.
    pub mount: Option<MountSide>,
    /// What NFS version 4 servers tell this machine from others by besides its name (nfs4_unique_id), if it is set.
    pub nfs_client: Option<String>,
}

/// A mount as one side sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSide {
    /// A device, or server:export.
    pub source: String,
    /// Where.
    pub point: String,
    /// The file system's kind.
    pub kind: String,
    /// Separated by commas.
    pub options: String,
    /// Only this machine writes to it, as far as its kind tells.
    pub local: bool,
    /// The lease of an NFS version 4 server.
    pub server_lease_seconds: Option<u64>,
}

impl MountSide {
    /// The value of an option such as `vers`.
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut options = self.options.split(',');
        options.find_map(|o| o.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether an option without a value is set.
    pub fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|o| o == option)
    }

    /// Whether it is NFS.
    pub fn is_nfs(&self) -> bool {
        self.kind.starts_with("nfs")
    }

    /// `NFS 4.2`, `nfs`, `ext4`.
    pub fn name(&self) -> String {
        match self.option("vers") {
            Some(version) if self.is_nfs() => format!("NFS {version}"),
            _ => self.kind.clone(),
        }
    }
}

impl Side {
    /// Whether an NFS server takes the two for one client, and throws away the locks of one when the other one comes: nothing can be
    /// tried then, and calls may hang.
    pub fn is_taken_for(&self, other: &Side) -> bool {
        let is_nfs = |side: &Side| side.mount.as_ref().is_some_and(MountSide::is_nfs);
        let told_apart = self.nfs_client.is_some() && self.nfs_client != other.nfs_client;
        self.host == other.host
            && self.boot_id != other.boot_id
            && (is_nfs(self) || is_nfs(other))
            && !told_apart
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// This side. `folder`: where the store lies; `store`: what it is, or why it can't be opened.
pub fn here(url: &StoreUrl, folder: &Path, store: Result<&About, &str>) -> Side {
    let place = Place::here();
    let local = mount::is_local_at(folder).unwrap_or(false);
    let lease = mount::lease::behind(folder, url.server_lease()).filter(|_| !local);
    let seen = mount::of(folder).map(|m| MountSide {
        server_lease_seconds: lease.map(|lease| lease.length.as_secs()),
        source: cut(&m.source),
        point: cut(&m.point.display().to_string()),
        kind: cut(&m.kind),
        options: cut(&m.options),
        local,
    });
    // what a store that is yet to be made will be
    let (text, by_kernel_locks) = match url {
        StoreUrl::Lockfile { directory, .. } => (format!("lockfile:{}", directory.display()), true),
        StoreUrl::Sqlite { path, shared, .. } => (
            format!("sqlite:{}", path.display()),
            store.map_or(local && !shared, |about| !about.shared),
        ),
    };
    Side {
        joblock: env!("CARGO_PKG_VERSION").to_owned(),
        format: schema::FORMAT,
        url: cut(&text),
        store_id: store.ok().map(|about| about.id.clone()),
        store_error: store.err().map(cut),
        by_kernel_locks,
        host: place.host,
        boot_id: place.boot_id,
        user: cut(&origin::who().user),
        uid: rustix::process::geteuid().as_raw(),
        mount: seen,
        nfs_client: twin::unique_id()
            .filter(|id| !id.is_empty())
            .map(|id| cut(&id)),
    }
}
