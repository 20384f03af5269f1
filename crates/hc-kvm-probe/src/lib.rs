// SPDX-License-Identifier: Apache-2.0
//! Finds out whether KVM runs guests here, by running one.
//!
//! A `/dev/kvm` that opens proves nothing: on a machine without nested virtualisation it may create
//! VMs and then emulate every instruction of their kernels, hundreds of times slower and with gaps
//! that kill an ordinary guest. So the probe runs short loops of kernel code in a VM made for it,
//! and looks at the clock.
//!
//! It does not decide what to use instead, and it does not remember: callers keep the answer.
//!
//! ```text
//! measure.rs   opens the device, runs the loops    guest.rs    the throw-away VM
//! paging.rs    what the kernel says of its module  verdict.rs  sorts all of it, in sentences
//! ```
//!
//! # Invariants
//!
//! - [`probe`] returns within [`PATIENCE`], whatever KVM does.
//! - It changes nothing in the process: no signal handler, no timer, no child.
//!
//! # Limits
//!
//! A KVM that never comes back from a few thousand instructions keeps its thread, and the VM, until
//! the process ends. None is known to.

mod guest;
mod measure;
mod paging;
mod verdict;

pub use measure::{PATIENCE, Places, probe, probe_at};
pub use verdict::{Probe, Speed};
