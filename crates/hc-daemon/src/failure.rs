// SPDX-License-Identifier: Apache-2.0
//! Failures of requests, on their way to the client.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hc_api::{ErrorBody, ErrorKind};
use hc_pod::chain;

/// The result of a request.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a request failed, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) ErrorBody);

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure(ErrorBody::new(kind, message))
    }

    pub(crate) fn not_found(what: &str, name: &str) -> Failure {
        Failure::new(ErrorKind::NotFound, format!("no such {what}: {name}"))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(ErrorKind::InvalidArgument, message)
    }

    /// The host failed us: `what` was tried and `error` came of it.
    pub(crate) fn host(what: &str, error: &dyn std::error::Error) -> Failure {
        Failure::new(ErrorKind::Internal, format!("{what}: {}", chain(error)))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.0.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind.http_status());
        (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(self.0)).into_response()
    }
}

impl From<hc_image::Error> for Failure {
    fn from(error: hc_image::Error) -> Failure {
        use hc_image::Kind;
        let kind = match error.kind() {
            Kind::NotFound => ErrorKind::NotFound,
            Kind::Exists => ErrorKind::Exists,
            Kind::InvalidState => ErrorKind::InvalidState,
            Kind::InvalidArgument => ErrorKind::InvalidArgument,
            Kind::Unsupported => ErrorKind::Unsupported,
            Kind::Timeout => ErrorKind::Timeout,
            Kind::Exhausted => ErrorKind::Exhausted,
            Kind::Internal => ErrorKind::Internal,
        };
        Failure::new(kind, chain(&error))
    }
}

impl From<hc_kernel::Error> for Failure {
    fn from(error: hc_kernel::Error) -> Failure {
        let failure = Failure::new(ErrorKind::InvalidArgument, chain(&error));
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::host("cannot use the database", &error)
    }
}
