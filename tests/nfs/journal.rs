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
    let ours = lab.folder("journal");
    let at_server = "/export/data/journal";
    run("blue", &ours).expect(0);
    assert_eq!(journal(&lab, &format!("{at_server}/joblock.db")), "1   1");
    // to the server itself the file system is a local one
    run("srv", at_server).expect(0);
    run("green", &ours).expect(0);
    assert_eq!(journal(&lab, &format!("{at_server}/joblock.db")), "1   1");
    let files = lab.x("srv", &format!("ls {at_server}")).expect(0).out();
    assert!(
        !files.contains("-wal") && !files.contains("-shm"),
        "{files}"
    );
    let line = format!("/host/joblock history --store sqlite:{ours}/joblock.db");
    let told = lab.x("blue", &line).expect(0).out();
    assert_eq!(told.matches("succeeded").count(), 3, "{told}");

    let theirs = lab.folder("wal");
    run("srv", "/export/data/wal").expect(0);
    assert_eq!(journal(&lab, "/export/data/wal/joblock.db"), "2   2");
    lab.x("blue", "rm -f /run/started").expect(0);
    let all = "cd /export/data/wal && ls -ilR --full-time && cat joblock.db* | cksum";
    let before = lab.x("srv", all).expect(0).out();
    let refused = run("blue", &theirs).expect(UNUSABLE);
    assert!(refused.out().contains("its journal is WAL"), "{refused}");
    lab.x("blue", "! test -e /run/started").expect(0);
    assert_eq!(lab.x("srv", all).expect(0).out(), before);
    lab.give_back();
}
