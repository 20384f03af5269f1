// SPDX-License-Identifier: Apache-2.0
//! What the loop waits for: descriptors with names, in one epoll set.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use hc_proto::message::ProcessId;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// What a descriptor is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The line to the host.
    Channel,
    /// The descriptor that tells of ended children.
    Children,
    /// The word of a new process on whether its program could be run.
    Start(ProcessId),
    /// A process's standard input, or its terminal's.
    Input(ProcessId),
    /// A process's standard output, or its terminal's.
    Output(ProcessId),
    /// A process's standard error.
    ErrorOutput(ProcessId),
    /// The answer of a forked helper, by the request's place among those that wait.
    Helper(u32),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Token::Channel => (0, 0),
            Token::Children => (1, 0),
            Token::Start(process) => (2, process),
            Token::Input(process) => (3, process),
            Token::Output(process) => (4, process),
            Token::ErrorOutput(process) => (5, process),
            Token::Helper(number) => (6, number),
        };
        kind << 32 | u64::from(number)
    }

    fn decode(data: u64) -> Option<Token> {
        let number = u32::try_from(data & u64::from(u32::MAX)).ok()?;
        Some(match data >> 32 {
            0 => Token::Channel,
            1 => Token::Children,
            2 => Token::Start(number),
            3 => Token::Input(number),
            4 => Token::Output(number),
            5 => Token::ErrorOutput(number),
            6 => Token::Helper(number),
            _ => return None,
        })
    }
}

/// The epoll set.
pub(crate) struct Watch {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Watch {
    /// An empty set.
    pub(crate) fn new() -> io::Result<Watch> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Watch { epoll, events: Vec::with_capacity(32) })
    }

    /// Waits until something is ready or `patience` is over, and says what.
    pub(crate) fn wait(&mut self, patience: Option<Duration>) -> io::Result<Vec<Token>> {
        let timeout = patience.map(|patience| Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(patience.subsec_nanos()),
        });
        self.events.clear();
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.events.iter().filter_map(|event| Token::decode(event.data.u64())).collect())
    }

    /// Watches a descriptor for as long as it is open.
    pub(crate) fn add(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token.encode()), flags)?)
    }
}

/// A descriptor that is watched now and then.
///
/// One that is not wanted is taken out of the set: the kernel reports a hang-up whether or not it
/// was asked for, and the loop would never sleep.
pub(crate) struct Watched {
    fd: OwnedFd,
    token: Token,
    wanted: bool,
}

impl Watched {
    /// A descriptor that is not watched yet.
    pub(crate) fn new(fd: OwnedFd, token: Token) -> Watched {
        Watched { fd, token, wanted: false }
    }

    /// Watches for `flags`, or no more.
    pub(crate) fn want(&mut self, watch: &Watch, flags: Option<EventFlags>) -> io::Result<()> {
        match (self.wanted, flags) {
            (false, Some(flags)) => watch.add(&self.fd, self.token, flags)?,
            (true, None) => epoll::delete(&watch.epoll, &self.fd)?,
            (false, None) | (true, Some(_)) => {}
        }
        self.wanted = flags.is_some();
        Ok(())
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_survives_the_kernel() {
        let tokens = [
            Token::Channel,
            Token::Children,
            Token::Start(1),
            Token::Input(u32::MAX),
            Token::Output(7),
            Token::ErrorOutput(0),
            Token::Helper(9),
        ];
        for token in tokens {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(u64::MAX), None);
    }

    #[test]
    fn an_unwanted_descriptor_does_not_wake_anybody() {
        let mut watch = Watch::new().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut reader = Watched::new(reader, Token::Output(3));
        drop(writer);
        reader.want(&watch, Some(EventFlags::IN)).unwrap();
        assert_eq!(watch.wait(None).unwrap(), [Token::Output(3)]);
        reader.want(&watch, None).unwrap();
        assert_eq!(watch.wait(Some(Duration::ZERO)).unwrap(), []);
    }
}
