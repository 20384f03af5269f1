// SPDX-License-Identifier: Apache-2.0
//! Guest kernels: what a kernel file is, what it lacks, and the initramfs it boots with.
//!
//! A [`Kernel`] is a file that somebody names: our own `vmlinux`, or a distribution's `vmlinuz` with
//! its modules. It can be asked which release it is, whether it has what a pod needs, by which ways
//! it finds virtio devices, and which modules have to be loaded first. [`initramfs`] packs the
//! guest's init and those modules into the archive that the kernel starts from.
//!
//! This crate builds no kernel, knows no hypervisor and no pod, and runs nothing.
//!
//! # Invariants
//!
//! - Every read is bounded, whatever the file claims: a damaged or hostile file costs a known
//!   amount of time and memory and ends in an [`Error`].
//! - A name from a file never becomes a path outside the folder it was found in.
//! - What is not known is never guessed: a kernel without a readable configuration is
//!   [`Fitness::Unknown`], not unfit.
//!
//! # Where to start
//!
//! [`Kernel::inspect`], then [`Kernel::require`] and [`Kernel::modules`], then
//! [`initramfs::cached`].

mod bzimage;
mod config;
mod elf;
mod error;
pub mod initramfs;
mod kernel;
mod layout;
mod modinfo;
mod modules;
mod requirement;
mod scan;

pub use config::{Config, Setting};
pub use error::{Error, Kind};
pub use kernel::{Fitness, Image, Kernel, Transports};
pub use layout::{Layout, LoadSegment};
pub use modules::{Module, ModuleTree, Presence};
pub use requirement::{MissingOption, Reason, Requirement, Requirements, Transport};
