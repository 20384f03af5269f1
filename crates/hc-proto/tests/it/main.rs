// SPDX-License-Identifier: Apache-2.0
//! The multiplexer through its public interface: two sides, and a line between them that splits,
//! delays, loses and raves.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod adopt;
mod delivery;
mod hostile;
mod latency;
mod schema;
mod world;
