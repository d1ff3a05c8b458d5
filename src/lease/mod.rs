//! The lease's decisions, pure: no input or output, no threads, no clock. Time comes in as an argument.

pub mod blocks;
pub mod fence;
pub mod file_taker;
pub mod heartbeat;
pub mod holder;
#[cfg(test)]
mod model;
pub mod row;
pub mod takeover;
pub mod taker;
pub mod timing;
