// SPDX-License-Identifier: Apache-2.0
//! The state machine that both sides drive: bytes of the line in, events out, and back.
//!
//! ```text
//!            attach()             Welcome: new            line_lost(), error
//!   host:  down ----> searching ------------------> ready ------------------> down
//!                        | Welcome: same session      ^
//!                        +------> positions ----------+  the guest's positions came; ours are told
//!
//!            Hello: new                               line_lost(), error, torn frame
//!   guest: down ---------------------------------> ready ------------------> down
//!            | Hello: same session                    ^
//!            +------> positions ----------------------+  the host's positions came
//! ```
//!
//! A guest takes a hello at any time, so it needs no word of a lost line.

use std::io::IoSlice;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ProtocolError, SendError};
use crate::event::{Direction, MuxEvent};
use crate::frame::{Decoder, Frame, Kind, Step};
use crate::hello::{Attached, Hello, Nonce, Search, SessionId, Verdict, Welcome};
use crate::limits::{MAX_VERSION, MIN_VERSION, SYNC_LEN};
use crate::message::StreamId;
use crate::output::Output;
use crate::session::resume::Account;
use crate::session::{Role, Session};

/// The host's end of the line.
pub type HostMux = Mux<Host>;

/// The guest's end of the line.
pub type GuestMux = Mux<Guest>;

/// Marks the host's side of a [`Mux`]: the one that attaches and opens streams.
#[derive(Debug)]
pub struct Host {
    session: SessionId,
    /// How the next [`Mux::attach`] begins.
    mode: Attached,
}

/// Marks the guest's side of a [`Mux`]: the one that answers.
#[derive(Debug, Default)]
pub struct Guest {
    session: Option<SessionId>,
}

/// Whether anything can be left on a line from an earlier host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line that nobody used before, or one that forgets what was on it when it is opened.
    Fresh,
    /// A line on which the guest may have been left in the middle of a frame. Costs [`SYNC_LEN`]
    /// bytes more.
    Used,
}

/// Many streams and a control lane over one line, as one side of it.
///
/// Drive it so: hand what the line brings to [`feed`](Self::feed), take
/// [`next_event`](Self::next_event) until there is none, and write
/// [`pending_output`](Self::pending_output) (or [`pending_slices`](Self::pending_slices)) to the
/// line, telling [`advance`](Self::advance) how much it took. Every call may lead to output.
///
/// Nothing here blocks and everything is bounded: see [`limits`](crate::limits).
#[derive(Debug)]
pub struct Mux<S> {
    side: S,
    phase: Phase,
    decoder: Decoder,
    output: Output,
    shared: Session,
}

#[derive(Debug)]
enum Phase {
    Down,
    Searching(Search),
    Positions { version: u16, attached: Attached, account: Account },
    Ready,
}

/// Reads a control message, such as [`FromGuest`](crate::message::FromGuest).
pub fn decode<T: DeserializeOwned>(message: &[u8]) -> Result<T, ProtocolError> {
    serde_json::from_slice(message)
        .map_err(|error| ProtocolError::BadMessage { reason: error.to_string() })
}

impl<S> Mux<S> {
    /// Takes what there is to tell, in the order of its arrival, but for streams: those that have
    /// bytes take turns. Taking a control message acknowledges it.
    pub fn next_event(&mut self) -> Option<MuxEvent> {
        self.shared.next_event()
    }

    /// The next bytes for the line, in one piece; empty only if there is nothing to write.
    pub fn pending_output(&mut self) -> &[u8] {
        self.fill();
        self.output.front()
    }

    /// The next bytes for the line in several pieces, for a vectored write: fills `slices` from the
    /// front and returns how many it filled.
    pub fn pending_slices<'a>(&'a mut self, slices: &mut [IoSlice<'a>]) -> usize {
        self.fill();
        self.output.slices(slices)
    }

    /// Whether there is anything to write to the line.
    pub fn has_output(&mut self) -> bool {
        self.fill();
        !self.output.is_empty()
    }

    /// Notes that the line took `n` more bytes.
    pub fn advance(&mut self, n: usize) {
        self.output.advance(n);
    }

    /// Queues a control message.
    ///
    /// Messages arrive whole, once and in order, also over several lines. [`SendError::Full`] says
    /// that the peer does not read; try again after the next event.
    pub fn send_control<T: Serialize>(&mut self, message: &T) -> Result<(), SendError> {
        let message = serde_json::to_vec(message).map_err(|_| SendError::Unencodable)?;
        self.shared.send_control(message)
    }

    /// Queues bytes on a stream and returns how many were taken: fewer than offered if the stream's
    /// window is full. [`MuxEvent::Writable`] then tells when there is room again.
    pub fn send_data(&mut self, stream: StreamId, bytes: &[u8]) -> Result<usize, SendError> {
        self.shared.send_data(stream, bytes)
    }

    /// Like [`send_data`](Self::send_data), but without a copy where the bytes fit whole and are
    /// more than a few. Returns what was not taken.
    pub fn send_owned(&mut self, stream: StreamId, bytes: Vec<u8>) -> Result<Vec<u8>, SendError> {
        self.shared.send_owned(stream, bytes)
    }

    /// How many bytes [`send_data`](Self::send_data) would take now. Zero counts as being refused:
    /// [`MuxEvent::Writable`] follows.
    pub fn send_space(&mut self, stream: StreamId) -> Result<usize, SendError> {
        self.shared.send_space(stream)
    }

    /// Ends our direction of a stream behind what was queued. Does nothing to one that has ended.
    pub fn send_eof(&mut self, stream: StreamId) {
        self.shared.send_eof(stream);
    }

    /// Gives a stream up in both directions, now, whatever is queued on it. Does nothing to a
    /// stream that is over.
    pub fn reset(&mut self, stream: StreamId) {
        self.shared.reset(stream);
    }

    /// Notes that `n` bytes of [`MuxEvent::Data`] were used up, so that the peer may send as many
    /// more. Call it when the bytes have left for good, not when they were put into a queue: this
    /// is what slows the writer down to the reader's speed. More than was taken counts as all.
    pub fn consumed(&mut self, stream: StreamId, n: usize) {
        self.shared.consumed(stream, n);
    }

    /// How many bytes of a stream that we read are [used up](Self::consumed), from its beginning;
    /// `None` if there is no such stream any more.
    pub fn position(&self, stream: StreamId) -> Option<u64> {
        self.shared.position(stream)
    }

    /// Whether acknowledgements wait for something to go with, because they are not urgent.
    pub fn has_lazy_acks(&self) -> bool {
        self.shared.has_lazy_acks()
    }

    /// Sends the acknowledgements that wait. Call it when the line has been idle for a moment, so
    /// that a host that comes later is not told again what this one has seen.
    pub fn flush_acks(&mut self) {
        self.shared.flush_acks();
    }

    /// Whether a stream is open: not over, and not given up.
    pub fn is_open(&self, stream: StreamId) -> bool {
        self.shared.is_open(stream)
    }

    /// Whether the session stands on a line.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Whether the peer has consumed everything we ever sent.
    pub fn is_drained(&self) -> bool {
        self.shared.is_drained()
    }

    /// The line is gone. Sending goes on into the queues; the next line continues.
    pub fn line_lost(&mut self) {
        self.phase = Phase::Down;
        self.decoder.clear();
        self.output.clear();
        self.shared.line_lost();
    }

    fn fill(&mut self) {
        if self.is_ready() {
            self.shared.fill(&mut self.output);
        }
    }

    /// Leaves the line after the peer broke the protocol.
    fn fail(&mut self, error: ProtocolError) -> Result<(), ProtocolError> {
        self.line_lost();
        Err(error)
    }

    fn enter_ready(&mut self, version: u16, attached: Attached) {
        self.phase = Phase::Ready;
        self.shared.begin(version, attached);
    }
}

impl Mux<Host> {
    /// A host that starts a new session.
    pub fn new(session: SessionId) -> HostMux {
        HostMux::with_mode(session, Attached::New)
    }

    /// A host that takes over the session of another process, which is gone.
    ///
    /// Its streams come as [`MuxEvent::Opened`] ahead of [`MuxEvent::Ready`]. What the other process
    /// had acknowledged does not come again.
    pub fn adopt(session: SessionId) -> HostMux {
        HostMux::with_mode(session, Attached::Adopted)
    }

    fn with_mode(session: SessionId, mode: Attached) -> HostMux {
        Mux {
            side: Host { session, mode },
            phase: Phase::Down,
            decoder: Decoder::default(),
            output: Output::default(),
            shared: Session::new(Role::Host),
        }
    }

    /// Says hello on a line: the first, or another after one was lost. `nonce` must be new each
    /// time. [`MuxEvent::Ready`] follows.
    pub fn attach(&mut self, nonce: Nonce, line: Line) {
        self.line_lost();
        if line == Line::Used {
            self.output.push_raw(&vec![0; SYNC_LEN]);
        }
        let hello = Hello {
            min_version: MIN_VERSION,
            max_version: MAX_VERSION,
            mode: self.side.mode,
            session: self.side.session,
            nonce,
        };
        self.output.push_raw(&hello.encode());
        self.phase = Phase::Searching(Search::new(nonce));
    }

    /// Opens a stream and returns its number. Data may follow at once: nothing overtakes the
    /// opening, nor does a message that is sent after it.
    pub fn open(&mut self, direction: Direction) -> Result<StreamId, SendError> {
        self.shared.open(direction)
    }

    /// Takes the next bytes of the line, however they were split.
    ///
    /// An error is told once; the line is then of no use, and what still comes from it is ignored
    /// until the next [`attach`](Self::attach).
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        while !bytes.is_empty() {
            match self.take_one(&mut bytes) {
                Ok(()) => {}
                Err(error) => return self.fail(error),
            }
        }
        Ok(())
    }

    fn take_one(&mut self, bytes: &mut &[u8]) -> Result<(), ProtocolError> {
        match &mut self.phase {
            Phase::Down => {
                *bytes = &[];
                return Ok(());
            }
            Phase::Searching(search) => {
                return match search.step(bytes)? {
                    Some(welcome) => self.take_welcome(welcome),
                    None => Ok(()),
                };
            }
            Phase::Positions { .. } | Phase::Ready => {}
        }
        match self.decoder.step(bytes)? {
            Step::Starved => Ok(()),
            Step::Torn { kind } => Err(ProtocolError::BadEnd { kind, end: 0 }),
            Step::Frame(frame) => self.take_frame(frame),
        }
    }

    fn take_welcome(&mut self, welcome: Welcome) -> Result<(), ProtocolError> {
        let [version, max] = welcome.versions;
        match welcome.verdict {
            Verdict::NoCommonVersion => {
                return Err(ProtocolError::NoCommonVersion { min: version, max });
            }
            Verdict::UnknownSession => return Err(ProtocolError::SessionLost),
            Verdict::Accepted => {}
        }
        if welcome.session != self.side.session {
            return Err(ProtocolError::SessionLost);
        }
        if !(MIN_VERSION..=MAX_VERSION).contains(&version) {
            return Err(ProtocolError::NoCommonVersion { min: version, max });
        }
        match self.side.mode {
            Attached::New => {
                self.side.mode = Attached::Resumed;
                self.enter_ready(version, Attached::New);
            }
            attached => {
                self.phase = Phase::Positions { version, attached, account: Account::default() };
            }
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        let Phase::Positions { version, attached, account } = &mut self.phase else {
            return self.shared.receive(frame);
        };
        if !account.receive(&frame)? {
            return Ok(());
        }
        let (version, attached, account) = (*version, *attached, std::mem::take(account));
        match attached {
            Attached::Adopted => self.shared.adopt(&account)?,
            Attached::New | Attached::Resumed => self.shared.resume(&account)?,
        }
        self.enter_ready(version, attached);
        self.side.mode = Attached::Resumed;
        self.shared.tell_positions(&mut self.output);
        Ok(())
    }
}

impl Mux<Guest> {
    /// A guest that waits for its first host.
    pub fn new() -> GuestMux {
        Mux {
            side: Guest::default(),
            phase: Phase::Down,
            decoder: Decoder::default(),
            output: Output::default(),
            shared: Session::new(Role::Guest),
        }
    }

    /// Takes the next bytes of the line, however they were split.
    ///
    /// An error is told once; everything is then ignored until a host says hello again, which puts
    /// the session right if it is the same one. All of `bytes` is taken in any case, so the hello
    /// may be among them.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        let mut outcome = Ok(());
        while !bytes.is_empty() {
            let taken = match self.decoder.step(&mut bytes) {
                Ok(Step::Starved) => Ok(()),
                Ok(Step::Torn { .. }) => {
                    self.line_lost();
                    Ok(())
                }
                Ok(Step::Frame(frame)) => self.take_frame(frame),
                Err(error) => Err(error),
            };
            match taken {
                Ok(()) => {}
                // Nothing is expected of a line before its hello.
                Err(_) if matches!(self.phase, Phase::Down) => self.decoder.clear(),
                Err(error) => outcome = self.fail(error),
            }
        }
        outcome
    }

    fn take_frame(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        if frame.kind == Kind::Hello {
            let hello = Hello::parse(&frame)?;
            self.take_hello(&hello);
            return Ok(());
        }
        match &mut self.phase {
            Phase::Down | Phase::Searching(_) => Ok(()),
            Phase::Ready => self.shared.receive(frame),
            Phase::Positions { version, attached, account } => {
                if !account.receive(&frame)? {
                    return Ok(());
                }
                let (version, attached, account) = (*version, *attached, std::mem::take(account));
                self.shared.resume(&account)?;
                self.enter_ready(version, attached);
                Ok(())
            }
        }
    }

    fn take_hello(&mut self, hello: &Hello) {
        self.line_lost();
        let Some(version) = hello.common_version() else {
            self.answer(hello, [MIN_VERSION, MAX_VERSION], Verdict::NoCommonVersion);
            return;
        };
        let known = self.side.session == Some(hello.session);
        match hello.mode {
            Attached::New if known && self.shared.restart() => {
                self.answer(hello, [version, 0], Verdict::Accepted);
                self.enter_ready(version, Attached::Resumed);
            }
            Attached::New => {
                self.side.session = Some(hello.session);
                self.shared = Session::new(Role::Guest);
                self.answer(hello, [version, 0], Verdict::Accepted);
                self.enter_ready(version, Attached::New);
            }
            attached if known => {
                self.answer(hello, [version, 0], Verdict::Accepted);
                self.shared.tell_positions(&mut self.output);
                self.phase = Phase::Positions { version, attached, account: Account::default() };
            }
            Attached::Resumed | Attached::Adopted => {
                self.answer(hello, [0, 0], Verdict::UnknownSession);
            }
        }
    }

    fn answer(&mut self, hello: &Hello, versions: [u16; 2], verdict: Verdict) {
        let (session, nonce) = (hello.session, hello.nonce);
        self.output.push_raw(&Welcome { versions, verdict, session, nonce }.encode());
    }
}

impl Default for Mux<Guest> {
    fn default() -> GuestMux {
        GuestMux::new()
    }
}

#[cfg(test)]
mod tests;
