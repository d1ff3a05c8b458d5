//! What front, keeper and guard say to each other: any datagram is a message or the end of the other side, and whatever descriptors
//! come along, those that are not handed out are closed.

use std::fs::{self, File};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use joblock::supervise::messages::{
    Channel, FromGuard, FromKeeper, FrontToGuard, FrontToKeeper, Received, ToGuard,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Input;

const MOST: usize = 8;

pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.byte().unwrap_or_default();
    let descriptors = usize::from(kind >> 4) % (MOST + 1);
    let before = open_descriptors();
    match kind % 5 {
        0 => said::<ToGuard>(input.0, descriptors),
        1 => said::<FrontToGuard>(input.0, descriptors),
        2 => said::<FromGuard>(input.0, descriptors),
        3 => said::<FrontToKeeper>(input.0, descriptors),
        _ => said::<FromKeeper>(input.0, descriptors),
    }
    assert_eq!(open_descriptors(), before, "a descriptor was left open");
}

/// Of this process. Other threads of it must open nothing meanwhile.
fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn said<M: Serialize + DeserializeOwned>(bytes: &[u8], descriptors: usize) {
    let (ours, theirs) = Channel::pair().expect("sockets");
    let null = File::open("/dev/null").expect("/dev/null");
    let along: Vec<BorrowedFd<'_>> = (0..descriptors).map(|_| null.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !along.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&along)));
    }
    let sent = sendmsg(
        &theirs,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    );
    assert_eq!(sent, Ok(bytes.len()));
    match ours.receive::<M>() {
        Received::Message(message, fd) => {
            assert!(fd.is_none() || descriptors > 0);
            drop(fd);
            assert!(
                theirs.send(&message, None),
                "what was understood can be said"
            );
            assert!(
                matches!(ours.receive::<M>(), Received::Message(_, None)),
                "and is understood again"
            );
        }
        Received::Gone => {}
        Received::Nothing => panic!("a datagram was sent"),
    }
    drop(theirs);
    assert!(matches!(ours.receive::<M>(), Received::Gone));
}
