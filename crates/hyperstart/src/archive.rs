// SPDX-License-Identifier: Apache-2.0
//! The guest's own programs.

use hc_proto::message::Program;

/// Runs a builtin program and gives its exit status.
pub(crate) fn run(_program: &Program) -> u8 {
    1
}
