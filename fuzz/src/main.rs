//! libFuzzer around the targets; `$FUZZ_TARGET` says which. See `../run.sh`.
#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::Corpus;
use targets::{Target, meter};

#[global_allocator]
static METER: meter::Meter = meter::Meter;

fn target() -> &'static Target {
    static TARGET: OnceLock<&'static Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = targets::ALL.iter().find(|t| t.name == name);
        found.unwrap_or_else(|| {
            let all: Vec<_> = targets::ALL.iter().map(|t| t.name).collect();
            panic!("FUZZ_TARGET={name:?} is none of {}", all.join(", "))
        })
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| -> Corpus {
    let target = target();
    if data.len() > target.longest {
        return Corpus::Reject;
    }
    target.run(data);
    Corpus::Keep
});
