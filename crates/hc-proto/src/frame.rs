// SPDX-License-Identifier: Apache-2.0
//! Frames as bytes: one kind byte, the body's length, the stream, the body, and an end mark.
//!
//! ```text
//! +------+-----------+---------------+----------------+------+
//! | kind | length    | stream        | body           | 0xA5 |
//! | u8≠0 | u24 LE    | u32 LE        | 0 to 32,768 B  |      |
//! +------+-----------+---------------+----------------+------+
//! ```
//!
//! A zero between frames is padding. The end mark is not zero, so a frame that was cut off and
//! filled up by padding is told from a whole one without a checksum: see [`Step::Torn`].

use crate::error::ProtocolError;
use crate::limits::{HEADER_LEN, MAX_BODY_LEN};

/// The last byte of every frame.
pub(crate) const END_MARK: u8 = 0xA5;

/// What a frame is for. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 0x01,
    Welcome = 0x02,
    Position = 0x03,
    PositionsEnd = 0x04,
    Control = 0x10,
    ControlPart = 0x11,
    Open = 0x12,
    Data = 0x20,
    Eof = 0x21,
    Ack = 0x22,
    Reset = 0x23,
    ResetAck = 0x24,
}

impl Kind {
    /// Every kind, for tests and for [`Kind::parse`].
    pub(crate) const ALL: [Kind; 12] = [
        Kind::Hello,
        Kind::Welcome,
        Kind::Position,
        Kind::PositionsEnd,
        Kind::Control,
        Kind::ControlPart,
        Kind::Open,
        Kind::Data,
        Kind::Eof,
        Kind::Ack,
        Kind::Reset,
        Kind::ResetAck,
    ];

    /// The kind that `byte` stands for.
    pub(crate) fn parse(byte: u8) -> Result<Kind, ProtocolError> {
        Kind::ALL
            .into_iter()
            .find(|kind| *kind as u8 == byte)
            .ok_or(ProtocolError::UnknownKind { kind: byte })
    }
}

/// The header of a frame with a body of `len` bytes.
pub(crate) fn header(kind: Kind, stream: u32, len: usize) -> [u8; HEADER_LEN] {
    debug_assert!(len <= MAX_BODY_LEN);
    #[expect(clippy::cast_possible_truncation, reason = "MAX_BODY_LEN fits 24 bits")]
    let [l0, l1, l2, _] = (len as u32).to_le_bytes();
    let [s0, s1, s2, s3] = stream.to_le_bytes();
    [kind as u8, l0, l1, l2, s0, s1, s2, s3]
}

/// A whole frame, its kind already known to be one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) stream: u32,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    /// The body as exactly `N` bytes, or an error that names the frame.
    pub(crate) fn fixed_body<const N: usize>(&self) -> Result<&[u8; N], ProtocolError> {
        self.body.as_slice().try_into().map_err(|_| self.bad_body())
    }

    /// The error for a body that does not fit.
    pub(crate) fn bad_body(&self) -> ProtocolError {
        ProtocolError::BadBody { kind: self.kind as u8, len: self.body.len() }
    }
}

/// What the decoder made of the bytes it took.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A frame is complete.
    Frame(Frame),
    /// A frame was cut off by its sender's end and filled up with padding. Nothing of it counts.
    Torn { kind: u8 },
    /// Every byte is taken and no frame is complete.
    Starved,
}

/// Turns a byte stream into frames, holding at most one.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    header: [u8; HEADER_LEN],
    header_len: usize,
    body: Vec<u8>,
}

impl Decoder {
    /// Takes bytes off the front of `input` until a frame is complete or `input` is empty.
    ///
    /// After an error the decoder stands between two frames, behind the bytes taken.
    pub(crate) fn step(&mut self, input: &mut &[u8]) -> Result<Step, ProtocolError> {
        if self.header_len < HEADER_LEN && !self.take_header(input)? {
            return Ok(Step::Starved);
        }
        let len = self.body_len();
        let missing = len - self.body.len();
        let (part, rest) = input.split_at(missing.min(input.len()));
        self.body.extend_from_slice(part);
        *input = rest;
        let Some((&end, rest)) = input.split_first() else { return Ok(Step::Starved) };
        *input = rest;
        self.finish(end)
    }

    /// Forgets a frame that has begun.
    pub(crate) fn clear(&mut self) {
        self.header_len = 0;
        self.body = Vec::new();
    }

    /// Fills the header; `false` when the input ran out first.
    fn take_header(&mut self, input: &mut &[u8]) -> Result<bool, ProtocolError> {
        if self.header_len == 0 {
            let padding = input.iter().take_while(|byte| **byte == 0).count();
            *input = &input[padding..];
        }
        let wanted = HEADER_LEN - self.header_len;
        let (part, rest) = input.split_at(wanted.min(input.len()));
        self.header[self.header_len..self.header_len + part.len()].copy_from_slice(part);
        self.header_len += part.len();
        *input = rest;
        if self.header_len < HEADER_LEN {
            return Ok(false);
        }
        let len = self.body_len();
        if len > MAX_BODY_LEN {
            self.clear();
            return Err(ProtocolError::FrameTooLong { len });
        }
        self.body = Vec::with_capacity(len);
        Ok(true)
    }

    /// The length that the complete header claims.
    fn body_len(&self) -> usize {
        let [_, l0, l1, l2, ..] = self.header;
        u32::from_le_bytes([l0, l1, l2, 0]) as usize
    }

    /// Judges a frame by its last byte. The kind is looked at only now, because a torn frame's
    /// header may be torn as well.
    fn finish(&mut self, end: u8) -> Result<Step, ProtocolError> {
        let [kind, _, _, _, s0, s1, s2, s3] = self.header;
        let body = std::mem::take(&mut self.body);
        self.header_len = 0;
        match end {
            END_MARK => {
                let kind = Kind::parse(kind)?;
                let stream = u32::from_le_bytes([s0, s1, s2, s3]);
                Ok(Step::Frame(Frame { kind, stream, body }))
            }
            0 => Ok(Step::Torn { kind }),
            _ => Err(ProtocolError::BadEnd { kind, end }),
        }
    }
}

#[cfg(test)]
mod tests;
