//! Spool files with anything in them: what can't be read is left alone, and what can frees no lock that a living process has.

use std::cell::RefCell;
use std::fs;

use super::past::{KINDS, Past, TOKEN};
use super::{Input, inside};

thread_local! {
    static PASTS: RefCell<Vec<Past>> = RefCell::new(KINDS.map(Past::new).into());
}

pub fn check(data: &[u8]) {
    PASTS.with_borrow(|pasts| {
        let mut input = Input(data);
        let past = &pasts[usize::from(input.byte().unwrap_or_default()) % pasts.len()];
        past.restore();
        fs::create_dir(past.spool()).expect("a folder");
        let mut number = 0;
        while !input.0.is_empty() {
            let file = past.spool().join(format!("{number}.json"));
            fs::write(file, Past::filled_in(input.until(0))).expect("written");
            number += 1;
        }
        inside::check(past, Some(TOKEN));
    });
}
