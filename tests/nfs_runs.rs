//! Two machines with kernels of their own and a real NFS between them (`nfs/lab`): starts on both never overlap, whatever
//! version of the protocol each of them speaks, and whatever happens at the server.
//!
//! Needs root, and the network that Debian's packages come from, for the first time. `make nfs` runs it at full length.

mod common;

mod nfs {
    pub mod contention;
    pub mod lab;
    pub mod stage;
    pub mod witness;
}

use nfs::contention::contend;
use nfs::stage::Kind;

// shows: contention lockfile
#[test]
fn starts_on_two_machines_never_overlap_in_a_folder_of_lock_files() {
    for (name, mounts) in [
        ("v3", ["vers=3", "vers=3"]),
        ("v4.2", ["vers=4.2", "vers=4.2"]),
    ] {
        contend(Kind::Lockfile, name, mounts, 2);
    }
}
