// SPDX-License-Identifier: Apache-2.0
//! What can go wrong between host and guest.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hc_proto::message::FailureKind;
use hc_proto::{ProtocolError, SendError};

/// The result of anything asked of a guest.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the guest did not do what it was asked to.
///
/// Cloned to every handle when the connection ends, so that each tells the same reason.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The guest never said welcome.
    #[error("guest did not answer within {waited:?}")]
    Silent {
        /// How long we waited.
        waited: Duration,
    },
    /// The guest broke the protocol, so nothing it says can be relied on.
    #[error("guest broke the protocol")]
    Protocol {
        /// What it did.
        source: ProtocolError,
    },
    /// Reading from or writing to the line failed.
    #[error("line to the guest failed")]
    Line {
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// The line ended, as it does when the VM powers off.
    #[error("guest closed the line")]
    Closed,
    /// Events came faster than anyone took them, by more than a buffer.
    #[error("guest sends more events than are taken")]
    Flooded,
    /// A call can not be sent.
    #[error("cannot send {call} to the guest")]
    Send {
        /// What was asked.
        call: &'static str,
        /// Why it cannot be sent.
        source: SendError,
    },
    /// A call got no answer in time. Whether it was carried out is not known.
    #[error("guest did not answer {call} within {waited:?}")]
    Timeout {
        /// What was asked.
        call: &'static str,
        /// How long we waited.
        waited: Duration,
    },
    /// The guest answered that it could not.
    #[error("guest cannot {call}: {message}")]
    Refused {
        /// What was asked.
        call: &'static str,
        /// The kind of failure, as the guest sees it.
        failure: FailureKind,
        /// The guest's own words, with control characters taken out.
        message: String,
    },
    /// The guest answered another question.
    #[error("guest gave an answer that does not fit {call}")]
    Misfit {
        /// What was asked.
        call: &'static str,
    },
}

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was named does not exist.
    NotFound,
    /// What was asked makes no sense, now or ever.
    InvalidArgument,
    /// It took too long.
    Timeout,
    /// Something is used up.
    Exhausted,
    /// Nothing but look into it.
    Internal,
}

impl Error {
    /// Sorts the error by what to do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Silent { .. } | Error::Timeout { .. } => Kind::Timeout,
            Error::Flooded => Kind::Exhausted,
            Error::Send { source, .. } => match source {
                SendError::TooLong { .. } => Kind::InvalidArgument,
                SendError::NoStreamFree | SendError::Full => Kind::Exhausted,
                _ => Kind::Internal,
            },
            Error::Refused { failure, .. } => match failure {
                FailureKind::ProgramNotFound
                | FailureKind::UserNotFound
                | FailureKind::NotFound => Kind::NotFound,
                FailureKind::ProgramNotExecutable | FailureKind::Invalid => Kind::InvalidArgument,
                FailureKind::System => Kind::Internal,
            },
            Error::Protocol { .. } | Error::Line { .. } | Error::Closed | Error::Misfit { .. } => {
                Kind::Internal
            }
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::new(io::ErrorKind::BrokenPipe, error)
    }
}
