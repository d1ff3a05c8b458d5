//! Whether data, and SQLite's transactions, of one side reach the other one.

use std::time::Duration;

use super::locks::cure;
use super::measured::{elapsed, turned};
use super::{called, finding};
use crate::output::time::took;
use crate::peer::Both;
use crate::peer::sqlite::{COUNTED, SqliteSeen};
use crate::peer::trial::{Answer, Report};
use crate::store::{Finding, Level};

pub(super) fn data(both: &Both) -> Finding {
    const WHAT: &str = "what one writes the other one reads";
    let (here, there) = called(both);
    let bad = [(here, &both.seen_here.data), (there, &both.seen_there.data)]
        .into_iter()
        .find_map(|(who, data)| Some(format!("not so on {who}: {}", data.as_ref()?)));
    if let Some(bad) = bad {
        return finding(
            Level::Bad,
            WHAT,
            format!(
                "{bad}; a store's files can't be trusted here: look for caching options of the mount"
            ),
        );
    }
    let named = |both: &Both| {
        elapsed(both, both.seen_there.name_made, both.seen_here.name_seen).map_or_else(
            || "not yet in the end".to_owned(),
            |after| format!("after {}", took(after)),
        )
    };
    finding(
        Level::Ok,
        WHAT,
        format!(
            "tried; the name of a new file was seen {} here, {} there, which no lock depends on",
            named(both),
            named(&turned(both))
        ),
    )
}

pub(super) fn sqlite(both: &Both) -> Finding {
    const WHAT: &str = "SQLite's transactions exclude each other";
    let (here, there) = called(both);
    let counted = |seen: &Report| Duration::from_millis(seen.sqlite.took_ms);
    let wanted = i64::from(COUNTED) * 2;
    for (who, seen) in [
        (here, &both.seen_here.sqlite),
        (there, &both.seen_there.sqlite),
    ] {
        if let Some(bad) = wrong_with(seen, wanted) {
            return finding(
                Level::Bad,
                WHAT,
                format!("on {who}: {bad}; no store can be kept here: {}", cure(both)),
            );
        }
    }
    finding(
        Level::Ok,
        WHAT,
        format!(
            "tried both ways; both counted to {wanted} together, none was lost ({} here, {} there)",
            took(counted(&both.seen_here)),
            took(counted(&both.seen_there))
        ),
    )
}

fn wrong_with(seen: &SqliteSeen, wanted: i64) -> Option<String> {
    if seen.excluded == Answer::Taken {
        return Some("it began a transaction while the other side had one".to_owned());
    }
    if let Some(error) = &seen.error {
        return Some(error.clone());
    }
    if let Answer::Failed(why) = &seen.excluded {
        return Some(why.clone());
    }
    if seen.total != Some(wanted) {
        let total = seen.total.map_or("nothing".to_owned(), |n| n.to_string());
        return Some(format!(
            "both counted to {total} together, and not to {wanted}"
        ));
    }
    match seen.integrity.as_deref() {
        Some("ok") => None,
        other => Some(other.unwrap_or("not checked").to_owned()),
    }
}
