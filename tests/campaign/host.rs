//! A host of the campaign: what starts a job there, and by which name it knows the store.

use std::io;
use std::process::{Child, Command};

/// See the module.
pub struct Host {
    url: String,
}

impl Host {
    /// This machine as it is.
    pub fn here(url: String) -> Host {
        Host { url }
    }

    /// The store as it is called there.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts `command` there.
    pub fn spawn(&self, mut command: Command) -> io::Result<Child> {
        command.spawn()
    }
}
