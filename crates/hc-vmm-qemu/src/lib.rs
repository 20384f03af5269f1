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
//! - One task owns the process and all that is read from it (`supervisor.rs`). The VM's handle sends
//!   it requests and sees the exit; when the handle goes, the task kills and reaps.
//! - The kernel kills QEMU when the thread that started it ends. That thread is the runtime's.
//! - What QEMU says is parsed under a limit, though it is trusted more than its guest.
//!
//! # Where to start
//!
//! `command.rs` says which machine it is; `supervisor.rs` how its end is told.

mod clock;
mod command;
mod control;
mod driver;
mod files;
mod process;
mod program;
mod supervisor;
mod vm;

pub use command::Accelerator;
pub use driver::Qemu;
