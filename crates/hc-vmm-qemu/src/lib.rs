// SPDX-License-Identifier: Apache-2.0
//! The QEMU driver: one child process a VM, confined, with everything it uses handed to it open.
//!
//! QEMU is asked for a `microvm` machine, or `q35` for kernels that need a PCI bus, and for KVM or
//! TCG as the caller decided; this crate probes nothing. It is given no path but those of its own
//! firmware: kernel, disks and streams are file descriptors that it inherits, which is why it can
//! run as a user who may open nothing, under QEMU's own seccomp filter.
//!
//! # Invariants
//!
//! - QEMU starts in `start`, not in `create`, so a created VM is a few open files and no process.
//! - The process, its streams and its end are `hc-vmm-process`'s, as for every hypervisor that is a
//!   program.
//!
//! # Where to start
//!
//! `command.rs` says which machine it is, `copier.rs` how its guest is copied.

mod clock;
mod command;
mod copier;
mod driver;
mod program;
mod stream;

pub use command::Accelerator;
pub use driver::Qemu;
