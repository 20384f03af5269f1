// SPDX-License-Identifier: Apache-2.0
//! Harness for tests that boot real pods.
//!
//! A [`Host`] is a private installation: its own folders and its own daemon, made of the programs
//! in `dist/`. Tests use it as a person does, through the `hyper` command, and look at what is left
//! on the machine afterwards. Dropping it removes every container and checks that nothing of it is
//! left: no process, no socket, no file.
//!
//! ```no_run
//! let Some(host) = hc_testkit::Host::new() else { return };
//! host.busybox();
//! let output = host.hyper(["run", "--rm", "busybox", "echo", "hi"]);
//! assert_eq!(output.stdout, "hi\n");
//! ```

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::expect_used, reason = "a panic is how a test fails")]
#![expect(clippy::missing_panics_doc, reason = "a panic is how a test fails")]

mod copies;
mod host;
mod output;
mod process;
mod program;
mod skip;
mod terminal;
mod wait;

pub use host::Host;
pub use output::Output;
pub use process::{
    Mapping, children_of, interrupt, is_alive, kill, mappings, memory_kib, processes_naming,
    processes_using, status,
};
pub use program::compile;
pub use skip::{has_program, is_root, skip};
pub use terminal::Terminal;
pub use wait::{PATIENCE, until, until_ended};
