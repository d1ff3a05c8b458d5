//! joblock: one run of a job at a time, wherever it was started from.
//!
//! The library exists for the program and its tests; only the command line is a stable interface.

pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod duration;
pub mod exit;
pub mod guess;
pub mod kernel_file;
pub mod lease;
pub mod look;
pub mod name;
pub mod output;
pub mod peer;
pub mod plan;
pub mod redact;
pub mod schedule;
pub mod store;
pub mod supervise;
pub mod verdict;
pub mod vigil;
pub mod when;
