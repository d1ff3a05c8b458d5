//! A store's URL: an accepted one is printed as what reads back the same, and its path is absolute.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use joblock::plan::{parse_store_url, store_url_text};
use joblock::store::StoreUrl;

use super::readable;

pub fn check(data: &[u8]) {
    match parse_store_url(OsStr::from_bytes(data), Path::new("/here")) {
        Ok(url) => {
            let (StoreUrl::Sqlite { path, .. }
            | StoreUrl::Lockfile {
                directory: path, ..
            }) = &url;
            assert!(path.is_absolute());
            let text = store_url_text(&url);
            assert_eq!(
                parse_store_url(&text, Path::new("/elsewhere")),
                Ok(url),
                "{}",
                text.display()
            );
        }
        Err(e) => readable(&e.to_string(), data.len()),
    }
}
