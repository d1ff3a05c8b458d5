//! `lockfile:DIRECTORY`: kernel locks on files, with holder and token inside them. Its parts serve `sqlite:` too.

pub mod file;
pub mod gate;
pub mod side;
pub mod slots;
pub mod wait;
