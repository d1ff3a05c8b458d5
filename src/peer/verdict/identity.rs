//! Who the two are: machines, names, versions, stores, mounts, clocks.

use std::time::Duration;

use super::measured::offset;
use super::{called, finding, is_one_machine};
use crate::output::time::took;
use crate::peer::Both;
use crate::peer::side::{MountSide, Side};
use crate::store::{Finding, Level};

/// Clocks that differ by more are said to be wrong.
const CLOCKS: Duration = Duration::from_secs(60);

pub(super) fn who(both: &Both) -> Finding {
    const WHAT: &str = "the two sides";
    let seen = |side: &Side| format!("{} as {} ({})", side.host, side.user, side.url);
    let text = format!("{}; and {}", seen(&both.here), seen(&both.there));
    if is_one_machine(both) {
        return finding(
            Level::Warning,
            WHAT,
            format!(
                "{text}; both run on one machine (they have one boot id): this proves nothing about two"
            ),
        );
    }
    finding(Level::Ok, WHAT, text)
}

pub(super) fn names(both: &Both) -> Option<Finding> {
    const WHAT: &str = "host names";
    if is_one_machine(both) {
        return None;
    }
    let (here, there) = (&both.here, &both.there);
    if here.host != there.host {
        return Some(finding(Level::Ok, WHAT, "they differ"));
    }
    let same = format!("both machines are called {}", here.host);
    Some(if here.is_taken_for(there) {
        finding(
            Level::Bad,
            WHAT,
            format!(
                "{same}: an NFS server takes them for one and throws away the locks of one when the other one mounts or boots; \
                 give each a name of its own (hostnamectl hostname NAME), or for version 4 an nfs4_unique_id of its own (modprobe.d: options nfs \
                 nfs4_unique_id=…), then unmount and mount again; nothing else was tried"
            ),
        )
    } else {
        finding(
            Level::Warning,
            WHAT,
            format!("{same}: status and history can't say which of them is meant; rename one"),
        )
    })
}

pub(super) fn versions(both: &Both) -> Finding {
    const WHAT: &str = "joblock";
    let (here, there) = (&both.here, &both.there);
    let (us, them) = called(both);
    if (&here.joblock, here.format) == (&there.joblock, there.format) {
        let detail = format!("{} on both, store format {}", here.joblock, here.format);
        return finding(Level::Ok, WHAT, detail);
    }
    let detail = format!(
        "{} (store format {}) on {us}, {} (store format {}) on {them}: install the same version on both",
        here.joblock, here.format, there.joblock, there.format
    );
    finding(Level::Warning, WHAT, detail)
}

pub(super) fn store(both: &Both) -> Finding {
    const WHAT: &str = "one store";
    let (us, them) = called(both);
    let sides = [(&us, &both.here), (&them, &both.there)];
    for (who, side) in sides {
        if let Some(why) = &side.store_error {
            return finding(Level::Bad, WHAT, format!("on {who}: {why}"));
        }
    }
    let [here, there] = sides.map(|(_, side)| side.store_id.as_deref().unwrap_or("unknown"));
    if here == there {
        return finding(Level::Ok, WHAT, format!("id {here} on both"));
    }
    finding(
        Level::Bad,
        WHAT,
        format!(
            "{us} has the store {here}, {them} has {there}: they are two, and their locks have nothing to do with each other; \
             name the same file, and pin it with store-id in both jobs files"
        ),
    )
}

/// Options that say where a client is, not how it mounts.
const ADDRESSES: [&str; 5] = ["addr", "clientaddr", "mountaddr", "mountport", "port"];
/// Options by which locks or errors differ.
const TELLING: [&str; 6] = ["vers", "local_lock", "nolock", "soft", "softerr", "hard"];

fn only_in<'a>(one: &'a MountSide, other: &MountSide) -> Vec<&'a str> {
    let name = |option: &str| option.split('=').next().unwrap_or_default().to_owned();
    one.options
        .split(',')
        .filter(|o| !other.options.split(',').any(|theirs| theirs == *o))
        .filter(|o| !ADDRESSES.contains(&name(o).as_str()))
        .collect()
}

pub(super) fn mounts(both: &Both) -> Finding {
    const WHAT: &str = "mounts";
    let (us, them) = called(both);
    let (Some(here), Some(there)) = (&both.here.mount, &both.there.mount) else {
        return finding(Level::Warning, WHAT, "/proc/self/mountinfo does not tell");
    };
    let seen = |m: &MountSide| format!("{} {} at {}", m.name(), m.source, m.point);
    let only: Vec<_> = [(&us, only_in(here, there)), (&them, only_in(there, here))]
        .into_iter()
        .filter(|(_, options)| !options.is_empty())
        .map(|(name, options)| format!("only on {name}: {}", options.join(",")))
        .collect();
    let mut text = format!("{us}: {}; {them}: {}; ", seen(here), seen(there));
    if only.is_empty() {
        text.push_str("with the same options");
    } else {
        text.push_str(&only.join("; "));
    }
    let differ = TELLING.iter().any(|name| {
        let is = |m: &MountSide| {
            let of = |o: &&str| o.split('=').next() == Some(*name);
            m.options.split(',').find(of).map(str::to_owned)
        };
        is(here) != is(there)
    });
    if here.is_nfs() && there.is_nfs() && differ {
        text.push_str("; mount both the same way");
        return finding(Level::Warning, WHAT, text);
    }
    finding(Level::Ok, WHAT, text)
}

pub(super) fn clocks(both: &Both) -> Finding {
    const WHAT: &str = "clocks";
    let (_, them) = called(both);
    let Some((ms, unsure)) = offset(both.seen_here.wall_ahead_ms, both.seen_there.wall_ahead_ms)
    else {
        return finding(Level::Warning, WHAT, "could not be compared");
    };
    let by = Duration::from_millis(ms.unsigned_abs());
    let text = format!(
        "that of {them} is {} {} (give or take {unsure} ms)",
        took(by),
        if ms > 0 { "behind" } else { "ahead" }
    );
    if by > CLOCKS {
        return finding(
            Level::Warning,
            WHAT,
            format!(
                "{text}: no lock depends on it, but --unless-succeeded-within, schedules and prune do; set both clocks (timedatectl set-ntp true)"
            ),
        );
    }
    finding(Level::Ok, WHAT, text)
}
