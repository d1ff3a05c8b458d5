//! SIGKILL to front, keeper and guard in every combination, and to the whole session, and SIGSTOP of each for longer
//! than the lease: there are never two trees, the next start works, and the history tells.

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::{
    Finished, Holder, Kind, Running, Store, finish, fixture, process, start, stays, text, wait_for,
    wait_until,
};
use process::Process;
use rstest::rstest;

/// Which processes are hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hit {
    Front,
    Keeper,
    Guard,
    FrontKeeper,
    FrontGuard,
    KeeperGuard,
    All,
    Session,
}

impl Hit {
    fn targets(self, holder: &Holder) -> Vec<Process> {
        let Holder {
            front,
            keeper,
            guard,
            ..
        } = *holder;
        match self {
            Hit::Front => vec![front],
            Hit::Keeper => vec![keeper],
            Hit::Guard => vec![guard],
            Hit::FrontKeeper => vec![front, keeper],
            Hit::FrontGuard => vec![front, guard],
            Hit::KeeperGuard => vec![keeper, guard],
            Hit::All => vec![front, keeper, guard],
            Hit::Session => process::in_session(front.pid),
        }
    }
}

/// SIGKILL to all of them, as if at one moment: none has the time to act on another's end.
fn kill_at_once(targets: &[Process]) {
    for target in targets {
        target.kill(libc::SIGSTOP);
    }
    wait_until("all are stopped", || {
        targets.iter().all(|p| p.is_stopped() || !p.lives())
    });
    for target in targets {
        target.kill(libc::SIGKILL);
    }
}

/// A job with a family on a store, and the file where two trees at once would be told.
struct Trees {
    store: Store,
    options: Vec<&'static str>,
}

impl Trees {
    fn new(kind: Kind) -> Trees {
        let mut options = vec!["-k", "0.5"];
        if kind == Kind::Shared {
            options.extend(["--ttl", "2s"]);
        }
        Trees {
            store: Store::new(kind),
            options,
        }
    }

    /// `joblock run tree -- tree.sh FAMILY`, in a session of its own.
    fn command(&self, more: &[&str], family: &str, ready: &str) -> Command {
        let mut run = self.store.program("setsid");
        run.args([common::joblock(), "run", "--store", self.store.url()]);
        run.args(&self.options)
            .args(more)
            .args(["tree", "--", &fixture("tree.sh"), family]);
        run.env("TREE", self.store.file(""))
            .env("READY", self.store.file(ready));
        run
    }

    /// Starts a family and waits until it is complete.
    #[track_caller]
    fn grow(&self, family: &str) -> (Running, Holder) {
        let run = start(&mut self.command(&[], family, "ready-1"));
        wait_until("the whole family", || self.store.file("ready-1").exists());
        let holder = Holder::of_front(run.process());
        (run, holder)
    }

    /// One that waits for the lock and then has a family of its own.
    fn wait_behind(&self) -> Running {
        start(&mut self.command(&["-w", "80"], "alone", "ready-2"))
    }

    #[track_caller]
    fn assert_no_overlap(&self) {
        assert_eq!(text(&self.store.file("overlap")), "", "two trees at once");
    }

    /// Lets the job that runs now end by itself.
    fn stop(&self) {
        fs::write(self.store.file("stop"), "").expect("the stop file");
    }

    /// Waits until the second family is there, which shows that the first is not, ends it, and reads the history.
    #[track_caller]
    fn the_next_start_works(self, next: Running) -> Vec<String> {
        wait_until("the next tree, or its refusal", || {
            self.store.file("ready-2").exists() || !next.process().lives()
        });
        self.assert_no_overlap();
        self.stop();
        next.finish().expect(0);
        wait_until("the end of every process", || {
            self.store.marked().is_empty()
        });
        self.assert_no_overlap();
        let outcomes = self.store.outcomes("tree");
        assert_eq!(outcomes.len(), 2, "{outcomes:?}");
        assert!(!outcomes.contains(&"running".to_owned()), "{outcomes:?}");
        assert_eq!(outcomes[1], "succeeded", "{outcomes:?}");
        outcomes
    }
}

// shows: front-killed local, shared, lockfile
// shows: keeper-killed local, shared, lockfile
// shows: guard-killed local, shared, lockfile
// shows: two-killed local, shared, lockfile
// shows: all-killed local, shared, lockfile
#[rstest]
fn sigkill_never_leaves_two_trees_the_next_start_works_and_the_history_tells(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
    #[values(
        "alone",
        "ignores-term",
        "double-forks",
        "calls-setsid",
        "closes-descriptors"
    )]
    family: &str,
    #[values(
        Hit::Front,
        Hit::Keeper,
        Hit::Guard,
        Hit::FrontKeeper,
        Hit::FrontGuard,
        Hit::KeeperGuard,
        Hit::All,
        Hit::Session
    )]
    hit: Hit,
) {
    let trees = Trees::new(kind);
    let (first, holder) = trees.grow(family);
    let next = trees.wait_behind();
    kill_at_once(&hit.targets(&holder));
    if hit == Hit::Keeper && kind != Kind::Shared {
        // The kernel lock has no end and the guard has the descriptor: the job may go on, and goes on being alone.
        stays("no second tree", Duration::from_millis(300), || {
            !trees.store.file("ready-2").exists() || !holder.guard.lives()
        });
        trees.stop();
    }
    let first: Finished = first.finish();
    let ended_by_itself = hit == Hit::Keeper && kind != Kind::Shared;
    assert!(ended_by_itself || !first.status.success(), "{first}");
    let outcomes = trees.the_next_start_works(next);
    assert!(
        ended_by_itself || outcomes[0] != "succeeded",
        "{outcomes:?}"
    );
    if hit == Hit::All {
        assert_eq!(outcomes[0], "abandoned");
    }
}

#[test]
fn status_names_the_three_processes_that_are_there() {
    for kind in [Kind::Local, Kind::Shared, Kind::Lockfile] {
        let trees = Trees::new(kind);
        let (first, seen) = trees.grow("alone");
        let told = trees.store.holder("tree");
        assert_eq!(
            (told.front, told.keeper, told.guard),
            (seen.front, seen.keeper, seen.guard)
        );
        trees.stop();
        first.finish().expect(0);
    }
}

/// Longer than the two second lease that these tests use.
const BEYOND: Duration = Duration::from_secs(4);

#[test]
fn a_front_stopped_beyond_the_ttl_costs_nobody_the_lock() {
    let trees = Trees::new(Kind::Shared);
    let (first, holder) = trees.grow("alone");
    let job = holder.guard.children()[0];
    holder.front.kill(libc::SIGSTOP);
    wait_until("front is stopped", || holder.front.is_stopped());
    stays("the job lives", BEYOND, || job.lives());
    trees.store.sh(&trees.options, "tree", "exit 0").expect(75);
    holder.front.kill(libc::SIGCONT);
    trees.stop();
    first.finish().expect(0);
    assert_eq!(trees.store.outcomes("tree"), ["succeeded", "refused"]);
    trees.assert_no_overlap();
}

// shows: stopped-past-ttl shared
#[rstest]
fn a_keeper_or_guard_stopped_beyond_the_ttl_loses_the_lock_and_the_job_dies_before_another_begins(
    #[values(
        "alone",
        "ignores-term",
        "double-forks",
        "calls-setsid",
        "closes-descriptors"
    )]
    family: &str,
    #[values(
        Hit::Keeper,
        Hit::Guard,
        Hit::FrontKeeper,
        Hit::FrontGuard,
        Hit::KeeperGuard,
        Hit::All
    )]
    hit: Hit,
) {
    let trees = Trees::new(Kind::Shared);
    let (first, holder) = trees.grow(family);
    let job = holder.guard.children()[0];
    let next = trees.wait_behind();
    let stopped = hit.targets(&holder);
    for target in &stopped {
        target.kill(libc::SIGSTOP);
    }
    // No process of joblock that still runs may be needed for this: the guard's own timer does it.
    wait_until("the job's first process is gone", || !job.lives());
    trees.assert_no_overlap();
    for target in &stopped {
        target.kill(libc::SIGCONT);
    }
    let first = first.finish();
    assert!(!first.status.success(), "{first}");
    let outcomes = trees.the_next_start_works(next);
    assert!(
        ["lost", "abandoned", "signaled"].contains(&outcomes[0].as_str()),
        "{outcomes:?}"
    );
}

#[test]
fn a_run_that_loses_its_lock_exits_79_and_is_lost_in_the_history() {
    let trees = Trees::new(Kind::Shared);
    let (first, holder) = trees.grow("ignores-term");
    holder.keeper.kill(libc::SIGSTOP);
    wait_until("the guard has ended the tree", || {
        holder.guard.children().is_empty()
    });
    holder.keeper.kill(libc::SIGCONT);
    let done = first.finish().expect(79);
    assert!(done.err().contains("joblock: "), "{done}");
    assert_eq!(trees.store.outcomes("tree"), ["lost"]);
}

/// Frozen between the grant and the start, beyond every moment of the lease: the job must not begin, and the end of the run is the loss of its lock.
#[test]
fn a_guard_that_wakes_up_too_late_to_start_the_job_says_that_the_lock_is_lost() {
    let trees = Trees::new(Kind::Shared);
    let (first, _) = trees.grow("alone");
    let mut second = trees.wait_behind();
    let children = wait_for("its guard and its keeper", || {
        let children = second.process().children();
        (children.len() == 2).then_some(children)
    });
    let (guard, keeper) = (children[0], children[1]);
    guard.kill(libc::SIGSTOP);
    wait_until("the guard is stopped", || guard.is_stopped());
    trees.stop();
    first.finish().expect(0);
    wait_until("the grant", || {
        trees
            .store
            .outcomes("tree")
            .last()
            .is_some_and(|o| o == "running")
    });
    keeper.kill(libc::SIGSTOP);
    wait_until("the keeper is stopped", || keeper.is_stopped());
    stays("no job", BEYOND, || {
        !trees.store.file("ready-2").exists() && !second.has_ended()
    });
    guard.kill(libc::SIGCONT);
    wait_until("the guard's word", || !guard.lives());
    keeper.kill(libc::SIGCONT);
    let done = second.finish().expect(79);
    assert!(done.err().contains("the lock is lost"), "{done}");
    assert!(!trees.store.file("ready-2").exists());
    assert_eq!(trees.store.outcomes("tree"), ["succeeded", "lost"]);
}

/// Frozen between the grant and the start, and told to end meanwhile: the job must not begin for a moment.
#[rstest]
fn a_guard_that_hears_of_the_start_and_of_the_end_at_once_starts_nothing(
    #[values(Kind::Local, Kind::Lockfile)] kind: Kind,
) {
    let trees = Trees::new(kind);
    let (first, _) = trees.grow("alone");
    let inner = trees.command(&["-w", "80", "--ttl", "2s"], "alone", "ready-2");
    let mut waiting = trees.store.program("sh");
    waiting.args(["-c", "exec \"$@\" 2>\"$SAYS\"", "sh"]);
    waiting.arg(inner.get_program()).args(inner.get_args());
    waiting.envs(
        inner
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let says = trees.store.file("says");
    let second = start(waiting.env("SAYS", &says));
    let guard = wait_for("its guard", || {
        let children = second.process().children();
        (children.len() == 2).then(|| children[0])
    });
    guard.kill(libc::SIGSTOP);
    wait_until("the guard is stopped", || guard.is_stopped());
    trees.stop();
    first.finish().expect(0);
    wait_until("the grant", || {
        let outcomes = trees.store.outcomes("tree");
        outcomes.last().is_some_and(|o| o == "running")
    });
    let mut unlock = trees.store.joblock("unlock");
    let unlock = start(unlock.args(["tree", "--reason", "a test"]));
    wait_until("the keeper has told the guard", || {
        text(&says).contains("the lock was taken away")
    });
    guard.kill(libc::SIGCONT);
    second.finish().expect(79);
    unlock.finish().expect(0);
    assert!(!trees.store.file("ready-2").exists());
    assert_eq!(trees.store.outcomes("tree"), ["succeeded", "lost"]);
}

// shows: stopped-past-ttl local, lockfile
#[test]
fn sigstop_and_sigcont_shorter_than_the_lease_change_nothing() {
    for kind in [Kind::Local, Kind::Lockfile] {
        let trees = Trees::new(kind);
        let (first, holder) = trees.grow("alone");
        for target in Hit::All.targets(&holder) {
            target.kill(libc::SIGSTOP);
            wait_until("it is stopped", || target.is_stopped());
        }
        trees.store.sh(&[], "tree", "exit 0").expect(75);
        for target in Hit::All.targets(&holder) {
            target.kill(libc::SIGCONT);
        }
        trees.stop();
        first.finish().expect(0);
        assert_eq!(trees.store.outcomes("tree"), ["succeeded", "refused"]);
    }
}

// shows: all-killed local, shared, lockfile
#[test]
fn what_a_killed_run_left_is_swept_before_a_start_that_does_not_wait() {
    // Everything of joblock's is gone, and the job's daemon has closed the lock's descriptor: only its environment tells.
    for kind in [Kind::Local, Kind::Shared, Kind::Lockfile] {
        let trees = Trees::new(kind);
        let (first, holder) = trees.grow("closes-descriptors");
        kill_at_once(&Hit::All.targets(&holder));
        first.finish();
        trees.stop();
        wait_until("all but the daemon are gone", || {
            trees.store.marked().len() == 1
        });
        trees.store.sh(&["-w", "20"], "tree", "exit 0").expect(0);
        assert!(trees.store.of_jobs().is_empty(), "{kind:?}");
        assert_eq!(
            trees.store.outcomes("tree"),
            ["abandoned", "succeeded"],
            "{kind:?}"
        );
    }
}

// shows: lock-file-deleted local, shared, lockfile
#[rstest]
fn a_lock_file_that_is_deleted_under_its_holder_never_leads_to_two_trees(
    #[values(Kind::Local, Kind::Shared, Kind::Lockfile)] kind: Kind,
) {
    let trees = Trees::new(kind);
    let (first, _) = trees.grow("ignores-term");
    let folder = match kind {
        Kind::Lockfile => trees.store.path(),
        Kind::Local | Kind::Shared => trees.store.path().join("joblock.db.locks"),
    };
    fs::remove_file(folder.join("tree.lock")).expect("the lock file");
    let mut next = trees.wait_behind();
    // Whether the first run goes on or is ended is the store's choice; that the next one stays behind it is not.
    stays("one tree at most", Duration::from_secs(8), || {
        trees.assert_no_overlap();
        !next.has_ended()
    });
    trees.stop();
    first.finish();
    next.finish().expect(0);
    wait_until("the end of every process", || {
        trees.store.marked().is_empty()
    });
    trees.assert_no_overlap();
    let outcomes = trees.store.outcomes("tree");
    assert!(!outcomes.contains(&"running".to_owned()), "{outcomes:?}");
}

/// Without these, a witness that sees nothing would make every test above pass.
#[rstest]
fn the_witnesses_notice_two_trees_at_once(
    #[values(
        "alone",
        "ignores-term",
        "double-forks",
        "calls-setsid",
        "closes-descriptors"
    )]
    family: &str,
    #[values(false, true)] the_first_process_is_gone: bool,
) {
    let trees = Trees::new(Kind::Local);
    let bare = |ready: &str| {
        let mut tree = trees.store.program(fixture("tree.sh"));
        tree.arg(family).env("JOBLOCK_RUN_ID", ready);
        tree.env("TREE", trees.store.file(""))
            .env("READY", trees.store.file(ready));
        tree
    };
    let first = start(&mut bare("ready-1"));
    wait_until("the first tree", || trees.store.file("ready-1").exists());
    if the_first_process_is_gone {
        first.process().kill(9);
        let family_lives = family != "alone";
        wait_until("its end", || {
            !first.process().lives() && trees.store.marked().is_empty() != family_lives
        });
        if !family_lives {
            trees.stop();
            finish(&mut bare("ready-2")).expect(0);
            return trees.assert_no_overlap();
        }
    }
    finish(&mut bare("ready-2")).expect(99);
    assert_ne!(text(&trees.store.file("overlap")), "");
}
