// SPDX-License-Identifier: Apache-2.0
//! One stream as one side sees it: a sending half, a receiving half, or both.
//!
//! Offsets count the bytes of one direction from 0 for the life of the session; the end of a
//! direction counts as one more, so that it is sent, acknowledged and repeated like a byte.
//!
//! ```text
//! sending half     acked <= sent <= end (+1 once the end is sent);  end - acked <= STREAM_WINDOW
//! receiving half   acked <= consumed <= taken <= received;  received - consumed <= STREAM_WINDOW
//! ```
//!
//! A half is over when its end is acknowledged; a stream is over when it has no half left.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::limits::{ACK_THRESHOLD, MAX_BODY_LEN, STREAM_WINDOW};

/// Shorter pieces are copied together, so that single bytes do not each become an allocation.
const GATHER_LEN: usize = 4 * 1024;

/// Bytes in a row that were handed in together, or gathered.
#[derive(Debug)]
struct Segment {
    start: u64,
    bytes: Arc<Vec<u8>>,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// What the sending half has to say next.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A frame of bytes.
    Data(Arc<Vec<u8>>, Range<usize>),
    /// The end.
    Eof,
}

/// Keeps what was handed in until the peer acknowledges it.
#[derive(Debug, Default)]
pub(crate) struct SendHalf {
    segments: VecDeque<Segment>,
    pub(crate) acked: u64,
    sent: u64,
    end: u64,
    ended: bool,
    /// Whether a caller was told to wait and has to hear of room.
    pub(crate) starved: bool,
}

impl SendHalf {
    /// A half whose earlier bytes another process sent: the peer has `received` and consumed
    /// `consumed` of them.
    /// `None` if it cannot have done so.
    pub(crate) fn adopted(received: u64, consumed: u64, ended: bool) -> Option<SendHalf> {
        let end = received.checked_sub(u64::from(ended))?;
        let half = SendHalf { acked: consumed, sent: received, end, ended, ..SendHalf::default() };
        (consumed <= received).then_some(half)
    }

    /// Bytes that may be handed in now.
    pub(crate) fn space(&self) -> usize {
        if self.ended {
            return 0;
        }
        let used = self.end - self.acked.min(self.end);
        usize::try_from(STREAM_WINDOW.saturating_sub(used)).unwrap_or(0)
    }

    /// Whether the end was handed in.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether everything handed in was acknowledged.
    pub(crate) fn is_drained(&self) -> bool {
        self.acked == self.goal()
    }

    /// What is still to be framed, the end included.
    pub(crate) fn unsent(&self) -> u64 {
        self.goal() - self.sent
    }

    /// Takes as many bytes as there is room for.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        let (bytes, left) = bytes.split_at(bytes.len().min(self.space()));
        self.starved |= !left.is_empty();
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.push_some(rest);
        }
        bytes.len()
    }

    /// Takes the whole vector without a copy if there is room and it is worth it.
    pub(crate) fn push_owned(&mut self, bytes: Vec<u8>) -> Result<(), Vec<u8>> {
        let worth = bytes.len() > GATHER_LEN && bytes.len() * 2 >= bytes.capacity();
        if !worth || bytes.len() > self.space() {
            return Err(bytes);
        }
        self.append(bytes);
        Ok(())
    }

    /// Marks the end; nothing can be handed in after it.
    pub(crate) fn finish(&mut self) {
        self.ended = true;
        self.starved = false;
    }

    /// The next frame, at most [`MAX_BODY_LEN`] long, which counts as sent from now on.
    pub(crate) fn next_outgoing(&mut self) -> Option<Outgoing> {
        if self.sent == self.end && self.ended {
            self.sent += 1;
            return Some(Outgoing::Eof);
        }
        let index = self.segments.partition_point(|segment| segment.end() <= self.sent);
        let segment = self.segments.get(index)?;
        let from = usize::try_from(self.sent - segment.start).ok()?;
        let to = segment.bytes.len().min(from + MAX_BODY_LEN);
        self.sent += (to - from) as u64;
        Some(Outgoing::Data(Arc::clone(&segment.bytes), from..to))
    }

    /// Takes the peer's word that it consumed everything before `offset`; `false` if it cannot be.
    pub(crate) fn acknowledge(&mut self, offset: u64) -> bool {
        if offset < self.acked || offset > self.sent {
            return false;
        }
        self.acked = offset;
        while self.segments.front().is_some_and(|segment| segment.end() <= offset) {
            self.segments.pop_front();
        }
        true
    }

    /// Takes the peer's word that it consumed everything, the end included.
    pub(crate) fn acknowledge_all(&mut self) -> bool {
        self.ended && self.acknowledge(self.goal())
    }

    /// Goes back to what the peer has `received`, to send again what was lost with the line.
    pub(crate) fn rewind(&mut self, received: u64) -> bool {
        let floor = self.segments.front().map_or(self.end, |segment| segment.start);
        if received < self.acked || received < floor || received > self.sent {
            return false;
        }
        self.sent = received;
        true
    }

    /// The offset behind everything handed in, the end included.
    fn goal(&self) -> u64 {
        self.end + u64::from(self.ended)
    }

    /// Adds the front of `bytes` to the last segment or to a new one; returns what is left.
    fn push_some<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if let Some(last) = self.segments.back_mut()
            && last.bytes.len() + bytes.len() <= GATHER_LEN
            && let Some(open) = Arc::get_mut(&mut last.bytes)
        {
            open.extend_from_slice(bytes);
            self.end += bytes.len() as u64;
            return &[];
        }
        let (now, later) = bytes.split_at(bytes.len().min(MAX_BODY_LEN));
        self.append(now.to_vec());
        later
    }

    fn append(&mut self, bytes: Vec<u8>) {
        let start = self.end;
        self.end += bytes.len() as u64;
        self.segments.push_back(Segment { start, bytes: Arc::new(bytes) });
    }
}

/// Holds what arrived until it is taken, and knows how much of it was consumed.
#[derive(Debug, Default)]
pub(crate) struct RecvHalf {
    arrived: VecDeque<Vec<u8>>,
    pub(crate) received: u64,
    taken: u64,
    pub(crate) consumed: u64,
    acked: u64,
    pub(crate) ended: bool,
    end_taken: bool,
}

/// What the receiving half hands out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// Bytes.
    Data(Vec<u8>),
    /// The end.
    Eof,
}

/// How soon an acknowledgement should go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// With the next frame, whenever that comes.
    Lazy,
    /// Now: the writer may be waiting for it.
    Due,
}

impl RecvHalf {
    /// A half whose bytes before `offset` another process consumed.
    pub(crate) fn adopted(offset: u64) -> RecvHalf {
        RecvHalf {
            received: offset,
            taken: offset,
            consumed: offset,
            acked: offset,
            ..RecvHalf::default()
        }
    }

    /// Whether the window has room for `len` more bytes.
    pub(crate) fn admits(&self, len: usize) -> bool {
        self.received + len as u64 - self.consumed <= STREAM_WINDOW
    }

    /// Takes a body that arrived; the caller asked [`admits`](Self::admits).
    pub(crate) fn accept(&mut self, body: Vec<u8>) {
        self.received += body.len() as u64;
        match self.arrived.back_mut() {
            Some(last) if last.len() + body.len() <= GATHER_LEN => last.extend_from_slice(&body),
            _ => self.arrived.push_back(body),
        }
    }

    /// Takes the end that arrived.
    pub(crate) fn accept_end(&mut self) {
        self.received += 1;
        self.ended = true;
    }

    /// Hands out the next bytes, or the end once they are all out.
    pub(crate) fn take(&mut self) -> Option<Arrived> {
        if let Some(bytes) = self.arrived.pop_front() {
            self.taken += bytes.len() as u64;
            return Some(Arrived::Data(bytes));
        }
        if self.ended && !self.end_taken {
            self.end_taken = true;
            return Some(Arrived::Eof);
        }
        None
    }

    /// Whether [`take`](Self::take) has something to hand out.
    pub(crate) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty() || (self.ended && !self.end_taken)
    }

    /// Notes that the reader is done with `n` more bytes that it took, and says whether and how
    /// soon the writer should hear of it. Never counts more than was taken.
    pub(crate) fn consume(&mut self, n: usize) -> Option<Urgency> {
        self.consumed = self.taken.min(self.consumed.saturating_add(n as u64));
        if self.end_taken && self.consumed + 1 == self.received {
            self.consumed += 1;
        }
        if self.is_finished() || self.consumed - self.acked >= ACK_THRESHOLD {
            Some(Urgency::Due)
        } else {
            (self.consumed > self.acked).then_some(Urgency::Lazy)
        }
    }

    /// How much the reader is done with, from the stream's beginning.
    pub(crate) fn position(&self) -> u64 {
        self.consumed
    }

    /// Acknowledgements behind `offset` were lost and have to be sent again; `false` if the writer
    /// knows of more than there were.
    pub(crate) fn repeat_acks_from(&mut self, offset: u64) -> bool {
        self.acked = offset.min(self.consumed);
        offset <= self.consumed
    }

    /// Whether everything up to and with the end was consumed.
    pub(crate) fn is_finished(&self) -> bool {
        self.end_taken && self.consumed == self.received
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
