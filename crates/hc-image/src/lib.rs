// SPDX-License-Identifier: Apache-2.0
//! The store of images, and every way an image gets into it.
//!
//! A store is an OCI image layout on disk that skopeo and others read as it is, with a built root
//! file system beside it for each chain of layers. Images come from archives ([`Store::load`]),
//! from tars of root file systems ([`Store::import`]) and from registries ([`Store::pull`]).
//! Nothing here knows pods or VMs; whoever removes an image says which root file systems pods use.
//!
//! ```no_run
//! use hc_image::{ImportOptions, Silent, Store};
//!
//! # fn main() -> Result<(), hc_image::Error> {
//! let store = Store::open("/var/lib/hyper/images")?;
//! let options = ImportOptions { name: Some("app:v1".parse()?), ..ImportOptions::default() };
//! store.import(std::io::stdin(), &options, &Silent)?;
//! let image = store.resolve("app:v1")?;
//! image.config.check_platform()?;
//! let rootfs = store.ensure_rootfs(&image, &Silent)?; // There already: import built it.
//! # Ok(())
//! # }
//! ```
//!
//! All calls block, [`Store::pull`] excepted: an asynchronous caller runs them on a thread for
//! blocking work.
//!
//! # Invariants
//!
//! - An image of the store is whole and checked: each blob against its digest, each layer against
//!   its diff ID, and its root file system was built.
//! - What fails, is cancelled or is killed leaves no image and, once nobody writes to the store any
//!   more, no file.
//! - Nothing is ever created under a name that came with an image: files are named by digests.
//! - Everything that comes in is bounded by [`Limits`], and the disk is never filled.
//!
//! # Where to start
//!
//! `layout.rs` says what is where on disk and which locks protect it; `load.rs` shows how an
//! archive becomes an image. The user's side is in `docs/images.md`.

mod archive;
mod catalog;
mod config;
mod credentials;
mod digest;
mod disk;
mod error;
mod image;
mod import;
mod layout;
mod limits;
mod load;
mod manifest;
mod progress;
mod pull;
mod reference;
mod registry;
mod rootfs;
mod store;
mod sweep;
mod tree;
mod unpack;

pub use config::ImageConfig;
pub use credentials::{Credentials, DockerConfig, Secret};
pub use digest::{Digest, ParseDigestError};
pub use error::{Error, Kind, Result};
pub use image::{Image, ImageSummary, Layer};
pub use import::ImportOptions;
pub use limits::Limits;
pub use load::LoadedImage;
pub use manifest::{DocumentKind, Packing, recognise};
pub use progress::{Event, Progress, Silent, Stage};
pub use pull::{PullOptions, PullPolicy};
pub use reference::Reference;
pub use store::{RemoveOptions, Removed, Store, Usage};
