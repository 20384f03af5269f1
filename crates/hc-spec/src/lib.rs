// SPDX-License-Identifier: Apache-2.0
//! Plain data that describes pods, containers and their processes.
//!
//! What the daemon decides, the pod carries out and the guest is told, all in these words. Nothing
//! here does I/O or knows a hypervisor, a registry or a socket.
//!
//! # Invariants
//!
//! - A value that exists is valid: [`Id`], [`Name`], [`Signal`] and [`Capability`] parse once, at
//!   the edge, and are trusted afterwards.
//! - Everything here is resolved: defaults, the image's configuration and the user's wishes have
//!   been merged before a [`ContainerSpec`] is made.
//!
//! # Where to start
//!
//! [`ContainerSpec`] is what runs; [`ProcessSpec`] is one process of it.

mod capability;
mod container;
mod exit;
mod id;
mod network;
mod process;
mod signal;

pub use capability::{Capability, CapabilitySet, ParseCapabilityError};
pub use container::{ContainerLimits, ContainerSpec, Tmpfs};
pub use exit::Exit;
pub use id::{Id, Name, ParseIdError, ParseNameError};
pub use network::{HostEntry, NetworkSpec};
pub use process::{ProcessSpec, Rlimit, WindowSize};
pub use signal::{ParseSignalError, Signal};
