// SPDX-License-Identifier: Apache-2.0
//! `hyper`: runs container images, each in a virtual machine of its own.
//!
//! The program asks the daemon to do things and shows what comes of it. It knows no hypervisor, no
//! image format and no guest: only the API in `hc-api`, the terminal and this user's files.
//!
//! # Invariants
//!
//! - Standard output carries data alone. What went wrong goes to standard error, on one line.
//! - The exit status of `run` and `exec` is the program's own; 125 says that it is ours.
//! - `ctrl-C` leaves nothing behind at any stage of `run`.
//!
//! # Where to start
//!
//! `args` is the command line, `resolve` makes requests of it, `command` has one module for each
//! group of commands, and `session` is what an attached terminal is.

use std::process::ExitCode;

use clap::Parser;

use crate::failure::{Failure, OURS};

mod args;
mod client;
mod command;
mod failure;
mod resolve;
mod session;
mod show;
mod timings;
mod usage;

fn main() -> ExitCode {
    session::terminal::restore_on_panic();
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::explain(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            show::print_failure(&Failure::system("cannot start", error));
            return OURS.into();
        }
    };
    let status = match runtime.block_on(command::run(cli)) {
        Ok(status) => status,
        Err(failure) => {
            show::print_failure(&failure);
            failure.status()
        }
    };
    // A thread may still wait for input that never comes; nothing waits for that thread.
    runtime.shutdown_background();
    status.into()
}
