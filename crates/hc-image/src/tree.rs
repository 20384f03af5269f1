// SPDX-License-Identifier: Apache-2.0
//! Where the blobs of an OCI layout come from: an archive that is spooled already, or a directory.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::manifest::Descriptor;
use crate::store::Inserter;
use crate::{Digest, Error, Limits, Result};

/// A source of blobs by digest.
pub(crate) enum Tree<'a> {
    /// The digests of what came with an archive; it is in the store already.
    Spooled(&'a HashSet<Digest>),
    /// A directory, from which only what an image needs is read.
    Directory(&'a LayoutDir<'a>),
}

impl Tree<'_> {
    /// Makes sure that the blob is in the store, whole.
    pub(crate) fn fetch(&self, blob: &Descriptor, what: &str) -> Result<()> {
        match self {
            Tree::Spooled(digests) if digests.contains(&blob.digest) => Ok(()),
            Tree::Spooled(_) => {
                Err(Error::malformed("the archive", format!("it lacks {what} {}", blob.digest)))
            }
            Tree::Directory(dir) => dir.fetch(blob, what),
        }
    }
}

/// An OCI layout directory of somebody else.
///
/// Only files whose names are made of digests are opened, links are not followed, and nothing is
/// trusted that does not match its digest.
pub(crate) struct LayoutDir<'a> {
    path: PathBuf,
    inserter: &'a Inserter<'a>,
    inserted: RefCell<HashSet<Digest>>,
}

impl<'a> LayoutDir<'a> {
    pub(crate) fn open(path: &Path, inserter: &'a Inserter<'a>) -> Result<Self> {
        let dir = Self { path: path.to_owned(), inserter, inserted: RefCell::default() };
        match dir.open_file(Path::new("oci-layout")) {
            Ok(_) => Ok(dir),
            Err(_) => Err(Error::malformed(
                path.display().to_string(),
                "it is a directory without the file oci-layout",
            )),
        }
    }

    /// The bytes of `index.json`.
    pub(crate) fn index(&self, limits: &Limits) -> Result<Vec<u8>> {
        let file = self.open_file(Path::new("index.json"))?;
        let mut bytes = Vec::new();
        file.take(limits.manifest_bytes + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| Error::Input { what: "index.json".to_owned(), source })?;
        Ok(bytes)
    }

    /// The digests of what was read from the directory.
    pub(crate) fn inserted(&self) -> HashSet<Digest> {
        self.inserted.borrow().clone()
    }

    fn fetch(&self, blob: &Descriptor, what: &str) -> Result<()> {
        if self.inserted.borrow().contains(&blob.digest) {
            return Ok(());
        }
        let file = self.open_file(&Path::new("blobs/sha256").join(blob.digest.hex()))?;
        self.inserter.check_room(blob.size)?;
        // One byte more than promised is enough to know that it is not what was promised.
        let bounded = file.take(blob.size.saturating_add(1));
        let (actual, _) = self.inserter.insert(bounded, &blob.digest.short(), Some(blob.size))?;
        if actual != blob.digest {
            let what = format!("{what} in {}", self.path.display());
            return Err(Error::WrongDigest { what, expected: blob.digest, actual });
        }
        self.inserted.borrow_mut().insert(actual);
        Ok(())
    }

    fn open_file(&self, name: &Path) -> Result<File> {
        let path = self.path.join(name);
        let input = |source| Error::Input { what: path.display().to_string(), source };
        // NONBLOCK, or a FIFO in the place of a file would hold us forever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(
            rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| input(errno.into()))?,
        );
        if file.metadata().map_err(input)?.is_file() {
            return Ok(file);
        }
        Err(Error::malformed(path.display().to_string(), "it is no regular file"))
    }
}
