pub mod messages;
pub mod process;
pub mod signals;
