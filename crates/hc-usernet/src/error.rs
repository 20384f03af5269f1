// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a network as a whole.

use std::io;
use std::net::SocketAddr;

use crate::config::Protocol;

/// The result of a network call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a network could not be built or could not go on.
///
/// What goes wrong with one flow is never here: the guest is told by the means of its protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration contradicts itself.
    #[error("network configuration: {reason}")]
    Config {
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A published port cannot be listened on.
    #[error("cannot publish {protocol} port on {host}")]
    Publish {
        /// The transport asked for.
        protocol: Protocol,
        /// The host address asked for.
        host: SocketAddr,
        /// What the kernel said; most often that the port is in use.
        source: io::Error,
    },

    /// A socket that the network itself needs is not to be had.
    #[error("cannot set up {what}")]
    Setup {
        /// Which one.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },

    /// The VM broke the framing of its stream, which therefore cannot go on.
    #[error(
        "vm sent a frame of {len} bytes, outside {}..={}",
        crate::link::MIN_FRAME,
        crate::link::MAX_FRAME
    )]
    Frame {
        /// The length that its header claims.
        len: u32,
    },

    /// The VM's stream failed.
    #[error("cannot {action} the vm's network stream")]
    Stream {
        /// `read` or `write`.
        action: &'static str,
        /// What the stream said.
        source: io::Error,
    },
}

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ask for something else.
    InvalidArgument,
    /// The port is taken; free it or choose another.
    Exists,
    /// Look at the host: it lacks a permission or a resource.
    Failed,
    /// Look at the guest or its monitor; the network of this VM is over.
    InvalidState,
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Config { .. } => Kind::InvalidArgument,
            Self::Publish { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => Kind::Exists,
                io::ErrorKind::AddrNotAvailable => Kind::InvalidArgument,
                _ => Kind::Failed,
            },
            Self::Setup { .. } => Kind::Failed,
            Self::Frame { .. } | Self::Stream { .. } => Kind::InvalidState,
        }
    }
}
