// SPDX-License-Identifier: Apache-2.0
//! Images in the API.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A row of the image list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageSummary {
    /// The image's id: the digest of its configuration.
    pub id: String,
    /// Its names with tags.
    pub names: Vec<String>,
    /// When it was made, where it says so.
    #[schema(value_type = Option<String>, format = "date-time")]
    pub created: Option<Timestamp>,
    /// Bytes of its blobs in the store.
    pub size_bytes: u64,
    /// Bytes of its root file system, once built.
    pub rootfs_bytes: Option<u64>,
}

/// Everything known of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageDetail {
    /// What the list shows.
    #[serde(flatten)]
    pub summary: ImageSummary,
    /// The digest of its manifest.
    pub manifest: String,
    /// The chain ID of its layers, which names the root file system.
    pub chain_id: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `linux`.
    pub os: String,
    /// The layers' digests, bottom first.
    pub layers: Vec<String>,
    /// The entrypoint.
    pub entrypoint: Vec<String>,
    /// The command.
    pub command: Vec<String>,
    /// The environment.
    pub env: Vec<String>,
    /// The working directory.
    pub workdir: String,
    /// The user.
    pub user: String,
    /// Ports it listens on, such as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Paths meant for volumes.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to stop; empty where it does not say.
    pub stop_signal: String,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// Asks the registry every time.
    Always,
    /// Only an image that the store does not have.
    #[default]
    Missing,
    /// Never.
    Never,
}

/// An image to fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// Its name, with tag or digest.
    pub reference: String,
    /// Base64 of `user:password` for its registry, where the client has credentials.
    #[serde(default)]
    pub authorization: Option<String>,
}

/// A line of the answer to a pull, load or import. The last one is `Done` or `Failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageProgress {
    /// How far one step has come.
    Step {
        /// What is done to what, such as `pulling 3f4e…` or `building root file system`.
        what: String,
        /// Bytes done.
        done_bytes: u64,
        /// Bytes in all, where known.
        total_bytes: Option<u64>,
    },
    /// All went well.
    Done {
        /// The images that came in.
        images: Vec<ImageRef>,
    },
    /// Nothing came in.
    Failed(crate::ErrorBody),
}

/// An image by id and names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageRef {
    /// The id.
    pub id: String,
    /// The names it has now from this operation; may be none.
    pub names: Vec<String>,
}

/// How to make an image of a root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct ImportQuery {
    /// The name it gets.
    pub name: Option<String>,
    /// A JSON object with the configuration: `Entrypoint`, `Cmd`, `Env`, `WorkingDir`, `User`,
    /// `Labels`, `ExposedPorts`, `StopSignal`, as in an OCI image.
    pub config: Option<String>,
}

/// Another name for an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TagRequest {
    /// The image, by name or id.
    pub source: String,
    /// The new name.
    pub target: String,
}

/// What a removal did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemovedImage {
    /// Names that are gone.
    pub untagged: Vec<String>,
    /// Images that are gone, by id.
    pub deleted: Vec<String>,
}
