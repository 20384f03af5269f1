// SPDX-License-Identifier: Apache-2.0
//! What a peer can do wrong, and what a caller cannot do now.

use crate::limits::{MAX_BODY_LEN, MAX_MESSAGE_LEN, MAX_SKIPPED, MAX_STREAMS};
use crate::message::StreamId;

/// The peer broke the protocol. The session cannot go on over this line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A header claims more than a frame may hold.
    #[error("frame of {len} bytes is over the limit of {MAX_BODY_LEN}")]
    FrameTooLong {
        /// The length that the header claims.
        len: usize,
    },
    /// A frame does not end with the end mark.
    #[error("frame of kind {kind:#04x} ends with {end:#04x} instead of the end mark")]
    BadEnd {
        /// The frame's kind byte.
        kind: u8,
        /// What stands in place of the mark.
        end: u8,
    },
    /// No frame of this version has that kind.
    #[error("unknown frame kind {kind:#04x}")]
    UnknownKind {
        /// The kind byte.
        kind: u8,
    },
    /// A frame's body does not fit its kind.
    #[error("body of {len} bytes does not fit a frame of kind {kind:#04x}")]
    BadBody {
        /// The frame's kind byte.
        kind: u8,
        /// The length of the body.
        len: usize,
    },
    /// A frame that is legal, but not now or not from this side.
    #[error("frame of kind {kind:#04x} is out of place while {during}")]
    Misplaced {
        /// The frame's kind byte.
        kind: u8,
        /// What the session was doing.
        during: &'static str,
    },
    /// A frame names a stream that was never opened, or is over.
    #[error("frame of kind {kind:#04x} for stream {stream}, which is not open")]
    NoSuchStream {
        /// The frame's kind byte.
        kind: u8,
        /// The stream it names.
        stream: StreamId,
    },
    /// A frame goes against the direction of its stream, or comes after its end.
    #[error("frame of kind {kind:#04x} for stream {stream} in a direction that is closed")]
    ClosedDirection {
        /// The frame's kind byte.
        kind: u8,
        /// The stream it names.
        stream: StreamId,
    },
    /// Stream numbers have to rise.
    #[error("stream {stream} was opened after stream {newest}")]
    StreamOrder {
        /// The number of the stream opened.
        stream: StreamId,
        /// The highest number so far.
        newest: StreamId,
    },
    /// More streams than allowed.
    #[error("more than {MAX_STREAMS} streams at once")]
    TooManyStreams,
    /// More resets than there can be streams.
    #[error("more than {MAX_STREAMS} resets without a pause")]
    TooManyResets,
    /// The peer sent more than it was allowed to; stream 0 is the control lane.
    #[error("more bytes than the window of stream {stream} allows")]
    WindowExceeded {
        /// The stream.
        stream: StreamId,
    },
    /// The peer acknowledges what was not sent, or takes an acknowledgement back.
    #[error("acknowledgement of offset {offset} makes no sense for stream {stream}")]
    BadAck {
        /// The stream; 0 is the control lane.
        stream: StreamId,
        /// The offset it claims.
        offset: u64,
    },
    /// The peer's account of a stream contradicts ours after a reconnection.
    #[error("position of stream {stream} makes no sense")]
    BadPosition {
        /// The stream; 0 is the control lane.
        stream: StreamId,
    },
    /// A control message grew too long.
    #[error("control message of more than {MAX_MESSAGE_LEN} bytes")]
    MessageTooLong,
    /// A control message is not the JSON that was expected.
    #[error("control message does not parse: {reason}")]
    BadMessage {
        /// What the JSON parser says.
        reason: String,
    },
    /// The guest sent a lot, but never answered the hello.
    #[error("no welcome within {MAX_SKIPPED} bytes")]
    NoWelcome,
    /// Host and guest share no version.
    #[error("guest speaks versions {min} to {max}, none of which this host speaks")]
    NoCommonVersion {
        /// The guest's oldest version.
        min: u16,
        /// The guest's newest version.
        max: u16,
    },
    /// The guest does not know the session: it was started anew, or has another host.
    #[error("guest does not know the session")]
    SessionLost,
}

/// The caller cannot send that, or not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The stream is over, was never open, or ended in this direction.
    #[error("stream {stream} is closed")]
    Closed {
        /// The stream.
        stream: StreamId,
    },
    /// The two sides have not met yet, so there is no session to send in.
    #[error("the session has not begun")]
    NotReady,
    /// The peer must first read what it was sent.
    #[error("the control lane is full")]
    Full,
    /// The message is longer than any message may be.
    #[error("control message of {len} bytes is over the limit of {MAX_MESSAGE_LEN}")]
    TooLong {
        /// Its length as JSON.
        len: usize,
    },
    /// The message has no form as JSON.
    #[error("control message has no form as JSON")]
    Unencodable,
    /// All streams are taken, or all numbers are used up.
    #[error("no stream is free")]
    NoStreamFree,
}
