//! joblock: one run of a job at a time, wherever it was started from.
//!
//! The library exists for the program and its tests; only the command line is a stable interface.

pub mod cli;
pub mod clock;
pub mod command;
pub mod duration;
pub mod exit;
pub mod name;
pub mod plan;
pub mod supervise;
pub mod store;
pub mod when;
