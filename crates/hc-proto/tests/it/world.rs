// SPDX-License-Identifier: Apache-2.0
//! Two sides and a line, and a book of what each stream should bring.

use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;

use hc_proto::message::StreamId;
use hc_proto::{
    Attached, Direction, GuestMux, HostMux, Line, Mux, MuxEvent, Nonce, ProtocolError, SendError,
    SessionId, decode,
};

pub(crate) const SESSION: SessionId = SessionId(0x5e55_1011);

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Host,
    Guest,
}

impl Side {
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Host => Side::Guest,
            Side::Guest => Side::Host,
        }
    }
}

/// What is known of one direction of a stream.
#[derive(Debug, Default)]
struct Flow {
    written: u64,
    ended: bool,
    read: u64,
    end_read: bool,
    /// Bytes that were read and not yet said to be consumed.
    unconsumed: usize,
}

/// The world of one test. Every method checks what it sees against the book.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) host: HostMux,
    pub(crate) guest: GuestMux,
    /// Bytes on the line, by the side they go to.
    line: BTreeMap<Side, VecDeque<u8>>,
    nonce: u128,
    /// By the side that writes.
    flows: BTreeMap<(StreamId, Side), Flow>,
    /// Streams that either side gave up: what they bring must be right, but need not be all.
    given_up: Vec<StreamId>,
    told: BTreeMap<Side, u32>,
    heard: BTreeMap<Side, u32>,
}

/// A prime, so that no frame or window boundary falls into step with the pattern.
const PERIOD: usize = 65_521;

/// What `side` writes on `stream` from offset `start` on: the same for the same offset, and unlike
/// what stands at any other offset or stream nearby.
fn pattern(stream: StreamId, side: Side, start: u64, len: usize) -> Vec<u8> {
    static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mix = |at: u64| at.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[5];
        (0..PERIOD as u64).map(mix).collect()
    });
    let shift = u64::from(stream) * 7919 + (side as u64) * 104_729;
    let mut at = usize::try_from((start + shift) % PERIOD as u64).unwrap();
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let part = (len - bytes.len()).min(PERIOD - at);
        bytes.extend_from_slice(&TABLE[at..at + part]);
        at = 0;
    }
    bytes
}

impl World {
    /// Two sides; the host has said hello, and nothing has arrived.
    pub(crate) fn new() -> World {
        let mut host = HostMux::new(SESSION);
        host.attach(Nonce(0), Line::Fresh);
        World {
            host,
            guest: GuestMux::new(),
            line: [(Side::Host, VecDeque::new()), (Side::Guest, VecDeque::new())].into(),
            nonce: 0,
            flows: BTreeMap::new(),
            given_up: Vec::new(),
            told: [(Side::Host, 0), (Side::Guest, 0)].into(),
            heard: [(Side::Host, 0), (Side::Guest, 0)].into(),
        }
    }

    /// Every stream that was ever opened.
    pub(crate) fn streams(&self) -> Vec<StreamId> {
        let mut streams: Vec<StreamId> = self.flows.keys().map(|(stream, _)| *stream).collect();
        streams.dedup();
        streams
    }

    pub(crate) fn open(&mut self, direction: Direction) -> Option<StreamId> {
        let stream = match self.host.open(direction) {
            Ok(stream) => stream,
            Err(SendError::NotReady | SendError::Full) => return None,
            Err(error) => panic!("{error}"),
        };
        if direction.to_guest() {
            self.flows.insert((stream, Side::Host), Flow::default());
        }
        if direction.to_host() {
            self.flows.insert((stream, Side::Guest), Flow::default());
        }
        Some(stream)
    }

    pub(crate) fn write(&mut self, side: Side, stream: StreamId, len: usize, owned: bool) {
        let Some(flow) = self.flows.get_mut(&(stream, side)) else { return };
        let bytes = pattern(stream, side, flow.written, len);
        let accepted = match (side, owned) {
            (Side::Host, false) => self.host.send_data(stream, &bytes),
            (Side::Guest, false) => self.guest.send_data(stream, &bytes),
            (Side::Host, true) => self.host.send_owned(stream, bytes).map(|left| len - left.len()),
            (Side::Guest, true) => {
                self.guest.send_owned(stream, bytes).map(|left| len - left.len())
            }
        };
        // The guest may not have heard of the stream yet, or it is over.
        flow.written += accepted.unwrap_or(0) as u64;
    }

    pub(crate) fn end(&mut self, side: Side, stream: StreamId) {
        let Some(flow) = self.flows.get_mut(&(stream, side)) else { return };
        match side {
            Side::Host => self.host.send_eof(stream),
            Side::Guest if self.guest.is_open(stream) => self.guest.send_eof(stream),
            Side::Guest => return,
        }
        flow.ended = true;
    }

    pub(crate) fn reset(&mut self, side: Side, stream: StreamId) {
        let open = match side {
            Side::Host => self.host.is_open(stream),
            Side::Guest => self.guest.is_open(stream),
        };
        if open {
            self.given_up.push(stream);
            match side {
                Side::Host => self.host.reset(stream),
                Side::Guest => self.guest.reset(stream),
            }
        }
    }

    /// Sends a message of about `len` bytes that bears its number.
    pub(crate) fn tell(&mut self, side: Side, len: usize) {
        let number = self.told.get_mut(&side).unwrap();
        let message = (*number, "x".repeat(len));
        let sent = match side {
            Side::Host => self.host.send_control(&message),
            Side::Guest => self.guest.send_control(&message),
        };
        match sent {
            Ok(()) => *number += 1,
            Err(SendError::NotReady | SendError::Full) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Moves up to `len` bytes of what `side` has to say onto the line.
    pub(crate) fn carry(&mut self, side: Side, len: usize) -> bool {
        fn take<S>(mux: &mut Mux<S>, len: usize) -> Vec<u8> {
            let mut bytes = Vec::new();
            while bytes.len() < len && mux.has_output() {
                let output = mux.pending_output();
                let n = output.len().min(len - bytes.len());
                bytes.extend_from_slice(&output[..n]);
                mux.advance(n);
            }
            bytes
        }
        let bytes = match side {
            Side::Host => take(&mut self.host, len),
            Side::Guest => take(&mut self.guest, len),
        };
        self.line.get_mut(&side.other()).unwrap().extend(&bytes);
        !bytes.is_empty()
    }

    /// Feeds `side` up to `len` bytes of the line.
    pub(crate) fn deliver(&mut self, side: Side, len: usize) -> bool {
        let line = self.line.get_mut(&side).unwrap();
        let bytes: Vec<u8> = line.drain(..len.min(line.len())).collect();
        let fed: Result<(), ProtocolError> = match side {
            Side::Host => self.host.feed(&bytes),
            Side::Guest => self.guest.feed(&bytes),
        };
        assert_eq!(fed, Ok(()), "{side:?} took offence at an honest peer");
        !bytes.is_empty()
    }

    /// Takes up to `count` events of `side` and checks each.
    pub(crate) fn take(&mut self, side: Side, count: usize) -> bool {
        let mut any = false;
        for _ in 0..count {
            let event = match side {
                Side::Host => self.host.next_event(),
                Side::Guest => self.guest.next_event(),
            };
            let Some(event) = event else { break };
            any = true;
            self.check(side, event);
        }
        any
    }

    /// Says that `side` used up what it read of a stream, or the half of it.
    pub(crate) fn consume(&mut self, side: Side, stream: StreamId, all: bool) -> bool {
        let Some(flow) = self.flows.get_mut(&(stream, side.other())) else { return false };
        let n = if all { flow.unconsumed } else { flow.unconsumed / 2 };
        flow.unconsumed -= n;
        match side {
            Side::Host => self.host.consumed(stream, n),
            Side::Guest => self.guest.consumed(stream, n),
        }
        n > 0
    }

    /// The line fails, and the host says hello again. Of the bytes on the line, those that the next
    /// line still delivers are `keep` for each side.
    pub(crate) fn cut(&mut self, keep: [usize; 2], guest_notices: bool) {
        self.line.get_mut(&Side::Host).unwrap().truncate(keep[0]);
        self.line.get_mut(&Side::Guest).unwrap().truncate(keep[1]);
        if guest_notices {
            self.guest.line_lost();
            self.line.get_mut(&Side::Guest).unwrap().clear();
        }
        self.nonce += 1;
        self.host.attach(Nonce(self.nonce), Line::Used);
    }

    /// Both sides read everything; once nothing moves any more, everything must have arrived.
    pub(crate) fn settle(&mut self) {
        self.run_dry();
        for (stream, side) in self.flows.keys().copied().collect::<Vec<_>>() {
            self.end(side, stream);
        }
        self.run_dry();
        for (&(stream, side), flow) in &self.flows {
            if !self.given_up.contains(&stream) {
                assert_eq!(flow.read, flow.written, "stream {stream} written by {side:?}");
                assert!(flow.end_read, "no end on stream {stream} written by {side:?}");
            }
            assert!(!self.host.is_open(stream) && !self.guest.is_open(stream));
        }
        assert_eq!(self.told.get(&Side::Host), self.heard.get(&Side::Guest));
        assert_eq!(self.told.get(&Side::Guest), self.heard.get(&Side::Host));
        assert!(self.host.is_drained() && self.guest.is_drained());
        assert!(self.host.is_ready() && self.guest.is_ready());
    }

    /// Carries, delivers, takes and consumes until nothing moves.
    pub(crate) fn run_dry(&mut self) {
        loop {
            let mut moved = false;
            for side in [Side::Host, Side::Guest] {
                moved |= self.carry(side, usize::MAX);
                moved |= self.deliver(side.other(), usize::MAX);
                moved |= self.take(side.other(), usize::MAX);
                for stream in self.streams() {
                    moved |= self.consume(side.other(), stream, true);
                }
            }
            if moved {
                continue;
            }
            if !self.host.has_lazy_acks() && !self.guest.has_lazy_acks() {
                break;
            }
            self.host.flush_acks();
            self.guest.flush_acks();
        }
    }

    fn check(&mut self, side: Side, event: MuxEvent) {
        match event {
            MuxEvent::Ready { version, attached } => {
                assert_eq!(version, 1);
                assert_ne!(attached, Attached::Adopted);
            }
            MuxEvent::Opened { stream, direction } => {
                assert_eq!(side, Side::Guest);
                let to_host = self.flows.contains_key(&(stream, Side::Guest));
                assert_eq!(direction.to_host(), to_host);
            }
            MuxEvent::Control(message) => {
                let heard = self.heard.get_mut(&side).unwrap();
                let (number, _): (u32, String) = decode(&message).unwrap();
                assert_eq!(number, *heard, "message out of order");
                *heard += 1;
            }
            MuxEvent::Data { stream, bytes } => {
                assert!(!bytes.is_empty());
                let flow = self.flows.get_mut(&(stream, side.other())).unwrap();
                assert!(!flow.end_read, "bytes behind the end");
                let right = bytes == pattern(stream, side.other(), flow.read, bytes.len());
                assert!(right, "wrong bytes on stream {stream} behind {}", flow.read);
                flow.read += bytes.len() as u64;
                flow.unconsumed += bytes.len();
            }
            MuxEvent::Eof { stream } => {
                let flow = self.flows.get_mut(&(stream, side.other())).unwrap();
                assert!(flow.ended && !flow.end_read);
                assert_eq!(flow.read, flow.written);
                flow.end_read = true;
            }
            MuxEvent::Reset { stream } => assert!(self.given_up.contains(&stream)),
            MuxEvent::Writable { stream } => {
                assert!(self.flows.contains_key(&(stream, side)));
            }
        }
    }
}
