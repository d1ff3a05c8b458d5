//! What any store must still promise, whatever stands in its files: looks and starts come to an end and to words that say what
//! to do, a lock that somebody has is never given, and a token never comes back.

use std::time::Duration;

use joblock::clock::Wall;
use joblock::look::Look;
use joblock::name::{LockName, Token};
use joblock::output::{self, Page};
use joblock::schedule::{self, Schedule, Zone};
use joblock::store::record::{Outcome, Query, RunRecord, Tail};
use joblock::store::{self, Attempt, Grant, Purpose, Renewal, Store, StoreError};
use joblock::supervise::tree;
use joblock::verdict::{self, Facts};

use super::past::{DEAD, FREE, HELD, Past, request};
use super::readable;
use super::request::success;

/// Looks at the store, then starts on each of its locks. `floor`: [`FREE`] must get a later token than this.
pub fn check(past: &Past, floor: Option<Token>) {
    match store::open(&past.url, Purpose::Read, None) {
        Ok(store) => look(store.as_ref()),
        Err(e) => helps(&e),
    }
    let store = match store::open(&past.url, Purpose::Run, None) {
        Ok(store) => store,
        Err(e) => return helps(&e),
    };
    let store = store.as_ref();
    assert!(
        start(store, HELD, 100).is_none(),
        "a lock was granted that a living process has"
    );
    let first = start(store, FREE, 101);
    if let (Some(first), Some(floor)) = (first, floor) {
        assert!(first > floor, "token {first} after {floor}");
    }
    let second = start(store, FREE, 102);
    if let (Some(first), Some(second)) = (first, second) {
        assert!(second > first, "token {second} after {first}");
    }
    start(store, DEAD, 103);
    look(store);
}

/// What people are told must say what to do next.
fn helps(error: &StoreError) {
    let message = error.to_string();
    readable(&message, 4096);
    let says = [
        "use ",
        "put ",
        "make",
        "move ",
        "start again",
        "end it",
        "remove ",
        "free some",
        "see ",
        "shorten",
        "name ",
        "run ",
        "did not answer in time",
        "try again",
        "leave ",
    ];
    assert!(
        says.iter().any(|word| message.contains(word)),
        "no word of what to do: {message}"
    );
}

fn told<T>(answer: Result<T, StoreError>) -> Option<T> {
    answer.map_err(|e| helps(&e)).ok()
}

/// Its token, if it was granted. It runs, says something, and ends.
fn start(store: &dyn Store, lock: &str, number: u64) -> Option<Token> {
    let request = request(lock, number);
    let mut grant: Box<dyn Grant> = match told(store.try_acquire(&request, None))? {
        Attempt::Granted(grant) => grant,
        Attempt::Held(seen) => {
            let _ = output::json::document(output::json::LockJson::new(lock, &seen, Wall::now()));
            return None;
        }
    };
    let token = grant.token();
    grant.started();
    match told(grant.renew()) {
        None | Some(Renewal::Renewed | Renewal::Lost(_)) => {}
        Some(Renewal::Stop(request) | Renewal::Revoked(request)) => {
            assert_eq!(request.token, token, "somebody else's run was meant");
        }
    }
    let tail = Tail {
        bytes: b"said".to_vec(),
        total: 4,
    };
    told(grant.save_tail(&tail));
    told(grant.release(&success(), Some(&tail)));
    Some(token)
}

fn look(store: &dyn Store) {
    let seen_from_here = Look::new(store, tree::alive_here);
    let page = Page {
        now: Wall::now(),
        width: Some(80),
        colour: false,
        zone: Zone::Local,
    };
    let _ = output::doctor::store_line(&store.about());
    let locks = told(store.locks()).unwrap_or_default();
    let names = [HELD, FREE, DEAD].map(|name| name.parse::<LockName>().expect("a name"));
    for name in locks.iter().chain(&names) {
        if let Some(seen) = told(store.inspect(name)) {
            let json = output::json::LockJson::new(name.as_str(), &seen, page.now);
            output::json::document(json).expect("JSON");
            if let Some(holder) = &seen.holder {
                let _ = output::record::holder(&page, holder);
            }
        }
    }
    let runs = told(seen_from_here.runs(Query::default())).unwrap_or_default();
    shown(store, &page, &runs);
    for limited in [Some(1), None] {
        told(seen_from_here.runs(Query {
            job: Some(FREE.into()),
            limit: limited,
            outcomes: vec![Outcome::Succeeded, Outcome::Abandoned],
            ..Query::default()
        }));
    }
    let mut jobs = told(seen_from_here.jobs()).unwrap_or_default();
    jobs.push(DEAD.into());
    let schedule = Schedule::parse("29 1 * * *", schedule::zone("UTC").expect("a zone")).ok();
    for job in &jobs {
        let last = told(seen_from_here.newest(job)).flatten();
        told(seen_from_here.last_success(job));
        let Some(telling) = told(seen_from_here.telling(job)) else {
            continue;
        };
        let facts = Facts {
            runs: &telling,
            newest: last.as_ref(),
            fresh: None,
            due: schedule.as_ref().and_then(|s| s.previous_due(page.now)),
            scheduled_since: None,
            time_limit: Some(Duration::from_secs(60)),
        };
        let verdict = verdict::judge(&facts, page.now);
        let _ = output::check::line(&[output::check::Checked::new(&page, job, &verdict)]);
    }
}

fn shown(store: &dyn Store, page: &Page, runs: &[RunRecord]) {
    let _ = output::history::text(page, runs);
    output::json::document(output::history::HistoryJson::new(runs)).expect("JSON");
    for run in runs.iter().take(8) {
        let tail = told(store.tail(&run.run_id)).flatten();
        let _ = output::show::text(page, run, tail.as_ref());
        output::json::document(output::show::ShowJson::new(run, tail.as_ref())).expect("JSON");
        let prefix = &run.run_id.as_str()[..6];
        told(store.by_prefix(prefix));
    }
}
