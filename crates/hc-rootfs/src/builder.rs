// SPDX-License-Identifier: Apache-2.0
//! Feeds layers through the parts: archive entries in, merged tree and placed data out.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use crate::content::{Header, Target};
use crate::directories::{self, RESERVED_BLOCKS};
use crate::erofs::{self, BLOCK_BYTES, BLOCK_LEN, LINKS_OFFSET, Superblock, xattr};
use crate::error::Stop;
use crate::inodes::{Inodes, position};
use crate::output::Output;
use crate::path::{Meaning, meaning};
use crate::tar::{Attributes, Entry, EntryKind, Reader};
use crate::tree::{DirAttributes, InodeKind, Place, Tree};
use crate::{EntryFault, Error, Limits};

/// Linux gives and takes at most so many bytes of attributes, and the root's place has no more.
const MAX_XATTR_BYTES: usize = 64 << 10;
/// The largest chunk that the format has: a file that is one hole is one chunk.
const MAX_FILE_BYTES: u64 = 1 << 43;
/// Runs of unused blocks that are noted before they are given back; else a layer that replaces one
/// file a billion times could fill memory.
const MAX_FREED_EXTENTS: usize = 1 << 16;
/// Longest target of a symbolic link: Linux's `PATH_MAX` with its final NUL.
const SYMLINK_MAX: usize = 4095;

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
    /// Length of the image file, holes included.
    pub image_bytes: u64,
    /// Extended attributes left out, because EROFS has no place for them or because the guest's
    /// overlayfs would take them for its own.
    pub skipped_xattrs: u64,
}

/// Merges layers into one file system.
#[must_use = "the file is no file system before `finish`"]
pub struct Builder<'f> {
    options: Options,
    tree: Tree,
    target: Target<'f>,
    /// Sets of directories' attributes, each held once.
    xattr_sets: HashSet<Arc<[u8]>>,
    xattr_set_bytes: usize,
    skipped_xattrs: u64,
    layers: usize,
    layer_bytes: u64,
}

impl<'f> Builder<'f> {
    /// Starts a file system in `out`, which is emptied.
    pub fn new(out: &'f File, mut options: Options) -> Result<Builder<'f>, Error> {
        let limits = &mut options.limits;
        limits.max_xattr_bytes = limits.max_xattr_bytes.min(MAX_XATTR_BYTES);
        limits.max_file_bytes = limits.max_file_bytes.min(MAX_FILE_BYTES);
        let output = Output::new(out, RESERVED_BLOCKS, limits.max_image_bytes)
            .map_err(|source| Error::Write { source })?;
        Ok(Builder {
            options,
            tree: Tree::new(),
            target: Target { output, inodes: Inodes::new(), has_chunks: false },
            xattr_sets: HashSet::new(),
            xattr_set_bytes: 0,
            skipped_xattrs: 0,
            layers: 0,
            layer_bytes: 0,
        })
    }

    /// Merges the next layer, an uncompressed tar stream, over those before it.
    pub fn add_layer(mut self, layer: impl Read) -> Result<Builder<'f>, Error> {
        let left = self.options.limits.max_layer_bytes - self.layer_bytes;
        let mut archive = Reader::new(layer, left);
        let mut path = Vec::new();
        let merged = self.merge(&mut archive, &mut path);
        let offset = archive.entry_start();
        // Bytes that are not the layer's own are the better explanation of a broken one.
        let drained = match &merged {
            Err(stop) if !stop.blames_layer() => Ok(()),
            _ => archive.drain(),
        };
        let result = match (merged, drained) {
            (_, Err(stop @ Stop::Source(_))) | (Err(stop), _) | (Ok(()), Err(stop)) => Err(stop),
            (Ok(()), Ok(())) => self.target.output.punch(self.tree.take_freed()),
        };
        result.map_err(|stop| stop.at(self.layers, offset, &path))?;
        self.layers += 1;
        self.layer_bytes += archive.taken();
        Ok(self)
    }

    /// Writes what was kept back until the whole tree is known, and ends the image.
    pub fn finish(self) -> Result<Summary, Error> {
        let layers = self.layers;
        self.write_rest().map_err(|stop| stop.at(layers, 0, b""))
    }

    /// Merges all entries of a layer; `path` tells afterwards which was the last.
    fn merge<R: Read>(&mut self, archive: &mut Reader<R>, path: &mut Vec<u8>) -> Result<(), Stop> {
        self.tree.begin_layer();
        while let Some(entry) = archive.next_entry()? {
            let Entry { path: entry_path, kind, attributes } = entry;
            *path = entry_path;
            match meaning(path, &self.options.limits)? {
                Meaning::Root if kind == EntryKind::Directory => {
                    let attributes = self.dir_attributes(attributes)?;
                    self.tree.describe_root(attributes);
                }
                Meaning::Root => return Err(EntryFault::RootNotDirectory.into()),
                Meaning::Node { parents, name } => {
                    let place = self.tree.place(&parents, name, &self.options.limits)?;
                    self.add(place, kind, attributes, archive)?;
                }
                Meaning::Whiteout { parents, name } => self.tree.hide(&parents, name)?,
                Meaning::Opaque { directory } => self.tree.hide_all(&directory)?,
                Meaning::Reserved => {}
            }
            if self.tree.freed_count() > MAX_FREED_EXTENTS {
                self.target.output.punch(self.tree.take_freed())?;
            }
        }
        Ok(())
    }

    fn add<R: Read>(
        &mut self,
        place: Place<'_>,
        kind: EntryKind,
        attributes: Attributes,
        archive: &mut Reader<R>,
    ) -> Result<(), Stop> {
        let (nid, kind) = match kind {
            EntryKind::Directory => {
                let attributes = self.dir_attributes(attributes)?;
                return self.tree.insert_dir(place, attributes, &self.options.limits);
            }
            EntryKind::HardLink { target } => {
                return self.tree.link(place, &target, &self.options.limits);
            }
            EntryKind::File { size } => {
                let limit = self.options.limits.max_file_bytes;
                if size > limit {
                    return Err(EntryFault::FileTooLarge { size, limit }.into());
                }
                let xattrs = self.encode_xattrs(&attributes)?;
                let header = header(&attributes, &xattrs, &InodeKind::File(None));
                let (nid, extent) = self.target.write_file(&header, size, archive)?;
                (nid, InodeKind::File(extent))
            }
            EntryKind::Symlink { target } => {
                if target.is_empty() || target.len() > SYMLINK_MAX {
                    return Err(EntryFault::SymlinkLength { len: target.len() }.into());
                }
                if target.contains(&0) {
                    return Err(EntryFault::NulInPath.into());
                }
                let kind = InodeKind::Symlink(target.clone().into());
                (self.add_node(&attributes, &kind, &target, 0)?, kind)
            }
            EntryKind::CharDevice { major, minor } => {
                let number = device_number(major, minor)?;
                let kind = InodeKind::CharDevice;
                (self.add_node(&attributes, &kind, b"", number)?, kind)
            }
            EntryKind::BlockDevice { major, minor } => {
                let number = device_number(major, minor)?;
                let kind = InodeKind::BlockDevice;
                (self.add_node(&attributes, &kind, b"", number)?, kind)
            }
            EntryKind::Fifo => {
                (self.add_node(&attributes, &InodeKind::Fifo, b"", 0)?, InodeKind::Fifo)
            }
        };
        self.tree.insert_inode(place, nid, kind, &self.options.limits)
    }

    fn add_node(
        &mut self,
        attributes: &Attributes,
        kind: &InodeKind,
        data: &[u8],
        start: u32,
    ) -> Result<u64, Stop> {
        let xattrs = self.encode_xattrs(attributes)?;
        self.target.write_node(&header(attributes, &xattrs, kind), data, start)
    }

    fn encode_xattrs(&mut self, attributes: &Attributes) -> Result<xattr::Encoded, Stop> {
        let encoded = xattr::encode(&attributes.xattrs, self.options.limits.max_xattr_bytes)?;
        self.skipped_xattrs += encoded.skipped;
        Ok(encoded)
    }

    fn dir_attributes(&mut self, attributes: Attributes) -> Result<DirAttributes, Stop> {
        let encoded = self.encode_xattrs(&attributes)?.bytes;
        let xattrs = if let Some(known) = self.xattr_sets.get(encoded.as_slice()) {
            Arc::clone(known)
        } else {
            let limit = self.options.limits.max_directory_xattr_bytes;
            self.xattr_set_bytes += encoded.len();
            if self.xattr_set_bytes > limit {
                let unit = "bytes of directories' attributes";
                return Err(Stop::Limit { limit: limit as u64, unit });
            }
            let new: Arc<[u8]> = encoded.into();
            self.xattr_sets.insert(Arc::clone(&new));
            new
        };
        let Attributes { mode, uid, gid, mtime, .. } = attributes;
        Ok(DirAttributes { mode, uid, gid, mtime, xattrs })
    }

    fn write_rest(mut self) -> Result<Summary, Stop> {
        self.target.inodes.flush(&mut self.target.output)?;
        let mut written = directories::write(&self.tree, &mut self.target)?;
        let Target { mut output, has_chunks, .. } = self.target;
        // Links are counted last: a later layer may add to a file's names or take from them.
        output.flush()?;
        let mut inodes = written.directories;
        for inode in self.tree.inodes() {
            inodes += 1;
            if inode.links != 1 {
                output.write_at(&inode.links.to_le_bytes(), position(inode.nid) + LINKS_OFFSET)?;
            }
        }
        let image_bytes = output.next_position();
        written.head.resize(written.head.len().max(BLOCK_LEN), 0);
        if let Some(block) = written.head.first_chunk_mut() {
            let blocks = u32::try_from(image_bytes / BLOCK_BYTES).expect("block numbers fit");
            let uuid = self.options.uuid;
            let root_nid = written.root_nid;
            Superblock { root_nid, inodes, blocks, uuid, has_chunks }.write(block);
        }
        output.write_at(&written.head, 0)?;
        output.finish()?;
        Ok(Summary { inodes, image_bytes, skipped_xattrs: self.skipped_xattrs })
    }
}

fn header<'a>(
    attributes: &'a Attributes,
    xattrs: &'a xattr::Encoded,
    kind: &InodeKind,
) -> Header<'a> {
    Header { mode: erofs::type_bits(kind) | attributes.mode, attributes, xattrs }
}

fn device_number(major: u64, minor: u64) -> Result<u32, EntryFault> {
    erofs::device_number(major, minor).ok_or(EntryFault::Device { major, minor })
}
