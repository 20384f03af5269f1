// SPDX-License-Identifier: Apache-2.0
//! What clap found wrong with the command line, told as everything else is told.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::{CLOSED_PIPE, Failure, OURS};
use crate::show;

/// Prints help where it was asked for, else the error; gives the exit status.
pub(crate) fn explain(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => CLOSED_PIPE.into(),
        };
    }
    show::print_failure(&failure(error));
    OURS.into()
}

fn failure(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::argument("no command is named").with_hint("see: hyper --help");
    }
    let text = error.to_string();
    // The message ends where usage and tips begin.
    let message = text.split("\n\n").next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let words: Vec<_> = message.split_whitespace().collect();
    Failure::argument(words.join(" ")).with_hint(hint(error, &text))
}

fn hint(error: &clap::Error, text: &str) -> String {
    let suggested = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand]
        .into_iter()
        .find_map(|kind| match error.get(kind) {
            Some(ContextValue::String(name)) => Some(name.clone()),
            Some(ContextValue::Strings(names)) => names.first().cloned(),
            _ => None,
        });
    if let Some(name) = suggested {
        return format!("is {name} meant?");
    }
    // `Usage: hyper run [OPTIONS] …`
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or("hyper");
    let command: Vec<_> = usage
        .split_whitespace()
        .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()))
        .collect();
    format!("see: {} --help", command.join(" "))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use expect_test::{Expect, expect};

    use super::*;
    use crate::args::Cli;

    #[track_caller]
    fn check(args: &[&str], expected: Expect) {
        let error = Cli::try_parse_from(["hyper"].iter().chain(args)).unwrap_err();
        let mut out = Vec::new();
        failure(&error).print(&mut out, false);
        expected.assert_eq(&String::from_utf8(out).unwrap());
    }

    #[test]
    fn wrong_usage_is_told_in_one_line_and_a_hint() {
        check(&[], expect![""]);
        check(&["rn"], expect![""]);
        check(&["run"], expect![""]);
        check(&["ps", "--al"], expect![""]);
        check(&["ps", "-z"], expect![""]);
        check(&["run", "--pull", "maybe", "img"], expect![""]);
        check(&["stop", "-t", "x", "c"], expect![""]);
    }
}
