//! `joblock init`: a store that a group can use, made once, never changed in kind.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

struct Place {
    folder: TempDir,
    program: PathBuf,
}

impl Place {
    /// With a copy of the program that other users can reach, wherever the original lies.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = folder.path().join("joblock");
        // By another process: a file that this one has open for writing can't be executed by its other threads' children.
        let copied = Command::new("cp")
            .args([env!("CARGO_BIN_EXE_joblock").as_ref(), program.as_os_str()])
            .status();
        assert!(copied.unwrap().success());
        Place { folder, program }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        // the machine's own jobs file has no say here
        let config = self.path("joblock.toml");
        if !config.exists() {
            fs::write(&config, "").unwrap();
        }
        command
            .env("HOME", self.folder.path())
            .env("JOBLOCK_CONFIG", config);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A group that the caller may give files to: any for root, else its own.
fn gid() -> u32 {
    let own = rustix::process::getgid().as_raw();
    if rustix::process::geteuid().is_root() {
        54321
    } else {
        own
    }
}

#[test]
fn a_store_is_made_once_and_found_again() {
    let place = Place::new();
    let first = place.run(&["init", "--store", "sqlite:new/joblock.db"]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let said = text(&first.stdout);
    assert!(
        said.contains("made the folder") && said.contains("made the store sqlite:"),
        "{said}"
    );
    assert_eq!(mode(&place.path("new")), 0o750);
    let id = |said: &str| {
        said.lines()
            .find(|l| l.starts_with("its id is"))
            .unwrap()
            .to_owned()
    };
    let again = place.run(&["init", "--store", "sqlite:new/joblock.db"]);
    assert!(again.status.success());
    let found = text(&again.stdout);
    assert!(
        found.contains("found the store") && !found.contains("made"),
        "{found}"
    );
    assert_eq!(id(&said), id(&found));
}

#[test]
fn a_store_stays_what_it_was_made_as() {
    let place = Place::new();
    assert!(
        place
            .run(&["init", "--store", "sqlite:a/joblock.db"])
            .status
            .success()
    );
    let refused = place.run(&["init", "--shared", "--store", "sqlite:a/joblock.db"]);
    assert_eq!(refused.status.code(), Some(69));
    assert!(
        text(&refused.stderr).contains("local"),
        "{}",
        text(&refused.stderr)
    );
    let shared = place.run(&["init", "--shared", "--store", "sqlite:b/joblock.db"]);
    assert!(
        text(&shared.stdout).contains("(shared, on "),
        "{}",
        text(&shared.stdout)
    );
    let found = place.run(&["init", "--store", "sqlite:b/joblock.db"]);
    assert!(
        text(&found.stdout).contains("(shared, on "),
        "{}",
        text(&found.stdout)
    );
}

#[test]
fn a_group_s_store_can_be_used_by_its_members() {
    let place = Place::new();
    let group = gid().to_string();
    let made = place.run(&["init", "--group", &group, "--store", "sqlite:g/joblock.db"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(
        (mode(&place.path("g")), mode(&place.path("g/joblock.db"))),
        (0o2770, 0o660)
    );
    assert_eq!(
        fs::metadata(place.path("g/joblock.db")).unwrap().gid(),
        gid()
    );
    if !rustix::process::geteuid().is_root() {
        return; // only root can be somebody else
    }
    let run = |uid: u32, job: &str| {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "umask 022; exec \"$@\"", "sh"])
            .arg(&place.program);
        command
            .args(["run", "--store", "sqlite:g/joblock.db", job, "--", "true"])
            .current_dir(place.folder.path());
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("JOBLOCK_CONFIG", place.path("joblock.toml"));
        if uid != 0 {
            command.uid(uid).gid(gid());
        }
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "uid {uid}: {}",
            text(&output.stderr)
        );
    };
    for uid in [12345, 0, 23456, 12345] {
        run(uid, "shared-job");
    }
    let outsider = {
        let mut command = place.command(&[
            "run",
            "--store",
            "sqlite:g/joblock.db",
            "shared-job",
            "--",
            "true",
        ]);
        command.uid(34567).gid(34567).output().unwrap()
    };
    assert_eq!(
        outsider.status.code(),
        Some(69),
        "{}",
        text(&outsider.stderr)
    );
}

#[test]
fn a_store_that_root_used_first_can_be_given_to_a_group() {
    let place = Place::new();
    assert!(
        place
            .run(&["init", "--store", "sqlite:g/joblock.db"])
            .status
            .success()
    );
    assert!(
        place
            .run(&["run", "--store", "sqlite:g/joblock.db", "job", "--", "true"])
            .status
            .success()
    );
    let given = place.run(&[
        "init",
        "--group",
        &gid().to_string(),
        "--store",
        "sqlite:g/joblock.db",
    ]);
    assert!(given.status.success(), "{}", text(&given.stderr));
    assert!(
        text(&given.stdout).contains("gave it to the group"),
        "{}",
        text(&given.stdout)
    );
    assert_eq!(mode(&place.path("g")), 0o2770);
    for entry in fs::read_dir(place.path("g")).unwrap() {
        let path = entry.unwrap().path();
        let wanted = if path.is_dir() { 0o2770 } else { 0o660 };
        assert_eq!(mode(&path), wanted, "{}", path.display());
    }
    assert_eq!(mode(&place.path("g/joblock.db.locks/job.lock")), 0o660);
}

#[test]
fn a_folder_with_other_things_in_it_is_not_given_away() {
    let place = Place::new();
    fs::create_dir(place.path("mixed")).unwrap();
    fs::write(place.path("mixed/letter.txt"), "private").unwrap();
    let before = mode(&place.path("mixed"));
    let refused = place.run(&[
        "init",
        "--group",
        &gid().to_string(),
        "--store",
        "sqlite:mixed/joblock.db",
    ]);
    assert_eq!(refused.status.code(), Some(69));
    assert!(
        text(&refused.stderr).contains("with other things in it"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(mode(&place.path("mixed")), before);
    assert!(!place.path("mixed/joblock.db").exists());
}

#[test]
fn an_unknown_group_is_guessed() {
    let place = Place::new();
    let output = place.run(&["init", "--group", "rooot", "--store", "sqlite:x/joblock.db"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("did you mean \"root\"?"),
        "{}",
        text(&output.stderr)
    );
    assert!(!place.path("x").exists());
}

// shows: symlink local
#[test]
fn links_in_the_folder_lead_nowhere() {
    let place = Place::new();
    assert!(
        place
            .run(&["init", "--store", "sqlite:g/joblock.db"])
            .status
            .success()
    );
    for other in ["soft", "hard"] {
        fs::write(place.path(other), "private").unwrap();
        fs::set_permissions(place.path(other), fs::Permissions::from_mode(0o600)).unwrap();
    }
    std::os::unix::fs::symlink(place.path("soft"), place.path("g/joblock.db-soft")).unwrap();
    fs::hard_link(place.path("hard"), place.path("g/joblock.db-hard")).unwrap();
    let given = place.run(&[
        "init",
        "--group",
        &gid().to_string(),
        "--store",
        "sqlite:g/joblock.db",
    ]);
    assert!(given.status.success(), "{}", text(&given.stderr));
    assert_eq!(
        (mode(&place.path("soft")), mode(&place.path("hard"))),
        (0o600, 0o600)
    );
    assert_eq!(mode(&place.path("g/joblock.db")), 0o660);
}
