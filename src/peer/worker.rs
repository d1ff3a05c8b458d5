//! Work on a mount that may hang, done by a child process that can be left behind.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::marker::PhantomData;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions, kill_process, setsid, waitpid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::supervise::{aside, fork};

/// How long the child may say nothing: as long as one call to the file system may take. A server that is restarted answers within that.
pub const HANGS: Duration = Duration::from_secs(45);

/// Why nothing more is heard.
#[derive(Debug)]
pub enum Silence {
    /// It does not answer, and was left behind.
    Hangs,
    /// It was killed, or crashed, or could not be started.
    Died(String),
}

/// The child's way to speak.
pub struct Teller<W> {
    pipe: PipeWriter,
    words: PhantomData<W>,
}

impl<W: Serialize> Teller<W> {
    /// `false`: nobody listens any more.
    pub fn tell(&mut self, word: &W) -> bool {
        let Ok(mut line) = serde_json::to_vec(word) else {
            return false;
        };
        line.push(b'\n');
        self.pipe.write_all(&line).is_ok()
    }
}

/// Runs `work` in a child process, and tells `hear` each of its words. The calling process must have one thread.
///
/// # Errors
/// If the child falls silent before its end.
pub fn apart<W: Serialize + DeserializeOwned>(
    work: impl FnOnce(&mut Teller<W>),
    hear: &mut dyn FnMut(W),
) -> Result<(), Silence> {
    let died = |error: io::Error| Silence::Died(format!("no process for it: {error}"));
    let (reader, writer) = io::pipe().map_err(died)?;
    let (mut reader, mut writer) = (Some(reader), Some(writer));
    let child = fork(|| {
        // the child must see that its parent is gone, not hold its end
        drop(reader.take());
        // a ^C is the parent's: the child sees that, and tidies up
        let _ = setsid();
        aside::is_watched();
        if let Some(pipe) = writer.take() {
            work(&mut Teller {
                pipe,
                words: PhantomData,
            });
        }
    })
    .map_err(died)?;
    drop(writer.take());
    let Some(reader) = reader else {
        return Err(died(io::ErrorKind::BrokenPipe.into()));
    };
    match listen(reader, hear) {
        Ok(()) => {}
        Err(silence) => {
            let _ = kill_process(child, Signal::KILL);
            // one in uninterruptible sleep is init's to reap
            let _ = waitpid(Some(child), WaitOptions::NOHANG);
            return Err(silence);
        }
    }
    let ended = rustix::io::retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()));
    match ended {
        Ok(Some((_, status))) if status.exit_status() != Some(0) => Err(Silence::Died(
            "the process that looks at the store crashed or was killed".to_owned(),
        )),
        _ => Ok(()),
    }
}

fn listen<W: DeserializeOwned>(
    mut reader: PipeReader,
    hear: &mut dyn FnMut(W),
) -> Result<(), Silence> {
    let (mut unread, mut bytes) = (Vec::new(), [0; 4096]);
    let limit = Timespec::try_from(HANGS).map_err(|e| Silence::Died(e.to_string()))?;
    loop {
        match poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&limit)) {
            Ok(0) => return Err(Silence::Hangs),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(Silence::Died(error.to_string())),
        }
        match reader.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(n) => unread.extend_from_slice(&bytes[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Silence::Died(error.to_string())),
        }
        while let Some(end) = unread.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(word) => hear(word),
                Err(error) => return Err(Silence::Died(error.to_string())),
            }
        }
    }
}
