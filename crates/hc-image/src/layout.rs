// SPDX-License-Identifier: Apache-2.0
//! The store's directory: where files are, how they get there whole, and who may remove them.
//!
//! ```text
//! oci-layout  index.json      what any OCI tool reads
//! blobs/sha256/<hex>          manifests, configurations, layers; 0444, named by their content
//! rootfs/<chain id>.erofs     merged layers; 0444
//! tmp/                        what is being written
//! locks/{operations,index,rootfs}
//! ```
//!
//! # Locks
//!
//! All are `flock`s, so the kernel drops them when a process dies, however it dies. They are taken
//! in this order:
//!
//! 1. `operations`, shared, by whoever writes anything ([`Lease`]). Blobs that no index entry names
//!    yet and files in `tmp/` exist only while one is held. Whoever gets it exclusively, which is
//!    only ever tried and never waited for, may therefore remove both ([`Layout::try_alone`]).
//! 2. `rootfs`, exclusive, while one root file system is built: one at a time, because each build
//!    may take all the memory that [`Limits`] allow.
//! 3. `index`, exclusive, from reading `index.json` to its replacement.
//!
//! # Invariants
//!
//! - A file outside `tmp/` and `locks/` is complete: it was renamed there when it was.
//! - What `index.json` leads to survives a power cut: blobs and root file systems are synced before
//!   it names them, and it is synced itself.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};

use crate::digest::HashingReader;
use crate::disk::DiskGuard;
use crate::limits::COPY_BUFFER;
use crate::{Digest, Error, Limits, Result};

/// The version of the OCI layout that we write and read.
const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Finished files never change, and nobody should try.
const FINISHED_MODE: u32 = 0o444;
/// Images may hold secrets, so other users of the host stay out.
const ROOT_MODE: u32 = 0o700;

/// The paths of a store.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// A shared hold of the store: nothing that its holder wrote is swept away meanwhile.
#[derive(Debug)]
pub(crate) struct Lease(#[expect(dead_code, reason = "dropping it gives the hold up")] Lock);

/// A hold of something in `locks/`.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    /// Gives the hold up by its name. Closing the file is not enough: a program that another thread
    /// is just starting has a copy of it, up to its exec.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock); // It is about to be closed anyway.
    }
}

impl Layout {
    /// Makes what is missing below `root`.
    pub(crate) fn open(root: &Path) -> Result<Layout> {
        let layout = Layout { root: root.to_owned() };
        let make = |path: &Path| {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(ROOT_MODE);
            builder.create(path).map_err(|e| Error::store("create", path, e))
        };
        make(root)?;
        for dir in ["blobs/sha256", "rootfs", "tmp", "locks"] {
            make(&root.join(dir))?;
        }
        let _lease = layout.lease()?;
        let marker = root.join("oci-layout");
        if !marker.exists() {
            layout.replace(&marker, LAYOUT_FILE)?;
        }
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index.json")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn rootfs_dir(&self) -> PathBuf {
        self.root.join("rootfs")
    }

    pub(crate) fn rootfs(&self, chain_id: &Digest) -> PathBuf {
        self.rootfs_dir().join(format!("{}.erofs", chain_id.hex()))
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// A guard of the disk that the store is on.
    pub(crate) fn disk_guard(&self, limits: &Limits) -> Result<DiskGuard> {
        DiskGuard::new(&self.root, limits)
    }

    /// Says that we are going to write. Waits while someone sweeps, which is short.
    pub(crate) fn lease(&self) -> Result<Lease> {
        self.lock("operations", FlockOperation::LockShared).map(|file| Lease(Lock(file)))
    }

    /// The store for us alone, unless anyone is writing.
    pub(crate) fn try_alone(&self) -> Result<Option<Lock>> {
        match self.lock("operations", FlockOperation::NonBlockingLockExclusive) {
            Ok(file) => Ok(Some(Lock(file))),
            Err(Error::Store { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The right to build a root file system.
    pub(crate) fn lock_rootfs(&self, _lease: &Lease) -> Result<Lock> {
        self.lock("rootfs", FlockOperation::LockExclusive).map(Lock)
    }

    /// The right to replace `index.json`.
    pub(crate) fn lock_index(&self, _lease: &Lease) -> Result<Lock> {
        self.lock("index", FlockOperation::LockExclusive).map(Lock)
    }

    fn lock(&self, name: &str, operation: FlockOperation) -> Result<File> {
        let path = self.root.join("locks").join(name);
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|e| Error::store("open", &path, e))?;
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::store("lock", &path, errno.into())),
            }
        }
    }

    /// A new file in `tmp/`, removed with the value unless it is persisted.
    pub(crate) fn temp(&self, _lease: &Lease) -> Result<TempFile> {
        self.temp_unleased()
    }

    fn temp_unleased(&self) -> Result<TempFile> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.tmp().join(format!("{}-{number}", std::process::id()));
            let mut options = OpenOptions::new();
            options.create_new(true).read(true).write(true).mode(0o600);
            match options.open(&path) {
                Ok(file) => return Ok(TempFile { file, path, persisted: false }),
                // Another process with our number, in another PID namespace or before us.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::store("create", &path, error)),
            }
        }
    }

    /// Puts a small document in the place of `path`, atomically and for good. The caller holds the
    /// lock that belongs to it.
    fn replace(&self, path: &Path, content: &[u8]) -> Result<()> {
        let mut temp = self.temp_unleased()?;
        temp.file.write_all(content).map_err(|e| Error::store("write", &temp.path, e))?;
        temp.persist(path, Sync::Now)
    }

    /// Replaces `index.json`.
    pub(crate) fn replace_index(&self, _lock: &Lock, content: &[u8]) -> Result<()> {
        self.replace(&self.index(), content)
    }

    /// Stores a small blob, such as a manifest.
    pub(crate) fn put_blob(&self, lease: &Lease, content: &[u8]) -> Result<Digest> {
        let digest = Digest::of(content);
        let mut temp = self.temp(lease)?;
        temp.file.write_all(content).map_err(|e| Error::store("write", &temp.path, e))?;
        temp.persist(&self.blob(&digest), Sync::Later)?;
        Ok(digest)
    }

    /// Sees to it that blobs are on the disk. Much of them is there already: the kernel starts to
    /// write long before it is asked to.
    pub(crate) fn sync_blobs<'a>(&self, blobs: impl Iterator<Item = &'a Digest>) -> Result<()> {
        for digest in blobs {
            sync_path(&self.blob(digest))?;
        }
        sync_path(&self.blobs())
    }

    /// Reads a small blob and checks its digest; `None` if it is not there.
    pub(crate) fn read_blob(
        &self,
        digest: &Digest,
        what: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>> {
        let path = self.blob(digest);
        let Some(bytes) = read_small(&path, limit)? else { return Ok(None) };
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(Error::WrongDigest { what: what.to_owned(), expected: *digest, actual });
        }
        Ok(Some(bytes))
    }

    /// Whether a blob is there and still has its digest, which takes reading it whole.
    pub(crate) fn is_sound(&self, digest: &Digest, size: u64) -> Result<bool> {
        if !self.has_blob(digest, size) {
            return Ok(false);
        }
        let path = self.blob(digest);
        let file = File::open(&path).map_err(|e| Error::store("open", &path, e))?;
        let mut reader = HashingReader::new(file);
        let mut buffer = vec![0; COPY_BUFFER];
        while reader.read(&mut buffer).map_err(|e| Error::store("read", &path, e))? > 0 {}
        Ok(reader.finish().0 == *digest)
    }

    /// Whether a blob of this size is there.
    pub(crate) fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        fs::metadata(self.blob(digest)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }
}

fn sync_path(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|e| Error::store("sync", path, e))
}

/// Reads a whole file of at most `limit` bytes; `None` if it is not there.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::store("open", path, error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::store("read", path, error))?;
    if bytes.len() as u64 > limit {
        return Err(Error::too_large(path.display().to_string(), limit));
    }
    Ok(Some(bytes))
}

/// Whether a file must survive a power cut right after it got its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    Now,
    /// Later, by [`Layout::sync_blobs`], or never if nothing comes to need it.
    Later,
}

/// A file in `tmp/` that is on its way to its place.
#[derive(Debug)]
pub(crate) struct TempFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    persisted: bool,
}

impl TempFile {
    /// Gives the file its name, in place of what had it.
    pub(crate) fn persist(mut self, path: &Path, sync: Sync) -> Result<()> {
        rustix::fs::fchmod(&self.file, rustix::fs::Mode::from_raw_mode(FINISHED_MODE))
            .map_err(|e| Error::store("change the mode of", &self.path, e.into()))?;
        if sync == Sync::Now {
            self.file.sync_all().map_err(|e| Error::store("sync", &self.path, e))?;
        }
        fs::rename(&self.path, path).map_err(|e| Error::store("rename", &self.path, e))?;
        self.persisted = true;
        match sync {
            Sync::Now => sync_path(path.parent().expect("a place in a store is below its root")),
            Sync::Later => Ok(()),
        }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.persisted {
            // If this fails the next sweep does it.
            let _ = fs::remove_file(&self.path);
        }
    }
}
