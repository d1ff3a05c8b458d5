//! A pseudo terminal with a program on it, and what has appeared there.
//!
//! Every descriptor is close-on-exec, so that no other test's children keep the terminal open: a hang-up is one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::{Store, wait_for};

/// What is shared with the thread that reads.
#[derive(Default)]
struct Screen {
    seen: Mutex<Vec<u8>>,
    at_end: AtomicBool,
    hung_up: AtomicBool,
}

/// A terminal whose controlling session was started with a program of the test's.
pub struct Terminal {
    keyboard: Option<File>,
    screen: Arc<Screen>,
    reader: Option<JoinHandle<()>>,
    child: Child,
    /// How much of what was seen has been expected already.
    position: usize,
}

impl Terminal {
    /// Runs `program` as the leader of a session that has a terminal of its own, which doesn't echo.
    #[track_caller]
    pub fn run(store: &Store, program: &Command) -> Terminal {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo terminal");
        grantpt(&ours).expect("its other side");
        unlockpt(&ours).expect("its other side");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = ioctl_tiocgptpeer(&ours, flags).expect("its other side");
        let mut settings = tcgetattr(&theirs).expect("its settings");
        settings.local_modes -= LocalModes::ECHO;
        tcsetattr(&theirs, OptionalActions::Now, &settings).expect("no echo");

        let mut leader = store.program("setsid");
        leader
            .arg("--ctty")
            .arg(program.get_program())
            .args(program.get_args());
        for (name, value) in program.get_envs() {
            if let Some(value) = value {
                leader.env(name, value);
            }
        }
        let side = || theirs.try_clone().expect("its other side");
        leader.stdin(side()).stdout(side()).stderr(side());
        let child = leader.spawn().expect("setsid");

        let screen = Arc::new(Screen::default());
        let from = ours.try_clone().expect("a terminal to read from");
        let reader = thread::spawn({
            let screen = Arc::clone(&screen);
            move || read(from, &screen)
        });
        Terminal {
            keyboard: Some(File::from(ours)),
            screen,
            reader: Some(reader),
            child,
            position: 0,
        }
    }

    /// Types.
    #[track_caller]
    pub fn type_in(&mut self, keys: &str) {
        let keyboard = self.keyboard.as_mut().expect("a terminal that is open");
        keyboard.write_all(keys.as_bytes()).expect("a key");
    }

    /// Types a line.
    #[track_caller]
    pub fn line(&mut self, line: &str) {
        self.type_in(&format!("{line}\n"));
    }

    /// Waits until `wanted` has appeared and gives what stood before it, from the last such place on.
    #[track_caller]
    pub fn expect(&mut self, wanted: &str) -> String {
        let found = wait_for(&format!("{wanted:?} on the terminal"), || {
            let at_end = self.screen.at_end.load(Ordering::Acquire);
            let seen = self.screen.seen.lock().expect("what was seen");
            let rest = &seen[self.position..];
            let found = rest
                .windows(wanted.len())
                .position(|w| w == wanted.as_bytes());
            assert!(
                found.is_some() || !at_end,
                "no {wanted:?} before the end: {}",
                String::from_utf8_lossy(rest)
            );
            found
        });
        let begin = self.position;
        self.position += found + wanted.len();
        let seen = self.screen.seen.lock().expect("what was seen");
        String::from_utf8_lossy(&seen[begin..begin + found]).into_owned()
    }

    /// Waits until nobody has the terminal open and the leader has ended: what was left to see, and how it ended.
    #[track_caller]
    pub fn finish(&mut self) -> (String, ExitStatus) {
        wait_for("the terminal's end", || {
            self.screen.at_end.load(Ordering::Acquire).then_some(())
        });
        let status = self.child.wait().expect("its end");
        let seen = self.screen.seen.lock().expect("what was seen");
        (
            String::from_utf8_lossy(&seen[self.position..]).into_owned(),
            status,
        )
    }

    /// Closes our side, as a terminal's window does.
    pub fn hang_up(&mut self) {
        self.screen.hung_up.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader");
        }
        self.keyboard = None;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.hang_up();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(from: OwnedFd, screen: &Screen) {
    let mut from = File::from(from);
    let mut buffer = [0; 4096];
    while !screen.hung_up.load(Ordering::Acquire) {
        let soon = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let ready = poll(
            &mut [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)],
            Some(&soon),
        );
        if ready != Ok(1) {
            continue;
        }
        // EIO: the last process has closed its side.
        match from.read(&mut buffer) {
            Ok(count) if count > 0 => {
                let mut seen = screen.seen.lock().expect("what was seen");
                seen.extend_from_slice(&buffer[..count]);
            }
            _ => break,
        }
    }
    screen.at_end.store(true, Ordering::Release);
}
