//! The lease's decisions, pure: no input or output, no threads, no clock. Time comes in as an argument.

pub mod heartbeat;
#[cfg(test)]
mod model;
pub mod takeover;
pub mod timing;
