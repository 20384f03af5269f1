// SPDX-License-Identifier: Apache-2.0
//! The daemon and its host in the API.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// The program's version.
    pub version: String,
    /// The API's version.
    pub api: String,
    /// The daemon's process id.
    pub pid: u32,
}

/// What the daemon has and what its host can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// The program's version.
    pub version: String,
    /// Containers in all.
    pub containers: u64,
    /// Containers that run.
    pub running: u64,
    /// Images.
    pub images: u64,
    /// Where images, scratch disks and the database are.
    pub data_dir: String,
    /// Where sockets are.
    pub runtime_dir: String,
    /// The kernel that guests boot unless another is named.
    pub kernel: String,
    /// What became of a guest under KVM.
    pub kvm: KvmReport,
    /// The driver that runs pods unless another is named.
    pub driver: String,
    /// Why it is this driver: one sentence.
    pub driver_reason: String,
    /// What was found about each driver.
    pub drivers: Vec<DriverReport>,
    /// The host's CPUs.
    pub host_cpus: u32,
    /// The host's memory in bytes.
    pub host_memory_bytes: u64,
    /// The host's kernel release.
    pub host_kernel: String,
    /// Whether the daemon runs as root.
    pub root: bool,
}

/// What became of a throw-away guest under KVM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KvmReport {
    /// The device that was tried.
    pub device: String,
    /// What it is.
    pub state: KvmState,
    /// Whether pods can run under it.
    pub usable: bool,
    /// The state in one sentence, with what was measured.
    pub finding: String,
    /// What to do about it, where it could be better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Turns of an empty loop of kernel code, where a guest ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loops_per_second: Option<u64>,
    /// Changes of page tables, where a guest ran on the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_table_changes_per_second: Option<u64>,
    /// Times that the guest could be left and entered again, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exits_per_second: Option<u64>,
}

/// What KVM is on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KvmState {
    /// Guests run on the processor.
    Usable,
    /// The same, but each change of a guest's page tables is traced by the host.
    NoNestedPaging,
    /// Guests' kernels are emulated: too slow and incomplete.
    Emulated,
    /// The daemon's user may not open the device.
    NoPermission,
    /// There is no device.
    Absent,
    /// Another hypervisor has the processor.
    Busy,
    /// The device opens, and then something fails.
    Broken,
}

/// What was found about one driver on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DriverReport {
    /// Its name.
    pub name: String,
    /// Whether it can run pods here.
    pub usable: bool,
    /// What was found: one sentence.
    pub finding: String,
    /// The program of the hypervisor, where it is usable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// How the kernels that it boots may find their devices: `mmio`, `pci`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transports: Vec<String>,
    /// What to do about it, where it is unusable and something can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
