//! Which store: `--store`, else the jobs file's, else `$JOBLOCK_STORE`, else the machine's, else the user's.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::environment::{Environment, SYSTEM_FOLDER};
use super::{PlanError, Source};
use crate::config::JobsFile;
use crate::duration;
use crate::lease::timing::Timing;
use crate::store::{StoreError, StoreUrl};

/// The store, and why it is this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The store, its path absolute.
    pub url: StoreUrl,
    /// What named it.
    pub source: Source,
    /// `store-id` of the jobs file: the UUID that it must have.
    pub pinned: Option<String>,
    /// It is the user's own, because nothing named one: `run` says so once on a terminal.
    pub unasked: bool,
}

/// Why a text is no store. Displays as a fragment that says what to write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UrlError {
    /// `sqlite://…`.
    #[error(
        "{given:?} has slashes that belong to a server's address: write {scheme}:PATH, like {scheme}:/var/lib/joblock/{example}"
    )]
    Slashes {
        /// As given.
        given: String,
        /// `sqlite` or `lockfile`.
        scheme: &'static str,
        /// A file's or folder's name that suits it.
        example: &'static str,
    },
    /// `sqlite:` alone.
    #[error("{0:?} names no path: write sqlite:PATH or lockfile:DIRECTORY")]
    NoPath(String),
    /// `?something`.
    #[error(
        "{given:?} has the parameter {}, which is unknown: there are shared, for sqlite:, and server-lease=DURATION, as in sqlite:PATH?shared&server-lease=90s",
        parameter.escape_debug()
    )]
    Parameter {
        /// As given.
        given: String,
        /// Of what stands behind the question mark.
        parameter: String,
    },
    /// `?server-lease=` of what is none.
    #[error("{given:?}: server-lease: {why}")]
    Lease {
        /// As given.
        given: String,
        /// The matter, and what to write.
        why: String,
    },
    /// `postgres:` and others of the design that are not there yet.
    #[error("{0}: is not there yet: use sqlite:PATH or lockfile:DIRECTORY")]
    Later(String),
    /// Anything else.
    #[error("{0:?} is no store: write sqlite:PATH, sqlite:PATH?shared or lockfile:DIRECTORY")]
    Unknown(String),
}

const LATER: &[&str] = &[
    "postgres",
    "postgresql",
    "redis",
    "rediss",
    "mysql",
    "mariadb",
    "etcd",
];

/// Reads `sqlite:PATH`, `sqlite:PATH?shared` or `lockfile:DIRECTORY`, with `?server-lease=` or `&server-lease=` behind them. A relative path is taken from `folder`,
/// which is absolute. Nothing is looked up.
pub fn parse_store_url(text: &OsStr, folder: &Path) -> Result<StoreUrl, UrlError> {
    let given = || text.to_string_lossy().into_owned();
    let bytes = text.as_bytes();
    let Some(colon) = bytes.iter().position(|&b| b == b':') else {
        return Err(UrlError::Unknown(given()));
    };
    let (scheme, path) = (
        String::from_utf8_lossy(&bytes[..colon]).to_ascii_lowercase(),
        &bytes[colon + 1..],
    );
    let (known, example) = match scheme.as_str() {
        "sqlite" => ("sqlite", "joblock.db"),
        "lockfile" => ("lockfile", "locks"),
        other if LATER.contains(&other) => return Err(UrlError::Later(other.to_owned())),
        _ => return Err(UrlError::Unknown(given())),
    };
    if path.starts_with(b"//") {
        return Err(UrlError::Slashes {
            given: given(),
            scheme: known,
            example,
        });
    }
    let (path, parameters) = match path.iter().rposition(|&b| b == b'?') {
        Some(mark) => (&path[..mark], Some(&path[mark + 1..])),
        None => (path, None),
    };
    let (mut shared, mut server_lease) = (false, None);
    for parameter in parameters.iter().flat_map(|p| p.split(|&b| b == b'&')) {
        match String::from_utf8_lossy(parameter).split_once('=') {
            None if parameter == b"shared" && known == "sqlite" => shared = true,
            Some(("server-lease", value)) if server_lease.is_none() => {
                server_lease = Some(server_lease_of(value).map_err(|why| UrlError::Lease {
                    given: given(),
                    why,
                })?);
            }
            _ => {
                return Err(UrlError::Parameter {
                    given: given(),
                    parameter: String::from_utf8_lossy(parameter).into_owned(),
                });
            }
        }
    }
    if path.is_empty() {
        return Err(UrlError::NoPath(given()));
    }
    let path = without_dots(&folder.join(OsString::from_vec(path.to_vec())));
    Ok(if known == "sqlite" {
        StoreUrl::Sqlite {
            path,
            shared,
            server_lease,
        }
    } else {
        StoreUrl::Lockfile {
            directory: path,
            server_lease,
        }
    })
}

/// The server's, so the user can't choose it: one that is too short for a job to be ended in is told before it is tried.
fn server_lease_of(text: &str) -> Result<Duration, String> {
    let lease = duration::finite(text).map_err(|e| e.to_string())?;
    if lease < Timing::MIN {
        return Err(format!(
            "in {} no job can be ended and known to be gone: it takes {}; have the server give longer leases",
            duration::text(lease),
            duration::text(Timing::MIN)
        ));
    }
    // whole milliseconds, as they are written again
    Ok(Duration::from_millis(
        u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
    ))
}

/// `.` removed; `..` stays, since behind a symbolic link it leads elsewhere than it looks.
fn without_dots(path: &Path) -> PathBuf {
    path.components()
        .filter(|c| *c != Component::CurDir)
        .collect()
}

/// The store's URL as text, for messages and for `$JOBLOCK_STORE`: what [`parse_store_url`] reads back.
pub fn store_url_text(url: &StoreUrl) -> OsString {
    let (scheme, path, shared, server_lease) = match url {
        StoreUrl::Sqlite {
            path,
            shared,
            server_lease,
        } => ("sqlite:", path, *shared, server_lease),
        StoreUrl::Lockfile {
            directory,
            server_lease,
        } => ("lockfile:", directory, false, server_lease),
    };
    let mut text = OsString::from(scheme);
    text.push(path);
    let lease = server_lease.map(|lease| format!("server-lease={}", duration::text(lease)));
    let parameters = [shared.then(|| "shared".to_owned()), lease];
    for (parameter, mark) in parameters.into_iter().flatten().zip(["?", "&"]) {
        text.push(mark);
        text.push(parameter);
    }
    text
}

/// Which store. Looks at nothing but its arguments: whether the store is there and lets us in is found out by opening it.
pub fn locate_store(
    option: Option<&OsStr>,
    file: Option<&JobsFile>,
    environment: &Environment,
) -> Result<Located, PlanError> {
    let pinned = file
        .and_then(|f| f.store_id.as_ref())
        .map(|at| at.value.clone());
    let found = |url, source, unasked| {
        Ok(Located {
            url,
            source,
            pinned: pinned.clone(),
            unasked,
        })
    };
    if let Some(text) = option {
        let url = parse_store_url(text, &environment.cwd).map_err(|why| PlanError::Store {
            place: Source::Option("--store"),
            why,
        })?;
        return found(url, Source::Option("--store"), false);
    }
    let variable = environment.store.as_deref().map(|text| {
        let place = Source::Variable("$JOBLOCK_STORE");
        parse_store_url(text, &environment.cwd).map_err(|why| PlanError::Store { place, why })
    });
    let named = file.and_then(|f| f.store.as_ref().map(|at| (f, at)));
    match (named, variable) {
        (Some((file, at)), variable) => {
            let source = Source::File {
                path: file.path.clone(),
                line: at.line,
            };
            if let Some(url) = variable.transpose()?
                && !same_place(&url, &at.value)
            {
                return Err(PlanError::TwoStores {
                    variable: store_url_text(&url).to_string_lossy().into_owned(),
                    file: store_url_text(&at.value).to_string_lossy().into_owned(),
                    place: source,
                });
            }
            found(at.value.clone(), source, false)
        }
        (None, Some(url)) => found(url?, Source::Variable("$JOBLOCK_STORE"), false),
        (None, None) if environment.euid == 0 || environment.system_folder => {
            let source = if environment.euid == 0 {
                Source::Default("root's store")
            } else {
                Source::Default("the machine's store")
            };
            found(machines_store(), source, false)
        }
        (None, None) => {
            let folder = state_folder(environment).ok_or(PlanError::NoHome)?;
            let url = StoreUrl::Sqlite {
                path: folder.join("joblock/joblock.db"),
                shared: false,
                server_lease: None,
            };
            found(url, Source::Default("the user's own store"), true)
        }
    }
}

/// `/var/lib/joblock/joblock.db`.
pub fn machines_store() -> StoreUrl {
    StoreUrl::Sqlite {
        path: Path::new(SYSTEM_FOLDER).join("joblock.db"),
        shared: false,
        server_lease: None,
    }
}

/// `?shared` says how to create a store, `?server-lease` what its server does: not which one it is.
fn same_place(one: &StoreUrl, other: &StoreUrl) -> bool {
    match (one, other) {
        (StoreUrl::Sqlite { path: one, .. }, StoreUrl::Sqlite { path: other, .. })
        | (
            StoreUrl::Lockfile { directory: one, .. },
            StoreUrl::Lockfile {
                directory: other, ..
            },
        ) => one == other,
        _ => false,
    }
}

/// The XDG base directory specification has relative values ignored.
fn state_folder(environment: &Environment) -> Option<PathBuf> {
    let given = environment.state_home.clone().filter(|p| p.is_absolute());
    given.or_else(|| {
        Some(
            environment
                .home
                .as_ref()
                .filter(|h| h.is_absolute())?
                .join(".local/state"),
        )
    })
}

/// A container's PID 1 whose store is on the container's own overlay shares its lock with nobody: every other
/// container, and this one when it is made anew, would see an empty store. `on_overlay` is asked only if it matters.
pub fn refuse_private_store(
    store: &StoreUrl,
    is_pid_1: bool,
    private_store: bool,
    on_overlay: impl FnOnce(&Path) -> bool,
) -> Result<(), StoreError> {
    let path = match store {
        StoreUrl::Sqlite { path, .. } => path,
        StoreUrl::Lockfile { directory, .. } => directory,
    };
    if !is_pid_1 || private_store || !on_overlay(path) {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "the store {} is inside this container, where no other container can see its locks: mount a volume there, name \
         another store with --store, or say --private-store if this container is the only place the job starts from",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn url(text: &str) -> Result<StoreUrl, UrlError> {
        parse_store_url(text.as_ref(), Path::new("/here"))
    }

    #[rstest]
    #[case("sqlite:/a/b.db", "sqlite:/a/b.db")]
    #[case("SQLite:/a/b.db", "sqlite:/a/b.db")]
    #[case("sqlite:b.db", "sqlite:/here/b.db")]
    #[case("sqlite:./b.db", "sqlite:/here/b.db")]
    #[case("sqlite:../b.db", "sqlite:/here/../b.db")]
    #[case("sqlite:/a/b.db?shared", "sqlite:/a/b.db?shared")]
    #[case("sqlite:/a/what?.db?shared", "sqlite:/a/what?.db?shared")]
    #[case("sqlite:/a?server-lease=90", "sqlite:/a?server-lease=1m30s")]
    #[case(
        "sqlite:/a?server-lease=90s&shared",
        "sqlite:/a?shared&server-lease=1m30s"
    )]
    #[case("lockfile:/a?server-lease=2.0005s", "lockfile:/a?server-lease=2s")]
    #[case("lockfile:/a/locks", "lockfile:/a/locks")]
    #[case("lockfile:locks/", "lockfile:/here/locks")]
    fn urls(#[case] text: &str, #[case] is: &str) {
        let url = url(text).unwrap();
        assert_eq!(store_url_text(&url), is);
        assert_eq!(
            parse_store_url(is.as_ref(), Path::new("/elsewhere")),
            Ok(url)
        );
    }

    #[rstest]
    #[case("sqlite:///a/b.db", "write sqlite:PATH")]
    #[case("sqlite://a/b.db", "write sqlite:PATH")]
    #[case("lockfile:///locks", "write lockfile:PATH")]
    #[case("sqlite:", "names no path")]
    #[case("sqlite:?shared", "names no path")]
    #[case("sqlite:/a?share", "there are shared")]
    #[case("sqlite:/a?\u{1b}[2J", "the parameter \\u{1b}[2J,")]
    #[case("lockfile:/a?shared", "the parameter shared, which is unknown")]
    #[case("lockfile:/a?server-lease", "the parameter server-lease,")]
    #[case(
        "lockfile:/a?server-lease=9s&server-lease=8s",
        "the parameter server-lease=8s"
    )]
    #[case("lockfile:/a?server-lease=soon", "server-lease: ")]
    #[case("lockfile:/a?server-lease=forever", "server-lease: ")]
    #[case(
        "lockfile:/a?server-lease=1.9s",
        "in 1s900ms no job can be ended and known to be gone: it takes 2s"
    )]
    #[case("postgres://host/db", "not there yet")]
    #[case("redis:host", "not there yet")]
    #[case("/var/lib/joblock.db", "is no store")]
    #[case("file:/a", "is no store")]
    #[case("", "is no store")]
    fn no_urls(#[case] text: &str, #[case] says: &str) {
        let message = url(text).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }

    fn file(text: &str) -> JobsFile {
        JobsFile::parse(Path::new("/etc/joblock/joblock.toml"), text).unwrap()
    }

    struct At<'a> {
        option: Option<&'a str>,
        file: Option<&'a str>,
        variable: Option<&'a str>,
        euid: u32,
        system_folder: bool,
        state_home: Option<&'a str>,
        home: Option<&'a str>,
    }

    const USER: At = At {
        option: None,
        file: None,
        variable: None,
        euid: 1000,
        system_folder: false,
        state_home: None,
        home: Some("/home/u"),
    };
    const NAMED: Option<&str> = Some("store = \"sqlite:/f.db\"");

    #[rstest]
    #[case::option_wins(At { option: Some("sqlite:o.db"), file: NAMED, variable: Some("sqlite:/v.db"), ..USER }, "sqlite:/here/o.db", "--store")]
    #[case::file(At { file: NAMED, ..USER }, "sqlite:/f.db", "/etc/joblock/joblock.toml:1")]
    #[case::file_and_the_same_variable(At { file: NAMED, variable: Some("sqlite:/f.db?shared"), ..USER }, "sqlite:/f.db", "/etc/joblock/joblock.toml:1")]
    #[case::variable(At { variable: Some("sqlite:/v.db"), euid: 0, ..USER }, "sqlite:/v.db", "$JOBLOCK_STORE")]
    #[case::root(At { euid: 0, ..USER }, "sqlite:/var/lib/joblock/joblock.db", "default (root's store)")]
    #[case::machine(At { system_folder: true, ..USER }, "sqlite:/var/lib/joblock/joblock.db", "default (the machine's store)")]
    #[case::state_home(At { state_home: Some("/state"), ..USER }, "sqlite:/state/joblock/joblock.db", "default (the user's own store)")]
    #[case::relative_state_home(At { state_home: Some("state"), ..USER }, "sqlite:/home/u/.local/state/joblock/joblock.db", "default (the user's own store)")]
    #[case::home(
        USER,
        "sqlite:/home/u/.local/state/joblock/joblock.db",
        "default (the user's own store)"
    )]
    fn stores(#[case] at: At, #[case] is: &str, #[case] source: &str) {
        let located = locate(&at).unwrap();
        assert_eq!(
            (
                store_url_text(&located.url).to_str().unwrap(),
                located.source.to_string().as_str()
            ),
            (is, source)
        );
        assert_eq!(located.unasked, source.contains("user's own"));
    }

    fn locate(at: &At) -> Result<Located, PlanError> {
        let environment = Environment {
            store: at.variable.map(OsString::from),
            euid: at.euid,
            system_folder: at.system_folder,
            state_home: at.state_home.map(PathBuf::from),
            home: at.home.map(PathBuf::from),
            cwd: "/here".into(),
            ..Environment::default()
        };
        locate_store(
            at.option.map(OsStr::new),
            at.file.map(file).as_ref(),
            &environment,
        )
    }

    #[rstest]
    #[case(At { file: NAMED, variable: Some("sqlite:/v.db"), ..USER }, "$JOBLOCK_STORE is sqlite:/v.db")]
    #[case(At { file: NAMED, variable: Some("lockfile:/f.db"), ..USER }, "unset the variable")]
    #[case(At { variable: Some("what"), ..USER }, "$JOBLOCK_STORE: \"what\" is no store")]
    #[case(At { option: Some("what"), ..USER }, "--store: \"what\" is no store")]
    #[case(At { home: None, ..USER }, "--store")]
    fn no_stores(#[case] at: At, #[case] says: &str) {
        let message = locate(&at).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }

    #[rstest]
    #[case::container(true, false, true, false)]
    #[case::volume(true, false, false, true)]
    #[case::allowed(true, true, true, true)]
    #[case::not_pid_1(false, false, true, true)]
    fn a_store_on_the_overlay_of_pid_1(
        #[case] pid_1: bool,
        #[case] allowed: bool,
        #[case] overlay: bool,
        #[case] fine: bool,
    ) {
        let located = locate(&USER).unwrap();
        assert_eq!(
            refuse_private_store(&located.url, pid_1, allowed, |_| overlay).is_ok(),
            fine
        );
    }
}
