// SPDX-License-Identifier: Apache-2.0
//! `hyperstart` in a real guest, with the test as its host.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::print_stderr, reason = "the console of a guest whose test failed is shown")]

mod archive;
mod copies;
mod host;
mod image;
mod isolation;
mod lifecycle;
mod machine;
mod network;
mod processes;
mod resources;
mod streams;
mod tree;
