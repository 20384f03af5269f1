// SPDX-License-Identifier: Apache-2.0
//! Why something failed, as the one line that goes to the host.
//!
//! Nobody inside the guest reads a chain of causes, so an error is flattened to the protocol's
//! [`Failure`] where it happens.

use core::fmt;

use hc_proto::message::{Failure, FailureKind};

/// The result of nearly everything here.
pub(crate) type Result<T, E = Error> = core::result::Result<T, E>;

/// What failed, on what and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Error {
    /// What kind of failure, for the host's programs.
    pub(crate) kind: FailureKind,
    /// The line for people.
    pub(crate) message: String,
}

impl Error {
    /// An error of `kind`.
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    /// A call that does not fit the state or whose data is unusable.
    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(FailureKind::Invalid, message)
    }

    /// Something named that is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> Error {
        Error::new(FailureKind::NotFound, message)
    }

    /// What the kernel refused.
    pub(crate) fn system(message: impl Into<String>) -> Error {
        Error::new(FailureKind::System, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { kind: error.kind, message: error.message }
    }
}

/// Says what was tried when the kernel refuses it.
pub(crate) trait Attempt<T> {
    /// Turns the kernel's error into `cannot WHAT: REASON`.
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Attempt<T> for core::result::Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let reason = reason(&error.into());
            Error::system(format!("cannot {}: {reason}", what()))
        })
    }
}

/// The kernel's words for an error, without the number that Rust appends.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_one_line() {
        let refused: core::result::Result<(), _> = Err(std::io::Error::from_raw_os_error(2));
        let error = refused.attempt(|| "mount /proc".into()).unwrap_err();
        assert_eq!(error.to_string(), "cannot mount /proc: no such file or directory");
        assert_eq!(error.kind, FailureKind::System);
    }
}
