//! SQLite's journal on NFS: a write-ahead log is never used there, nor turned on, nor opened.

use super::lab;

const UNUSABLE: i32 = 69;

/// The two bytes of a database's header that say which journal it has: 1, a rollback journal; 2, a write-ahead log.
#[track_caller]
fn journal(lab: &lab::Lab, file: &str) -> String {
    let line = format!("od -An -tu1 -j18 -N2 {file}");
    lab.x("srv", &line).expect(0).out().trim().to_owned()
}

pub fn is_never_a_write_ahead_log(mount: &str) {
    let Some(lab) = lab::borrow(mount) else {
        return;
    };
    let run = |host: &str, folder: &str| {
        let line = format!(
            "/host/joblock run --store sqlite:{folder}/joblock.db -n sync -- touch /run/started"
        );
        lab.x(host, &line)
    };
    // each mount's own
    let folder = |name: &str| lab.folder(&format!("{name}-{}", mount.replace(',', "-")));
    let ours = folder("journal");
    let at_server = |folder: &str| folder.replace(lab::MOUNT, "/export/data");
    let database = |folder: &str| format!("{}/joblock.db", at_server(folder));
    run("blue", &ours).expect(0);
    assert_eq!(journal(&lab, &database(&ours)), "1   1");
    // to the server itself the file system is a local one
    run("srv", &at_server(&ours)).expect(0);
    run("green", &ours).expect(0);
    assert_eq!(journal(&lab, &database(&ours)), "1   1");
    let files = lab.x("srv", &format!("ls {}", at_server(&ours)));
    let files = files.expect(0).out();
    assert!(
        !files.contains("-wal") && !files.contains("-shm"),
        "{files}"
    );
    let line = format!("/host/joblock history --store sqlite:{ours}/joblock.db");
    let told = lab.x("blue", &line).expect(0).out();
    assert_eq!(told.matches("succeeded").count(), 3, "{told}");

    let theirs = folder("wal");
    run("srv", &at_server(&theirs)).expect(0);
    assert_eq!(journal(&lab, &database(&theirs)), "2   2");
    lab.x("blue", "rm -f /run/started").expect(0);
    let all = format!(
        "cd {} && ls -ilR --full-time && cat joblock.db* | cksum",
        at_server(&theirs)
    );
    let before = lab.x("srv", &all).expect(0).out();
    let refused = run("blue", &theirs).expect(UNUSABLE);
    assert!(refused.out().contains("its journal is WAL"), "{refused}");
    lab.x("blue", "! test -e /run/started").expect(0);
    assert_eq!(lab.x("srv", &all).expect(0).out(), before);
    lab.give_back();
}
