// SPDX-License-Identifier: Apache-2.0
//! How the API says that something failed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What a program can do about it.
    pub kind: ErrorKind,
    /// What failed, on what and why: one line.
    pub message: String,
    /// What a person can do about it, where something is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The exit status that `run` and `exec` end with; 125 where the failure is not the program's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<u8>,
}

impl ErrorBody {
    /// An error without a hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ErrorBody {
        ErrorBody { kind, message: message.into(), hint: None, exit_status: None }
    }

    /// The same error with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> ErrorBody {
        self.hint = Some(hint.into());
        self
    }
}

/// The closed set of what can be wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// Nothing has this name.
    NotFound,
    /// Something has this name already.
    Exists,
    /// It cannot be done in the present state, such as stopping what does not run.
    InvalidState,
    /// The request makes no sense.
    InvalidArgument,
    /// This host, hypervisor or version cannot do it.
    Unsupported,
    /// Somebody did not answer in time.
    Timeout,
    /// Disk, memory or another resource has run out.
    Exhausted,
    /// We are at fault, or the host is.
    Internal,
}

impl ErrorKind {
    /// The HTTP status that goes with it.
    pub fn http_status(self) -> u16 {
        match self {
            ErrorKind::NotFound => 404,
            ErrorKind::Exists | ErrorKind::InvalidState => 409,
            ErrorKind::InvalidArgument => 400,
            ErrorKind::Unsupported => 501,
            ErrorKind::Timeout => 504,
            ErrorKind::Exhausted => 507,
            ErrorKind::Internal => 500,
        }
    }
}
