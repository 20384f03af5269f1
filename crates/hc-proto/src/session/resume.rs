// SPDX-License-Identifier: Apache-2.0
//! How a session moves to another line: each side tells how far it got, the other goes back there.
//!
//! A side lists every stream it knows. A stream that the peer does not list is over for it: all
//! that we sent on it was consumed, and it knows that we consumed all it sent. The exception is a
//! stream whose opening was lost with the line, which the control lane repeats.

use std::collections::BTreeMap;

use crate::error::ProtocolError;
use crate::event::Direction;
use crate::frame::{Frame, Kind};
use crate::lane::{LaneRecv, LaneSend};
use crate::limits::MAX_STREAMS;
use crate::message::StreamId;
use crate::output::Output;
use crate::session::{Pending, Role, Session, Stream};
use crate::stream::{RecvHalf, SendHalf};

/// The sender of the position still sends on the stream.
const SENDS: u32 = 1;
/// The sender of the position still receives on the stream.
const RECEIVES: u32 = 2;
/// The sender of the position received the end of the stream.
const END_RECEIVED: u32 = 4;
/// The sender of the position gave the stream up and will say so again.
const RESETTING: u32 = 8;

/// More than any stream can carry in a lifetime, and far enough from the end of a `u64` that no sum
/// of offsets and windows overflows.
const MAX_OFFSET: u64 = 1 << 62;

/// The body of a position frame.
const BODY_LEN: usize = 32;

/// How far a peer got on one stream, or on the control lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    /// What it received: sending goes on from here.
    received: u64,
    /// What it consumed of that.
    consumed: u64,
    /// What it knows to have been consumed of its own bytes.
    acked: u64,
    /// Flags of a stream; the newest stream's number for the control lane.
    extra: u32,
}

impl Position {
    fn encode(self) -> [u8; BODY_LEN] {
        let mut body = [0; BODY_LEN];
        body[0..8].copy_from_slice(&self.received.to_le_bytes());
        body[8..16].copy_from_slice(&self.consumed.to_le_bytes());
        body[16..24].copy_from_slice(&self.acked.to_le_bytes());
        body[24..28].copy_from_slice(&self.extra.to_le_bytes());
        body
    }

    /// Reads a body; its last four bytes are reserved and not looked at.
    fn parse(frame: &Frame) -> Result<Position, ProtocolError> {
        let body: &[u8; BODY_LEN] = frame.fixed_body()?;
        let word = |at: usize| body[at..at + 8].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        let extra = u32::from_le_bytes([body[24], body[25], body[26], body[27]]);
        let position = Position { received: word(0), consumed: word(8), acked: word(16), extra };
        let largest = position.received.max(position.acked);
        if position.consumed > position.received || largest > MAX_OFFSET {
            return Err(ProtocolError::BadPosition { stream: frame.stream });
        }
        Ok(position)
    }

    fn has(self, flag: u32) -> bool {
        self.extra & flag != 0
    }
}

/// What the peer has told of its positions so far.
#[derive(Debug, Default)]
pub(crate) struct Account {
    positions: BTreeMap<StreamId, Position>,
}

impl Account {
    /// Takes a frame of the exchange; `true` if it was the last.
    pub(crate) fn receive(&mut self, frame: &Frame) -> Result<bool, ProtocolError> {
        match frame.kind {
            Kind::Position => {
                let position = Position::parse(frame)?;
                if self.positions.len() > MAX_STREAMS {
                    return Err(ProtocolError::TooManyStreams);
                }
                match self.positions.insert(frame.stream, position) {
                    Some(_) => Err(ProtocolError::BadPosition { stream: frame.stream }),
                    None => Ok(false),
                }
            }
            Kind::PositionsEnd => {
                frame.fixed_body::<0>()?;
                Ok(true)
            }
            kind => {
                Err(ProtocolError::Misplaced { kind: kind as u8, during: "positions are told" })
            }
        }
    }
}

impl Session {
    /// The line is gone: nothing is on its way any more.
    pub(crate) fn line_lost(&mut self) {
        self.unschedule();
    }

    /// Tells the peer how far we got, which acknowledges what we consumed.
    pub(crate) fn tell_positions(&mut self, output: &mut Output) {
        let lane = Position {
            received: self.lane_recv.received,
            consumed: self.lane_recv.consumed,
            acked: self.lane_send.acked,
            extra: self.newest,
        };
        output.push_frame(Kind::Position, 0, &lane.encode());
        for (id, stream) in &self.streams {
            output.push_frame(Kind::Position, *id, &position_of(stream).encode());
        }
        output.push_frame(Kind::PositionsEnd, 0, &[]);
        self.lane_recv.next_ack();
        self.streams.retain(|_, stream| {
            stream.recv.take_if(|half| {
                half.next_ack();
                half.is_finished()
            });
            !stream.is_over()
        });
    }

    /// Goes back to where the peer got to, and queues what it lacks.
    pub(crate) fn resume(&mut self, account: &Account) -> Result<(), ProtocolError> {
        let lane = account.lane()?;
        let fits = self.lane_send.acknowledge(lane.consumed)
            && self.lane_send.rewind(lane.received)
            && self.lane_recv.repeat_acks_from(lane.acked);
        if !fits {
            return Err(ProtocolError::BadPosition { stream: 0 });
        }
        if self.role == Role::Host {
            account.check_streams_up_to(self.newest)?;
        }
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let position = account.position_on(id, stream.opened_at <= lane.received);
            if !position.has(RESETTING) && !stream.meet(position) {
                return Err(ProtocolError::BadPosition { stream: id });
            }
            self.after_ack(id);
        }
        self.reschedule();
        Ok(())
    }

    /// Starts again from the beginning, if that is where the peer still is: a host that lost the
    /// line before it had our welcome says its first hello once more.
    pub(crate) fn restart(&mut self) -> bool {
        let untouched = self.begun && self.lane_recv.received == 0 && self.lane_send.rewind(0);
        if untouched {
            self.reschedule();
        }
        untouched
    }

    /// Takes over, in a new process, what the guest holds of the session.
    pub(crate) fn adopt(&mut self, account: &Account) -> Result<(), ProtocolError> {
        let lane = account.lane()?;
        account.check_streams_up_to(lane.extra)?;
        self.lane_send = LaneSend::adopted(lane.received, lane.consumed);
        self.lane_recv = LaneRecv::adopted(lane.acked);
        self.newest = lane.extra;
        for (&id, &position) in &account.positions {
            // The guest repeats the reset of what it gave up; there is nothing to take over.
            if id == 0 || position.has(RESETTING) {
                continue;
            }
            let (stream, direction) =
                Stream::adopted(position).ok_or(ProtocolError::BadPosition { stream: id })?;
            self.streams.insert(id, stream);
            self.events.push_back(Pending::Opened { stream: id, direction, lane_end: 0 });
        }
        Ok(())
    }
}

impl Account {
    /// The position on the control lane, which every account has.
    fn lane(&self) -> Result<Position, ProtocolError> {
        self.positions.get(&0).copied().ok_or(ProtocolError::BadPosition { stream: 0 })
    }

    /// The peer's position on a stream of ours; `born` says whether it ever heard of the stream.
    fn position_on(&self, id: StreamId, born: bool) -> Position {
        let unborn = Position { extra: SENDS | RECEIVES, ..Position::default() };
        let missing = if born { Position::default() } else { unborn };
        self.positions.get(&id).copied().unwrap_or(missing)
    }

    /// Only the host numbers streams, so a guest cannot know more of them.
    fn check_streams_up_to(&self, newest: StreamId) -> Result<(), ProtocolError> {
        match self.positions.last_key_value() {
            Some((&stream, _)) if stream > newest => Err(ProtocolError::BadPosition { stream }),
            _ => Ok(()),
        }
    }
}

impl Stream {
    /// Goes back to where the peer got to; `false` if it cannot have got there.
    fn meet(&mut self, peer: Position) -> bool {
        let sending = match &mut self.send {
            None => true,
            Some(half) if peer.has(RECEIVES) => {
                half.acknowledge(peer.consumed) && half.rewind(peer.received)
            }
            Some(half) => half.acknowledge_all(),
        };
        let receiving = match &mut self.recv {
            None => true,
            Some(half) => peer.has(SENDS) && half.repeat_acks_from(peer.acked),
        };
        sending && receiving
    }

    /// The host's side of a stream that the guest holds, seen from its position.
    fn adopted(guest: Position) -> Option<(Stream, Direction)> {
        let direction = match (guest.has(RECEIVES), guest.has(SENDS)) {
            (true, true) => Direction::Both,
            (true, false) => Direction::ToGuest,
            (false, true) => Direction::ToHost,
            (false, false) => return None,
        };
        let ended = guest.has(END_RECEIVED);
        let send = || SendHalf::adopted(guest.received, guest.consumed, ended);
        let stream = Stream {
            send: if direction.to_guest() { Some(send()?) } else { None },
            recv: direction.to_host().then(|| RecvHalf::adopted(guest.acked)),
            ..Stream::default()
        };
        Some((stream, direction))
    }
}

/// How far we got on a stream.
fn position_of(stream: &Stream) -> Position {
    let mut position = Position::default();
    if let Some(half) = &stream.recv {
        position.received = half.received;
        position.consumed = half.consumed;
        position.extra |= RECEIVES | if half.ended { END_RECEIVED } else { 0 };
    }
    if let Some(half) = &stream.send {
        position.acked = half.acked;
        position.extra |= SENDS;
    }
    if stream.resetting {
        position.extra = RESETTING;
    }
    position
}
