// SPDX-License-Identifier: Apache-2.0
//! What a command printed and how it ended.

use std::process;

/// The end of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; 128 plus the signal that ended it.
    pub status: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Fails the test unless the command succeeded; gives back its standard output without the
    /// last line's end.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self:#?}");
        self.stdout.trim_end_matches('\n').to_owned()
    }

    /// Fails the test unless the command failed with `status` and one line of `error: …` that
    /// contains `part`.
    #[track_caller]
    pub fn fails(&self, status: i32, part: &str) {
        assert_eq!(self.status, status, "{self:#?}");
        let errors: Vec<_> =
            self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{self:#?}");
        assert!(errors[0].contains(part), "no {part:?} in {self:#?}");
    }
}

impl From<process::Output> for Output {
    fn from(output: process::Output) -> Output {
        use std::os::unix::process::ExitStatusExt as _;
        let status = output.status;
        Output {
            status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
