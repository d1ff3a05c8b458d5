//! Locks that stay with a machine which is gone: whose they are, and what to do about it.

use super::reading::Reading;
use crate::store::twin::{self, NfsClient};
use crate::store::{Finding, Level};

/// Of all locks, and of a machine of the same name, for `doctor`.
pub fn findings(reading: &Reading) -> Vec<Finding> {
    let locks = reading.store().locks().unwrap_or_default();
    let stays = |lock| {
        let seen = reading.store().inspect(&lock).ok()?;
        let way = seen.to_free(reading.here(), || reading.mount(), reading.now)?;
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
