// SPDX-License-Identifier: Apache-2.0
//! The client against guests that behave, and guests that do not.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod adopts;
mod behaves;
mod fake;
mod misbehaves;

use std::time::Duration;

use hc_guest::{Launch, Stdio};
use hc_proto::message::Program;
use hc_spec::Id;

/// Longer than anything here takes on a machine that does much else.
const PATIENCE: Duration = Duration::from_mins(1);

/// A process with the streams given; what it runs is nothing to a fake guest.
fn launch(stdin: bool, stdout: bool, stderr: bool) -> Launch {
    Launch {
        container: container(),
        main: true,
        program: Program::Stat { path: "/".into() },
        stdio: Stdio { stdin, stdout, stderr },
    }
}

fn container() -> Id {
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".parse().unwrap()
}
