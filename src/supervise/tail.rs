//! The last bytes of the job's output, in a memory file that front writes and the keeper reads: what front has pumped is
//! not lost with front.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::store::record::Tail;

/// Where the ring begins; before it stands the number of bytes written in all.
const RING: u64 = 8;

/// Shared by fork: each side has its own copy of this value and the same memory behind it.
pub struct TailFile {
    file: File,
    limit: usize,
    total: u64,
}

impl TailFile {
    /// An empty one that keeps `limit` bytes.
    pub fn new(limit: usize) -> io::Result<TailFile> {
        let file = File::from(memfd_create("joblock-tail", MemfdFlags::CLOEXEC)?);
        Ok(TailFile {
            file,
            limit,
            total: 0,
        })
    }

    /// Adds what the job wrote. Front's side. Output that can't be kept (no memory) is passed on all the same.
    pub fn add(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(self.limit)..];
        let begin = self.total + (bytes.len() - kept.len()) as u64;
        let at = self.place(begin);
        let (first, second) = kept.split_at(kept.len().min(self.limit - at));
        let _ = self.file.write_all_at(first, RING + at as u64);
        let _ = self.file.write_all_at(second, RING);
        self.total += bytes.len() as u64;
        let _ = self.file.write_all_at(&self.total.to_ne_bytes(), 0);
    }

    fn place(&self, offset: u64) -> usize {
        // Smaller than `limit`, which is a usize.
        usize::try_from(offset % self.limit.max(1) as u64).unwrap_or(0)
    }

    /// How many bytes front has added so far. The keeper's side.
    pub fn total(&self) -> u64 {
        let mut total = [0; 8];
        match self.file.read_exact_at(&mut total, 0) {
            Ok(()) => u64::from_ne_bytes(total),
            Err(_) => 0,
        }
    }

    /// The last bytes. While front goes on adding, the oldest of them may already be newer ones.
    pub fn read(&self) -> Tail {
        let total = self.total();
        let length = self.limit.min(usize::try_from(total).unwrap_or(usize::MAX));
        let mut bytes = vec![0; length];
        let at = self.place(total - length as u64);
        let first = length.min(self.limit - at);
        let (head, rest) = bytes.split_at_mut(first);
        if self
            .file
            .read_exact_at(head, RING + at as u64)
            .and_then(|()| self.file.read_exact_at(rest, RING))
            .is_err()
        {
            bytes.clear();
        }
        Tail { bytes, total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_tail_is_the_end_of_all_that_was_added(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
            limit in 1usize..50,
        ) {
            let mut tail = TailFile::new(limit).expect("memfd");
            for chunk in &chunks {
                tail.add(chunk);
            }
            let all = chunks.concat();
            let expected = &all[all.len().saturating_sub(limit)..];
            let read = tail.read();
            prop_assert_eq!(read.total, all.len() as u64);
            prop_assert_eq!(&read.bytes[..], expected);
        }
    }
}
