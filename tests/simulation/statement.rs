//! The statements of `store::sqlite::locks`, on a value. `tests/simulation.rs` compares them with those on a real database.

use std::time::Duration;

use crate::lease::row::Row;
use crate::lease::takeover::FileId;
use crate::name::{RunId, Token};

pub fn grant<H>(
    row: &mut Option<Row<H>>,
    token: Token,
    owner: RunId,
    ttl: Duration,
    granted_on: FileId,
    holder: H,
) {
    *row = Some(Row {
        token,
        owner,
        released: false,
        seq: 0,
        ttl,
        granted_on,
        holder,
    });
}

pub fn renew<H>(row: &mut Option<Row<H>>, owner: &RunId, token: Token) -> bool {
    match row {
        Some(row) if row.owner == *owner && row.token == token && !row.released => {
            row.seq += 1;
            true
        }
        _ => false,
    }
}

pub fn release<H>(row: &mut Option<Row<H>>, owner: &RunId, token: Token) -> bool {
    match row {
        Some(row) if row.owner == *owner && row.token == token && !row.released => {
            row.released = true;
            true
        }
        _ => false,
    }
}

pub fn give_back<H>(row: &mut Option<Row<H>>, owner: &RunId) -> bool {
    match row {
        Some(row) if row.owner == *owner && !row.released => {
            row.released = true;
            true
        }
        _ => false,
    }
}
