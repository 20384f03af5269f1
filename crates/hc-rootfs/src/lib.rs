// SPDX-License-Identifier: Apache-2.0
//! Merges the layers of an image into one read-only EROFS file, in a single pass.
//!
//! A [`Builder`] is fed one uncompressed tar stream a layer, bottom to top, and writes one file
//! system. It knows nothing of registries, digests, compression or where images are kept; it
//! reads what it is given and writes to the one file it is given. No file of the image ever exists
//! on the host, so no owner, link, device or path in a layer can touch the host.
//!
//! ```no_run
//! # fn layers() -> Vec<std::fs::File> { Vec::new() }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let out = std::fs::File::create_new("rootfs.erofs.tmp")?;
//! let mut builder = hc_rootfs::Builder::new(&out, hc_rootfs::Options::default())?;
//! for layer in layers() {
//!     builder = builder.add_layer(layer)?; // Any `Read`; opened as late as this.
//! }
//! let summary = builder.finish()?;
//! println!("{} inodes in {} bytes", summary.inodes, summary.image_bytes);
//! # Ok(())
//! # }
//! ```
//!
//! # What callers rely on
//!
//! - A layer is read to its end of stream, past the archive's own end mark, so a reader that
//!   checks a digest at the end sees all of it. What the reader fails with is the `source` of
//!   [`Error::Read`], and is never hidden by a complaint about the bytes before it, unless those
//!   bytes were already refused.
//! - The same layers give the same bytes, whatever the host, the user or the time.
//! - After an error the builder is gone and the file is rubbish: remove it.
//! - Nothing is synced; whoever renames the file into its place does that first.
//!
//! # Invariants
//!
//! - Data goes straight to its final place; memory holds names, directories and one small record a
//!   file, whatever the files' sizes.
//! - No length, number, name or path of a layer is trusted: everything is bounded by [`Limits`].
//! - No recursion follows a tree that a layer describes.
//!
//! # Where to start
//!
//! `builder.rs` ties the parts together: `tar` reads entries, `tree` merges them by the rules of
//! OCI layers, `erofs` knows the format, `output` and `inodes` place bytes in the file. The format and
//! the rules are explained in `docs/rootfs.md`.

mod builder;
mod content;
mod directories;
mod erofs;
mod error;
mod inodes;
mod limits;
mod output;
mod path;
mod tar;
mod tree;

pub use builder::{Builder, Options, Summary};
pub use error::{EntryFault, Error, Kind, TarFault};
pub use limits::Limits;
