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

/// What was found about one driver on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DriverReport {
    /// Its name.
    pub name: String,
    /// Whether it can run pods here.
    pub usable: bool,
    /// What was found: one sentence.
    pub finding: String,
    /// What to do about it, where it is unusable and something can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
