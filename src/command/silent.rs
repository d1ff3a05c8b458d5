//! Locks that stay with a machine which is gone: whose they are, and what to do about it.

use super::reading::Reading;
use crate::store::twin::{self, NfsClient};
use crate::store::{Finding, Level, Observed, remote};

/// How a lock can be freed that has a silent holder on another machine; `None`: it is no such one, or becomes free by itself.
pub fn to_free(reading: &Reading, seen: &Observed) -> Option<String> {
    let holder = seen.holder.as_ref()?;
    let silent = seen.silence(reading.now)?;
    if holder.place.same_boot(reading.here()) {
        return None;
    }
    let host = &holder.place.host;
    let way = remote::to_free_what_stays(&reading.mount()?, host)?;
    Some(format!(
        "{host} has given no sign of life for {} s, and {way}",
        silent.as_secs()
    ))
}

/// Of all locks, and of a machine of the same name, for `doctor`.
pub fn findings(reading: &Reading) -> Vec<Finding> {
    let locks = reading.store().locks().unwrap_or_default();
    let stays = |lock| {
        let way = to_free(reading, &reading.store().inspect(&lock).ok()?)?;
        Some(Finding {
            level: Level::Bad,
            what: format!("the lock {lock}"),
            detail: way,
        })
    };
    let own = NfsClient::of(reading.database());
    let twin = own.and_then(|own| twin::find(reading.store(), &own, reading.now).ok()?);
    let twin = twin.map(|detail| Finding {
        level: Level::Bad,
        what: "host name".into(),
        detail,
    });
    locks.into_iter().filter_map(stays).chain(twin).collect()
}
