//! The folder of a write-ahead log is synced when the log is new, and not by every connection.
//!
//! SQLite opens a log with `O_CREAT`, takes it for new, and syncs its folder at the first commit of each connection:
//! a third sync in every run. Here its own sync is left out for names that end in `-wal` and done by [`sync_if_new`]. Journals
//! of shared stores, whose creation and deletion is what makes a commit durable, are synced by SQLite as ever.

use std::ffi::{CStr, c_char, c_int};
use std::fs::{self, File};
use std::mem;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

use rusqlite::ffi;

/// `openDirectory` in the table of system calls of SQLite's unix VFS (`sqlite3_vfs`, "xSetSystemCall"): opens the folder of a file.
type OpenDirectory = unsafe extern "C" fn(*const c_char, *mut c_int) -> c_int;

/// SQLite's own; `None`: it could not be replaced, and goes on as ever.
static SQLITES: OnceLock<Option<OpenDirectory>> = OnceLock::new();

/// Must be called before a database is opened.
pub fn leave_to_us() {
    SQLITES.get_or_init(|| {
        let name = c"openDirectory".as_ptr();
        // SAFETY: documented calls of the default VFS, which lives as long as the process, with a C string. The pointer
        // that comes back under this name is a function of that type, and so is the one that takes its place.
        unsafe {
            let vfs = ffi::sqlite3_vfs_find(ptr::null());
            let vfs_ref = vfs.as_ref()?;
            let sqlites = vfs_ref.xGetSystemCall?(vfs, name)?;
            let ours: unsafe extern "C" fn() =
                mem::transmute::<OpenDirectory, unsafe extern "C" fn()>(open_directory);
            let set = vfs_ref.xSetSystemCall?(vfs, name, Some(ours));
            (set == ffi::SQLITE_OK)
                .then(|| mem::transmute::<unsafe extern "C" fn(), OpenDirectory>(sqlites))
        }
    });
}

/// SQLite takes `SQLITE_CANTOPEN` for "there is nothing to sync here".
unsafe extern "C" fn open_directory(path: *const c_char, folder: *mut c_int) -> c_int {
    // SAFETY: SQLite gives the name of one of its files.
    let is_log = unsafe { CStr::from_ptr(path) }
        .to_bytes()
        .ends_with(b"-wal");
    match SQLITES.get() {
        // SAFETY: what we were called with, to the function that would have been called.
        Some(Some(sqlites)) if !is_log => unsafe { sqlites(path, folder) },
        _ => ffi::SQLITE_CANTOPEN,
    }
}

/// Syncs the folder of the database at `path` if nothing was ever committed to its log: before the first commit to a log that was
/// just made. Call it while the database is open and was read: nobody else can remove the log then.
pub fn sync_if_new(path: &Path) {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if fs::metadata(log).is_ok_and(|log| log.len() > 0) {
        return;
    }
    // as SQLite does: some systems can't sync a folder
    if let Some(folder) = path.parent().and_then(|folder| File::open(folder).ok()) {
        let _ = folder.sync_all();
    }
}
