// SPDX-License-Identifier: Apache-2.0
//! Which images the store has, by which names: `index.json` as data, and the way it changes.
//!
//! The data part is pure. Each descriptor of the index carries at most one name; an image with
//! several names has several descriptors, and one without a name a bare descriptor.
//!
//! # Invariants
//!
//! - A name belongs to one image at most. Taking it away leaves an image, not garbage: it keeps a
//!   bare descriptor, because pods may have been made from it, until it is removed by ID.
//! - `index.json` changes only under its lock, whole.

use std::collections::BTreeMap;

use crate::layout::{Lease, read_small};
use crate::manifest::{Descriptor, Index, REF_NAME};
use crate::{Digest, Error, Reference, Result, Store};

/// Bytes of our own index: some 100,000 names. Larger means that something else wrote it.
const INDEX_MAX: u64 = 64 << 20;
/// How often a reader starts over because what it read was removed meanwhile.
const RETRIES: usize = 16;

/// The content of `index.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Catalog {
    index: Index,
}

/// An image of the catalog, with its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) descriptor: Descriptor,
    pub(crate) names: Vec<Reference>,
}

impl Catalog {
    fn parse(bytes: &[u8]) -> Result<Catalog> {
        let index = serde_json::from_slice(bytes)
            .map_err(|source| Error::Json { what: "index.json of the store".to_owned(), source })?;
        Ok(Catalog { index })
    }

    fn empty() -> Catalog {
        Catalog { index: Index::new(Vec::new()) }
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.index).expect("strings and numbers always serialise")
    }

    /// Every image once. Entries that are no manifests were not made by us and are passed over.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Entry> + use<> {
        let mut groups: BTreeMap<Digest, Entry> = BTreeMap::new();
        for descriptor in self.index.manifests.iter().filter(|d| d.is_manifest()) {
            let entry = groups.entry(descriptor.digest).or_insert_with(|| Entry {
                descriptor: Descriptor { annotations: None, ..descriptor.clone() },
                names: Vec::new(),
            });
            entry.names.extend(name_of(descriptor));
        }
        groups.into_values()
    }

    /// The image of this manifest.
    pub(crate) fn entry(&self, manifest: &Digest) -> Option<Entry> {
        self.groups().find(|entry| entry.descriptor.digest == *manifest)
    }

    /// The image of this name.
    pub(crate) fn find(&self, name: &Reference) -> Option<Entry> {
        self.groups().find(|entry| entry.names.contains(name))
    }

    /// Adds an image under these names, taking them from whoever has them.
    pub(crate) fn name(&mut self, image: Descriptor, names: &[Reference]) {
        for name in names {
            self.unname(name);
        }
        let known = self.index.manifests.iter().any(|d| d.digest == image.digest);
        if names.is_empty() && known {
            return;
        }
        // The bare descriptor of an image that gets a name has done its duty.
        self.index.manifests.retain(|d| d.digest != image.digest || name_of(d).is_some());
        let bare = Descriptor { annotations: None, ..image };
        if names.is_empty() {
            self.index.manifests.push(bare);
            return;
        }
        for name in names {
            let annotations = [(REF_NAME.to_owned(), name.to_string())].into();
            self.index
                .manifests
                .push(Descriptor { annotations: Some(annotations), ..bare.clone() });
        }
    }

    /// Takes a name away; the image stays.
    pub(crate) fn unname(&mut self, name: &Reference) {
        let Some(at) = self.index.manifests.iter().position(|d| name_of(d).as_ref() == Some(name))
        else {
            return;
        };
        let digest = self.index.manifests[at].digest;
        let others = self.index.manifests.iter().filter(|d| d.digest == digest).count() - 1;
        if others == 0 {
            self.index.manifests[at].annotations = None;
        } else {
            self.index.manifests.remove(at);
        }
    }

    /// Takes an image out, names and all.
    pub(crate) fn remove(&mut self, manifest: &Digest) {
        self.index.manifests.retain(|d| d.digest != *manifest);
    }
}

fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    descriptor.annotation(REF_NAME)?.parse().ok()
}

impl Store {
    /// Makes an empty `index.json` in a new store.
    pub(crate) fn create_index(&self, lease: &Lease) -> Result<()> {
        let lock = self.layout.lock_index(lease)?;
        if self.layout.index().exists() {
            return Ok(());
        }
        self.layout.replace_index(&lock, &Catalog::empty().to_json())
    }

    /// The catalog as it is now.
    pub(crate) fn catalog(&self) -> Result<Catalog> {
        match read_small(&self.layout.index(), INDEX_MAX)? {
            Some(bytes) => Catalog::parse(&bytes),
            None => Ok(Catalog::empty()),
        }
    }

    /// Changes the catalog; nobody else does meanwhile. An error changes nothing.
    pub(crate) fn change_index<T>(
        &self,
        lease: &Lease,
        change: impl FnOnce(&mut Catalog) -> Result<T>,
    ) -> Result<T> {
        let lock = self.layout.lock_index(lease)?;
        let before = self.catalog()?;
        let mut after = before.clone();
        let result = change(&mut after)?;
        if after != before {
            self.layout.replace_index(&lock, &after.to_json())?;
        }
        Ok(result)
    }

    /// Reads the catalog and the blobs it names, without locks: starts over if what it read was
    /// removed meanwhile, so readers never wait and never see half of a change.
    pub(crate) fn consistent<T>(&self, read: impl Fn(&Catalog) -> Result<T>) -> Result<T> {
        let mut catalog = self.catalog()?;
        for _ in 0..RETRIES {
            let result = read(&catalog);
            if result.is_ok() {
                return result;
            }
            let now = self.catalog()?;
            if now == catalog {
                return result;
            }
            catalog = now;
        }
        read(&catalog)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::OCI_MANIFEST;

    fn image(text: &str) -> Descriptor {
        Descriptor::new(OCI_MANIFEST, Digest::of(text.as_bytes()), 1)
    }

    fn name(text: &str) -> Reference {
        text.parse().unwrap()
    }

    fn names(catalog: &Catalog, of: &str) -> Option<Vec<String>> {
        let entry = catalog.entry(&Digest::of(of.as_bytes()))?;
        Some(entry.names.iter().map(Reference::familiar).collect())
    }

    #[test]
    fn a_moved_name_leaves_a_bare_image_behind() {
        let mut catalog = Catalog::empty();
        catalog.name(image("old"), &[name("app")]);
        catalog.name(image("new"), &[name("app")]);
        assert_eq!(names(&catalog, "old"), Some(vec![]));
        assert_eq!(names(&catalog, "new"), Some(vec!["app:latest".to_owned()]));
        catalog.remove(&Digest::of(b"old"));
        assert_eq!(names(&catalog, "old"), None);
    }

    #[test]
    fn naming_twice_changes_nothing_and_a_bare_image_gets_its_name() {
        let mut catalog = Catalog::empty();
        catalog.name(image("a"), &[]);
        assert_eq!(names(&catalog, "a"), Some(vec![]));
        catalog.name(image("a"), &[name("x"), name("y")]);
        let once = catalog.clone();
        catalog.name(image("a"), &[name("x"), name("y")]);
        catalog.name(image("a"), &[]);
        assert_eq!(catalog, once);
        assert_eq!(catalog.index.manifests.len(), 2);
        assert_eq!(Catalog::parse(&catalog.to_json()).unwrap(), catalog);
    }

    #[test]
    fn unnaming_one_of_two_keeps_the_other() {
        let mut catalog = Catalog::empty();
        catalog.name(image("a"), &[name("x"), name("y")]);
        catalog.unname(&name("x"));
        catalog.unname(&name("never"));
        assert_eq!(names(&catalog, "a"), Some(vec!["y:latest".to_owned()]));
        assert_eq!(catalog.find(&name("x")), None);
    }
}
