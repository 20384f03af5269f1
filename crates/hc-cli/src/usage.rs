// SPDX-License-Identifier: Apache-2.0
//! What clap found wrong with the command line, told as everything else is told.

use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args::Cli;
use crate::failure::{CLOSED_PIPE, Failure, OURS};
use crate::show;

/// Prints help where it was asked for, else the error; gives the exit status.
pub(crate) fn explain(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if asked_for {
        // The bare name asks what there is; its help is an answer like any other.
        return match show::print(&error.render().to_string()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => CLOSED_PIPE.into(),
        };
    }
    let args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    show::print_failure(&failure(error, subcommand(args).as_deref()));
    OURS.into()
}

fn failure(error: &clap::Error, subcommand: Option<&str>) -> Failure {
    let text = error.to_string();
    // The message ends where usage and tips begin.
    let message = text.split("\n\n").next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let words: Vec<_> = message.split_whitespace().collect();
    Failure::argument(words.join(" ")).with_hint(hint(error, subcommand))
}

fn hint(error: &clap::Error, subcommand: Option<&str>) -> String {
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
    match subcommand {
        Some(name) => format!("see: hyper {name} --help"),
        None => "see: hyper --help".to_owned(),
    }
}

/// The command that was meant, where it is one, with those of its own: `template ls`.
fn subcommand(args: impl Iterator<Item = String>) -> Option<String> {
    let cli = Cli::command();
    let mut command = &cli;
    let mut path = Vec::new();
    for arg in args.skip(1) {
        if let Some(inner) = command.find_subcommand(&arg) {
            command = inner;
            path.push(arg);
        }
    }
    (!path.is_empty()).then(|| path.join(" "))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(args: &[&str], expected: Expect) {
        let error = Cli::try_parse_from(["hyper"].iter().chain(args)).unwrap_err();
        let mut out = Vec::new();
        let args = ["hyper"].iter().chain(args).map(ToString::to_string);
        failure(&error, subcommand(args).as_deref()).print(&mut out, false);
        expected.assert_eq(&String::from_utf8(out).unwrap());
    }

    #[test]
    fn wrong_usage_is_told_in_one_line_and_a_hint() {
        check(
            &["rn"],
            expect![[r"
            error: unrecognized subcommand 'rn'
            hint: see: hyper --help
        "]],
        );
        check(
            &["run"],
            expect![[r"
            error: the following required arguments were not provided: <IMAGE>...
            hint: see: hyper run --help
        "]],
        );
        check(
            &["ps", "--al"],
            expect![[r"
            error: unexpected argument '--al' found
            hint: is --all meant?
        "]],
        );
        check(
            &["ps", "-z"],
            expect![[r"
            error: unexpected argument '-z' found
            hint: see: hyper ps --help
        "]],
        );
        check(
            &["run", "--pull", "maybe", "img"],
            expect![[r"
                error: invalid value 'maybe' for '--pull <WHEN>': use always, missing or never
                hint: see: hyper run --help
            "]],
        );
        check(
            &["template", "ls", "-z"],
            expect![[r"
            error: unexpected argument '-z' found
            hint: see: hyper template ls --help
        "]],
        );
        check(
            &["snapshot", "mk"],
            expect![[r"
            error: unrecognized subcommand 'mk'
            hint: see: hyper snapshot --help
        "]],
        );
        check(
            &["stop", "-t", "x", "c"],
            expect![[r"
                error: invalid value 'x' for '--timeout <SECONDS>': invalid digit found in string
                hint: see: hyper stop --help
            "]],
        );
    }
}
