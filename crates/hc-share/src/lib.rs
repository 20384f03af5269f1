// SPDX-License-Identifier: Apache-2.0
//! Serves one folder of the host to one guest: FUSE requests in, answers out, over a stream socket.
//!
//! `fuse-backend-rs` does what the requests ask for; this crate opens the folder, frames the
//! messages, and refuses what a guest has no business to ask (`policy.rs`). It knows nothing of VMs:
//! whoever has the other end of the socket passes the messages on.
//!
//! # Invariants
//!
//! - Every name is looked up in a folder that is already open, one component at a time, without
//!   following links: what a link says is for the guest to follow, in its own root.
//! - Only files and folders are opened; a device in the folder is a name and no more.
//! - In a folder that is read-only, nothing is done that is not known to change nothing.
//! - Every request is answered, but for those that have no answer.
//!
//! # Limits
//!
//! - Requests are served one by one.
//! - Each file that the guest knows is an open descriptor, so a server wants a process of its own,
//!   whose limit is then the guest's problem and nobody else's.
//! - As root, it makes files for whichever user the guest names; as anybody else, for itself.

mod folder;
mod policy;

pub use folder::{Error, Folder};
pub use policy::Access;
