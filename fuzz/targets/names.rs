//! Names of jobs, locks and runs: what is accepted is harmless as a file's name, in a table and on a command line.

use std::path::{Component, Path};

use joblock::cli::{self, Target};
use joblock::name::{JobName, LockName, RunId};

use super::readable;

pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let text = text.as_ref();
    let job = text.parse::<JobName>();
    assert_eq!(job.is_ok(), text.parse::<LockName>().is_ok());
    match &job {
        Ok(name) => {
            let name = name.as_str();
            assert_eq!(name, text);
            assert!((1..=128).contains(&name.len()) && name.is_ascii());
            assert!(!name.starts_with(['-', '.', '_', '@', '+']));
            let file = format!("{name}.lock");
            let parts: Vec<_> = Path::new(&file).components().collect();
            assert_eq!(parts, [Component::Normal(file.as_ref())]);
            assert!(text.parse::<RunId>().is_err(), "job and run in one");
            let json = serde_json::to_string(name).expect("JSON");
            assert_eq!(
                serde_json::from_str::<JobName>(&json).ok().as_ref(),
                job.as_ref().ok()
            );
        }
        Err(e) => readable(&e.to_string(), text.len()),
    }
    match text.parse::<RunId>() {
        Ok(id) => {
            assert!(id.as_str() == text && text.starts_with(id.short()));
            assert!(serde_json::from_str::<RunId>(&format!("\"{text}\"")).is_ok());
        }
        Err(e) => readable(&e.to_string(), text.len()),
    }
    match text.parse::<Target>() {
        Ok(target) => assert!(target.as_job().is_some() || target.as_run_prefix().is_some()),
        Err(e) => readable(&e.to_string(), text.len()),
    }
    for refused in [
        cli::reason(text).err(),
        cli::tag(text).err(),
        cli::signal(text).err(),
    ]
    .into_iter()
    .flatten()
    {
        readable(&refused, text.len());
    }
    if let Ok(signal) = cli::signal(text) {
        assert!((1..=64).contains(&signal));
    }
}
