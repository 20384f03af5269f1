// SPDX-License-Identifier: Apache-2.0
//! Brings in archives that other tools saved: docker-archive, OCI archive, OCI layout directory.
//!
//! An image counts only once everything about it is checked: blobs against their digests while
//! they are spooled, layers against their diff IDs while the root file system is built. Then it
//! gets its entry in the catalog; all images of an archive do, or none.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use crate::archive::{Archive, Spooled};
use crate::catalog::Entry;
use crate::layout::Lease;
use crate::manifest::{
    CONTAINERD_NAME, Descriptor, DockerEntry, Document, Index, Manifest, OCI_CONFIG, OCI_MANIFEST,
    Platform, REF_NAME, printable,
};
use crate::store::Inserter;
use crate::tree::{LayoutDir, Tree};
use crate::unpack::{Bound, Unpacked, packing};
use crate::{Digest, Error, Image, Progress, Reference, Result, Store};

/// Indexes within indexes; honest archives have one in `index.json`.
const INDEX_DEPTH_MAX: usize = 4;

/// An image that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// The image as it is in the store now, with every name it has.
    pub image: Image,
    /// The names that came with it; none for an image that is to be spoken of by ID.
    pub names: Vec<Reference>,
}

/// An image that is whole in the store but not yet in the catalog.
pub(crate) struct Candidate {
    pub(crate) manifest: Descriptor,
    pub(crate) names: Vec<Reference>,
}

impl Store {
    /// Loads every image of an archive: docker-archive or OCI archive, plain, gzip or Zstandard.
    ///
    /// The reader need not seek, so it may be standard input. When this fails, nothing of the
    /// archive is left in the store.
    pub fn load(
        &self,
        reader: impl Read + Send,
        progress: &dyn Progress,
    ) -> Result<Vec<LoadedImage>> {
        let operation = self.operation()?;
        let lease = operation.lease();
        let inserter = Inserter::new(self, lease, progress)?;
        // The bytes of all images of an archive together are bounded by the disk.
        let bound = Bound::new("the archive", u64::MAX, &self.limits);
        let archive = Archive::spool(Unpacked::new(reader, bound)?, &inserter, &self.limits)?;
        let mut fresh = archive.digests();
        let candidates = if let Some(manifest) = archive.get("manifest.json")? {
            self.docker_images(lease, &archive, manifest, &mut fresh)?
        } else if let Some(index) = archive.get("index.json")? {
            let bytes = self.small(index, "index.json")?;
            self.oci_images(&bytes, &Tree::Spooled(&fresh))?
        } else if archive.get("repositories")?.is_some() {
            return Err(Error::Unsupported {
                what: "an archive from before Docker 1.10".to_owned(),
                reason: "it has no manifest.json; save the image again with a newer docker",
            });
        } else if archive.looks_like_rootfs() {
            return Err(Error::malformed(
                "the archive",
                "it is a root file system, not a saved image; import it instead",
            ));
        } else {
            return Err(Error::malformed(
                "the archive",
                "it has neither manifest.json nor index.json, so it is no saved image",
            ));
        };
        self.admit(lease, candidates, &fresh, progress)
    }

    /// Loads an archive, or an OCI layout if `path` is a directory.
    pub fn load_path(&self, path: &Path, progress: &dyn Progress) -> Result<Vec<LoadedImage>> {
        let input = |source| Error::Input { what: path.display().to_string(), source };
        let file = std::fs::File::open(path).map_err(input)?;
        if !file.metadata().map_err(input)?.is_dir() {
            return self.load(file, progress);
        }
        let operation = self.operation()?;
        let lease = operation.lease();
        let inserter = Inserter::new(self, lease, progress)?;
        let dir = LayoutDir::open(path, &inserter)?;
        let index = dir.index(&self.limits)?;
        let tree = Tree::Directory(&dir);
        let candidates = self.oci_images(&index, &tree)?;
        self.admit(lease, candidates, &dir.inserted(), progress)
    }

    /// Builds the root file systems of images whose blobs are all here, then names the images.
    pub(crate) fn admit(
        &self,
        lease: &Lease,
        candidates: Vec<Candidate>,
        fresh: &HashSet<Digest>,
        progress: &dyn Progress,
    ) -> Result<Vec<LoadedImage>> {
        let mut images = Vec::new();
        for mut candidate in candidates {
            let entry = Entry { descriptor: candidate.manifest.clone(), names: Vec::new() };
            let image = self.load_image(&entry)?;
            self.check_and_build(lease, &image, fresh, progress)?;
            let layers = image.layers.iter().map(|layer| &layer.digest);
            self.layout.sync_blobs([&image.manifest, &image.id].into_iter().chain(layers))?;
            candidate.manifest.platform = Some(Platform {
                architecture: image.config.architecture,
                os: image.config.os,
                variant: None,
            });
            images.push(candidate);
        }
        self.change_index(lease, |catalog| {
            for image in &images {
                catalog.name(image.manifest.clone(), &image.names);
            }
            let entry = |image: Candidate| {
                let entry =
                    catalog.entry(&image.manifest.digest).expect("it was put there a moment ago");
                Ok(LoadedImage { image: self.load_image(&entry)?, names: image.names })
            };
            images.into_iter().map(entry).collect()
        })
    }

    /// The images of a docker-archive, each with a manifest that we write for it.
    fn docker_images(
        &self,
        lease: &Lease,
        archive: &Archive,
        manifest: Spooled,
        fresh: &mut HashSet<Digest>,
    ) -> Result<Vec<Candidate>> {
        let entries =
            DockerEntry::parse_all(&self.small(manifest, "manifest.json")?, &self.limits)?;
        let mut candidates = Vec::new();
        for entry in entries {
            let config = archive.require(&entry.config)?;
            let config = Descriptor::new(OCI_CONFIG, config.digest, config.size);
            let layers: Result<Vec<Descriptor>> = entry
                .layers
                .iter()
                .map(|path| {
                    let Spooled { digest, size } = archive.require(path)?;
                    let packing = self.packing_of(&digest)?;
                    Ok(Descriptor::new(packing.layer_type(), digest, size))
                })
                .collect();
            let bytes = Manifest::new(config, layers?).to_json();
            let digest = self.layout.put_blob(lease, &bytes)?;
            fresh.insert(digest);
            let names: Result<Vec<Reference>> =
                entry.repo_tags.unwrap_or_default().iter().map(|tag| tag.parse()).collect();
            candidates.push(Candidate {
                manifest: Descriptor::new(OCI_MANIFEST, digest, bytes.len() as u64),
                names: names?,
            });
        }
        Ok(candidates)
    }

    /// The images of an OCI index, with every blob they need brought in from `tree`.
    fn oci_images(&self, index: &[u8], tree: &Tree<'_>) -> Result<Vec<Candidate>> {
        let Document::Index(index) = Document::parse(index, &self.limits)? else {
            return Err(Error::malformed("index.json", "it is no index"));
        };
        let mut candidates = Vec::new();
        for entry in &index.manifests {
            let foreign = entry
                .platform
                .as_ref()
                .is_some_and(|p| p.os != "linux" || p.architecture != "amd64");
            if foreign || !(entry.is_manifest() || entry.is_index()) {
                continue;
            }
            let manifest = self.descend(entry, tree, INDEX_DEPTH_MAX)?;
            candidates.push(Candidate { manifest, names: names_of(entry)? });
        }
        if candidates.is_empty() {
            if index.manifests.iter().any(|entry| entry.platform.is_some()) {
                // Says which platforms there are.
                index.pick()?;
            }
            return Err(Error::malformed("index.json", "it lists no image"));
        }
        Ok(candidates)
    }

    /// Follows an index to the manifest for our machine, and brings in what it needs.
    fn descend(&self, entry: &Descriptor, tree: &Tree<'_>, depth: usize) -> Result<Descriptor> {
        if entry.size > self.limits.manifest_bytes {
            return Err(Error::too_large("manifest", self.limits.manifest_bytes));
        }
        self.bring(tree, entry, "manifest")?;
        let spooled = Spooled { digest: entry.digest, size: entry.size };
        match Document::parse(&self.small(spooled, "manifest")?, &self.limits)? {
            Document::Manifest(manifest) => {
                self.bring(tree, &manifest.config, "image configuration")?;
                for layer in &manifest.layers {
                    self.bring(tree, layer, "layer")?;
                }
                Ok(Descriptor::new(entry.media_type.clone(), entry.digest, entry.size))
            }
            Document::Index(index) if depth > 0 => self.descend_index(&index, tree, depth - 1),
            Document::Index(_) => {
                Err(Error::malformed("index.json", "too many indexes lead from one to the next"))
            }
        }
    }

    /// Makes sure that a blob is in the store and as long as it was said to be.
    fn bring(&self, tree: &Tree<'_>, blob: &Descriptor, what: &str) -> Result<()> {
        tree.fetch(blob, what)?;
        if self.layout.has_blob(&blob.digest, blob.size) {
            return Ok(());
        }
        let reason = format!("it has not the {} bytes that it should have", blob.size);
        Err(Error::malformed(format!("{what} {}", blob.digest), reason))
    }

    fn descend_index(&self, index: &Index, tree: &Tree<'_>, depth: usize) -> Result<Descriptor> {
        // An index that holds nothing but another index is what some tools write.
        match index.manifests.as_slice() {
            [only] if only.is_index() => self.descend(only, tree, depth),
            _ => self.descend(index.pick()?, tree, depth),
        }
    }

    /// A small blob of the store that just came in.
    fn small(&self, blob: Spooled, what: &str) -> Result<Vec<u8>> {
        self.layout
            .read_blob(&blob.digest, what, self.limits.manifest_bytes)?
            .ok_or_else(|| Error::malformed(what, "it is missing"))
    }

    fn packing_of(&self, layer: &Digest) -> Result<crate::manifest::Packing> {
        let path = self.layout.blob(layer);
        let mut head = Vec::new();
        std::fs::File::open(&path)
            .and_then(|file| file.take(8).read_to_end(&mut head))
            .map_err(|e| Error::store("read", &path, e))?;
        packing(&head, "a layer")
    }
}

/// The names of an entry of an index.
///
/// Docker and containerd write the complete name beside a bare tag; others write the name where the
/// specification has the tag. A bare word there is a tag of nothing, so it names nothing.
fn names_of(entry: &Descriptor) -> Result<Vec<Reference>> {
    if let Some(name) = entry.annotation(CONTAINERD_NAME) {
        return Ok(vec![name.parse()?]);
    }
    match entry.annotation(REF_NAME) {
        Some(name) if name.contains(['/', ':', '@']) => Ok(vec![name.parse()?]),
        Some(word) => {
            tracing::debug!(word = %printable(word), "image in archive has a tag but no name");
            Ok(Vec::new())
        }
        None => Ok(Vec::new()),
    }
}
