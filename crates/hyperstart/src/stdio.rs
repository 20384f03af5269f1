// SPDX-License-Identifier: Apache-2.0
//! The bytes between a process and its streams, at the speed of the slower side.
//!
//! ```text
//! host --stream--> Input  --pipe or terminal--> process
//! host <--stream-- Output <--pipe or terminal-- process
//! ```
//!
//! # Invariants
//!
//! - Nothing is read from a process that its stream has no room for, and a byte from the host
//!   counts as consumed only when the process's pipe has taken it.
//! - An [`Output`] that nobody listens to is still read, so that its writers do not get stuck or
//!   die of it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use hc_proto::GuestMux;
use hc_proto::message::StreamId;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use crate::watch::{Token, Watch, Watched};

/// Bytes read at once: what a pipe holds.
const READ_LEN: usize = 64 * 1024;
/// Reads in a row before others get their turn.
const TURN: usize = 4;
/// What ends the input of a program on a terminal: ctrl-D.
const END_OF_INPUT: u8 = 4;

/// Standard input: from a stream into a pipe or terminal.
pub(crate) struct Input {
    stream: StreamId,
    /// `None` once the process can read nothing more from us.
    sink: Option<Watched>,
    terminal: bool,
    waiting: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that have been written.
    written: usize,
    ended: bool,
    /// Whether a line was begun and not ended, so that ctrl-D must be given twice.
    mid_line: bool,
}

impl Input {
    /// The input that `stream` feeds into `sink`, which does not block.
    pub(crate) fn new(stream: StreamId, sink: OwnedFd, token: Token, terminal: bool) -> Input {
        Input {
            stream,
            sink: Some(Watched::new(sink, token)),
            terminal,
            waiting: VecDeque::new(),
            written: 0,
            ended: false,
            mid_line: false,
        }
    }

    /// The stream it comes from.
    pub(crate) fn stream(&self) -> StreamId {
        self.stream
    }

    /// Takes bytes of the stream.
    pub(crate) fn push(&mut self, bytes: Vec<u8>, mux: &mut GuestMux, watch: &Watch) {
        if self.sink.is_none() {
            return mux.consumed(self.stream, bytes.len());
        }
        self.waiting.push_back(bytes);
        self.pump(mux, watch);
    }

    /// Takes the end of the stream.
    pub(crate) fn end(&mut self, mux: &mut GuestMux, watch: &Watch) {
        self.ended = true;
        if self.terminal {
            let signs = if self.ends_mid_line() { 2 } else { 1 };
            self.waiting.push_back(vec![END_OF_INPUT; signs]);
        }
        self.pump(mux, watch);
    }

    /// Writes what waits, as far as it goes.
    pub(crate) fn pump(&mut self, mux: &mut GuestMux, watch: &Watch) {
        while let (Some(sink), Some(piece)) = (self.sink.as_mut(), self.waiting.front()) {
            match rustix::io::write(&*sink, &piece[self.written..]) {
                Ok(taken) => {
                    self.written += taken;
                    mux.consumed(self.stream, taken);
                    if self.written == piece.len() {
                        self.mid_line = piece.last().is_some_and(|byte| *byte != b'\n');
                        self.waiting.pop_front();
                        self.written = 0;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if sink.want(watch, Some(EventFlags::OUT)).is_err() {
                        self.close(mux, watch);
                    }
                    return;
                }
                // Nobody reads any more.
                Err(_) => return self.close(mux, watch),
            }
        }
        if self.ended && !self.terminal {
            return self.close(mux, watch);
        }
        if let Some(sink) = self.sink.as_mut() {
            let _ = sink.want(watch, None); // It is watched or not; there is nothing to do about it.
        }
    }

    /// Closes the pipe; what still comes on the stream is thrown away.
    pub(crate) fn close(&mut self, mux: &mut GuestMux, watch: &Watch) {
        if let Some(mut sink) = self.sink.take() {
            let _ = sink.want(watch, None); // The descriptor is closed right away.
        }
        let left: usize = self.waiting.iter().map(Vec::len).sum();
        mux.consumed(self.stream, left - self.written);
        self.waiting.clear();
        self.written = 0;
    }

    /// Whether the stream has come to its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    fn ends_mid_line(&self) -> bool {
        let last = self.waiting.back().and_then(|piece| piece.last());
        last.map_or(self.mid_line, |byte| *byte != b'\n')
    }
}

/// How far reading an [`Output`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// There may be more at once.
    More,
    /// Everything written so far was read.
    Empty,
    /// The stream has no room.
    Blocked,
    /// All writers are gone and everything was read.
    Ended,
}

/// Standard output or error: from a pipe or terminal into a stream.
pub(crate) struct Output {
    /// `None` once all writers are gone.
    source: Option<Watched>,
    /// `None` once nobody listens; what is read is then thrown away.
    stream: Option<StreamId>,
}

impl Output {
    /// The output that goes from `source`, which does not block, into `stream`, or nowhere.
    pub(crate) fn new(
        stream: Option<StreamId>,
        source: OwnedFd,
        token: Token,
        watch: &Watch,
    ) -> io::Result<Output> {
        let mut source = Watched::new(source, token);
        source.want(watch, Some(EventFlags::IN))?;
        Ok(Output { source: Some(source), stream })
    }

    /// The stream it goes to, unless nobody listens.
    pub(crate) fn stream(&self) -> Option<StreamId> {
        self.stream
    }

    /// Whether all writers are gone.
    pub(crate) fn has_ended(&self) -> bool {
        self.source.is_none()
    }

    /// Reads for one turn, and sees to it that the loop comes back when there is more to do.
    pub(crate) fn pump(&mut self, mux: &mut GuestMux, watch: &Watch) -> Pumped {
        let mut pumped = Pumped::More;
        for _ in 0..TURN {
            pumped = self.read(mux);
            if pumped != Pumped::More {
                break;
            }
        }
        let wanted = match pumped {
            Pumped::More | Pumped::Empty => Some(EventFlags::IN),
            Pumped::Blocked | Pumped::Ended => None,
        };
        if let Some(source) = self.source.as_mut()
            && source.want(watch, wanted).is_err()
        {
            pumped = Pumped::Ended;
        }
        if pumped == Pumped::Ended {
            self.source = None;
            self.finish(mux);
        }
        pumped
    }

    /// Reads everything that was written before now; `false` if the stream has no room for it.
    pub(crate) fn drain(&mut self, mux: &mut GuestMux, watch: &Watch) -> bool {
        loop {
            match self.pump(mux, watch) {
                Pumped::More => {}
                Pumped::Blocked => return false,
                Pumped::Empty | Pumped::Ended => return true,
            }
        }
    }

    /// Ends the stream. What others still write is read and thrown away.
    pub(crate) fn finish(&mut self, mux: &mut GuestMux) {
        if let Some(stream) = self.stream.take() {
            mux.send_eof(stream);
        }
    }

    /// The host does not listen any more.
    pub(crate) fn discard(&mut self, mux: &mut GuestMux, watch: &Watch) {
        self.stream = None;
        self.pump(mux, watch);
    }

    fn read(&mut self, mux: &mut GuestMux) -> Pumped {
        let Some(source) = self.source.as_ref() else { return Pumped::Ended };
        let room = match self.stream.map(|stream| mux.send_space(stream)) {
            Some(Ok(0)) => return Pumped::Blocked,
            Some(Ok(space)) => space.min(READ_LEN),
            Some(Err(_)) => {
                self.stream = None;
                READ_LEN
            }
            None => READ_LEN,
        };
        let mut bytes = Vec::with_capacity(room);
        match rustix::io::read(source, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => Pumped::Ended,
            Ok(_) => {
                if let Some(stream) = self.stream
                    && mux.send_owned(stream, bytes).is_err()
                {
                    self.stream = None;
                }
                Pumped::More
            }
            Err(Errno::INTR) => Pumped::More,
            Err(Errno::AGAIN) => Pumped::Empty,
            // A terminal whose last program is gone says EIO.
            Err(_) => Pumped::Ended,
        }
    }
}
