// SPDX-License-Identifier: Apache-2.0
//! The host's side of the connection to a guest: calls, processes and their streams, news.
//!
//! One task drives the line; [`Guest`], [`Process`] and the streams are handles to it. The protocol
//! itself is [`hc_proto`]'s; this crate adds a line, a clock and wakers. It knows nothing of
//! hypervisors (any byte stream will do) and of what containers are for.
//!
//! # Invariants
//!
//! - The guest is not trusted. Whatever it sends leads to one [`Error`], the same for every handle,
//!   and what it can make us hold is bounded: one window for each stream that we opened, and
//!   [`MAX_UNTAKEN_EVENTS`] events.
//! - Back-pressure goes end to end: a stream that is not read stops its writer in the guest, and
//!   holds up no other stream.
//! - The line ends with the last handle, not before.
//!
//! # Where to start
//!
//! `meet.rs` for [`Guest::connect`] and [`Guest::adopt`], then `shared.rs` for what the handles share.

mod error;
mod guest;
mod meet;
mod pump;
mod shared;
mod stream;

pub use error::{Error, Kind, Result};
pub use guest::{Events, Guest, Launch, Process, Stdio};
pub use meet::{Predecessor, ProcessIds};
pub use shared::MAX_UNTAKEN_EVENTS;
pub use stream::{StreamReader, StreamWriter};
