// SPDX-License-Identifier: Apache-2.0
//! Runs the program against a daemon that the tests play.
//!
//! `daemon` is that daemon: it answers as the API says, keeps what it was asked, and lets each test
//! be the program in the container. `program` runs `hyper` and waits for it with a deadline.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod attach;
mod copies;
mod copy;
mod daemon;
mod images;
mod lists;
mod program;
mod run;
mod signals;
mod start;
mod terminal;
mod timings;
