// SPDX-License-Identifier: Apache-2.0
//! The virtual machine monitor on KVM: one machine, one process.
//!
//! It gives a Linux guest what it needs and nothing else: memory, processors, a serial port for its
//! kernel's messages, and virtio devices. It is told all of it in a [`Machine`](config::Machine)
//! and gets every file and stream open. It knows nothing of pods, images or drivers; `hc-vmm-kvm`
//! starts it, in a process that is confined before this code runs.
//!
//! ```text
//!  control --> [ main ] --- hold, release ---> [ vcpu0 ] [ vcpu1 ] ...   run the guest
//!                 ^                                 |  registers
//!                 |  ended                          v
//!                 +------------- [ streams ] [ storage ]                 work for devices
//! ```
//!
//! # Invariants
//!
//! - The guest's first instruction runs after the last privilege is gone (`confine.rs`,
//!   `filter.rs`).
//! - All that a guest writes is bounds-checked before it is used; a nonsensical request gets an
//!   error, and the machine goes on.
//! - The machine ends with the process, and the process with its owner.
//! - A guest is saved while no vCPU is in the middle of an instruction and no device works; one that
//!   goes on is made from checked data, whole or not at all.
//!
//! # Where to start
//!
//! `monitor.rs` is the whole in order, after `make.rs` has made it; `virtio.rs` says what a device is,
//! `saved.rs` what is left of a machine that was saved.

mod boot;
mod bus;
mod chips;
pub mod config;
mod confine;
mod control;
mod cpu;
mod descriptors;
mod devices;
mod error;
mod filter;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod interrupt;
mod make;
mod memory;
mod monitor;
mod plan;
mod reactor;
mod saved;
mod vcpu;
mod virtio;

pub use error::Error;
pub use monitor::run;
