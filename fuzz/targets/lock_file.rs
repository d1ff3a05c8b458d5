//! A lock file with anything in its blocks: raw bytes, or JSON below a right sum.

use std::cell::RefCell;
use std::fs::{self, File};

use joblock::store::lockfile::slots::{self, BLOCK, VERSION};

use super::past::{FREE, HELD, KINDS, Past, TOKEN};
use super::{Input, inside};

thread_local! {
    static PASTS: RefCell<Vec<Past>> = RefCell::new(KINDS.map(Past::new).into());
}

pub fn check(data: &[u8]) {
    PASTS.with_borrow(|pasts| {
        let mut input = Input(data);
        let past = &pasts[usize::from(input.byte().unwrap_or_default()) % pasts.len()];
        past.restore();
        while let Some(what) = input.byte() {
            let lock = if what & 0x80 == 0 { FREE } else { HELD };
            write(past, lock, what & 0x7f, &mut input);
        }
        // what a row knows, and what a whole slot says, is never given again
        let file = File::open(past.lock_file(FREE)).expect("a lock file");
        let newest = slots::holders(&file).expect("read").newest;
        let floor = newest.map(|slot| slot.token).max(Some(TOKEN));
        inside::check(past, floor);
    });
}

fn write(past: &Past, lock: &str, what: u8, input: &mut Input<'_>) {
    let path = past.lock_file(lock);
    let mut bytes = fs::read(&path).expect("a lock file");
    bytes.resize(bytes.len().max(10 * BLOCK), 0);
    let block = usize::from(what % 10) * BLOCK;
    match what / 10 % 4 {
        0 => {
            let json = Past::filled_in(input.until(0));
            let json = &json[..json.len().min(BLOCK - 24)];
            bytes[block..block + BLOCK].fill(0);
            bytes[block..block + 24 + json.len()].copy_from_slice(&sealed(VERSION, json));
        }
        1 => {
            let raw = input.until(0);
            let raw = &raw[..raw.len().min(BLOCK)];
            bytes[block..block + raw.len()].copy_from_slice(raw);
        }
        2 => {
            let at = block + usize::from(input.byte().unwrap_or_default()) * 16;
            bytes[at.min(block + BLOCK - 1)] ^= input.byte().unwrap_or(1);
        }
        _ => bytes.truncate(block + usize::from(input.byte().unwrap_or_default())),
    }
    fs::write(&path, bytes).expect("written");
}

/// A block's header and contents, as the format is described in `slots`.
fn sealed(version: u32, json: &[u8]) -> Vec<u8> {
    let sum = json.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let length = u32::try_from(json.len()).expect("a block's");
    [
        b"joblock\n",
        &version.to_le_bytes()[..],
        &length.to_le_bytes(),
        &sum.to_le_bytes(),
        json,
    ]
    .concat()
}
