// SPDX-License-Identifier: Apache-2.0
//! What two peers share over any number of lines: the control lane, the streams, and what is to be
//! told to the caller. Knows nothing of handshakes.
//!
//! # Life of a stream
//!
//! ```text
//! host: open()                          guest: Open frame
//!        \                                /
//!         +---------> open <-------------+
//!                    |     \
//!   end acknowledged |      \ reset()
//!   in each direction|       v
//!                    |    resetting  (frames for it are ignored)
//!     Reset received |       |
//!     (answered with |       | ResetAck received
//!      ResetAck)     v       v
//!                    over  (a frame for it is an error, but Reset, which is answered)
//! ```
//!
//! A side that resets keeps the number until the peer has answered, so frames that crossed the
//! reset are told from frames of a peer that makes streams up.

mod receive;
pub(crate) mod resume;
mod schedule;

use std::collections::{BTreeMap, VecDeque};

use crate::error::SendError;
use crate::event::{Direction, MuxEvent};
use crate::hello::Attached;
use crate::lane::{LaneRecv, LaneSend};
use crate::limits::MAX_STREAMS;
use crate::message::StreamId;
use crate::session::schedule::Schedule;
use crate::stream::{Arrived, RecvHalf, SendHalf, Urgency};

/// Which side of the line we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Host,
    Guest,
}

/// A stream that is open or being reset.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "three say in which queues the stream stands")]
struct Stream {
    send: Option<SendHalf>,
    recv: Option<RecvHalf>,
    /// Where the control lane stood behind its opening; only the host looks at it.
    opened_at: u64,
    /// We sent a reset that the peer has not answered. Both halves are gone.
    resetting: bool,
    /// Whether it waits in a queue of [`Schedule`].
    scheduled: bool,
    /// Whether it has a [`Pending::Readable`] or [`Pending::Writable`] in the queue.
    readable: bool,
    writable: bool,
    /// How soon its acknowledgement should go out, if there is one to send.
    ack: Option<Urgency>,
}

impl Stream {
    fn new(role: Role, direction: Direction, opened_at: u64) -> Stream {
        let (sends, receives) = match role {
            Role::Host => (direction.to_guest(), direction.to_host()),
            Role::Guest => (direction.to_host(), direction.to_guest()),
        };
        Stream {
            send: sends.then(SendHalf::default),
            recv: receives.then(RecvHalf::default),
            opened_at,
            ..Stream::default()
        }
    }

    fn is_over(&self) -> bool {
        self.send.is_none() && self.recv.is_none() && !self.resetting
    }
}

/// An event that has not been taken. Streams stand for what they hold, so one stream is in the
/// queue at most twice, however much arrived.
#[derive(Debug)]
enum Pending {
    Ready { version: u16, attached: Attached },
    Control { message: Vec<u8>, lane_end: u64 },
    Opened { stream: StreamId, direction: Direction, lane_end: u64 },
    Readable(StreamId),
    Writable(StreamId),
    Reset(StreamId),
}

/// Everything that outlives a line.
#[derive(Debug)]
pub(crate) struct Session {
    role: Role,
    begun: bool,
    lane_send: LaneSend,
    lane_recv: LaneRecv,
    lane_ack: Option<Urgency>,
    streams: BTreeMap<StreamId, Stream>,
    /// The highest stream number that was ever opened.
    newest: StreamId,
    events: VecDeque<Pending>,
    schedule: Schedule,
}

impl Session {
    pub(crate) fn new(role: Role) -> Session {
        Session {
            role,
            begun: false,
            lane_send: LaneSend::default(),
            lane_recv: LaneRecv::default(),
            lane_ack: None,
            streams: BTreeMap::new(),
            newest: 0,
            events: VecDeque::new(),
            schedule: Schedule::default(),
        }
    }

    /// The session stands on a line from now on.
    pub(crate) fn begin(&mut self, version: u16, attached: Attached) {
        self.begun = true;
        self.events.push_back(Pending::Ready { version, attached });
    }

    pub(crate) fn open(&mut self, direction: Direction) -> Result<StreamId, SendError> {
        if !self.begun {
            return Err(SendError::NotReady);
        }
        let stream = self.newest.checked_add(1).ok_or(SendError::NoStreamFree)?;
        if self.streams.len() >= MAX_STREAMS {
            return Err(SendError::NoStreamFree);
        }
        let opened_at = self.lane_send.push_open(stream, direction.to_byte())?;
        self.newest = stream;
        self.streams.insert(stream, Stream::new(self.role, direction, opened_at));
        Ok(stream)
    }

    pub(crate) fn send_control(&mut self, message: Vec<u8>) -> Result<(), SendError> {
        if !self.begun {
            return Err(SendError::NotReady);
        }
        self.lane_send.push_message(message)
    }

    pub(crate) fn send_data(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, SendError> {
        let half = self.open_half(id)?;
        let accepted = half.push(bytes);
        if accepted > 0 {
            self.schedule_stream(id);
        }
        Ok(accepted)
    }

    pub(crate) fn send_owned(
        &mut self,
        id: StreamId,
        bytes: Vec<u8>,
    ) -> Result<Vec<u8>, SendError> {
        match self.open_half(id)?.push_owned(bytes) {
            Ok(()) => {
                self.schedule_stream(id);
                Ok(Vec::new())
            }
            Err(mut bytes) => {
                let accepted = self.send_data(id, &bytes)?;
                bytes.drain(..accepted);
                Ok(bytes)
            }
        }
    }

    /// Bytes that a stream takes now. Zero leaves a note to tell when there is room again.
    pub(crate) fn send_space(&mut self, id: StreamId) -> Result<usize, SendError> {
        let half = self.open_half(id)?;
        let space = half.space();
        half.starved |= space == 0;
        Ok(space)
    }

    pub(crate) fn send_eof(&mut self, id: StreamId) {
        if let Ok(half) = self.open_half(id) {
            half.finish();
            self.schedule_stream(id);
        }
    }

    pub(crate) fn reset(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.resetting {
            return;
        }
        *stream = Stream { resetting: true, opened_at: stream.opened_at, ..Stream::default() };
        self.schedule.forget(id);
        self.schedule.resets.push_back(id);
    }

    pub(crate) fn consumed(&mut self, id: StreamId, n: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(urgency) = stream.recv.as_mut().and_then(|half| half.consume(n)) else { return };
        self.note_ack(id, urgency);
    }

    pub(crate) fn position(&self, id: StreamId) -> Option<u64> {
        Some(self.streams.get(&id)?.recv.as_ref()?.position())
    }

    pub(crate) fn is_open(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| !stream.resetting)
    }

    pub(crate) fn is_drained(&self) -> bool {
        let drained = |stream: &Stream| stream.send.as_ref().is_none_or(SendHalf::is_drained);
        self.lane_send.is_drained() && self.streams.values().all(drained)
    }

    pub(crate) fn next_event(&mut self) -> Option<MuxEvent> {
        loop {
            match self.events.pop_front()? {
                Pending::Ready { version, attached } => {
                    return Some(MuxEvent::Ready { version, attached });
                }
                Pending::Control { message, lane_end } => {
                    self.consume_lane(lane_end);
                    return Some(MuxEvent::Control(message));
                }
                Pending::Opened { stream, direction, lane_end } => {
                    self.consume_lane(lane_end);
                    return Some(MuxEvent::Opened { stream, direction });
                }
                Pending::Reset(stream) => return Some(MuxEvent::Reset { stream }),
                Pending::Writable(id) => {
                    if let Some(stream) = self.streams.get_mut(&id)
                        && std::mem::take(&mut stream.writable)
                        && stream.send.as_ref().is_some_and(|half| half.space() > 0)
                    {
                        return Some(MuxEvent::Writable { stream: id });
                    }
                }
                Pending::Readable(id) => {
                    if let Some(event) = self.take_arrived(id) {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// The sending half of a stream that can still be written to.
    fn open_half(&mut self, id: StreamId) -> Result<&mut SendHalf, SendError> {
        self.streams
            .get_mut(&id)
            .and_then(|stream| stream.send.as_mut())
            .filter(|half| !half.is_ended())
            .ok_or(SendError::Closed { stream: id })
    }

    fn consume_lane(&mut self, offset: u64) {
        let due = self.lane_recv.consume(offset);
        if due {
            self.lane_ack = Some(Urgency::Due);
        } else if self.lane_ack.is_none() {
            self.lane_ack = Some(Urgency::Lazy);
        }
    }

    /// Takes the next that a stream holds, and queues the stream again if there is more.
    fn take_arrived(&mut self, id: StreamId) -> Option<MuxEvent> {
        let stream = self.streams.get_mut(&id)?;
        let half = stream.recv.as_mut()?;
        let arrived = half.take();
        stream.readable = half.has_arrived();
        if stream.readable {
            self.events.push_back(Pending::Readable(id));
        }
        match arrived? {
            Arrived::Data(bytes) => Some(MuxEvent::Data { stream: id, bytes }),
            Arrived::Eof => {
                // The end needs no consumption of its own.
                self.consumed(id, 0);
                Some(MuxEvent::Eof { stream: id })
            }
        }
    }

    /// Removes a stream that has nothing left to do.
    fn remove_if_over(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(Stream::is_over) {
            self.streams.remove(&id);
            self.schedule.forget(id);
        }
    }
}
