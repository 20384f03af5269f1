// SPDX-License-Identifier: Apache-2.0
//! `hyperstart` in a real guest, with the test as its host.

mod archive;
mod host;
mod image;
mod isolation;
mod lifecycle;
mod machine;
mod network;
mod processes;
mod resources;
mod streams;
mod tree;
