//! The job's output on its way to the caller: bytes pass unchanged, at once, and never by a write that blocks.
//!
//! What front's own streams are is not front's to change (their flags belong to the open file that others share), so it
//! does not make them non-blocking: it writes what poll(2) promises room for, `PIPE_BUF` bytes.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, fcntl_dupfd_cloexec, read, write};
use rustix::pipe::{PipeFlags, pipe_with};

/// pipe(7): a pipe that polls as writable has room for this much.
const PROMISED: usize = 4096;
/// As much as a pipe holds by default.
const CHUNK: usize = 64 * 1024;

/// One stream of the job.
pub struct Pump {
    /// Where the job's bytes come from; `None` once all were read, or the caller reads no more.
    from: Option<OwnedFd>,
    /// Front's own stream, by its number.
    to: OwnedFd,
    /// Bytes that poll(2) need not be asked about.
    is_file: bool,
    waiting: VecDeque<u8>,
    /// The caller reads no more.
    deaf: bool,
}

/// The pumps, and the ends that the job gets for standard output and error where they are pumped.
pub struct Streams {
    /// One for each stream that is not handed over; one for both, if both are one file.
    pub pumps: Vec<Pump>,
    /// For the job.
    pub job: [Option<OwnedFd>; 2],
}

impl Streams {
    /// Decides for each of front's streams: a terminal and a closed stream are handed over, all else is pumped.
    ///
    /// # Errors
    /// If no pipe can be made.
    pub fn open(capture: bool) -> io::Result<Streams> {
        Self::of(|stream| capture && !rustix::termios::isatty(stream))
    }

    /// Terminals are pumped, too.
    ///
    /// # Errors
    /// If no pipe can be made.
    pub fn with_terminals() -> io::Result<Streams> {
        Self::of(|_| true)
    }

    fn of(wanted: impl Fn(BorrowedFd<'_>) -> bool) -> io::Result<Streams> {
        let mut streams = Streams {
            pumps: Vec::new(),
            job: [None, None],
        };
        let (out, err) = (rustix::stdio::stdout(), rustix::stdio::stderr());
        let pumped = [(1, out), (2, err)]
            .map(|(fd, stream)| !super::signals::was_closed(fd) && wanted(stream));
        if pumped[0] {
            let (pump, end) = Pump::new(out)?;
            streams.pumps.push(pump);
            if pumped[1] && is_same_file(out, err) {
                streams.job[1] = Some(dup_cloexec(end.as_fd())?);
            }
            streams.job[0] = Some(end);
        }
        if pumped[1] && streams.job[1].is_none() {
            let (pump, end) = Pump::new(err)?;
            streams.pumps.push(pump);
            streams.job[1] = Some(end);
        }
        Ok(streams)
    }
}

fn dup_cloexec(fd: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    fcntl_dupfd_cloexec(fd, 3)
}

fn is_same_file(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    matches!((fstat(a), fstat(b)), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

impl Pump {
    fn new(to: BorrowedFd<'_>) -> io::Result<(Pump, OwnedFd)> {
        let (from, end) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&from, true)?;
        let is_file =
            fstat(to).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
        let to = dup_cloexec(to)?;
        Ok((
            Pump {
                from: Some(from),
                to,
                is_file,
                waiting: VecDeque::new(),
                deaf: false,
            },
            end,
        ))
    }

    /// What to poll for.
    pub fn interests(&self) -> impl Iterator<Item = PollFd<'_>> {
        let reading = self.from.as_ref().filter(|_| self.waiting.is_empty());
        // With nothing to write, this still hears that the reader is gone (POLLERR), so that the job hears it too.
        let flags = if self.waiting.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::OUT
        };
        let writing =
            (!self.deaf && (self.from.is_some() || !self.waiting.is_empty())).then_some(&self.to);
        reading
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .into_iter()
            .chain(writing.map(|fd| PollFd::new(fd, flags)))
    }

    /// Moves what can be moved without blocking; `keep` sees each byte once.
    pub fn turn(&mut self, keep: &mut dyn FnMut(&[u8])) {
        self.notice_a_reader_that_left();
        self.write();
        if self.waiting.is_empty() {
            self.read(keep);
            self.write();
        }
    }

    /// Reads to the end what the job, which is gone, left in the pipe; the reader may take its time.
    pub fn drain(&mut self, keep: &mut dyn FnMut(&[u8])) {
        loop {
            let before = self.waiting.len();
            self.read(keep);
            if self.from.is_none() || self.waiting.len() == before {
                break;
            }
        }
        self.from = None;
    }

    /// Whether the reader takes his time.
    pub fn has_more_to_write(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether nothing is left to write.
    pub fn is_done(&self) -> bool {
        self.from.is_none() && self.waiting.is_empty()
    }

    fn read(&mut self, keep: &mut dyn FnMut(&[u8])) {
        let Some(from) = &self.from else { return };
        let mut chunk = vec![0u8; CHUNK];
        match read(from, &mut chunk) {
            Ok(0) => self.from = None,
            Ok(n) => {
                keep(&chunk[..n]);
                if !self.deaf {
                    self.waiting.extend(&chunk[..n]);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.from = None,
        }
    }

    fn write(&mut self) {
        while !self.waiting.is_empty() && (self.is_file || self.has_room()) {
            let (bytes, _) = self.waiting.as_slices();
            let promised = if self.is_file {
                bytes.len()
            } else {
                bytes.len().min(PROMISED)
            };
            match write(&self.to, &bytes[..promised]) {
                Ok(n) => {
                    self.waiting.drain(..n);
                }
                Err(Errno::INTR | Errno::AGAIN) => return,
                // EPIPE, a full disk: as in a plain call, it is the job that must learn of it, by its own next write.
                Err(_) => self.hang_up(),
            }
        }
    }

    fn has_room(&self) -> bool {
        self.poll_writer().contains(PollFlags::OUT)
    }

    fn notice_a_reader_that_left(&mut self) {
        if !self.deaf && !self.is_file && self.poll_writer().intersects(PollFlags::ERR) {
            self.hang_up();
        }
    }

    fn poll_writer(&self) -> PollFlags {
        let mut fds = [PollFd::new(&self.to, PollFlags::OUT)];
        let now = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match poll(&mut fds, Some(&now)) {
            Ok(_) => fds[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }

    fn hang_up(&mut self) {
        self.deaf = true;
        self.waiting.clear();
        self.from = None;
    }
}
