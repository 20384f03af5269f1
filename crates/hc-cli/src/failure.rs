// SPDX-License-Identifier: Apache-2.0
//! What went wrong, as it is told to the person: `error: a: b`, then `hint: c`, on standard error.
//!
//! A [`Failure`] is a finished sentence rather than an error enum because nobody but the person
//! acts on it; the few things that code decides by are its kind and exit status.

use std::fmt;
use std::io::{self, Write};

use hc_api::{ErrorBody, ErrorKind};

/// The exit status when `run` or `exec` fails for reasons of ours, and for wrong usage.
pub(crate) const OURS: u8 = 125;
/// The exit status of everything else that fails.
pub(crate) const FAILED: u8 = 1;
/// What a shell shows for a program that wrote to a closed pipe: 128 and SIGPIPE.
pub(crate) const CLOSED_PIPE: u8 = 141;

/// The result of anything that can fail for the person.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What failed and why; empty where silence is right.
    message: String,
    /// What the person can do.
    hint: Option<String>,
    /// What sort it is.
    kind: ErrorKind,
    /// The exit status it asks for, where it does.
    status: Option<u8>,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: None, kind, status: None }
    }

    /// The user asked for something that makes no sense.
    pub(crate) fn argument(message: impl Into<String>) -> Failure {
        Failure::new(ErrorKind::InvalidArgument, message)
    }

    /// The user asked for something that we cannot do.
    pub(crate) fn unsupported(message: impl Into<String>) -> Failure {
        Failure::new(ErrorKind::Unsupported, message)
    }

    /// The system refused `what`.
    pub(crate) fn system(what: impl fmt::Display, error: impl fmt::Display) -> Failure {
        Failure::new(ErrorKind::Internal, format!("{what}: {error}"))
    }

    /// Ends with `status`, and says nothing.
    pub(crate) fn silent(status: u8) -> Failure {
        Failure { status: Some(status), ..Failure::new(ErrorKind::Internal, "") }
    }

    /// Standard output could not be written; if because its reader is gone, nobody wants to hear.
    pub(crate) fn stdout(error: &io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::silent(CLOSED_PIPE)
        } else {
            Failure::system("cannot write to standard output", error)
        }
    }

    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what was tried in front.
    #[must_use]
    pub(crate) fn context(mut self, tried: impl fmt::Display) -> Failure {
        if !self.is_silent() {
            self.message = format!("{tried}: {}", self.message);
        }
        self
    }

    /// Asks for an exit status where none has been asked for.
    #[must_use]
    pub(crate) fn or_status(mut self, status: u8) -> Failure {
        self.status.get_or_insert(status);
        self
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.message.is_empty()
    }

    pub(crate) fn status(&self) -> u8 {
        self.status.unwrap_or(FAILED)
    }

    /// Writes both lines, in colour if asked. Nobody is left to tell if that fails.
    pub(crate) fn print(&self, out: &mut dyn Write, colour: bool) {
        if self.is_silent() {
            return;
        }
        let (red, cyan, plain) =
            if colour { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        let _ = writeln!(out, "{red}error:{plain} {}", one_line(&self.message));
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "{cyan}hint:{plain} {}", one_line(hint));
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ErrorBody> for Failure {
    fn from(body: ErrorBody) -> Failure {
        let ErrorBody { kind, message, hint, exit_status } = body;
        Failure { message, hint, kind, status: exit_status }
    }
}

impl From<hc_paths::Error> for Failure {
    fn from(error: hc_paths::Error) -> Failure {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Failure { hint: error.hint(), ..Failure::new(ErrorKind::Internal, message) }
    }
}

/// Control characters in a message could move the cursor or fake further lines: parts of it may
/// come from an image or a guest.
fn one_line(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(failure: &Failure, expected: &str) {
        let mut out = Vec::new();
        failure.print(&mut out, false);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_failure_is_one_line_and_its_hint_another() {
        let failure = Failure::argument("no such thing\n\x1b[31mfake").context("cannot do it");
        check(&failure, "error: cannot do it: no such thing  [31mfake\n");
        check(&Failure::unsupported("no wings").with_hint("walk"), "error: no wings\nhint: walk\n");
    }

    #[test]
    fn a_closed_pipe_is_not_talked_about() {
        let failure = Failure::stdout(&io::Error::from(io::ErrorKind::BrokenPipe));
        check(&failure.context("cannot list"), "");
    }

    #[test]
    fn the_daemons_exit_status_wins_over_the_commands() {
        let body = ErrorBody {
            exit_status: Some(127),
            ..ErrorBody::new(ErrorKind::NotFound, "no program")
        };
        assert_eq!(Failure::from(body).or_status(OURS).status(), 127);
        assert_eq!(Failure::argument("x").or_status(OURS).status(), 125);
        assert_eq!(Failure::argument("x").status(), 1);
    }
}
