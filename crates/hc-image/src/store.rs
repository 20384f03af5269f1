// SPDX-License-Identifier: Apache-2.0
//! The store as its users see it: what is in it, by which names, and how it is renamed and removed.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::{Catalog, Entry};
use crate::digest::HashingReader;
use crate::disk::{DiskGuard, Ticker};
use crate::layout::{Layout, Lease, Sync};
use crate::limits::COPY_BUFFER;
use crate::unpack::unwrap_io;
use crate::{
    Digest, Error, Event, Image, ImageSummary, Limits, Progress, Reference, Result, Stage,
};

/// The images on this host. Cheap to clone; any number of stores, threads and processes may use
/// one directory at once.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) layout: Arc<Layout>,
    pub(crate) limits: Arc<Limits>,
}

/// How [`Store::remove`] treats what stands against it.
#[derive(Clone, Debug, Default)]
pub struct RemoveOptions {
    /// Remove even if pods use the image or it has several names. A running pod keeps its root
    /// file system, because it holds the file open; it cannot start again.
    pub force: bool,
    /// The chain IDs of the root file systems that pods use.
    pub in_use: HashSet<Digest>,
}

/// What [`Store::remove`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<Reference>,
    /// The image that is gone, unless names are left.
    pub deleted: Option<Digest>,
}

/// What the store takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many images.
    pub images: usize,
    /// Bytes of blobs.
    pub blob_bytes: u64,
    /// Bytes of root file systems, as allocated: they are sparse.
    pub rootfs_bytes: u64,
}

impl Store {
    /// Opens the store below `root`, making it if there is none, and removes what operations left
    /// that did not live to clean up.
    pub fn open(root: impl AsRef<Path>) -> Result<Store> {
        Store::open_with(root, Limits::default())
    }

    /// Like [`Store::open`], with other bounds than the default ones.
    pub fn open_with(root: impl AsRef<Path>, limits: Limits) -> Result<Store> {
        let layout = Layout::open(root.as_ref())?;
        let store = Store { layout: Arc::new(layout), limits: Arc::new(limits) };
        {
            let lease = store.layout.lease()?;
            store.create_index(&lease)?;
        }
        store.sweep_if_quiet();
        Ok(store)
    }

    /// Where the store is.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Every image, newest first; those of unknown age come last.
    pub fn list(&self) -> Result<Vec<ImageSummary>> {
        let images = self.consistent(|catalog| self.select(catalog, |_| true))?;
        let mut list: Vec<ImageSummary> = images
            .into_iter()
            .map(|image| {
                let rootfs = std::fs::metadata(self.layout.rootfs(&image.chain_id));
                ImageSummary {
                    id: image.id,
                    names: image.names,
                    created: image.config.created,
                    size: image.size,
                    rootfs_size: rootfs.ok().map(|meta| meta.blocks() * 512),
                }
            })
            .collect();
        list.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(list)
    }

    /// The image that `text` means: a name, an ID, or the start of an ID.
    ///
    /// A name that fits goes before an ID that starts the same.
    pub fn resolve(&self, text: &str) -> Result<Image> {
        self.consistent(|catalog| self.find(catalog, text))
    }

    /// Gives the image that `source` means another name, taking the name from whichever image
    /// has it.
    pub fn tag(&self, source: &str, name: &Reference) -> Result<()> {
        let operation = self.operation()?;
        let image = self.resolve(source)?;
        self.change_index(operation.lease(), |catalog| {
            let entry = catalog.entry(&image.manifest).ok_or_else(|| no_such(source))?;
            let descriptor = entry.descriptor.clone();
            catalog.name(descriptor, std::slice::from_ref(name));
            Ok(())
        })
    }

    /// Removes a name, and with its last name the image; or by ID the image with its only name.
    pub fn remove(&self, text: &str, options: &RemoveOptions) -> Result<Removed> {
        let operation = self.operation()?;
        self.change_index(operation.lease(), |catalog| {
            if let Some(damaged) = self.damaged(catalog, text) {
                catalog.remove(&damaged.descriptor.digest);
                return Ok(Removed { untagged: damaged.names, deleted: None });
            }
            let image = self.find(catalog, text)?;
            let by_name = text.parse().ok().filter(|name| image.names.contains(name));
            if let Some(name) = by_name.filter(|_| image.names.len() > 1) {
                catalog.unname(&name);
                return Ok(Removed { untagged: vec![name], deleted: None });
            }
            if image.names.len() > 1 && !options.force {
                return Err(Error::ManyNames { id: image.id.short(), count: image.names.len() });
            }
            if options.in_use.contains(&image.chain_id) && !options.force {
                return Err(Error::InUse { name: text.to_owned() });
            }
            for manifest in self.manifests_of(catalog, &image.id)? {
                catalog.remove(&manifest);
            }
            Ok(Removed { untagged: image.names, deleted: Some(image.id) })
        })
    }

    /// What the store takes on disk.
    pub fn usage(&self) -> Result<Usage> {
        let images = self.list()?.len();
        let sum = |dir: &Path, size: fn(&std::fs::Metadata) -> u64| -> Result<u64> {
            let entries = std::fs::read_dir(dir).map_err(|e| Error::store("list", dir, e))?;
            // A file that vanishes meanwhile takes no space.
            Ok(entries.flatten().filter_map(|e| e.metadata().ok()).map(|m| size(&m)).sum())
        };
        Ok(Usage {
            images,
            blob_bytes: sum(&self.layout.blobs(), std::fs::Metadata::len)?,
            rootfs_bytes: sum(&self.layout.rootfs_dir(), |meta| meta.blocks() * 512)?,
        })
    }

    /// Where the root file system of this chain of layers is, or would be.
    pub fn rootfs_path(&self, chain_id: &Digest) -> PathBuf {
        self.layout.rootfs(chain_id)
    }

    /// Finds the image that `text` means in `catalog`.
    fn find(&self, catalog: &Catalog, text: &str) -> Result<Image> {
        let named = text.parse::<Reference>().ok().and_then(|name| catalog.find(&name));
        if let Some(entry) = named {
            let id = self.load_image(&entry)?.id;
            return self.select(catalog, |other| *other == id)?.pop().ok_or_else(|| no_such(text));
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits.is_empty() || !hex {
            return Err(no_such(text));
        }
        let mut found = self.select(catalog, |id| id.hex().starts_with(digits))?;
        match found.len() {
            0 => Err(no_such(text)),
            1 => Ok(found.remove(0)),
            count => Err(Error::Ambiguous { prefix: text.to_owned(), count }),
        }
    }

    /// Every image whose ID passes. Two manifests of one configuration, packed differently for
    /// instance, are one image. Damaged ones are passed over, or one would hide all others.
    fn select(&self, catalog: &Catalog, passes: impl Fn(&Digest) -> bool) -> Result<Vec<Image>> {
        let mut images: BTreeMap<Digest, Image> = BTreeMap::new();
        for entry in catalog.groups() {
            let image = match self.load_image(&entry) {
                Ok(image) => image,
                Err(error) if is_damage(&error) => {
                    let manifest = entry.descriptor.digest;
                    tracing::warn!(%manifest, error = %error, "image is damaged");
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !passes(&image.id) {
                continue;
            }
            match images.get_mut(&image.id) {
                Some(first) => {
                    first.names.extend(image.names);
                    first.names.sort();
                }
                None => {
                    images.insert(image.id, image);
                }
            }
        }
        Ok(images.into_values().collect())
    }

    /// The entry of this name, if its image cannot be read any more.
    fn damaged(&self, catalog: &Catalog, text: &str) -> Option<Entry> {
        let entry = catalog.find(&text.parse().ok()?)?;
        self.load_image(&entry).is_err_and(|error| is_damage(&error)).then_some(entry)
    }

    fn manifests_of(&self, catalog: &Catalog, id: &Digest) -> Result<Vec<Digest>> {
        let mut manifests = Vec::new();
        for entry in catalog.groups() {
            match self.load_image(&entry) {
                Ok(image) if image.id == *id => manifests.push(image.manifest),
                Err(error) if !is_damage(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(manifests)
    }
}

/// Whether the image itself is at fault, as opposed to the host.
fn is_damage(error: &Error) -> bool {
    !matches!(error, Error::Store { .. } | Error::DiskFull { .. })
}

fn no_such(text: &str) -> Error {
    Error::NoSuchImage { name: text.to_owned() }
}

/// A stretch of writing to the store. When it ends, by whatever way, what it left unnamed is swept.
pub(crate) struct Operation {
    store: Store,
    lease: Option<Lease>,
}

impl Store {
    pub(crate) fn operation(&self) -> Result<Operation> {
        Ok(Operation { store: self.clone(), lease: Some(self.layout.lease()?) })
    }
}

impl Operation {
    pub(crate) fn lease(&self) -> &Lease {
        self.lease.as_ref().expect("the lease goes only when the operation does")
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.lease = None;
        self.store.sweep_if_quiet();
    }
}

/// Puts streams into the store as blobs.
pub(crate) struct Inserter<'a> {
    layout: &'a Layout,
    lease: &'a Lease,
    guard: DiskGuard,
    progress: &'a dyn Progress,
    stage: Stage,
}

impl<'a> Inserter<'a> {
    pub(crate) fn new(
        store: &'a Store,
        lease: &'a Lease,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let guard = store.layout.disk_guard(&store.limits)?;
        Ok(Self { layout: &store.layout, lease, guard, progress, stage: Stage::Read })
    }

    /// Reports its progress as that of another stage.
    pub(crate) fn with_stage(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }

    /// Checks that `bytes` fit on the disk.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<()> {
        self.guard.check_room(bytes)
    }

    /// Writes the stream to a blob named by its content; says its digest and length.
    pub(crate) fn insert(
        &self,
        reader: impl Read,
        item: &str,
        total: Option<u64>,
    ) -> Result<(Digest, u64)> {
        use std::io::Write as _;
        let mut temp = self.layout.temp(self.lease)?;
        let mut reader = HashingReader::new(reader);
        let mut buffer = vec![0; COPY_BUFFER];
        let (mut done, mut ticker) = (0, Ticker::default());
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unwrap_io(error, item)),
            };
            temp.file.write_all(&buffer[..n]).map_err(|e| Error::store("write", &temp.path, e))?;
            done += n as u64;
            if ticker.tick(n as u64) {
                self.guard.check()?;
                self.report(item, done, total)?;
            }
        }
        self.report(item, done, total)?;
        let (digest, size) = reader.finish();
        temp.persist(&self.layout.blob(&digest), Sync::Later)?;
        Ok((digest, size))
    }

    fn report(&self, item: &str, done: u64, total: Option<u64>) -> Result<()> {
        if self.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        self.progress.report(Event { stage: self.stage, item, done, total });
        Ok(())
    }
}

impl Store {
    /// Reads an image whole: manifest and configuration, and whether they fit together.
    pub(crate) fn load_image(&self, entry: &Entry) -> Result<Image> {
        Image::load(&self.layout, &self.limits, entry)
    }
}
