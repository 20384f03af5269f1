// SPDX-License-Identifier: Apache-2.0
//! `hyperd`: keeps images and containers, starts pod processes and serves the API.
//!
//! It owns no VM: pods run on without it, and the next daemon finds them by their locks and sockets.
//!
//! # Where to start
//!
//! `containers.rs` says what states there are, `supervisor.rs` how pods are started and found
//! again, `templates.rs` how they start fast, `record.rs` how a request becomes a container,
//! `routes.rs` what can be asked.

mod body;
mod config;
mod containers;
mod database;
mod failure;
mod filters;
mod forward;
mod host;
mod loaded;
mod names;
mod pool;
mod process;
mod ready;
mod record;
mod routes;
mod serve;
mod snapshots;
mod state;
mod supervisor;
mod templates;

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

const USAGE: &str = "\
Usage: hyperd [--ready-fd N]

Keeps images and containers, and serves the API on a unix socket. `hyper` starts it by itself.

Options:
  --ready-fd N   close this descriptor once requests are served, or write there why not
  --openapi      print the API's OpenAPI document and exit
  --version      print the version and exit
";

#[expect(clippy::print_stdout, reason = "these are what the user asked to see")]
#[expect(clippy::print_stderr, reason = "the error goes where the user sees it")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ready = match arguments[..] {
        [] => None,
        ["--ready-fd", number] => Some(number),
        ["--version"] => {
            println!("hyperd {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        ["--openapi"] => {
            println!("{}", routes::openapi());
            return ExitCode::SUCCESS;
        }
        ["--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("error: unknown arguments\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // A line that a full disk does not take would else be told by a line that panics.
        .log_internal_errors(false)
        .with_env_filter(EnvFilter::try_from_env("HYPER_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    match serve::run(ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
