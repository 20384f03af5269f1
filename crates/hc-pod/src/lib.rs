// SPDX-License-Identifier: Apache-2.0
//! One pod: its VM, its guest connection, its logs and its exit code, in one process.
//!
//! `hyper-pod` is this library behind a `main`. It is told everything by a [`PodConfig`], serves
//! clients on a unix socket, and ends with its pod. It knows nothing of the daemon, so a daemon may
//! die and another find the pod again; and it knows nothing of images beyond one file that holds a
//! root file system.
//!
//! # Invariants
//!
//! - One process a pod. When it dies, however that comes, its VM dies with it.
//! - [`PodDir`]'s lock is held exactly as long as the VM can exist.
//! - The exit code is in the status record before any client hears of it.
//!
//! # Where to start
//!
//! `job.rs` is what the process is told, `life.rs` the story of a pod; `pod.rs` what clients can ask in between; `server.rs` how they ask.

mod archive;
pub mod config;
mod copies;
pub mod dir;
mod failure;
mod identity;
pub mod job;
mod life;
pub mod log;
mod machine;
mod output;
mod parent;
mod pod;
mod rehearsal;
mod run;
pub mod saved;
pub mod scratch;
mod server;
mod session;
pub mod status;

pub use config::{PodConfig, ROOTFS_DISK, ROOTFS_MAX, Taken};
pub use dir::PodDir;
pub use failure::chain;
pub use run::work;
pub use session::merge_env;
pub use status::{OUR_FAILURE, Phase, PodStatus};
