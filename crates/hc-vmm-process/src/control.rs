// SPDX-License-Identifier: Apache-2.0
//! The control protocol as bytes in and messages out; the socket is the caller's.
//!
//! It is QMP, the QEMU Machine Protocol, as far as a VM needs it: JSON objects, one a line. Whatever
//! hypervisor of ours is a process speaks it.

use std::os::fd::OwnedFd;

use serde::Deserialize;
use serde_json::{Value, json};

/// Far more than any message we ask for; a greeting has about 200 bytes.
const MAX_LINE_LEN: usize = 64 << 10;

/// Something that a hypervisor is told to do.
#[derive(Debug)]
pub struct Command {
    pub(crate) line: Vec<u8>,
    pub(crate) descriptor: Option<OwnedFd>,
}

impl Command {
    /// A command without arguments.
    #[must_use]
    pub fn new(name: &str) -> Command {
        Command::of(&json!({ "execute": name }))
    }

    /// A command with arguments, which are a JSON object.
    #[must_use]
    pub fn with(name: &str, arguments: &Value) -> Command {
        Command::of(&json!({ "execute": name, "arguments": arguments }))
    }

    /// The same, with a descriptor passed along (`SCM_RIGHTS`).
    #[must_use]
    pub fn carrying(mut self, descriptor: impl Into<OwnedFd>) -> Command {
        self.descriptor = Some(descriptor.into());
        self
    }

    fn of(value: &Value) -> Command {
        Command { line: format!("{value}\r\n").into_bytes(), descriptor: None }
    }
}

/// The word of progress that says that the guest stands still.
pub const HELD: &str = "held";

/// One message from the hypervisor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The last command succeeded.
    Done,
    /// The last command failed, for this reason.
    Failed(String),
    /// The machine stops for good.
    Shutdown(Shutdown),
    /// How far the machine has got with being copied or restored, in the hypervisor's word for it;
    /// or [`HELD`].
    Progress(String),
    /// The greeting, or an event that nobody here waits for.
    Other,
}

/// Why the machine stops.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Shutdown {
    /// Whether the guest wanted it.
    pub(crate) guest: bool,
    /// The hypervisor's word for it, such as `guest-reset`.
    pub(crate) reason: String,
}

/// The hypervisor broke the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Garbled;

/// Turns a byte stream into messages.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes the next bytes, however they were split.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes come.
    pub(crate) fn next_message(&mut self) -> Result<Option<Message>, Garbled> {
        loop {
            let Some(end) = self.buffer.iter().position(|&b| b == b'\n') else {
                return if self.buffer.len() > MAX_LINE_LEN { Err(Garbled) } else { Ok(None) };
            };
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            if line.len() > MAX_LINE_LEN {
                return Err(Garbled);
            }
            if !line.trim_ascii().is_empty() {
                return parse(&line).map(Some);
            }
        }
    }
}

/// The shapes a line can have; what else stands in it is for newer readers.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(rename = "return")]
    done: Option<Value>,
    error: Option<Failure>,
    event: Option<String>,
    data: Option<Value>,
}

#[derive(Deserialize)]
struct Progress {
    status: String,
}

#[derive(Deserialize)]
struct Failure {
    desc: String,
}

fn parse(line: &[u8]) -> Result<Message, Garbled> {
    let line: Line = serde_json::from_slice(line).map_err(|_| Garbled)?;
    match line {
        Line { error: Some(Failure { desc }), .. } => Ok(Message::Failed(desc)),
        Line { done: Some(_), .. } => Ok(Message::Done),
        Line { event: Some(event), data: Some(data), .. } if event == "SHUTDOWN" => {
            serde_json::from_value(data).map(Message::Shutdown).map_err(|_| Garbled)
        }
        Line { event: Some(event), data: Some(data), .. } if event == "MIGRATION" => {
            let progress = serde_json::from_value(data).map_err(|_| Garbled)?;
            let Progress { status } = progress;
            Ok(Message::Progress(status))
        }
        Line { event: Some(event), .. } if event == "STOP" => {
            Ok(Message::Progress(HELD.to_owned()))
        }
        Line { event: Some(_), .. } | Line { greeting: Some(_), .. } => Ok(Message::Other),
        Line { .. } => Err(Garbled),
    }
}

#[cfg(test)]
mod tests;
