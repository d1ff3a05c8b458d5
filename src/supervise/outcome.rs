//! What an end means: a pure table from how the tree ended to the outcome, the exit code and the words.

use std::time::Duration;

use super::messages::{Cause, Ended, Status};
use crate::clock::Wall;
use crate::exit;
use crate::store::record::{End, OutOfMemory, Outcome};

/// The outcome of `ended`, given what the OOM counter says.
pub fn outcome(ended: &Ended, out_of_memory: OutOfMemory) -> Outcome {
    let killed = matches!(
        ended.status,
        Status::Signaled(libc::SIGKILL) | Status::Exited(137) | Status::Unknown
    );
    // joblock ended the job, as one of its own processes was killed
    let own_killed = matches!(ended.cause, Some(Cause::FrontGone | Cause::GuardGone));
    match (ended.cause, ended.status) {
        (_, Status::NotExecuted(_)) => Outcome::NotStarted,
        (Some(Cause::Lost | Cause::Revoked), _) => Outcome::Lost,
        (Some(Cause::TimeLimit), _) => Outcome::TimedOut,
        (Some(Cause::Stop), _) => Outcome::Stopped,
        _ if (killed || own_killed) && out_of_memory == OutOfMemory::Yes => Outcome::OomKilled,
        (_, Status::Exited(0)) => Outcome::Succeeded,
        (_, Status::Exited(_)) => Outcome::Failed,
        (_, Status::Signaled(_)) => Outcome::Signaled,
        (_, Status::Unknown) => Outcome::Abandoned,
    }
}

/// What joblock exits with.
pub fn exit_code(ended: &Ended) -> u8 {
    match (ended.cause, ended.status) {
        (_, Status::NotExecuted(libc::ENOENT)) => exit::NOT_FOUND,
        (_, Status::NotExecuted(_)) => exit::CANNOT_EXECUTE,
        (Some(Cause::Lost | Cause::Revoked), _) => exit::LOCK_LOST,
        (Some(Cause::TimeLimit), _) => exit::TIMED_OUT,
        (_, Status::Exited(code)) => u8::try_from(code).unwrap_or(exit::OWN_FAILURE),
        (_, Status::Signaled(signal)) => exit::of_signal(signal),
        (_, Status::Unknown) => exit::of_signal(libc::SIGKILL),
    }
}

/// The record of `ended`.
pub fn end(ended: &Ended, out_of_memory: OutOfMemory, note: Option<String>) -> End {
    End {
        outcome: outcome(ended, out_of_memory),
        at: Wall::now(),
        duration: ended.duration,
        exit_code: match ended.status {
            Status::Exited(code) => Some(code),
            Status::NotExecuted(_) => Some(exit_code(ended).into()),
            Status::Signaled(_) | Status::Unknown => None,
        },
        signal: match ended.status {
            Status::Signaled(signal) => Some(signal),
            _ => None,
        },
        out_of_memory,
        peak_memory_kib: Some(ended.peak_memory_kib).filter(|&kib| kib > 0),
        cpu: Some(ended.cpu).filter(|&cpu| cpu > Duration::ZERO),
        leaked: ended.leaked,
        note: note.or_else(|| note_of(ended)),
    }
}

fn note_of(ended: &Ended) -> Option<String> {
    if let Status::NotExecuted(errno) = ended.status {
        return Some(std::io::Error::from_raw_os_error(errno).to_string());
    }
    match ended.cause? {
        Cause::FrontGone => {
            Some("front, joblock's first process, was killed: the job was ended".into())
        }
        Cause::GuardGone => {
            Some("the guard, the job's parent, was killed: the job was ended".into())
        }
        Cause::Lost => Some("the lock could not be renewed in time".into()),
        Cause::TimeLimit | Cause::Stop | Cause::Revoked => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn ended(status: Status, cause: Option<Cause>) -> Ended {
        Ended {
            status,
            cause,
            duration: Duration::ZERO,
            leaked: 0,
            peak_memory_kib: 0,
            cpu: Duration::ZERO,
        }
    }

    #[rstest]
    #[case(Status::Exited(0), None, OutOfMemory::No, Outcome::Succeeded, 0)]
    #[case(Status::Exited(0), None, OutOfMemory::Yes, Outcome::Succeeded, 0)]
    #[case(Status::Exited(3), None, OutOfMemory::Yes, Outcome::Failed, 3)]
    #[case(Status::Exited(137), None, OutOfMemory::Yes, Outcome::OomKilled, 137)]
    #[case(Status::Signaled(9), None, OutOfMemory::Yes, Outcome::OomKilled, 137)]
    #[case(
        Status::Signaled(15),
        Some(Cause::FrontGone),
        OutOfMemory::Yes,
        Outcome::OomKilled,
        143
    )]
    #[case(
        Status::Signaled(15),
        Some(Cause::FrontGone),
        OutOfMemory::No,
        Outcome::Signaled,
        143
    )]
    #[case(
        Status::Signaled(9),
        None,
        OutOfMemory::Unknown,
        Outcome::Signaled,
        137
    )]
    #[case(
        Status::Signaled(15),
        Some(Cause::Stop),
        OutOfMemory::No,
        Outcome::Stopped,
        143
    )]
    #[case(
        Status::Exited(0),
        Some(Cause::Stop),
        OutOfMemory::No,
        Outcome::Stopped,
        0
    )]
    #[case(
        Status::Signaled(9),
        Some(Cause::TimeLimit),
        OutOfMemory::No,
        Outcome::TimedOut,
        124
    )]
    #[case(
        Status::Signaled(15),
        Some(Cause::Lost),
        OutOfMemory::No,
        Outcome::Lost,
        79
    )]
    #[case(
        Status::Exited(0),
        Some(Cause::Revoked),
        OutOfMemory::No,
        Outcome::Lost,
        79
    )]
    #[case(
        Status::Unknown,
        Some(Cause::GuardGone),
        OutOfMemory::No,
        Outcome::Abandoned,
        137
    )]
    #[case(
        Status::NotExecuted(libc::ENOENT),
        None,
        OutOfMemory::No,
        Outcome::NotStarted,
        127
    )]
    #[case(
        Status::NotExecuted(libc::EACCES),
        None,
        OutOfMemory::No,
        Outcome::NotStarted,
        126
    )]
    fn every_end_has_its_outcome_and_code(
        #[case] status: Status,
        #[case] cause: Option<Cause>,
        #[case] out_of_memory: OutOfMemory,
        #[case] expected: Outcome,
        #[case] code: u8,
    ) {
        let ended = ended(status, cause);
        assert_eq!(outcome(&ended, out_of_memory), expected);
        assert_eq!(exit_code(&ended), code);
    }
}
