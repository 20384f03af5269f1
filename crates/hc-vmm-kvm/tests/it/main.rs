// SPDX-License-Identifier: Apache-2.0
//! The driver against real KVM.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bench;
mod confinement;
mod contract;
