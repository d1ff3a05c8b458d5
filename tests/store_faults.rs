//! What stores do when something is wrong: with the disk, the files, the holder, the clock.
#[path = "common/request.rs"]
mod request;

use joblock::store::record::{Query, Tail};
use joblock::store::{Attempt, Purpose, Recorded, StoreUrl, open};
use request::*;

#[test]
fn a_run_is_recorded_from_begin_to_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = StoreUrl::Sqlite {
        path: dir.path().join("a.db"),
        shared: false,
    };
    let store = open(&url, Purpose::Run, None).expect("open");
    let request = request("job", &GONE);
    let Attempt::Granted(grant) = store.try_acquire(&request, None).expect("try") else {
        panic!("held")
    };
    assert_eq!(grant.token().0, 1);
    let runs = store.runs(&Query::default()).expect("runs");
    assert_eq!(runs.len(), 1);
    let tail = Tail {
        bytes: b"out\xff".to_vec(),
        total: 1000,
    };
    assert_eq!(
        grant.release(&success(), Some(&tail)).expect("release"),
        Recorded::Stored
    );
    let mut expected = request.record.clone();
    expected.token = Some(joblock::name::Token(1));
    expected.outcome = joblock::store::record::Outcome::Succeeded;
    let runs = store.runs(&Query::default()).expect("runs");
    expected.end = Some(joblock::store::record::End {
        at: runs[0].end.as_ref().expect("end").at,
        ..success()
    });
    assert_eq!(runs, [expected]);
    assert_eq!(
        store.tail(&request.record.run_id).expect("tail"),
        Some(tail)
    );
}
