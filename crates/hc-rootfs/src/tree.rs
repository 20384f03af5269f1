// SPDX-License-Identifier: Apache-2.0
//! The merged tree of the layers so far, by the rules of OCI layers.
//!
//! Holds names, directories, and for every other inode only where it lies in the image. It reads
//! and writes nothing: what an entry of a layer does to the tree is decided here alone.
//!
//! # Rules
//!
//! - A directory over a directory merges and takes the new one's attributes; anything else
//!   replaces what was there, a whole tree if need be.
//! - A whiteout or an opaque mark hides what *lower* layers have, wherever in its layer it stands.
//! - Missing parents are made: mode 0755, owned by root, of 1970.
//! - A symbolic link in the place of a parent is followed inside the tree, as a program in the
//!   container would follow it; `..` ends at the root. A layer that writes `lib/x` over a lower
//!   layer's `lib -> usr/lib` thus writes `usr/lib/x`.
//! - A hard link shares the inode that its target has at that moment.
//!
//! # Invariants
//!
//! - A directory that was touched in this layer lies in directories that were.
//! - Nothing here recurses; every loop is bounded by what the layers paid for in bytes.

use std::collections::BTreeMap;

use crate::error::{Stop, shown};
use crate::path;
use crate::tar::Time;
use crate::{EntryFault, Limits};

mod hide;

/// Symbolic links that one path may lead through, as in Linux.
const MAX_LINK_HOPS: u32 = 40;
/// Steps that one path may take with the links in it; keeps forty long links from costing 80,000.
const MAX_PATH_STEPS: u32 = 4096;

/// The index of a directory.
pub(crate) type DirId = u32;
/// The root directory.
pub(crate) const ROOT: DirId = 0;

/// The merged tree.
pub(crate) struct Tree {
    dirs: Vec<Dir>,
    unused_dirs: Vec<DirId>,
    inodes: Vec<Inode>,
    unused_inodes: Vec<u32>,
    /// The layer being merged, counted from 1.
    layer: u32,
    entries: u64,
    name_bytes: u64,
    freed: Vec<Extent>,
}

/// A directory.
pub(crate) struct Dir {
    pub(crate) parent: DirId,
    pub(crate) attributes: DirAttributes,
    pub(crate) children: BTreeMap<Box<[u8]>, Child>,
    depth: u32,
    /// The last layer with an entry for the directory itself.
    described: u32,
    /// The last layer with an entry for it or for anything below it.
    touched: u32,
    /// The last layer that hid what was below it.
    hidden: u32,
}

/// What a directory is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DirAttributes {
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// The encoded attributes; equal ones are shared between directories.
    pub(crate) xattrs: std::sync::Arc<[u8]>,
}

impl Default for DirAttributes {
    fn default() -> DirAttributes {
        let mtime = Time::default();
        DirAttributes { mode: 0o755, uid: 0, gid: 0, mtime, xattrs: std::sync::Arc::default() }
    }
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Child {
    Dir(DirId),
    /// Anything else, and the layer that put the name there.
    Inode {
        index: u32,
        layer: u32,
    },
}

/// An inode that is no directory; it is in the image already.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) nid: u64,
    pub(crate) links: u32,
    pub(crate) kind: InodeKind,
}

/// What a later layer must know of an inode.
#[derive(Debug)]
pub(crate) enum InodeKind {
    /// A regular file and the blocks of its own that it has.
    File(Option<Extent>),
    Symlink(Box<[u8]>),
    CharDevice,
    BlockDevice,
    Fifo,
}

/// A run of blocks in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    pub(crate) start: u32,
    pub(crate) blocks: u32,
}

/// Where an entry goes: a name in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    dir: DirId,
    name: &'a [u8],
}

impl Tree {
    /// A tree with nothing but a root.
    pub(crate) fn new() -> Tree {
        Tree {
            dirs: vec![Dir::new(ROOT, 0)],
            unused_dirs: Vec::new(),
            inodes: Vec::new(),
            unused_inodes: Vec::new(),
            layer: 0,
            entries: 1,
            name_bytes: 0,
            freed: Vec::new(),
        }
    }

    /// Everything so far becomes a lower layer.
    pub(crate) fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// How many runs of blocks no file uses any more, since they were last taken.
    pub(crate) fn freed_count(&self) -> usize {
        self.freed.len()
    }

    /// Takes the blocks that no file uses any more.
    pub(crate) fn take_freed(&mut self) -> Vec<Extent> {
        std::mem::take(&mut self.freed)
    }

    /// Finds the directory of an entry and makes what is missing of the way to it.
    pub(crate) fn place<'a>(
        &mut self,
        parents: &[&[u8]],
        name: &'a [u8],
        limits: &Limits,
    ) -> Result<Place<'a>, Stop> {
        let dir = self.walk(parents, Some(limits))?.unwrap_or(ROOT);
        let mut at = dir;
        while self.dirs[at as usize].touched != self.layer {
            self.dirs[at as usize].touched = self.layer;
            at = self.dirs[at as usize].parent;
        }
        Ok(Place { dir, name })
    }

    /// Gives the root its attributes.
    pub(crate) fn describe_root(&mut self, attributes: DirAttributes) {
        self.describe(ROOT, attributes);
    }

    /// Puts a directory into its place, or merges it with the one there.
    pub(crate) fn insert_dir(
        &mut self,
        place: Place<'_>,
        attributes: DirAttributes,
        limits: &Limits,
    ) -> Result<(), Stop> {
        let dir = match self.dirs[place.dir as usize].children.get(place.name) {
            Some(Child::Dir(dir)) => *dir,
            _ => self.make_dir(place, limits)?,
        };
        self.describe(dir, attributes);
        Ok(())
    }

    /// Puts an inode that is no directory into its place.
    pub(crate) fn insert_inode(
        &mut self,
        place: Place<'_>,
        nid: u64,
        kind: InodeKind,
        limits: &Limits,
    ) -> Result<(), Stop> {
        if let InodeKind::Symlink(target) = &kind {
            self.count_name_bytes(target.len(), limits)?;
        }
        let inode = Inode { nid, links: 1, kind };
        let index = store(&mut self.inodes, &mut self.unused_inodes, inode);
        self.set_child(place, Child::Inode { index, layer: self.layer }, limits)
    }

    /// Gives the inode at `target` a further name.
    pub(crate) fn link(
        &mut self,
        place: Place<'_>,
        target: &[u8],
        limits: &Limits,
    ) -> Result<(), Stop> {
        let mut parents = path::components(target, limits)?;
        let name = parents.pop();
        let target = || shown(target);
        let Some(name) = name else {
            return Err(EntryFault::LinkToDirectory { target: target() }.into());
        };
        let dir = self.walk(&parents, None)?;
        let child = dir.and_then(|dir| self.dirs[dir as usize].children.get(name));
        let index = match child {
            None => return Err(EntryFault::LinkMissing { target: target() }.into()),
            Some(Child::Dir(_)) => {
                return Err(EntryFault::LinkToDirectory { target: target() }.into());
            }
            Some(_) if dir == Some(place.dir) && name == place.name => {
                return Err(EntryFault::LinkToItself.into());
            }
            Some(Child::Inode { index, .. }) => *index,
        };
        let links = &mut self.inodes[index as usize].links;
        *links = links
            .checked_add(1)
            .ok_or(Stop::Limit { limit: u64::from(u32::MAX), unit: "links to one file" })?;
        self.set_child(place, Child::Inode { index, layer: self.layer }, limits)
    }

    /// A directory by its index.
    pub(crate) fn dir(&self, dir: DirId) -> &Dir {
        &self.dirs[dir as usize]
    }

    /// An inode by its index.
    pub(crate) fn inode(&self, index: u32) -> &Inode {
        &self.inodes[index as usize]
    }

    /// How many indices of directories there are, unused ones included.
    pub(crate) fn dir_slots(&self) -> usize {
        self.dirs.len()
    }

    /// The directories from the root down, each after its parent.
    pub(crate) fn dirs_from_root(&self) -> Vec<DirId> {
        let mut order = vec![ROOT];
        let mut next = 0;
        while let Some(dir) = order.get(next) {
            let children = self.dirs[*dir as usize].children.values();
            order.extend(children.filter_map(|child| match child {
                Child::Dir(dir) => Some(*dir),
                Child::Inode { .. } => None,
            }));
            next += 1;
        }
        order
    }

    /// The inodes in use that are no directories.
    pub(crate) fn inodes(&self) -> impl Iterator<Item = &Inode> {
        self.inodes.iter().filter(|inode| inode.links != 0)
    }

    /// Follows a path from the root. What is missing is made if there are `limits` for it, and else
    /// gives `None`.
    fn walk(&mut self, parents: &[&[u8]], make: Option<&Limits>) -> Result<Option<DirId>, Stop> {
        let mut at = ROOT;
        let (mut hops, mut steps) = (0, 0);
        // Only where a link interferes must its target be kept beside the path.
        let mut detour: Vec<Box<[u8]>> = Vec::new();
        let mut parents = parents.iter();
        loop {
            let own;
            let name: &[u8] = if let Some(part) = detour.pop() {
                own = part;
                &own
            } else if let Some(name) = parents.next() {
                name
            } else {
                return Ok(Some(at));
            };
            steps += 1;
            if steps > MAX_PATH_STEPS {
                return Err(EntryFault::SymlinkLoop.into());
            }
            if name == b".." {
                at = self.dirs[at as usize].parent; // Only a link's target can have one.
                continue;
            }
            match (self.dirs[at as usize].children.get(name), make) {
                (Some(Child::Dir(dir)), _) => at = *dir,
                (Some(Child::Inode { index, .. }), _) => {
                    let InodeKind::Symlink(target) = &self.inodes[*index as usize].kind else {
                        // Below a file there is nothing to find, but nothing can be made either.
                        return match make {
                            None => Ok(None),
                            Some(_) => Err(EntryFault::ParentNotDirectory.into()),
                        };
                    };
                    hops += 1;
                    if hops > MAX_LINK_HOPS {
                        return Err(EntryFault::SymlinkLoop.into());
                    }
                    if target.starts_with(b"/") {
                        at = ROOT;
                    }
                    detour.extend(path::split(target).rev().map(Box::from));
                }
                (None, Some(limits)) => at = self.make_dir(Place { dir: at, name }, limits)?,
                (None, None) => return Ok(None),
            }
        }
    }

    fn describe(&mut self, dir: DirId, attributes: DirAttributes) {
        let dir = &mut self.dirs[dir as usize];
        dir.attributes = attributes;
        dir.described = self.layer;
        dir.touched = self.layer;
    }

    fn make_dir(&mut self, place: Place<'_>, limits: &Limits) -> Result<DirId, Stop> {
        let depth = self.dirs[place.dir as usize].depth + 1;
        if depth > limits.max_depth {
            return Err(EntryFault::TooDeep { limit: limits.max_depth }.into());
        }
        // A link's target may have names that no file can have.
        if place.name.len() > path::NAME_MAX {
            return Err(EntryFault::NameTooLong { len: place.name.len() }.into());
        }
        let dir = Dir::new(place.dir, depth);
        let dir = store(&mut self.dirs, &mut self.unused_dirs, dir);
        self.set_child(place, Child::Dir(dir), limits)?;
        Ok(dir)
    }

    fn set_child(&mut self, place: Place<'_>, child: Child, limits: &Limits) -> Result<(), Stop> {
        let children = &mut self.dirs[place.dir as usize].children;
        if let Some(slot) = children.get_mut(place.name) {
            let old = std::mem::replace(slot, child);
            self.remove(old);
            return Ok(());
        }
        children.insert(place.name.into(), child);
        self.entries += 1;
        if self.entries > limits.max_entries {
            return Err(Stop::Limit { limit: limits.max_entries, unit: "files" });
        }
        self.count_name_bytes(place.name.len(), limits)
    }

    fn count_name_bytes(&mut self, len: usize, limits: &Limits) -> Result<(), Stop> {
        self.name_bytes += len as u64;
        if self.name_bytes > limits.max_name_bytes {
            return Err(Stop::Limit { limit: limits.max_name_bytes, unit: "bytes of names" });
        }
        Ok(())
    }
}

impl Dir {
    fn new(parent: DirId, depth: u32) -> Dir {
        Dir {
            parent,
            attributes: DirAttributes::default(),
            children: BTreeMap::new(),
            depth,
            described: 0,
            touched: 0,
            hidden: 0,
        }
    }
}

/// Puts an item where one was given back, or at the end.
fn store<T>(items: &mut Vec<T>, unused: &mut Vec<u32>, item: T) -> u32 {
    if let Some(index) = unused.pop() {
        items[index as usize] = item;
        return index;
    }
    items.push(item);
    u32::try_from(items.len() - 1).expect("the limit on entries is far below 2^32")
}
