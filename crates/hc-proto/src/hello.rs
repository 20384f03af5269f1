// SPDX-License-Identifier: Apache-2.0
//! The handshake's two frames. Their layout is the same in every version, so that any two versions
//! can find out that they do not fit.

use crate::error::ProtocolError;
use crate::frame::{END_MARK, Frame, Kind, header};
use crate::limits::{HEADER_LEN, MAX_SKIPPED, MAX_VERSION, MIN_VERSION, TRAILER_LEN};

/// Opens both bodies; nobody else's protocol starts so.
const MAGIC: [u8; 8] = *b"hypermux";

/// The body of a [`Hello`] or a [`Welcome`].
const BODY_LEN: usize = 48;

/// A whole welcome frame.
const WELCOME_LEN: usize = HEADER_LEN + BODY_LEN + TRAILER_LEN;

/// Names one session: everything from a guest's first hello to its end, over any number of lines.
/// Choose it at random, so that a host cannot take another's guest for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId(pub u128);

/// Names one hello, so that its answer is told from answers to earlier ones that are still on the
/// line. Choose it at random each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub u128);

/// How a session starts on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Attached {
    /// A new session: whatever the guest had before is forgotten.
    New = 0,
    /// The same two peers go on over another line; nothing is lost or doubled.
    Resumed = 1,
    /// A new host process takes the session over. What its predecessor had acknowledged does not
    /// come again; what it had not, does.
    Adopted = 2,
}

impl Attached {
    fn parse(byte: u8) -> Option<Attached> {
        [Attached::New, Attached::Resumed, Attached::Adopted]
            .into_iter()
            .find(|mode| *mode as u8 == byte)
    }
}

/// The host's opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) min_version: u16,
    pub(crate) max_version: u16,
    pub(crate) mode: Attached,
    pub(crate) session: SessionId,
    pub(crate) nonce: Nonce,
}

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let versions = [self.min_version, self.max_version];
        encode(Kind::Hello, versions, self.mode as u8, self.session, self.nonce)
    }

    pub(crate) fn parse(frame: &Frame) -> Result<Hello, ProtocolError> {
        let body: &[u8; BODY_LEN] = frame.fixed_body()?;
        let fields = Fields::parse(body).ok_or_else(|| frame.bad_body())?;
        let mode = Attached::parse(fields.code).ok_or_else(|| frame.bad_body())?;
        Ok(Hello {
            min_version: fields.versions[0],
            max_version: fields.versions[1],
            mode,
            session: fields.session,
            nonce: fields.nonce,
        })
    }

    /// The newest version that both sides speak.
    pub(crate) fn common_version(&self) -> Option<u16> {
        let newest = self.max_version.min(MAX_VERSION);
        (newest >= self.min_version.max(MIN_VERSION)).then_some(newest)
    }
}

/// What the guest answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Verdict {
    /// The session stands, in the first of the two versions.
    Accepted = 0,
    /// No common version; the two versions are the guest's range.
    NoCommonVersion = 1,
    /// The guest has no such session.
    UnknownSession = 2,
}

/// The guest's answer to a [`Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) versions: [u16; 2],
    pub(crate) verdict: Verdict,
    pub(crate) session: SessionId,
    pub(crate) nonce: Nonce,
}

impl Welcome {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(Kind::Welcome, self.versions, self.verdict as u8, self.session, self.nonce)
    }

    fn parse(body: &[u8; BODY_LEN]) -> Option<Welcome> {
        let fields = Fields::parse(body)?;
        let verdict = [Verdict::Accepted, Verdict::NoCommonVersion, Verdict::UnknownSession]
            .into_iter()
            .find(|verdict| *verdict as u8 == fields.code)?;
        Some(Welcome {
            versions: fields.versions,
            verdict,
            session: fields.session,
            nonce: fields.nonce,
        })
    }
}

/// Looks for the welcome to one hello in a stream that may begin with anything.
#[derive(Debug)]
pub(crate) struct Search {
    nonce: Nonce,
    /// The bytes that may still turn out to begin a welcome: always shorter than one.
    held: Vec<u8>,
    skipped: usize,
}

impl Search {
    pub(crate) fn new(nonce: Nonce) -> Search {
        Search { nonce, held: Vec::new(), skipped: 0 }
    }

    /// Takes bytes off the front of `input` up to the end of the welcome, or all of them.
    pub(crate) fn step(&mut self, input: &mut &[u8]) -> Result<Option<Welcome>, ProtocolError> {
        let start = header(Kind::Welcome, 0, BODY_LEN);
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            self.held.push(byte);
            if let Some(welcome) = self.complete() {
                return Ok(Some(welcome));
            }
            while !fits(&self.held, start) {
                self.held.remove(0);
                self.skipped += 1;
            }
            if self.skipped > MAX_SKIPPED {
                return Err(ProtocolError::NoWelcome);
            }
        }
        Ok(None)
    }

    /// The welcome that we hold, if it is whole and answers our hello.
    fn complete(&self) -> Option<Welcome> {
        let frame: &[u8; WELCOME_LEN] = self.held.as_slice().try_into().ok()?;
        let (_, rest) = frame.split_first_chunk::<HEADER_LEN>()?;
        let (body, end) = rest.split_first_chunk::<BODY_LEN>()?;
        let welcome = Welcome::parse(body)?;
        (end == [END_MARK] && welcome.nonce == self.nonce).then_some(welcome)
    }
}

/// Whether `held` is a proper beginning of a welcome frame.
fn fits(held: &[u8], start: [u8; HEADER_LEN]) -> bool {
    let pattern = start.iter().chain(MAGIC.iter());
    held.len() < WELCOME_LEN && held.iter().zip(pattern).all(|(a, b)| a == b)
}

/// What both bodies hold, at the same places.
struct Fields {
    versions: [u16; 2],
    code: u8,
    session: SessionId,
    nonce: Nonce,
}

impl Fields {
    /// Reads a body; the three bytes behind the code are reserved and not looked at.
    fn parse(body: &[u8; BODY_LEN]) -> Option<Fields> {
        let (magic, rest) = body.split_first_chunk::<8>()?;
        let ([a0, a1, b0, b1], rest) = rest.split_first_chunk::<4>()?;
        let ([code, _, _, _], rest) = rest.split_first_chunk::<4>()?;
        let (session, rest) = rest.split_first_chunk::<16>()?;
        let (nonce, _) = rest.split_first_chunk::<16>()?;
        (*magic == MAGIC).then_some(Fields {
            versions: [u16::from_le_bytes([*a0, *a1]), u16::from_le_bytes([*b0, *b1])],
            code: *code,
            session: SessionId(u128::from_le_bytes(*session)),
            nonce: Nonce(u128::from_le_bytes(*nonce)),
        })
    }
}

/// A whole frame of either kind.
fn encode(kind: Kind, versions: [u16; 2], code: u8, session: SessionId, nonce: Nonce) -> Vec<u8> {
    let mut frame = header(kind, 0, BODY_LEN).to_vec();
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&versions[0].to_le_bytes());
    frame.extend_from_slice(&versions[1].to_le_bytes());
    frame.extend_from_slice(&[code, 0, 0, 0]);
    frame.extend_from_slice(&session.0.to_le_bytes());
    frame.extend_from_slice(&nonce.0.to_le_bytes());
    frame.push(END_MARK);
    frame
}

#[cfg(test)]
mod tests;
