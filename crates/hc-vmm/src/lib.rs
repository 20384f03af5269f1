// SPDX-License-Identifier: Apache-2.0
//! Virtual machine drivers: one trait, one crate per hypervisor behind it.
//!
//! A [`Driver`] turns a [`VmSpec`] into a [`Vm`] and knows one hypervisor. It knows nothing about
//! pods, images or the guest protocol; those meet a VM only through its streams and disks.
//!
//! # Life of a VM
//!
//! ```text
//! VmSpec --create--> created --start--> running
//!                       |                  |
//!                       +------ kill ------+----> exited (final)
//!                                          ^
//!                the guest stops or crashes
//! ```
//!
//! A spec with a [`Saved`] guest makes a VM that goes on where that one was copied. [`Snapshot::take`]
//! copies one.
//!
//! # Invariants
//!
//! - A VM dies with the process that owns it, however that process ends. Nothing survives to be
//!   adopted: whoever wants a pod to outlive a daemon gives the pod a process of its own.
//! - No instruction of the guest runs before [`Vm::start`].
//! - [`Vm::wait`] keeps the exit it reports, so every caller sees the same one.
//! - A driver writes only below [`VmSpec::run_dir`], so removing that folder removes every trace.
//! - The streams of a VM exist from `create` on and end when the VM does. What comes out of them
//!   was written by the guest and deserves no trust.
//!
//! # Where to start
//!
//! Read [`Vm`], then `fake.rs`, the shortest complete driver. `contract.rs` states as tests what
//! every driver owes its callers; each driver crate runs it against its own hypervisor.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod driver;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod spec;
mod tail;

pub use driver::{Ability, Driver, Exit, Pause, Replace, Snapshot, Vm};
pub use error::{Error, Kind, Result};
pub use spec::{
    Access, CHANNEL_NAME, Confinement, Disk, Link, Nic, Saved, Share, Transport, VmSpec,
};
pub use tail::Tail;
