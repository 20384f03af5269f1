// SPDX-License-Identifier: Apache-2.0
//! What host and guest say to each other over one byte stream, sans-io.
//!
//! [`Mux`] carries many streams and a lane of control messages over one line, with flow control for
//! each stream, and moves to another line without loss. It takes bytes and returns bytes: it knows
//! no socket, no clock and no thread. [`message`] says what the control messages mean; the mux does
//! not look into them.
//!
//! The wire format is specified in `docs/protocol.md`, and frozen in `schema/`.
//!
//! # Invariants
//!
//! - No input makes this crate panic or hold more than its [`limits`] allow.
//! - Every byte handed to a stream is handed out once and in order, whatever happens to lines.
//! - Only the host opens streams, so what a guest can make the host hold is the host's decision.
//!
//! # Where to start
//!
//! [`Mux`] is the whole interface; `session.rs` draws the life of a stream.

mod error;
mod event;
mod frame;
mod hello;
mod lane;
pub mod limits;
pub mod message;
mod mux;
mod output;
mod session;
mod stream;

pub use error::{ProtocolError, SendError};
pub use event::{Direction, MuxEvent};
pub use hello::{Attached, Nonce, SessionId};
pub use mux::{Guest, GuestMux, Host, HostMux, Line, Mux, decode};
