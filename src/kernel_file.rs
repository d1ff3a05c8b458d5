//! Files that the kernel makes up as they are read: /proc and the cgroup file systems.

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;

/// All of it. Their size is told as 0, so that std begins with reads of 32 bytes and needs ten calls for what takes four.
///
/// # Errors
/// open(2)'s and read(2)'s.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file = rustix::fs::open(
        path.as_ref(),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut all = vec![0; 8192];
    let mut length = 0;
    loop {
        // A short read is no sign of the end: these files give whole lines.
        let n = retry_on_intr(|| rustix::io::read(&file, &mut all[length..]))?;
        if n == 0 {
            all.truncate(length);
            return Ok(all);
        }
        length += n;
        if length == all.len() {
            all.resize(2 * length, 0);
        }
    }
}

/// As [`read`], as text; what is no UTF-8 (a path in a mount table) is replaced.
///
/// # Errors
/// As [`read`].
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    read(path).map(|bytes| match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_longer_than_the_buffer_is_read_to_its_end() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for length in [0, 1, 8191, 8192, 8193, 100_000] {
            let bytes: Vec<u8> = (0..length).map(|n| b'a' + (n % 26) as u8).collect();
            std::fs::write(file.path(), &bytes).expect("write");
            assert_eq!(read(file.path()).expect("read"), bytes);
        }
        assert!(
            text("/proc/self/mountinfo")
                .expect("read")
                .contains(" /proc ")
        );
        assert!(read("/proc/no such file").is_err());
    }
}
