// SPDX-License-Identifier: Apache-2.0
//! What can go wrong in a driver.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::driver::Ability;

/// The result of a driver call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a driver could not do what it was asked to.
///
/// Each message says what was tried and on what; the reason is its `source`. Print the whole chain,
/// then [`Error::hint`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The hypervisor is not installed.
    #[error("cannot find {program} on PATH")]
    Missing {
        /// The program that was looked for.
        program: &'static str,
        /// What the user can do about it.
        hint: String,
    },

    /// The hypervisor is installed, but too old.
    #[error("{} is version {found}, which is older than {needed}", path.display())]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The oldest version that will do.
        needed: String,
    },

    /// The hypervisor could not be started at all.
    #[error("cannot run hypervisor {}", path.display())]
    Spawn {
        /// The program that was tried.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// A file of the VM cannot be used.
    #[error("cannot use {what} {}", path.display())]
    File {
        /// What it is for, such as `kernel`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// The host refused something that a VM needs, such as a socket.
    #[error("cannot set up vm {vm}: {what}")]
    Host {
        /// Which VM.
        vm: String,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },

    /// The spec asks for something that no hypervisor could give.
    #[error("cannot make vm {vm}: {reason}")]
    Spec {
        /// Which VM.
        vm: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The hypervisor runs, but does not answer.
    #[error("no answer from vm {vm} to {request} within {waited:?}")]
    Unresponsive {
        /// Which VM.
        vm: String,
        /// The request that got no answer.
        request: &'static str,
        /// How long we waited.
        waited: Duration,
    },

    /// The hypervisor answered, and refused.
    #[error("vm {vm} refused {request}: {reason}")]
    Refused {
        /// Which VM.
        vm: String,
        /// The request.
        request: &'static str,
        /// The hypervisor's words.
        reason: String,
    },

    /// The VM ended while we waited for something else.
    #[error("vm {vm} ended during {during}; last words: {last_words}")]
    Ended {
        /// Which VM.
        vm: String,
        /// The call that was under way.
        during: &'static str,
        /// The tail of what the hypervisor said.
        last_words: String,
    },

    /// The call does not fit the state of the VM.
    #[error("cannot {call} vm {vm}, which is {state}")]
    State {
        /// Which VM.
        vm: String,
        /// The call.
        call: &'static str,
        /// The state it is in.
        state: &'static str,
    },

    /// The caller asked for something that [`abilities`](crate::Driver::abilities) rules out.
    #[error("{driver} cannot {ability}")]
    Unsupported {
        /// The driver's name.
        driver: &'static str,
        /// What it lacks.
        ability: Ability,
    },
}

/// What a caller can do about an error. Closed on purpose: RPC codes and exit status map from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Install or name what is missing.
    NotFound,
    /// Ask at another time of the VM's life.
    InvalidState,
    /// Ask for something that makes sense.
    InvalidArgument,
    /// Nothing but ask for something else.
    Unsupported,
    /// Try again, perhaps elsewhere.
    Timeout,
    /// Look at the host or at the guest; asking again will not help.
    Internal,
}

impl Error {
    /// Sorts the error by what to do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Error::Missing { .. } => Kind::NotFound,
            Error::State { .. } => Kind::InvalidState,
            Error::Spec { .. } => Kind::InvalidArgument,
            Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Kind::NotFound
            }
            Error::Unsupported { .. } | Error::TooOld { .. } => Kind::Unsupported,
            Error::Unresponsive { .. } => Kind::Timeout,
            Error::Spawn { .. }
            | Error::File { .. }
            | Error::Host { .. }
            | Error::Refused { .. }
            | Error::Ended { .. } => Kind::Internal,
        }
    }

    /// What the user can do about it, if the driver knows.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        if let Error::Missing { hint, .. } = self { Some(hint) } else { None }
    }
}
