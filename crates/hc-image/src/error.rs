// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with images.

use std::io;
use std::path::{Path, PathBuf};

use crate::Digest;

/// The result of a call into the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the store could not do what it was asked to.
///
/// Each message says what was tried and on what; the reason is its `source`. Print the whole chain.
/// Nothing here ever carries a password or a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text names no image.
    #[error("invalid image name {text:?}: {reason}")]
    InvalidReference {
        /// What was given.
        text: String,
        /// Which rule it breaks.
        reason: &'static str,
    },

    /// No image has this name or ID.
    #[error("no image {name:?} in the store")]
    NoSuchImage {
        /// What was asked for.
        name: String,
    },

    /// The start of an ID fits several images.
    #[error("{prefix:?} is the start of {count} image ids; give more digits")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// How many images fit.
        count: usize,
    },

    /// A running pod's root file system would go.
    #[error("image {name} is used by a pod")]
    InUse {
        /// The image.
        name: String,
    },

    /// Asked to remove by ID, but the image has more names than one.
    #[error("image {id} has {count} names; remove them one by one, or force")]
    ManyNames {
        /// The image, short.
        id: String,
        /// How many names.
        count: usize,
    },

    /// An option does not make sense.
    #[error("invalid {what}: {reason}")]
    InvalidOption {
        /// Which option.
        what: &'static str,
        /// Why.
        reason: String,
    },

    /// What came in is damaged, or is no image at all.
    #[error("{what} is not usable: {reason}")]
    Malformed {
        /// Which part.
        what: String,
        /// What is wrong with it.
        reason: String,
    },

    /// JSON of the image does not parse.
    #[error("{what} is not usable")]
    Json {
        /// Which document.
        what: String,
        /// Where the parser stopped.
        source: serde_json::Error,
    },

    /// The content is not what its digest promised.
    #[error("{what} has digest {actual} instead of {expected}")]
    WrongDigest {
        /// Which part.
        what: String,
        /// What was promised.
        expected: Digest,
        /// What was found.
        actual: Digest,
    },

    /// We know what this is, and do not do it.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// What was met.
        what: String,
        /// Why, or what to do instead.
        reason: &'static str,
    },

    /// More than [`Limits`](crate::Limits) allow.
    #[error("{what} is over the limit of {limit}")]
    TooLarge {
        /// What grew.
        what: String,
        /// The bound.
        limit: u64,
    },

    /// The disk is full, or would be.
    #[error("not enough disk space in {}: {detail}", path.display())]
    DiskFull {
        /// Where the store is.
        path: PathBuf,
        /// How much there was, or what the kernel said.
        detail: String,
    },

    /// The layers do not merge into a root file system.
    #[error("cannot build the root file system of image {image}")]
    Rootfs {
        /// The image, short.
        image: String,
        /// What the builder found.
        source: hc_rootfs::Error,
    },

    /// Reading what comes in failed.
    #[error("cannot read {what}")]
    Input {
        /// Which part.
        what: String,
        /// What the source said.
        source: io::Error,
    },

    /// The store's own files failed us.
    #[error("cannot {action} {}", path.display())]
    Store {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// The registry cannot be reached, or broke off.
    #[error("cannot {action} from registry {registry}")]
    Transport {
        /// What was tried.
        action: String,
        /// The registry's host.
        registry: String,
        /// What the network said.
        source: reqwest::Error,
    },

    /// The registry answered, but with a refusal.
    #[error("registry {registry} refused to send {what}: {reason}")]
    Refused {
        /// The registry's host.
        registry: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own words, cut short.
        reason: String,
    },

    /// The registry did not answer in time.
    #[error("registry {registry} did not answer in time while we tried to {action}")]
    TimedOut {
        /// The registry's host.
        registry: String,
        /// What was tried.
        action: String,
    },

    /// [`Progress::is_cancelled`](crate::Progress::is_cancelled) said so.
    #[error("cancelled")]
    Cancelled,
}

/// What a caller can do about an error. Closed on purpose: RPC codes and exit status map from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is not there.
    NotFound,
    /// It is there already.
    Exists,
    /// Not now, not in this state.
    InvalidState,
    /// The request or its data is wrong; asking again will not help.
    InvalidArgument,
    /// We cannot do this at all.
    Unsupported,
    /// Try again later.
    Timeout,
    /// Out of something: disk, or a limit.
    Exhausted,
    /// Look at the host.
    Internal,
}

impl Error {
    /// Sorts the error by what to do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoSuchImage { .. } | Error::Refused { status: 404, .. } => Kind::NotFound,
            Error::Refused { status: 429 | 503, .. } | Error::TimedOut { .. } => Kind::Timeout,
            Error::Rootfs { source, .. } => match source.kind() {
                hc_rootfs::Kind::InvalidArgument => Kind::InvalidArgument,
                hc_rootfs::Kind::Exhausted => Kind::Exhausted,
                hc_rootfs::Kind::Internal => Kind::Internal,
            },
            Error::Refused { .. }
            | Error::InvalidReference { .. }
            | Error::Ambiguous { .. }
            | Error::InvalidOption { .. }
            | Error::Malformed { .. }
            | Error::Json { .. }
            | Error::WrongDigest { .. } => Kind::InvalidArgument,
            Error::InUse { .. } | Error::ManyNames { .. } | Error::Cancelled => Kind::InvalidState,
            Error::Unsupported { .. } => Kind::Unsupported,
            Error::TooLarge { .. } | Error::DiskFull { .. } => Kind::Exhausted,
            Error::Transport { source, .. } if source.is_timeout() => Kind::Timeout,
            Error::Input { .. } | Error::Store { .. } | Error::Transport { .. } => Kind::Internal,
        }
    }

    /// The store's own file at `path` failed us; a full disk becomes [`Error::DiskFull`].
    pub(crate) fn store(action: &'static str, path: &Path, source: io::Error) -> Error {
        if is_disk_full(&source) {
            return Error::DiskFull { path: path.to_owned(), detail: source.to_string() };
        }
        Error::Store { action, path: path.to_owned(), source }
    }

    pub(crate) fn malformed(what: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Malformed { what: what.into(), reason: reason.into() }
    }

    pub(crate) fn too_large(what: impl Into<String>, limit: u64) -> Error {
        Error::TooLarge { what: what.into(), limit }
    }
}

/// Whether the kernel says that there is no room: on the disk, in the quota or in the file.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
