// SPDX-License-Identifier: Apache-2.0
//! What a [`Mux`](crate::Mux) tells its caller.

use crate::hello::Attached;
use crate::message::StreamId;

/// Something that happened on the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MuxEvent {
    /// The two sides have met, and what is sent from now on goes out. With [`Attached::New`] on the
    /// guest's side, every stream and message of an earlier session is forgotten.
    Ready {
        /// The protocol version both speak.
        version: u16,
        /// How the session came to this line.
        attached: Attached,
    },
    /// A control message as JSON; see [`decode`](crate::decode).
    Control(Vec<u8>),
    /// A stream is there. On the guest, the host opened it; on the host, it was found while
    /// adopting a session.
    Opened {
        /// Its number.
        stream: StreamId,
        /// Which ways bytes may flow.
        direction: Direction,
    },
    /// Bytes arrived, never none. Say [`consumed`](crate::Mux::consumed) once they are used, or the
    /// writer stops after [`STREAM_WINDOW`](crate::limits::STREAM_WINDOW) bytes.
    Data {
        /// The stream.
        stream: StreamId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// No more bytes will come on the stream.
    Eof {
        /// The stream.
        stream: StreamId,
    },
    /// The peer gave the stream up, in both directions. What had arrived and was not yet taken is
    /// gone as well.
    Reset {
        /// The stream.
        stream: StreamId,
    },
    /// A stream that took less than it was offered has room again.
    Writable {
        /// The stream.
        stream: StreamId,
    },
}

/// Which ways bytes may flow on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From the host to the guest, such as standard input.
    ToGuest = 1,
    /// From the guest to the host, such as standard output.
    ToHost = 2,
    /// Both ways; each ends by itself.
    Both = 3,
}

impl Direction {
    /// Whether the host writes.
    pub fn to_guest(self) -> bool {
        self != Direction::ToHost
    }

    /// Whether the guest writes.
    pub fn to_host(self) -> bool {
        self != Direction::ToGuest
    }

    pub(crate) fn to_byte(self) -> u8 {
        self as u8
    }

    pub(crate) fn parse(byte: u8) -> Option<Direction> {
        [Direction::ToGuest, Direction::ToHost, Direction::Both]
            .into_iter()
            .find(|direction| *direction as u8 == byte)
    }
}
