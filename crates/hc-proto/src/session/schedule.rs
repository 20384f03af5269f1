// SPDX-License-Identifier: Apache-2.0
//! Which frame goes out next.
//!
//! Order: acknowledgements (a writer may wait for them), the control lane, resets, then streams.
//! The lane always goes before streams and resets, so nothing overtakes the opening of its stream.
//! Among streams, one that begins to say something short goes first, taking turns with those that
//! have much to say: an echo waits for one frame of a flood, not for one frame of each flood.

use std::collections::VecDeque;

use crate::frame::Kind;
use crate::limits::OUTPUT_AHEAD;
use crate::message::StreamId;
use crate::output::Output;
use crate::session::Session;
use crate::stream::{Outgoing, SendHalf, Urgency};

/// A stream that has at most this much to send goes first: a screenful, or a burst of keys.
const SHORT_LEN: u64 = 4 * 1024;

/// Streams that wait for something to be sent.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Streams that had nothing to send until now, and have little.
    short: VecDeque<StreamId>,
    /// Streams that have much to send.
    busy: VecDeque<StreamId>,
    /// Whether the last frame came from `short`.
    served_short: bool,
    /// Streams with an acknowledgement to send. One that became due may be in both queues.
    acks_due: VecDeque<StreamId>,
    acks_lazy: VecDeque<StreamId>,
    pub(super) resets: VecDeque<StreamId>,
    pub(super) reset_acks: VecDeque<StreamId>,
}

impl Schedule {
    /// Takes a stream out of the queues of what flows; resets stay.
    pub(super) fn forget(&mut self, id: StreamId) {
        for queue in [&mut self.short, &mut self.busy, &mut self.acks_due, &mut self.acks_lazy] {
            queue.retain(|other| *other != id);
        }
    }

    fn next_stream(&mut self) -> Option<StreamId> {
        let short = !self.short.is_empty() && (self.busy.is_empty() || !self.served_short);
        self.served_short = short;
        if short { self.short.pop_front() } else { self.busy.pop_front() }
    }
}

impl Session {
    /// Frames what there is to send, up to [`OUTPUT_AHEAD`].
    pub(crate) fn fill(&mut self, output: &mut Output) {
        let before = output.len();
        self.emit_acks(output, Urgency::Due);
        while output.len() < OUTPUT_AHEAD
            && (self.emit_lane(output) || self.emit_reset(output) || self.emit_stream(output))
        {
        }
        if output.len() > before {
            self.emit_acks(output, Urgency::Lazy);
        }
    }

    /// Whether acknowledgements wait for a frame to go with.
    pub(crate) fn has_lazy_acks(&self) -> bool {
        self.lane_ack.is_some() || !self.schedule.acks_lazy.is_empty()
    }

    /// Makes every acknowledgement due.
    pub(crate) fn flush_acks(&mut self) {
        if self.lane_ack.is_some() {
            self.lane_ack = Some(Urgency::Due);
        }
        let lazy = std::mem::take(&mut self.schedule.acks_lazy);
        for id in lazy {
            self.note_ack(id, Urgency::Due);
        }
    }

    /// Notes that a stream has an acknowledgement to send.
    pub(super) fn note_ack(&mut self, id: StreamId, urgency: Urgency) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match (stream.ack, urgency) {
            (Some(Urgency::Due), _) | (Some(Urgency::Lazy), Urgency::Lazy) => return,
            (_, Urgency::Due) => self.schedule.acks_due.push_back(id),
            (None, Urgency::Lazy) => self.schedule.acks_lazy.push_back(id),
        }
        stream.ack = Some(urgency);
    }

    /// Queues a stream that has something to send, unless it waits already.
    pub(super) fn schedule_stream(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let unsent = stream.send.as_ref().map_or(0, SendHalf::unsent);
        if unsent == 0 || std::mem::replace(&mut stream.scheduled, true) {
            return;
        }
        let queue = match unsent {
            ..=SHORT_LEN => &mut self.schedule.short,
            _ => &mut self.schedule.busy,
        };
        queue.push_back(id);
    }

    /// Empties every queue when a line is lost; what is still to be sent is found again later.
    pub(super) fn unschedule(&mut self) {
        self.schedule = Schedule::default();
        self.lane_ack = None;
        for stream in self.streams.values_mut() {
            stream.scheduled = false;
            stream.ack = None;
        }
    }

    /// Queues everything that is to be sent on a new line, once, whatever was queued while there
    /// was none.
    pub(super) fn reschedule(&mut self) {
        self.unschedule();
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            if self.streams.get(&id).is_some_and(|stream| stream.resetting) {
                self.schedule.resets.push_back(id);
            }
            self.schedule_stream(id);
            self.consumed(id, 0);
        }
        self.lane_ack = self.lane_recv.has_ack().then_some(Urgency::Due);
    }

    fn emit_acks(&mut self, output: &mut Output, urgency: Urgency) {
        if self.lane_ack == Some(Urgency::Due) || urgency == Urgency::Lazy {
            self.lane_ack = None;
            if let Some(offset) = self.lane_recv.next_ack() {
                output.push_frame(Kind::Ack, 0, &offset.to_le_bytes());
            }
        }
        while let Some(id) = self.schedule.acks_due.pop_front() {
            self.emit_ack(output, id);
        }
        while urgency == Urgency::Lazy
            && let Some(id) = self.schedule.acks_lazy.pop_front()
        {
            self.emit_ack(output, id);
        }
    }

    fn emit_ack(&mut self, output: &mut Output, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.ack.take().is_none() {
            return;
        }
        let Some(half) = &mut stream.recv else { return };
        if let Some(offset) = half.next_ack() {
            output.push_frame(Kind::Ack, id, &offset.to_le_bytes());
        }
        if half.is_finished() {
            stream.recv = None;
            self.remove_if_over(id);
        }
    }

    fn emit_lane(&mut self, output: &mut Output) -> bool {
        let Some(frame) = self.lane_send.next_outgoing() else { return false };
        let whole = 0..frame.body.len();
        output.push_shared(frame.kind, frame.stream, &frame.body, whole);
        true
    }

    fn emit_reset(&mut self, output: &mut Output) -> bool {
        if let Some(id) = self.schedule.reset_acks.pop_front() {
            output.push_frame(Kind::ResetAck, id, &[]);
        } else if let Some(id) = self.schedule.resets.pop_front() {
            output.push_frame(Kind::Reset, id, &[]);
        } else {
            return false;
        }
        true
    }

    /// Emits one frame of the stream whose turn it is; `false` if none has anything to send.
    fn emit_stream(&mut self, output: &mut Output) -> bool {
        let Some(id) = self.schedule.next_stream() else { return false };
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        stream.scheduled = false;
        let Some(half) = &mut stream.send else { return true };
        match half.next_outgoing() {
            Some(Outgoing::Data(bytes, range)) => {
                output.push_shared(Kind::Data, id, &bytes, range);
            }
            Some(Outgoing::Eof) => output.push_frame(Kind::Eof, id, &[]),
            None => {}
        }
        if half.unsent() > 0 {
            stream.scheduled = true;
            self.schedule.busy.push_back(id);
        }
        true
    }
}
