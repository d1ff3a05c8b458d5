//! What the night is played on: its folder, its two hosts, its clock, its diary, its search index.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::machine::{Machine, signal};
use super::wait::{LIMIT, until};

/// The job that must never run twice at once.
pub const SYNC: &str = "person-elasticsearch-sync";
/// The job that the kernel kills at 00:21.
pub const KILLED: &str = "person-placement-employing-body-trust";
/// How many persons there are.
pub const PERSONS: i64 = 200;
/// How long a minute of the night takes.
const MINUTE: Duration = Duration::from_millis(25);
/// Bytes of memory for blue's container: plenty for all but the job that takes everything.
const BLUE_MEMORY: u64 = 128 << 20;

const SCRIPTS: [(&str, &str); 6] = [
    ("clock.sh", include_str!("clock.sh")),
    ("machine.sh", include_str!("machine.sh")),
    ("blue.sh", include_str!("blue.sh")),
    ("green.sh", include_str!("green.sh")),
    ("job.sh", include_str!("job.sh")),
    ("person-sync.sh", include_str!("person-sync.sh")),
];

/// A night, with joblock or without.
pub struct Stage {
    /// Blue: the application in a container with little memory.
    pub blue: Machine,
    /// Green: a server with cron.
    pub green: Machine,
    /// The store's URL; `None` on a night without joblock.
    pub store: Option<String>,
    minute: i32,
    // the last to go: what the hosts have open is in it
    folder: TempDir,
}

/// What the search index is like.
#[derive(Debug, PartialEq, Eq)]
pub struct Index {
    /// Rows.
    pub rows: i64,
    /// Different persons among them.
    pub persons: i64,
}

impl Index {
    /// Each person exactly once.
    pub const RIGHT: Index = Index {
        rows: PERSONS,
        persons: PERSONS,
    };
}

/// 01:29 as minutes since midnight.
pub const fn at(hour: i32, minute: i32) -> i32 {
    hour * 60 + minute
}

impl Stage {
    /// Prepares a night; nothing runs yet. `store`: the URL of its store, with `{}` for a folder that both hosts share.
    pub fn new(store: Option<&str>) -> Stage {
        let folder = tempfile::Builder::new()
            .prefix("night-")
            .tempdir()
            .expect("a folder");
        let root = folder.path();
        fs::create_dir(root.join("bin")).expect("bin");
        for (name, text) in SCRIPTS {
            let script = root.join("bin").join(name);
            fs::write(&script, text).expect("script");
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("script");
        }
        let store = store.map(|url| {
            fs::create_dir(root.join("store")).expect("store");
            url.replace("{}", root.join("store").to_str().expect("a path in UTF-8"))
        });
        let joblock = Path::new(env!("CARGO_BIN_EXE_joblock"))
            .parent()
            .expect("a folder")
            .to_str()
            .expect("a path in UTF-8");
        let path = format!(
            "{}/bin:{joblock}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            root.display()
        );
        let plan: Value = serde_json::from_str(include_str!("night.json")).expect("night.json");
        write_plan(root, &plan, store.as_deref(), &path);

        let mut people = Connection::open(root.join("people.db")).expect("people.db");
        let change = people.transaction().expect("people.db");
        change
            .execute(
                "CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",
                [],
            )
            .expect("people.db");
        for id in 1..=PERSONS {
            change
                .execute(
                    "INSERT INTO person VALUES (?1, ?2)",
                    (id, format!("person {id}")),
                )
                .expect("people.db");
        }
        change.commit().expect("people.db");

        let blue = Machine::new("blue", root, &path, Some(BLUE_MEMORY));
        let green = Machine::new("green", root, &path, None);
        let mut stage = Stage {
            blue,
            green,
            store,
            minute: -1,
            folder,
        };
        stage.set_clock(-1);
        stage
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts blue's container with the application as its entrypoint; returns when that has looked at the clock.
    pub fn boot_blue(&mut self) {
        let ups = self.entries("blue is up");
        self.blue.boot("blue.sh", &self.file("blue.log"));
        self.comes("blue comes up", |stage| stage.entries("blue is up") > ups);
    }

    /// Starts green; returns when it is up.
    pub fn boot_green(&mut self) {
        self.green.boot("green.sh", &self.file("green.log"));
        self.comes("green comes up", |stage| stage.entries("green is up") > 0);
    }

    fn set_clock(&mut self, minute: i32) {
        fs::write(self.file("clock.new"), format!("{minute}\n")).expect("clock");
        fs::rename(self.file("clock.new"), self.file("clock")).expect("clock");
        self.minute = minute;
    }

    /// Lets the minutes pass until it is `minute` o'clock.
    pub fn pass_until(&mut self, minute: i32) {
        while self.minute < minute {
            sleep(MINUTE);
            self.set_clock(self.minute + 1);
        }
    }

    /// Lets the minutes pass until something has happened; from `latest` on the clock waits for it.
    pub fn pass_until_it_comes(
        &mut self,
        latest: i32,
        what: &str,
        mut happened: impl FnMut(&Stage) -> bool,
    ) {
        while self.minute < latest && !happened(self) {
            self.pass_until(self.minute + 1);
        }
        self.comes(what, happened);
    }

    /// The clock goes to `minute` at once: hours in which nothing happens.
    pub fn jump_to(&mut self, minute: i32) {
        assert!(minute >= self.minute);
        self.set_clock(minute);
    }

    /// Waits, in the same minute of the night, until something has happened.
    pub fn comes(&self, what: &str, mut happened: impl FnMut(&Stage) -> bool) {
        until(LIMIT, || happened(self).then_some(())).unwrap_or_else(|| {
            panic!(
                "{:02}:{:02}: this does not happen: {what}",
                self.minute / 60,
                self.minute % 60
            )
        });
    }

    /// Waits for an entry in the diary.
    pub fn comes_entry(&self, entry: &str) {
        self.comes(entry, |stage| stage.entries(entry) > 0);
    }

    /// How often the diary has this entry.
    pub fn entries(&self, entry: &str) -> usize {
        self.diary()
            .lines()
            .filter(|line| line.split_once(' ').is_some_and(|(_, text)| text == entry))
            .count()
    }

    /// All that the hosts and jobs of the night told.
    pub fn diary(&self) -> String {
        fs::read_to_string(self.file("diary")).unwrap_or_default()
    }

    /// What users see.
    pub fn index(&self) -> Index {
        let index = Connection::open(self.file("index.db")).expect("index.db");
        index.busy_timeout(LIMIT).expect("index.db");
        index
            .query_row(
                "SELECT count(*), count(DISTINCT id) FROM person",
                [],
                |row| {
                    Ok(Index {
                        rows: row.get(0)?,
                        persons: row.get(1)?,
                    })
                },
            )
            .expect("index.db")
    }

    /// Stops joblock itself on blue, in the middle of what it does: it will not live to write anything down.
    pub fn stop_wrappers_on_blue(&self) {
        let wrappers = self.blue.running(Path::new(env!("CARGO_BIN_EXE_joblock")));
        assert!(!wrappers.is_empty(), "no joblock runs on blue");
        for pid in wrappers {
            signal(pid, Signal::STOP);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut told = format!(
                "\n===== the night over {} =====\n",
                self.store.as_deref().unwrap_or("nothing (without joblock)")
            );
            if self.store.is_some() {
                match self
                    .green
                    .command("joblock")
                    .args(["history", "-n", "100"])
                    .output()
                {
                    Ok(out) => {
                        let _ = writeln!(
                            told,
                            "--- joblock history\n{}",
                            String::from_utf8_lossy(&out.stdout)
                        );
                        let _ = writeln!(told, "{}", String::from_utf8_lossy(&out.stderr));
                    }
                    Err(e) => told += &e.to_string(),
                }
            }
            for file in ["diary", "blue.log", "green.log"] {
                let _ = writeln!(
                    told,
                    "--- {file}\n{}",
                    fs::read_to_string(self.file(file)).unwrap_or_default()
                );
            }
            eprintln!("{told}");
        }
        self.blue.kill();
        self.green.kill();
    }
}

/// Writes what the hosts go by: the jobs file, green's crontab, blue's own schedule and its start-up order.
fn write_plan(root: &Path, plan: &Value, store: Option<&str>, path: &str) {
    let job_sh = root.join("bin/job.sh").display().to_string();
    let (mut crontab, mut schedule, mut jobs_file) = (
        format!("PATH={path}\nMAILTO=\"\"\n"),
        String::new(),
        String::new(),
    );
    if let Some(url) = store {
        let _ = writeln!(jobs_file, "store = {url:?}");
    }
    for job in plan["jobs"].as_array().expect("jobs") {
        let name = job["name"].as_str().expect("name");
        let cron = job["schedule"].as_str().expect("schedule");
        let start = if store.is_some() {
            format!("joblock run {name}")
        } else {
            format!("{job_sh} {name}")
        };
        let _ = writeln!(crontab, "{cron} root {start}");
        let mut fields = cron.split(' ').map_while(|field| field.parse::<i32>().ok());
        let (minute, hour) = (
            fields.next().expect("a minute"),
            fields.next().expect("an hour"),
        );
        if name != SYNC {
            let _ = writeln!(schedule, "{} {name}", at(hour, minute));
        }
        let _ = writeln!(
            jobs_file,
            "\n[jobs.{name}]\ncommand = [{job_sh:?}, {name:?}]\nschedule = {cron:?}\ntimezone = {:?}\nunless-succeeded-within = \"6h\"",
            zone_where_it_is_noon()
        );
        if store.is_some_and(|url| url.ends_with("?shared")) {
            // a third of the default, as the silence of a dead host is waited for
            jobs_file += "ttl = \"15s\"\n";
        }
    }
    let order: Vec<_> = plan["startup_order"]
        .as_array()
        .expect("startup_order")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    fs::write(root.join("crontab"), crontab).expect("crontab");
    fs::write(root.join("schedule"), schedule).expect("schedule");
    fs::write(root.join("startup-order"), order.join("\n") + "\n").expect("startup-order");
    if store.is_some() {
        fs::write(root.join("joblock.toml"), jobs_file).expect("joblock.toml");
    }
}

/// The night has a clock of its own, `check` looks at the real one: its midnight must not fall into the test.
fn zone_where_it_is_noon() -> String {
    let hour = joblock::clock::Wall::now()
        .to_datetime()
        .format("%H")
        .to_string()
        .parse::<i32>()
        .expect("an hour");
    // the sign in these names is that of the way back to Greenwich
    if hour <= 12 {
        format!("Etc/GMT-{}", 12 - hour)
    } else {
        format!("Etc/GMT+{}", hour - 12)
    }
}
