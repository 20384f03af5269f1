// SPDX-License-Identifier: Apache-2.0
//! The control lane: stream 0, which carries whole messages and the opening of streams, in order.
//!
//! It is acknowledged and repeated like any stream. Its offsets count
//! [`MESSAGE_OVERHEAD`] and the body for each frame, and only those between two messages are ever
//! acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{ProtocolError, SendError};
use crate::frame::Kind;
use crate::limits::{CONTROL_WINDOW, MAX_BODY_LEN, MAX_MESSAGE_LEN, MESSAGE_OVERHEAD};

/// What a frame counts in the lane's offsets.
fn cost(len: usize) -> u64 {
    len as u64 + MESSAGE_OVERHEAD
}

/// A frame of the lane.
#[derive(Clone, Debug)]
pub(crate) struct LaneFrame {
    start: u64,
    pub(crate) kind: Kind,
    pub(crate) stream: u32,
    pub(crate) body: Arc<Vec<u8>>,
}

impl LaneFrame {
    fn end(&self) -> u64 {
        self.start + cost(self.body.len())
    }
}

/// Keeps messages until the peer acknowledges them.
#[derive(Debug, Default)]
pub(crate) struct LaneSend {
    frames: VecDeque<LaneFrame>,
    pub(crate) acked: u64,
    sent: u64,
    end: u64,
}

impl LaneSend {
    /// A lane on which the peer `received` that much from another process.
    pub(crate) fn adopted(received: u64, consumed: u64) -> LaneSend {
        LaneSend { frames: VecDeque::new(), acked: consumed, sent: received, end: received }
    }

    /// Queues a message, in parts if it is long.
    pub(crate) fn push_message(&mut self, message: Vec<u8>) -> Result<(), SendError> {
        if message.len() > MAX_MESSAGE_LEN {
            return Err(SendError::TooLong { len: message.len() });
        }
        let parts = message.len().div_ceil(MAX_BODY_LEN).max(1);
        self.reserve(message.len() as u64 + parts as u64 * MESSAGE_OVERHEAD)?;
        if parts == 1 {
            self.append(Kind::Control, 0, message);
            return Ok(());
        }
        for (index, part) in message.chunks(MAX_BODY_LEN).enumerate() {
            let last = index + 1 == parts;
            let kind = if last { Kind::Control } else { Kind::ControlPart };
            self.append(kind, 0, part.to_vec());
        }
        Ok(())
    }

    /// Queues the opening of a stream and returns the offset behind it.
    pub(crate) fn push_open(&mut self, stream: u32, direction: u8) -> Result<u64, SendError> {
        self.reserve(cost(1))?;
        self.append(Kind::Open, stream, vec![direction]);
        Ok(self.end)
    }

    /// The next frame, which counts as sent from now on.
    pub(crate) fn next_outgoing(&mut self) -> Option<LaneFrame> {
        let index = self.frames.partition_point(|frame| frame.end() <= self.sent);
        let frame = self.frames.get(index)?.clone();
        self.sent = frame.end();
        Some(frame)
    }

    /// Takes the peer's word that it consumed everything before `offset`; `false` if it cannot be.
    pub(crate) fn acknowledge(&mut self, offset: u64) -> bool {
        if offset < self.acked || offset > self.sent {
            return false;
        }
        while self.frames.front().is_some_and(|frame| frame.end() <= offset) {
            self.frames.pop_front();
        }
        self.acked = offset;
        self.frames.front().is_none_or(|frame| frame.start >= offset)
    }

    /// Goes back to what the peer has `received`.
    pub(crate) fn rewind(&mut self, received: u64) -> bool {
        let boundary = received == self.end || self.frames.iter().any(|f| f.start == received);
        if received < self.acked || received > self.sent || !boundary {
            return false;
        }
        self.sent = received;
        true
    }

    /// Whether everything queued was acknowledged.
    pub(crate) fn is_drained(&self) -> bool {
        self.frames.is_empty()
    }

    fn reserve(&self, len: u64) -> Result<(), SendError> {
        let used = self.end - self.acked.min(self.end);
        if used + len > CONTROL_WINDOW { Err(SendError::Full) } else { Ok(()) }
    }

    fn append(&mut self, kind: Kind, stream: u32, body: Vec<u8>) {
        let frame = LaneFrame { start: self.end, kind, stream, body: Arc::new(body) };
        self.end = frame.end();
        self.frames.push_back(frame);
    }
}

/// Puts messages together and knows how much was consumed.
#[derive(Debug, Default)]
pub(crate) struct LaneRecv {
    partial: Vec<u8>,
    pub(crate) received: u64,
    pub(crate) consumed: u64,
    acked: u64,
}

impl LaneRecv {
    /// A lane whose messages before `offset` another process consumed.
    pub(crate) fn adopted(offset: u64) -> LaneRecv {
        LaneRecv { partial: Vec::new(), received: offset, consumed: offset, acked: offset }
    }

    /// Counts a frame of the lane, if the window has room for it.
    pub(crate) fn count(&mut self, len: usize) -> Result<(), ProtocolError> {
        let received = self.received + cost(len);
        if received - self.consumed > CONTROL_WINDOW {
            return Err(ProtocolError::WindowExceeded { stream: 0 });
        }
        self.received = received;
        Ok(())
    }

    /// Adds a part of a message; returns the message if it was the last.
    pub(crate) fn join(
        &mut self,
        body: Vec<u8>,
        last: bool,
    ) -> Result<Option<Vec<u8>>, ProtocolError> {
        if self.partial.len() + body.len() > MAX_MESSAGE_LEN {
            return Err(ProtocolError::MessageTooLong);
        }
        if last && self.partial.is_empty() {
            return Ok(Some(body));
        }
        self.partial.extend_from_slice(&body);
        Ok(last.then(|| std::mem::take(&mut self.partial)))
    }

    /// Whether a message has begun and is not complete.
    pub(crate) fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Acknowledgements behind `offset` were lost and have to be sent again; `false` if the writer
    /// knows of more than there were.
    pub(crate) fn repeat_acks_from(&mut self, offset: u64) -> bool {
        self.acked = offset.min(self.consumed);
        offset <= self.consumed
    }

    /// Whether an acknowledgement is to be sent.
    pub(crate) fn has_ack(&self) -> bool {
        self.consumed > self.acked
    }

    /// Notes that everything before `offset` was taken; says whether the peer should hear now.
    pub(crate) fn consume(&mut self, offset: u64) -> bool {
        self.consumed = self.consumed.max(offset);
        self.consumed - self.acked >= CONTROL_WINDOW / 4
    }

    /// The offset to acknowledge, if it is news; counts as acknowledged from now on.
    pub(crate) fn next_ack(&mut self) -> Option<u64> {
        let news = self.consumed > self.acked;
        self.acked = self.consumed;
        news.then_some(self.consumed)
    }
}

#[cfg(test)]
mod tests;
