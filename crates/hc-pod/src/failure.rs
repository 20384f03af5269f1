// SPDX-License-Identifier: Apache-2.0
//! Failures on their way to a client: one line, a kind, perhaps a hint and an exit status.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use hc_api::{ErrorBody, ErrorKind};
use hc_proto::message::FailureKind;

use crate::status::OUR_FAILURE;

/// The result of what a client asked of a pod.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why something that a client asked for did not happen, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.message)]
pub(crate) struct Failure(pub(crate) ErrorBody);

impl Failure {
    /// A failure of this kind.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure(ErrorBody::new(kind, message))
    }

    /// A failure of the host: `what` was tried and `error` came of it.
    pub(crate) fn io(what: &str, error: &io::Error) -> Failure {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Internal,
        };
        Failure::new(kind, format!("{what}: {error}"))
    }

    /// The exit status that `run` ends with.
    pub(crate) fn exit_status(&self) -> u8 {
        self.0.exit_status.unwrap_or(OUR_FAILURE)
    }
}

/// The error and all its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(line, ": {cause}"); // Writing to a String cannot fail.
        source = cause.source();
    }
    line
}

impl From<hc_vmm::Error> for Failure {
    fn from(error: hc_vmm::Error) -> Failure {
        let kind = match error.kind() {
            hc_vmm::Kind::NotFound | hc_vmm::Kind::Unsupported => ErrorKind::Unsupported,
            hc_vmm::Kind::InvalidState => ErrorKind::InvalidState,
            hc_vmm::Kind::InvalidArgument => ErrorKind::InvalidArgument,
            hc_vmm::Kind::Timeout => ErrorKind::Timeout,
            hc_vmm::Kind::Internal => ErrorKind::Internal,
        };
        let body = ErrorBody::new(kind, chain(&error));
        Failure(match error.hint() {
            Some(hint) => body.with_hint(hint),
            None => body,
        })
    }
}

impl From<hc_usernet::Error> for Failure {
    fn from(error: hc_usernet::Error) -> Failure {
        Failure::new(ErrorKind::InvalidState, chain(&error))
    }
}

impl From<hc_guest::Error> for Failure {
    fn from(error: hc_guest::Error) -> Failure {
        use hc_guest::{Error, Kind};
        let kind = match error.kind() {
            Kind::NotFound => ErrorKind::NotFound,
            Kind::InvalidArgument => ErrorKind::InvalidArgument,
            Kind::Timeout => ErrorKind::Timeout,
            Kind::Exhausted => ErrorKind::Exhausted,
            Kind::Internal => ErrorKind::Internal,
        };
        // The guest's words for a program that cannot run are the whole story.
        let (message, exit_status) = match &error {
            Error::Refused { failure: FailureKind::ProgramNotFound, message, .. } => {
                (message.clone(), Some(127))
            }
            Error::Refused { failure: FailureKind::ProgramNotExecutable, message, .. } => {
                (message.clone(), Some(126))
            }
            Error::Refused { failure: FailureKind::UserNotFound, message, .. } => {
                (message.clone(), None)
            }
            _ => (chain(&error), None),
        };
        Failure(ErrorBody { kind, message, hint: None, exit_status })
    }
}
