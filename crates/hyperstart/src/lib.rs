// SPDX-License-Identifier: Apache-2.0
//! `hyperstart`, PID 1 of every guest: it makes containers out of what the host says.
//!
//! It trusts the host and never a container. It knows nothing of images, names or restart policies:
//! those are the host's.
//!
//! # Invariants
//!
//! - One thread and one loop, so that a fork is a whole copy and may do anything before it runs
//!   another program.
//! - Whatever a container can choose (paths, names, links, the contents of its files and of its
//!   part of `/proc`) is bounded where it is read, and resolved below the container's own root.
//! - It never ends by itself: the host shuts the pod down, or an error that leaves it blind resets
//!   the machine with the reason in the kernel's log.
//!
//! # Where to start
//!
//! `boot` is what happens before the host is there, `init` the loop, `calls` what the host can ask
//! for, `child` how a process of a container begins.

mod archive;
mod boot;
mod calls;
mod cgroup;
mod channel;
mod child;
mod container;
mod device_rules;
mod devices;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod helper;
mod init;
mod kmsg;
mod list;
mod netlink;
mod network;
mod process;
mod program;
mod root;
mod rootfs;
mod setup;
mod stage;
mod start;
mod stdio;
mod storage;
mod sys;
mod user;
mod watch;

pub use start::run;
