// SPDX-License-Identifier: Apache-2.0
//! The store from outside: what goes in, what comes out, and what must never happen.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod docker_registry;
mod hostile;
mod load;
mod registry;
mod server;
mod sharing;
mod store;
mod support;
