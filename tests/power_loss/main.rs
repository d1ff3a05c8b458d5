//! The power goes: at every point of several consecutive runs, with every extreme and many random choices of what of the
//! unsynced writes, lengths and names reached the disk, the store opens after the reboot, a token that a job has seen is
//! never given again, each run whose job was started has its row, and what a command has told stays so.
//!
//! `make power` checks all images; `make check` a sample, in an order that a new seed gives each time. `JOBLOCK_POWER`:
//! `all`, or for how many seconds. `JOBLOCK_SEED`: the seed to repeat.

#[path = "../common/evidence.rs"]
mod evidence;
#[path = "../common/random.rs"]
mod random;
#[path = "../common/tracer/mod.rs"]
mod tracer;

mod check;
mod image;
mod log;
mod story;

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use check::{Kept, check};
use evidence::Record;
use image::{Image, Survives, build};
use random::Random;
use story::{Story, known};

/// How long the sample in `make check` takes.
const SAMPLE: Duration = Duration::from_secs(25);
/// How many images are checked side by side: most of the time they wait for a lease to be over.
const WORKERS: usize = 16;

/// What a disk writes at once: by its oldest promise, as modern ones are made, or a whole write.
const SECTORS: [u64; 3] = [512, 4096, 1 << 30];

/// One crash.
struct Crash {
    kept: Kept,
    /// After so many operations.
    at: usize,
    survives: Survives,
}

impl std::fmt::Display for Crash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?}, after {} operations, {:?}",
            self.kept, self.at, self.survives
        )
    }
}

fn crashes(story: &Story, kept: Kept, each: u64, random: &mut Random) -> Vec<Crash> {
    use Survives::{AllButNewest, Data, Everything, Names, Newest, Nothing};
    let mut crashes = Vec::new();
    for at in 0..=story.log.len() {
        let extremes = [Nothing, Everything, Newest, AllButNewest, Names, Data];
        let some = (0..each)
            .map(|n| Survives::Some(random.next(), SECTORS[usize::try_from(n % 3).unwrap_or(0)]));
        crashes.extend(
            extremes
                .into_iter()
                .chain(some.collect::<Vec<_>>())
                .map(|survives| Crash { kept, at, survives }),
        );
    }
    crashes
}

struct Tally {
    images: usize,
    same: usize,
    wrong: BTreeMap<String, Vec<String>>,
}

/// Checks the crashes until `limit` is over or, with `first`, something is found to be wrong.
fn check_all(
    stories: &BTreeMap<Kept, Story>,
    crashes: &[Crash],
    limit: Option<Duration>,
    syncs_lie: bool,
) -> Tally {
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    let seen = Mutex::new(HashSet::new());
    let tally = Mutex::new(Tally {
        images: 0,
        same: 0,
        wrong: BTreeMap::new(),
    });
    std::thread::scope(|s| {
        for _ in 0..WORKERS {
            s.spawn(|| {
                while limit.is_none_or(|limit| begun.elapsed() < limit)
                    && let Some(crash) = crashes.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let story = &stories[&crash.kept];
                    let image: Image = build(&story.log[..crash.at], crash.survives, syncs_lie);
                    let known = known(story, crash.at);
                    let mut hasher = DefaultHasher::new();
                    (image.sum(), &known).hash(&mut hasher);
                    if !seen.lock().expect("no panic").insert(hasher.finish()) {
                        tally.lock().expect("no panic").same += 1;
                        continue;
                    }
                    let wrong = check(crash.kept, &image, &known);
                    let mut tally = tally.lock().expect("no panic");
                    tally.images += 1;
                    for what in wrong {
                        tally.wrong.entry(what).or_default().push(crash.to_string());
                    }
                }
            });
        }
    });
    tally.into_inner().expect("no panic")
}

// shows: power-loss local, shared, lockfile
#[test]
fn what_was_promised_before_the_power_went_holds_after_it() {
    let seed = Random::seed();
    let mut random = Random(seed);
    let asked = std::env::var("JOBLOCK_POWER").unwrap_or_default();
    let (limit, each) = match asked.as_str() {
        "all" => (None, 24),
        "" => (Some(SAMPLE), 6),
        seconds => (
            Some(Duration::from_secs(seconds.parse().expect("seconds"))),
            6,
        ),
    };
    let mut stories = BTreeMap::new();
    let mut all = Vec::new();
    for kept in Kept::ALL {
        let story = story::record(kept);
        println!("{kept:?}: {} operations", story.log.len());
        all.extend(crashes(&story, kept, each, &mut random));
        stories.insert(kept, story);
    }
    random.shuffle(&mut all);
    let begun = Instant::now();
    let tally = check_all(&stories, &all, limit, false);
    println!(
        "{} different images of {} crashes ({} gave an image that was checked already), seed {seed}, in {:?}",
        tally.images,
        all.len(),
        tally.same,
        begun.elapsed()
    );
    for (what, crashes) in &tally.wrong {
        println!("{:5} times: {what}; such as {}", crashes.len(), crashes[0]);
    }
    assert!(
        tally.wrong.is_empty(),
        "JOBLOCK_SEED={seed}: {} sorts of violations, see above",
        tally.wrong.len()
    );
    let operations: usize = stories.values().map(|story| story.log.len()).sum();
    let mut record = Record::new("power_loss", format!("make power POWER={asked}"))
        .figure("operations on the files of three stores", operations)
        .figure("crashes", tally.images + tally.same)
        .figure("different images, each started from", tally.images)
        .figure("sorts of violations", tally.wrong.len());
    // the checker can find something: the same, on a disk for which a sync is nothing
    for kept in Kept::ALL {
        let some: Vec<Crash> = crashes(&stories[&kept], kept, 0, &mut random);
        let last = stories[&kept].log.len();
        let some: Vec<Crash> = some
            .into_iter()
            .filter(|c| c.at == last || c.at == last / 2)
            .collect();
        let tally = check_all(&stories, &some, None, true);
        println!(
            "{kept:?}, syncs that do nothing: {} violations in {} images",
            tally.wrong.len(),
            tally.images
        );
        record = record.figure(
            format!(
                "violations in {} images of a {kept:?} store whose syncs do nothing",
                tally.images
            ),
            tally.wrong.values().map(Vec::len).sum::<usize>(),
        );
        assert!(
            !tally.wrong.is_empty(),
            "the checker finds nothing wrong on a disk that does not sync"
        );
    }
    record.write();
}
