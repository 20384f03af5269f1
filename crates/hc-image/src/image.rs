// SPDX-License-Identifier: Apache-2.0
//! An image of the store, read and checked.

use serde::{Deserialize, Serialize};

use crate::catalog::Entry;
use crate::layout::Layout;
use crate::manifest::{Document, Manifest};
use crate::{Digest, Error, ImageConfig, Limits, Reference, Result};

/// An image of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What people call its ID: the digest of its configuration.
    pub id: Digest,
    /// Every name it has, sorted.
    pub names: Vec<Reference>,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// What its merged layers are called; equal trees of layers share a root file system.
    pub chain_id: Digest,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// Bytes of its blobs, as stored.
    pub size: u64,
    /// What it says about itself.
    pub config: ImageConfig,
}

/// A layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The digest of the blob, packed as it is.
    pub digest: Digest,
    /// The digest of the tar in it.
    pub diff_id: Digest,
    /// Bytes of the blob.
    pub size: u64,
}

/// An image in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// The digest of its configuration.
    pub id: Digest,
    /// Every name it has, sorted.
    pub names: Vec<Reference>,
    /// When it was made, as RFC 3339, if it says.
    pub created: Option<String>,
    /// Bytes of its blobs, as stored.
    pub size: u64,
    /// Bytes of its root file system on disk, if that is built.
    pub rootfs_size: Option<u64>,
}

impl Image {
    /// Reads manifest and configuration of an entry of the catalog.
    pub(crate) fn load(layout: &Layout, limits: &Limits, entry: &Entry) -> Result<Image> {
        let digest = &entry.descriptor.digest;
        let missing = |what: &str, digest: &Digest| {
            Error::malformed(format!("image {digest:?}"), format!("its {what} is missing"))
        };
        let bytes = layout
            .read_blob(digest, "manifest", limits.manifest_bytes)?
            .ok_or_else(|| missing("manifest", digest))?;
        let Document::Manifest(manifest) = Document::parse(&bytes, limits)? else {
            return Err(Error::malformed(format!("image {digest:?}"), "it is an index"));
        };
        let id = manifest.config.digest;
        let config = layout
            .read_blob(&id, "image configuration", limits.config_bytes)?
            .ok_or_else(|| missing("configuration", &id))?;
        let config = ImageConfig::parse(&config, limits)?;
        let mut names = entry.names.clone();
        names.sort();
        Ok(Image {
            id,
            names,
            manifest: *digest,
            chain_id: Digest::chain(&config.diff_ids),
            layers: pair_layers(&manifest, &config)?,
            size: bytes.len() as u64
                + manifest.config.size
                + manifest.layers.iter().map(|layer| layer.size).sum::<u64>(),
            config,
        })
    }
}

/// The layers of the manifest beside the diff IDs of the configuration.
fn pair_layers(manifest: &Manifest, config: &ImageConfig) -> Result<Vec<Layer>> {
    let (have, want) = (manifest.layers.len(), config.diff_ids.len());
    if have != want {
        return Err(Error::malformed(
            format!("image {:?}", manifest.config.digest),
            format!("its manifest has {have} layers, its configuration {want}"),
        ));
    }
    let layers = manifest.layers.iter().zip(&config.diff_ids);
    Ok(layers
        .map(|(layer, &diff_id)| Layer { digest: layer.digest, diff_id, size: layer.size })
        .collect())
}
