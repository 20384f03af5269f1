// SPDX-License-Identifier: Apache-2.0
//! The whole system as its users see it: real daemons, real VMs.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod copy;
mod driver;
mod exec;
mod faults;
mod kernel;
mod lifecycle;
mod logs;
mod network;
mod probe;
mod rootless;
mod run;
mod snapshots;
mod streams;
mod templates;
