// SPDX-License-Identifier: Apache-2.0
//! What long work tells its caller, and how the caller stops it.

use serde::{Deserialize, Serialize};

/// A step of getting an image into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Asking a registry what a name stands for.
    Resolve,
    /// A layer comes from a registry.
    Download,
    /// A part of an archive is read and hashed.
    Read,
    /// The blob is in the store already, nothing was transferred.
    Present,
    /// Layers are checked and merged into the root file system.
    Build,
    /// The item is finished.
    Done,
}

/// One sign of life. `done` never goes down within an item and stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What is being done.
    pub stage: Stage,
    /// To what: a short digest, the name of a part of an archive without control characters, or an
    /// image name.
    pub item: &'a str,
    /// Bytes behind us.
    pub done: u64,
    /// All bytes, where that is known beforehand.
    pub total: Option<u64>,
}

/// Hears of progress and may ask to stop.
///
/// Both methods are called from the working threads every few mebibytes, so they must be quick.
pub trait Progress: Send + Sync {
    /// Hears one event.
    fn report(&self, event: Event<'_>);

    /// Whether the work should end as soon as it can, with
    /// [`Error::Cancelled`](crate::Error::Cancelled), leaving nothing behind.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Hears everything and says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _event: Event<'_>) {}
}
