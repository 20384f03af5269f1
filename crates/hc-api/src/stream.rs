// SPDX-License-Identifier: Apache-2.0
//! Frames of attached streams and of logs.
//!
//! ```text
//!  0      1              5              5 + length
//!  +------+--------------+---------------+
//!  | kind | length (BE)  | body          |
//!  +------+--------------+---------------+
//! ```
//!
//! The decoder is fed bytes as they come, however they were split. It takes frames from both sides,
//! and a body of at most [`MAX_BODY`], so a peer cannot make the other hold more than that.

use hc_spec::WindowSize;
use serde::{Deserialize, Serialize};

use crate::ErrorBody;

/// Bytes before each body.
pub const HEADER: usize = 5;
/// The longest body. Pipes hold 64 KiB, so more would not arrive in one read anyway.
pub const MAX_BODY: usize = 64 * 1024;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Client to process: bytes for standard input.
    Stdin(Vec<u8>),
    /// Client to process: standard input has ended.
    StdinEnd,
    /// Client to process: the window changed.
    Resize(WindowSize),
    /// Process to client: standard output, or all of a terminal.
    Stdout(Vec<u8>),
    /// Process to client: standard error.
    Stderr(Vec<u8>),
    /// To the client: the process runs from now on.
    Started,
    /// To the client, last: how it ended.
    Exit(ExitFrame),
    /// To the client, last: it could not be served.
    Error(ErrorBody),
    /// In logs: when the next output frame was written, in nanoseconds since 1970-01-01 UTC.
    Time(i64),
}

/// The end of an attached process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitFrame {
    /// The status as a shell would show it.
    pub status: u8,
    /// Why it is not the program's own, where it is not.
    #[serde(default)]
    pub error: String,
    /// What happened on the way from the start of the pod, in order; only of main processes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<Step>,
}

impl ExitFrame {
    /// An end with this status, and no more to say.
    pub fn of(status: u8) -> ExitFrame {
        ExitFrame { status, error: String::new(), timeline: Vec::new() }
    }
}

/// A step of a container's way, done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was done, such as `guest answers`.
    pub what: String,
    /// When: microseconds since 1970-01-01 UTC.
    pub unix_micros: u64,
}

/// The peer broke the framing; the connection cannot go on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No frame has this kind.
    #[error("unknown frame kind {kind:#04x}")]
    UnknownKind {
        /// The kind byte.
        kind: u8,
    },
    /// The header claims too much.
    #[error("frame of {length} bytes is over the limit of {MAX_BODY}")]
    Oversized {
        /// The claimed length.
        length: u32,
    },
    /// The body is not what its kind has.
    #[error("malformed body in frame of kind {kind:#04x}")]
    Malformed {
        /// The kind byte.
        kind: u8,
    },
}

mod kind {
    pub(super) const STDIN: u8 = 0x01;
    pub(super) const STDIN_END: u8 = 0x02;
    pub(super) const RESIZE: u8 = 0x03;
    pub(super) const STDOUT: u8 = 0x11;
    pub(super) const STDERR: u8 = 0x12;
    pub(super) const STARTED: u8 = 0x13;
    pub(super) const EXIT: u8 = 0x14;
    pub(super) const ERROR: u8 = 0x15;
    pub(super) const TIME: u8 = 0x16;
}

impl Frame {
    /// Appends the frame to `out`. A body over [`MAX_BODY`] becomes several frames of its kind.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Stdin(bytes) => encode_bytes(kind::STDIN, bytes, out),
            Frame::StdinEnd => header(kind::STDIN_END, 0, out),
            Frame::Resize(size) => {
                header(kind::RESIZE, 4, out);
                out.extend_from_slice(&size.rows.to_be_bytes());
                out.extend_from_slice(&size.columns.to_be_bytes());
            }
            Frame::Stdout(bytes) => encode_bytes(kind::STDOUT, bytes, out),
            Frame::Stderr(bytes) => encode_bytes(kind::STDERR, bytes, out),
            Frame::Started => header(kind::STARTED, 0, out),
            Frame::Exit(exit) => encode_json(kind::EXIT, exit, out),
            Frame::Error(error) => encode_json(kind::ERROR, error, out),
            Frame::Time(nanos) => {
                header(kind::TIME, 8, out);
                out.extend_from_slice(&nanos.to_be_bytes());
            }
        }
    }

    /// Appends a frame of standard output without owning its bytes first.
    pub fn encode_stdout(bytes: &[u8], out: &mut Vec<u8>) {
        encode_bytes(kind::STDOUT, bytes, out);
    }

    /// Appends a frame of standard error without owning its bytes first.
    pub fn encode_stderr(bytes: &[u8], out: &mut Vec<u8>) {
        encode_bytes(kind::STDERR, bytes, out);
    }

    /// Appends a frame of standard input without owning its bytes first.
    pub fn encode_stdin(bytes: &[u8], out: &mut Vec<u8>) {
        encode_bytes(kind::STDIN, bytes, out);
    }

    fn parse(kind: u8, body: &[u8]) -> Result<Frame, FrameError> {
        let malformed = FrameError::Malformed { kind };
        Ok(match (kind, body) {
            (kind::STDIN, _) => Frame::Stdin(body.to_vec()),
            (kind::STDIN_END, []) => Frame::StdinEnd,
            (kind::RESIZE, &[r0, r1, c0, c1]) => Frame::Resize(WindowSize {
                rows: u16::from_be_bytes([r0, r1]),
                columns: u16::from_be_bytes([c0, c1]),
            }),
            (kind::STDOUT, _) => Frame::Stdout(body.to_vec()),
            (kind::STDERR, _) => Frame::Stderr(body.to_vec()),
            (kind::STARTED, []) => Frame::Started,
            (kind::EXIT, _) => Frame::Exit(serde_json::from_slice(body).map_err(|_| malformed)?),
            (kind::ERROR, _) => Frame::Error(serde_json::from_slice(body).map_err(|_| malformed)?),
            (kind::TIME, _) => {
                let nanos = <[u8; 8]>::try_from(body).map_err(|_| malformed)?;
                Frame::Time(i64::from_be_bytes(nanos))
            }
            _ => return Err(malformed),
        })
    }
}

fn header(kind: u8, length: usize, out: &mut Vec<u8>) {
    debug_assert!(length <= MAX_BODY, "callers split or cut their bodies");
    out.push(kind);
    // MAX_BODY fits in a u32.
    #[expect(clippy::cast_possible_truncation, reason = "length is at most MAX_BODY")]
    out.extend_from_slice(&(length as u32).to_be_bytes());
}

fn encode_bytes(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(MAX_BODY) {
        header(kind, chunk.len(), out);
        out.extend_from_slice(chunk);
    }
}

fn encode_json<T: Serialize>(kind: u8, value: &T, out: &mut Vec<u8>) {
    // These types hold strings and numbers only, so this cannot fail; messages that long are ours.
    let body = serde_json::to_vec(value).unwrap_or_default();
    header(kind, body.len().min(MAX_BODY), out);
    out.extend_from_slice(&body[..body.len().min(MAX_BODY)]);
}

/// Turns bytes into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// How much of `buffer` has been handed out.
    read: usize,
}

impl Decoder {
    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes come.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.buffer[self.read..];
        let Some((&[kind, l0, l1, l2, l3], rest)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if !matches!(kind, kind::STDIN..=kind::RESIZE | kind::STDOUT..=kind::TIME) {
            return Err(FrameError::UnknownKind { kind });
        }
        if length as usize > MAX_BODY {
            return Err(FrameError::Oversized { length });
        }
        let Some(body) = rest.get(..length as usize) else {
            return Ok(None);
        };
        let frame = Frame::parse(kind, body)?;
        self.read += HEADER + length as usize;
        Ok(Some(frame))
    }

    /// Whether a frame has been received in part.
    pub fn is_mid_frame(&self) -> bool {
        self.read < self.buffer.len()
    }
}

#[cfg(test)]
mod tests;
