//! What the commands that read print: tables and lines for people, JSON for programs. Formatting
//! only: records and the time come in, text goes out.

pub mod check;
pub mod doctor;
pub mod history;
pub mod json;
pub mod logs;
pub mod prune;
pub mod record;
pub mod show;
pub mod status;
pub mod table;
pub mod text;
pub mod time;

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use anstream::{AutoStream, ColorChoice};
use rustix::termios::tcgetwinsize;

use crate::clock::Wall;
use crate::schedule::Zone;

/// How wide a terminal is that doesn't say.
const WIDTH_UNKNOWN: u16 = 80;

/// What is printed on: everything but the records that a text depends on.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Now.
    pub now: Wall,
    /// The terminal's columns; `None`: no terminal, nothing is wrapped.
    pub width: Option<u16>,
    /// Whether escape sequences for colour are wanted.
    pub colour: bool,
    /// The reader's time zone.
    pub zone: Zone,
}

impl Page {
    /// The page that stdout is: as wide as its terminal, in colour on a terminal that hasn't said no
    /// (`NO_COLOR`, `CLICOLOR=0`, `TERM=dumb`).
    pub fn of_stdout(now: Wall) -> Self {
        let Terminal { width, colour } = *note_terminal();
        Page {
            now,
            width,
            colour,
            zone: Zone::Local,
        }
    }
}

/// What stdout is: its columns, if it is a terminal, and whether colour is wanted on it.
#[derive(Debug)]
pub struct Terminal {
    width: Option<u16>,
    colour: bool,
}

/// Looks once, for good: another process may stand between us and the terminal from now on.
pub fn note_terminal() -> &'static Terminal {
    static NOTED: OnceLock<Terminal> = OnceLock::new();
    NOTED.get_or_init(|| {
        let stdout = io::stdout();
        let width = stdout.is_terminal().then(|| match tcgetwinsize(&stdout) {
            Ok(size) if size.ws_col > 0 => size.ws_col,
            _ => WIDTH_UNKNOWN,
        });
        Terminal {
            width,
            colour: width.is_some() && AutoStream::choice(&stdout) != ColorChoice::Never,
        }
    })
}

/// Whether stdout is a terminal.
pub fn is_on_terminal() -> bool {
    note_terminal().width.is_some()
}

/// Whether anybody reads what we print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// It was taken.
    There,
    /// stdout is closed (`| head`): say nothing more, and nothing about it.
    Gone,
}

/// Writes `bytes` to stdout at once. A reader that left is no error.
pub fn print(bytes: &[u8]) -> io::Result<Reader> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(e) => Err(e),
    }
}

/// joblock's own words, on stderr. A stderr that is closed is no reason to end. They may name what somebody else named:
/// a file, a job, a key of the jobs file.
pub fn say(words: impl std::fmt::Display) {
    let words = words.to_string();
    let _ = writeln!(io::stderr(), "joblock: {}", text::message(&words));
}
