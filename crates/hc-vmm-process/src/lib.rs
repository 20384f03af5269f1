// SPDX-License-Identifier: Apache-2.0
//! VMs that are a child process: confined, given all they use open, and told apart from their guest.
//!
//! A driver whose hypervisor is a program says which program, with what arguments and descriptors
//! ([`Plan`]), and gets a [`ChildVm`], which is a complete [`Vm`](hc_vmm::Vm). What the arguments
//! mean is the driver's business; nothing here knows a machine or a device.
//!
//! # Invariants
//!
//! - The process starts in `start`, not in `create`, so a created VM is a few open files.
//! - It inherits what its plan lists and nothing else: no environment, terminal or descriptor of
//!   ours. It can gain no privileges and dumps no core.
//! - One task owns the process and all that is read from it (`supervisor.rs`). The VM's handle sends
//!   it requests and sees the exit; when the handle goes, the task kills and reaps.
//! - The kernel kills the process when the thread that started it ends. That thread is the
//!   runtime's.
//! - What the hypervisor says is parsed under a limit, though it is trusted more than its guest.
//!
//! # Where to start
//!
//! `vm.rs` is a VM's life; `supervisor.rs` tells how it ended.

mod control;
pub mod files;
mod process;
mod remote;
mod streams;
mod supervisor;
mod vm;

pub use control::{Command, HELD};
pub use process::User;
pub use remote::{Progress, Remote};
pub use streams::{Inherited, Streams, Wires};
pub use vm::{BoxFuture, ChildVm, Dialect, Explain, Plan};
