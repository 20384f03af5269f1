// SPDX-License-Identifier: Apache-2.0
//! Spools the archive around an image into the store, in whatever order its parts come.
//!
//! The stream cannot be rewound and its table of contents may come last, so every file of it goes
//! straight into the store as a blob, named by its content. Nothing is ever written under a name
//! from the archive; names are only keys of a map. What turns out to be no part of an image is
//! swept with the operation's end.
//!
//! # Invariants
//!
//! - A file that the archive calls `blobs/sha256/X` has digest X, or the archive is refused.
//! - Links are followed within the map, a bounded number of times.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::rc::Rc;

use tar::EntryType;

use crate::manifest::printable;
use crate::store::Inserter;
use crate::unpack::unwrap_io;
use crate::{Digest, Error, Limits, Result};

/// Bytes of headers between two entries: long names and PAX records. Honest ones take hundreds.
const HEADERS_MAX: u64 = 1 << 20;
/// Bytes of a name; the longest honest one is `blobs/sha256/` and 64 digits.
const NAME_MAX: usize = 1024;
/// Links from link to link; honest archives have one.
const LINKS_MAX: usize = 8;
/// Where OCI layouts keep blobs.
const BLOBS: &str = "blobs/sha256/";

/// What an archive holds, by name.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    parts: HashMap<String, Part>,
}

#[derive(Debug)]
enum Part {
    Blob { digest: Digest, size: u64 },
    Link(String),
}

/// A file of the archive that is now a blob of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spooled {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Archive {
    /// Reads the whole tar stream into the store.
    pub(crate) fn spool(
        reader: impl Read,
        inserter: &Inserter<'_>,
        limits: &Limits,
    ) -> Result<Archive> {
        let budget = Rc::new(Cell::new(HEADERS_MAX));
        let mut tar = tar::Archive::new(Metered { inner: reader, budget: Rc::clone(&budget) });
        let mut archive = Archive::default();
        let mut count = 0;
        let failed = |error| unwrap_io(error, "the archive");
        let mut entries = tar.entries().map_err(failed)?;
        loop {
            budget.set(HEADERS_MAX);
            let Some(entry) = entries.next() else { break };
            let mut entry = entry.map_err(failed)?;
            budget.set(u64::MAX);
            count += 1;
            if count > limits.archive_entries {
                let limit = limits.archive_entries as u64;
                return Err(Error::too_large("number of entries in the archive", limit));
            }
            archive.add(&mut entry, inserter, limits)?;
        }
        if count == 0 {
            return Err(Error::malformed("the archive", "it is empty"));
        }
        Ok(archive)
    }

    fn add(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        inserter: &Inserter<'_>,
        limits: &Limits,
    ) -> Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::Directory | EntryType::XGlobalHeader) {
            io::copy(&mut entry.take(HEADERS_MAX), &mut io::sink())
                .map_err(|e| unwrap_io(e, "the archive"))?;
            return Ok(());
        }
        let name = resolve("", &text(&entry.path_bytes())?)?;
        let part = match kind {
            EntryType::Regular | EntryType::Continuous => {
                let claimed = entry.size();
                if claimed > limits.layer_bytes {
                    return Err(Error::too_large(quoted(&name), limits.layer_bytes));
                }
                inserter.check_room(claimed)?;
                let (digest, size) = inserter.insert(entry, &printable(&name), Some(claimed))?;
                if size != claimed {
                    return Err(Error::malformed("the archive", "it ends in the middle of a file"));
                }
                check_blob_name(&name, digest)?;
                Part::Blob { digest, size }
            }
            EntryType::Symlink => Part::Link(resolve(parent(&name), &link_target(entry, &name)?)?),
            EntryType::Link => Part::Link(resolve("", &link_target(entry, &name)?)?),
            _ => return Err(Error::malformed(quoted(&name), "it is neither a file nor a link")),
        };
        // Two programs could pick different ones of two files with one name.
        if self.parts.insert(name.clone(), part).is_some() {
            return Err(Error::malformed(quoted(&name), "the archive has it twice"));
        }
        Ok(())
    }

    /// The file of this name, links followed.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Spooled>> {
        let mut at = resolve("", name)?;
        for _ in 0..=LINKS_MAX {
            match self.parts.get(&at) {
                None => return Ok(None),
                Some(Part::Blob { digest, size }) => {
                    return Ok(Some(Spooled { digest: *digest, size: *size }));
                }
                Some(Part::Link(target)) => at.clone_from(target),
            }
        }
        Err(Error::malformed(quoted(name), "too many links lead from one to the next"))
    }

    /// Like [`Archive::get`], for what must be there.
    pub(crate) fn require(&self, name: &str) -> Result<Spooled> {
        let missing = || Error::malformed("the archive", format!("it lacks {}", quoted(name)));
        self.get(name)?.ok_or_else(missing)
    }

    /// Every blob that came with the archive.
    pub(crate) fn digests(&self) -> HashSet<Digest> {
        self.parts
            .values()
            .filter_map(|part| match part {
                Part::Blob { digest, .. } => Some(*digest),
                Part::Link(_) => None,
            })
            .collect()
    }

    /// Whether the archive looks like a root file system instead of an image.
    pub(crate) fn looks_like_rootfs(&self) -> bool {
        ["etc/", "bin/", "usr/"]
            .iter()
            .any(|top| self.parts.keys().any(|name| name.starts_with(top)))
    }
}

fn link_target(entry: &tar::Entry<'_, impl Read>, name: &str) -> Result<String> {
    let target = entry
        .link_name_bytes()
        .ok_or_else(|| Error::malformed(quoted(name), "it is a link to nothing"))?;
    text(&target)
}

fn text(bytes: &[u8]) -> Result<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= NAME_MAX => Ok(text.to_owned()),
        Ok(_) => Err(Error::too_large("a name in the archive", NAME_MAX as u64)),
        Err(_) => Err(Error::malformed("a name in the archive", "it is not UTF-8")),
    }
}

fn check_blob_name(name: &str, actual: Digest) -> Result<()> {
    let Some(hex) = name.strip_prefix(BLOBS) else { return Ok(()) };
    let expected = Digest::from_hex(hex)
        .map_err(|_| Error::malformed(quoted(name), "it is not named by a SHA-256 digest"))?;
    if actual == expected {
        return Ok(());
    }
    Err(Error::WrongDigest { what: "a blob in the archive".to_owned(), expected, actual })
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The name that `path` has, seen from directory `base`, without `.` and `..`; refuses to leave the
/// archive.
fn resolve(base: &str, path: &str) -> Result<String> {
    let outside = || Error::malformed(quoted(path), "it leads out of the archive");
    if path.starts_with('/') {
        return Err(outside());
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(outside)?;
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(Error::malformed(quoted(path), "it names no file"));
    }
    Ok(parts.join("/"))
}

fn quoted(name: &str) -> String {
    format!("{:?}", printable(name))
}

/// Lets through only as many bytes as its budget has.
///
/// The tar crate reads long names and PAX records into memory, however long they claim to be; the
/// budget is what bounds them. It is lifted while the content of an entry is read.
struct Metered<R> {
    inner: R,
    budget: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let budget = self.budget.get();
        let most = usize::try_from(budget).unwrap_or(usize::MAX).min(buf.len());
        if most == 0 && !buf.is_empty() {
            return Err(io::Error::other(Error::too_large("a header in the archive", HEADERS_MAX)));
        }
        let n = self.inner.read(&mut buf[..most])?;
        self.budget.set(budget - n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_resolve_within_the_archive_or_not_at_all() {
        for (base, path, expected) in [
            ("", "a/b", Some("a/b")),
            ("", "./a//b/.", Some("a/b")),
            ("x", "../y/layer.tar", Some("y/layer.tar")),
            ("x/y", "../../z", Some("z")),
            ("x", "../../z", None),
            ("", "..", None),
            ("", "a/../..", None),
            ("", "/etc/passwd", None),
            ("", ".", None),
            ("", "", None),
        ] {
            assert_eq!(resolve(base, path).ok().as_deref(), expected, "{base} {path}");
        }
    }
}
