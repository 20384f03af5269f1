// SPDX-License-Identifier: Apache-2.0
//! Builds file systems from layers made by hand, and looks at them with readers that share no code
//! with the builder: the crate `erofs-rs`, and `fsck.erofs` where it is installed.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::needless_raw_string_hashes,
    reason = "a panic is how a test fails, a skipped one says so, and expect-test writes hashes"
)]

mod archive;
mod dialects;
mod hostile;
mod image;
mod kernel;
mod layout;
mod merge;
mod model;
mod mutation;

mod sparse;
