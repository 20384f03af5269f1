// SPDX-License-Identifier: Apache-2.0
//! A container: a process tree with a root of its own in a pod.

use serde::{Deserialize, Serialize};

use crate::{CapabilitySet, Id, ProcessSpec, Signal};

/// Everything the guest must know to make a container and run its main process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Which container.
    pub id: Id,
    /// The serial of the read-only disk that holds its root file system.
    pub rootfs: String,
    /// Whether its root cannot be written to.
    pub read_only: bool,
    /// Memory file systems to mount in it, in this order.
    pub tmpfs: Vec<Tmpfs>,
    /// Bytes of `/dev/shm`.
    pub shm_bytes: u64,
    /// The whole tree's limits.
    pub limits: ContainerLimits,
    /// Whether the container sees every device and may write to `/sys` and `/proc/sys`.
    pub privileged: bool,
    /// The set that further processes get where they do not ask for another.
    pub capabilities: CapabilitySet,
    /// What asks the main process to end.
    pub stop_signal: Signal,
    /// The main process; the container ends with it.
    pub process: ProcessSpec,
}

/// A memory file system inside a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where it is mounted; absolute.
    pub path: String,
    /// Mount options as for `mount -t tmpfs -o`, such as `size=64m,mode=1777`; empty for defaults.
    pub options: String,
}

/// What a container may use; `None` where only the VM's size limits it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerLimits {
    /// Thousandths of one CPU.
    pub cpu_millis: Option<u32>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}
