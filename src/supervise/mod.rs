pub mod signals;
pub mod process;
pub mod messages;
