//! A store's database with bytes changed, cut off, put in, and with values in its columns that nobody wrote there.

use std::cell::RefCell;
use std::fs;

use joblock::store::sqlite::schema;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::past::{KINDS, Past, TOKEN};
use super::{Input, inside};

const PAGE: usize = 4096;

thread_local! {
    static PASTS: RefCell<Vec<Past>> = RefCell::new(KINDS.map(Past::new).into());
}

pub fn check(data: &[u8]) {
    PASTS.with_borrow(|pasts| {
        let mut input = Input(data);
        let past = &pasts[usize::from(input.byte().unwrap_or_default()) % pasts.len()];
        past.restore();
        damage(past, &mut input);
        // the lock file is whole, and knows
        inside::check(past, Some(TOKEN));
    });
}

/// Takes one change after the other from the input.
fn damage(past: &Past, input: &mut Input<'_>) {
    let database = past.database();
    let mut log = database.clone().into_os_string();
    log.push("-wal");
    while let Some(change) = input.byte() {
        if change % 4 == 0 {
            set_value(past, input);
            continue;
        }
        let file = if change & 0x80 != 0 && fs::exists(&log).unwrap_or_default() {
            log.as_ref()
        } else {
            database.as_path()
        };
        let Ok(mut bytes) = fs::read(file) else {
            return;
        };
        change_bytes(change / 4 % 8, &mut bytes, input);
        fs::write(file, bytes).expect("written");
    }
}

fn change_bytes(how: u8, bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let place = [(); 3].map(|()| usize::from(input.byte().unwrap_or_default()));
    let at = (place[0] | place[1] << 8 | place[2] << 16) % (bytes.len() + 1);
    let page = at / PAGE * PAGE;
    match how {
        0 if at < bytes.len() => bytes[at] ^= input.byte().unwrap_or(1),
        1 if at < bytes.len() => bytes[at] = input.byte().unwrap_or_default(),
        2 => {
            let length = usize::from(input.byte().unwrap_or_default());
            let (piece, rest) = input.0.split_at(length.min(input.0.len()));
            input.0 = rest;
            let end = bytes.len().min(at + piece.len());
            bytes[at..end].copy_from_slice(&piece[..end - at]);
        }
        3 => bytes.truncate(at),
        4 => bytes.truncate(page),
        5 => bytes[page..].iter_mut().take(PAGE).for_each(|b| *b = 0),
        6 => {
            let from = usize::from(input.byte().unwrap_or_default()) * PAGE % bytes.len().max(1);
            let other: Vec<u8> = bytes[from..].iter().copied().take(PAGE).collect();
            let end = bytes.len().min(page + other.len());
            bytes[page..end].copy_from_slice(&other[..end - page]);
        }
        _ => bytes.extend([input.byte().unwrap_or_default()].repeat(place[0] + 1)),
    }
}

/// Every column of the schema.
fn columns() -> &'static [(String, String)] {
    static COLUMNS: std::sync::OnceLock<Vec<(String, String)>> = std::sync::OnceLock::new();
    COLUMNS.get_or_init(|| {
        let empty = Connection::open_in_memory().expect("SQLite");
        empty.execute_batch(schema::TABLES).expect("the tables");
        let mut statement = empty
            .prepare("SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY 1, 2")
            .expect("SQL");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.expect("rows").map(|row| row.expect("a row")).collect()
    })
}

/// One column of the database, in some of its rows or all, as SQL would set it.
fn set_value(past: &Past, input: &mut Input<'_>) {
    let columns = columns();
    let (table, column) = &columns[usize::from(input.byte().unwrap_or_default()) % columns.len()];
    let value = match input.byte().unwrap_or_default() % 5 {
        0 => Value::Null,
        1 => Value::Integer(input.number()),
        2 => Value::Real(f64::from_bits(input.number().cast_unsigned())),
        3 => Value::Text(String::from_utf8_lossy(&Past::filled_in(input.until(0))).into_owned()),
        _ => Value::Blob(input.until(0).to_vec()),
    };
    let Ok(database) = Connection::open(past.database()) else {
        return;
    };
    // what the schema forbids, a damaged file may still say
    let _ =
        database.execute_batch("PRAGMA ignore_check_constraints = 1; PRAGMA synchronous = OFF;");
    let _ = database.execute(
        &format!("UPDATE OR REPLACE {table} SET {column} = ?1"),
        [value],
    );
}
