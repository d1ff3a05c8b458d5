//! The lock file's format: blocks of 4096 bytes, each written whole and checked by its own sum.
//!
//! | block | holds |
//! |---|---|
//! | 0 to 3 | the holder: [`Slot`]; the two of a grant are written in turn, so that a torn write leaves the one before |
//! | 4 | a request to stop |
//! | 5 | a revocation |
//! | 6 to 9 | [`Claim`]s |
//!
//! Which of them is whose is said in [`crate::lease::blocks`].
//!
//! A block begins with `joblock\n`, the format's version (4 bytes, little endian), the length of what follows
//! (4 bytes), its FNV-1a sum (8 bytes) and then JSON.
//!
//! Not guaranteed: anything against somebody who may write the file and means harm. The sum is against torn writes.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::{Boot, Wall};
use crate::lease::blocks;
use crate::name::{RunId, Token};
use crate::store::Holder;

/// The size of a block, and the alignment that `O_DIRECT` asks for on every file system known.
pub const BLOCK: usize = 4096;
/// The size of a lock file.
pub const SIZE: u64 = 10 * BLOCK as u64;
/// The newest version of a block that this program reads, and the one that it writes.
pub const VERSION: u32 = 1;

/// The most that a holder may take as JSON, so that its slot fits into a block.
pub const HOLDER: usize = 3800;

const MAGIC: &[u8; 8] = b"joblock\n";
const HEADER: usize = 24;

/// Which block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The slot of a grant and a renewal.
    Slot(Token, u64),
    /// The request to stop.
    Stop,
    /// The revocation.
    Revoke,
    /// The claim on this grant.
    Claim(Token),
}

impl Place {
    fn offset(self) -> u64 {
        let block = match self {
            Place::Slot(token, seq) => blocks::slot(token, seq),
            Place::Stop => blocks::STOP,
            Place::Revoke => blocks::REVOKE,
            Place::Claim(token) => blocks::claim(token),
        };
        block * BLOCK as u64
    }
}

/// What a holder says of itself at each heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its grant.
    pub token: Token,
    /// Its run.
    pub owner: RunId,
    /// How often it has been written in this grant.
    pub seq: u64,
    /// The lock was released.
    pub released: bool,
    /// The lease's length in milliseconds.
    pub ttl_ms: u64,
    /// When, on the wall clock.
    pub at: Wall,
    /// When, on the holder's BOOTTIME.
    pub sent: Boot,
    /// Who.
    pub holder: Holder,
}

impl Slot {
    /// The lease's length.
    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }
}

/// That somebody set out to take the lock over from the holder of `token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The grant that is over.
    pub token: Token,
    /// The run that wants the lock.
    pub by: RunId,
}

/// What a block holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block<T> {
    /// Nothing was ever written there.
    Empty,
    /// It is being written, or was torn by a crash, or is damaged.
    Torn,
    /// Written by a newer joblock, of this version.
    Newer(u32),
    /// This.
    Whole(T),
}

impl<T> Block<T> {
    /// What it holds, if it is whole.
    pub fn whole(self) -> Option<T> {
        match self {
            Block::Whole(value) => Some(value),
            _ => None,
        }
    }
}

/// FNV-1a, 64 bits.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn encode<T: Serialize>(value: &T, block: &mut [u8]) -> io::Result<()> {
    let json = serde_json::to_vec(value)?;
    let room = block.get_mut(HEADER..HEADER + json.len()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} bytes don't fit into a block of the lock file",
                json.len()
            ),
        )
    })?;
    room.copy_from_slice(&json);
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    block[..8].copy_from_slice(MAGIC);
    block[8..12].copy_from_slice(&VERSION.to_le_bytes());
    block[12..16].copy_from_slice(&length.to_le_bytes());
    block[16..24].copy_from_slice(&sum(&json).to_le_bytes());
    Ok(())
}

fn decode<T: DeserializeOwned>(block: &[u8]) -> Block<T> {
    fn whole<T: DeserializeOwned>(block: &[u8]) -> Option<Block<T>> {
        let (magic, rest) = block.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (expected, rest) = rest.split_first_chunk::<8>()?;
        let json = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        if magic != MAGIC || sum(json) != u64::from_le_bytes(*expected) {
            return None;
        }
        let version = u32::from_le_bytes(*version);
        if version > VERSION {
            Some(Block::Newer(version))
        } else {
            serde_json::from_slice(json).ok().map(Block::Whole)
        }
    }
    if block.iter().all(|&b| b == 0) {
        Block::Empty
    } else {
        whole(block).unwrap_or(Block::Torn)
    }
}

/// Runs `f` on a block of zeros whose address is a multiple of its size, as `O_DIRECT` wants it (open(2)).
fn with_aligned<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut memory = vec![0; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    f(&mut memory[start..start + BLOCK])
}

fn read_raw(file: impl AsFd, offset: u64, block: &mut [u8]) -> io::Result<()> {
    block.fill(0);
    let mut filled = 0;
    while filled < block.len() {
        match rustix::io::pread(&file, &mut block[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads a block. One that is torn is read again a few times: its writer may be at it.
pub fn read<T: DeserializeOwned>(file: &File, place: Place) -> io::Result<Block<T>> {
    read_at(file, place.offset())
}

/// As [`read`], for another file of such blocks.
pub fn read_at<T: DeserializeOwned>(file: &File, offset: u64) -> io::Result<Block<T>> {
    with_aligned(|block| {
        let mut tries = 0;
        loop {
            read_raw(file, offset, block)?;
            let found = decode(block);
            if !matches!(found, Block::Torn) || tries == 5 {
                return Ok(found);
            }
            tries += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
    })
}

/// Reads the first block through any descriptor, to learn whether it can be read at all.
pub fn touch(fd: impl AsFd) -> io::Result<()> {
    with_aligned(|block| read_raw(fd, 0, block))
}

/// Writes a block; `durable`: and waits until it is on the disk, or on the server.
pub fn write<T: Serialize>(file: &File, place: Place, value: &T, durable: bool) -> io::Result<()> {
    write_at(file, place.offset(), value, durable)
}

/// As [`write()`], for another file of such blocks.
pub fn write_at<T: Serialize>(
    file: &File,
    offset: u64,
    value: &T,
    durable: bool,
) -> io::Result<()> {
    with_aligned(|block| {
        encode(value, block)?;
        // one call: readers then see the old block or the new one on every file system that locks the page or the inode
        let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, block, offset))?;
        if written != block.len() {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "a block of the lock file was written in part",
            ));
        }
        if durable { file.sync_data() } else { Ok(()) }
    })
}

/// Writes all blocks of a file in which nothing stands yet, empty.
pub fn fill(file: &File) -> io::Result<()> {
    with_aligned(|block| {
        for offset in (0..SIZE).step_by(BLOCK) {
            rustix::io::retry_on_intr(|| rustix::io::pwrite(file, block, offset))?;
        }
        file.sync_data()
    })
}

/// What stands in the holder slots of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders {
    /// The newest slot.
    pub newest: Option<Slot>,
    /// The version of a slot that is too new to be read.
    pub newer: Option<u32>,
}

/// Reads the holder slots of a file.
pub fn holders(file: &File) -> io::Result<Holders> {
    let mut found = Holders::default();
    for (token, seq) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        match read::<Slot>(file, Place::Slot(Token(token), seq))? {
            Block::Whole(slot) => {
                if found
                    .newest
                    .as_ref()
                    .is_none_or(|b| blocks::newer((slot.token, slot.seq), (b.token, b.seq)))
                {
                    found.newest = Some(slot);
                }
            }
            Block::Newer(version) => found.newer = Some(version),
            Block::Empty | Block::Torn => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn claim(n: u64) -> Claim {
        Claim {
            token: Token(n),
            by: RunId::random(),
        }
    }

    #[test]
    fn what_was_written_is_read_and_blocks_are_apart() {
        let file = tempfile::tempfile().expect("a file");
        assert_eq!(
            read::<Claim>(&file, Place::Claim(Token(1))).expect("read"),
            Block::Empty
        );
        let claims: Vec<_> = (1..=4).map(claim).collect();
        for c in &claims {
            write(&file, Place::Claim(c.token), c, true).expect("write");
        }
        for c in claims {
            assert_eq!(
                read(&file, Place::Claim(c.token)).expect("read"),
                Block::Whole(c)
            );
        }
        assert_eq!(
            read::<Claim>(&file, Place::Stop).expect("read"),
            Block::Empty
        );
    }

    #[test]
    fn a_newer_block_and_foreign_bytes_are_told_apart() {
        let mut block = vec![0; BLOCK];
        encode(&claim(1), &mut block).expect("fits");
        block[8] = 2;
        assert_eq!(decode::<Claim>(&block), Block::Newer(2));
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"these are not the bytes you are looking for")
            .expect("write");
        assert_eq!(
            read::<Claim>(&file, Place::Slot(Token(0), 0)).expect("read"),
            Block::Torn
        );
    }

    #[test]
    fn each_byte_counts_in_the_sum() {
        let block = vec![1; BLOCK];
        for at in [0, 1, BLOCK / 2, BLOCK - 1] {
            let mut other = block.clone();
            other[at] = 2;
            assert_ne!(sum(&block), sum(&other), "{at}");
        }
    }

    #[test]
    fn all_blocks_are_within_the_size_of_a_lock_file() {
        let tokens = [Token(0), Token(1)];
        let of_token = |token| {
            [
                Place::Slot(token, 0),
                Place::Slot(token, 1),
                Place::Claim(token),
            ]
        };
        let places = tokens.into_iter().flat_map(of_token);
        let last = places
            .chain([Place::Stop, Place::Revoke])
            .map(super::Place::offset)
            .max();
        assert!(last.is_some_and(|last| last + BLOCK as u64 <= SIZE));
        let file = tempfile::tempfile().expect("a file");
        fill(&file).expect("written");
        assert_eq!(file.metadata().expect("stat").len(), SIZE);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(encode(&"x".repeat(BLOCK), &mut vec![0; BLOCK]).is_err());
    }

    proptest! {
        #[test]
        fn a_torn_block_is_never_taken_for_whole(cut in 0usize..BLOCK, old in 0u64..1000, new in 0u64..1000) {
            let (old, new) = (claim(old), claim(new));
            let (mut was, mut is) = (vec![0; BLOCK], vec![0; BLOCK]);
            encode(&old, &mut was).expect("fits");
            encode(&new, &mut is).expect("fits");
            was[..cut].copy_from_slice(&is[..cut]);
            match decode::<Claim>(&was) {
                Block::Whole(found) => prop_assert!(found == old || found == new),
                other => prop_assert_eq!(other, Block::Torn),
            }
        }

        #[test]
        fn any_bytes_decode_to_something(bytes in prop::collection::vec(any::<u8>(), 0..BLOCK)) {
            let _ = decode::<Claim>(&bytes);
        }
    }
}
