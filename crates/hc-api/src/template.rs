// SPDX-License-Identifier: Apache-2.0
//! Templates and snapshots in the API: guests that were copied, to be gone on from.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Port;

/// A booted guest with nothing of any user in it, from which pods of one shape start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Template {
    /// The id: a hash of all that the template depends on, as 64 hex digits.
    pub id: String,
    /// The driver it was made with, and is for.
    pub driver: String,
    /// The kernel file it booted.
    pub kernel: String,
    /// Whole CPUs of the pods that start from it.
    pub vcpus: u32,
    /// Their memory in MiB.
    pub memory_mib: u32,
    /// Whether they have a network.
    pub network: bool,
    /// Bytes of its file.
    pub size: u64,
    /// When it was made.
    #[schema(value_type = String)]
    pub created: Timestamp,
    /// Pods that wait, booted from it, to be given work.
    pub waiting: u32,
}

/// The shape of a template to make. What is `None` is as for a container that does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CreateTemplate {
    /// Bytes of memory that a container of such a pod may ask for.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a CPU that it may ask for.
    pub cpu_millis: Option<u32>,
    /// The driver.
    pub driver: Option<String>,
    /// The guest kernel.
    pub kernel: Option<String>,
    /// Whether it is for pods without a network.
    pub no_network: bool,
}

/// What removing unused templates gave back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrunedTemplates {
    /// The ids of those that are gone.
    pub removed: Vec<String>,
    /// Bytes of their files.
    pub size: u64,
}

/// A running pod that was copied, memory and disks and all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// The name.
    pub name: String,
    /// The container it was taken of, by the name that this had then.
    pub container: String,
    /// That container's image.
    pub image: String,
    /// The driver it was made with, and is for.
    pub driver: String,
    /// Whole CPUs of the pods that go on from it.
    pub vcpus: u32,
    /// Their memory in MiB.
    pub memory_mib: u32,
    /// Bytes of its files.
    pub size: u64,
    /// When it was taken.
    #[schema(value_type = String)]
    pub created: Timestamp,
    /// How long the pod stood still for it, in microseconds.
    pub held_micros: u64,
}

/// A snapshot to take of a running container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// Its name, which no other has.
    pub name: String,
}

/// A container that goes on where another was copied, in a pod of its own.
///
/// Program, user, limits, image and sizes are the copied container's. What is `None` is made up or
/// taken over as each field says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CloneContainer {
    /// A name; one is made up where there is none.
    pub name: Option<String>,
    /// The host name; the new container's short id where there is none.
    pub hostname: Option<String>,
    /// Host ports that lead into the pod; none where the copied container's are taken.
    pub publish: Vec<Port>,
    /// Labels, over the copied container's.
    pub labels: BTreeMap<String, String>,
    /// Whether it is removed when it ends.
    pub auto_remove: bool,
}

/// How a container is paused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams,
)]
#[serde(default, deny_unknown_fields)]
pub struct PauseQuery {
    /// Whether the pod's memory goes to disk, which frees it. Whoever runs a command in it by `exec`
    /// is cut off.
    pub to_disk: bool,
}
