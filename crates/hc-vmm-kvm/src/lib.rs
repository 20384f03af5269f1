// SPDX-License-Identifier: Apache-2.0
//! The KVM driver: a machine of ours, in a process of its own, with no other program involved.
//!
//! The machine itself is `hc-monitor`, and `hyper-vmm` is the program around it. This crate opens
//! what a machine needs, describes it, and starts that program; `hc-vmm-process` sees to the rest.
//!
//! # Invariants
//!
//! - The program opens nothing by name: kernel, disks, streams and `/dev/kvm` itself are
//!   descriptors that it inherits.
//! - No secret is in its arguments; the machine's description is a file in memory.
//!
//! # Where to start
//!
//! `driver.rs`.

mod copier;
mod driver;
mod tap;

pub use driver::Kvm;
