// SPDX-License-Identifier: Apache-2.0
//! Writes the directories, once the tree is whole.
//!
//! A directory names its parent and its children by number, so all places are given out first and
//! then filled in the same order. The root's place is at the start of the image: the superblock has
//! only 16 bits for its number.

use std::ops::Bound;

use crate::content::Target;
use crate::erofs::dir::{self, DIR_FILE_TYPE, DirEntry};
use crate::erofs::{
    BLOCK_BYTES, BLOCK_LEN, DIR_TYPE_BITS, INODE_ALIGN, INODE_LEN, InodeRecord, Layout, SUPER_LEN,
    SUPER_OFFSET,
};
use crate::error::Stop;
use crate::inodes::{fits_inline, number, tail_len};
use crate::output::blocks_for;
use crate::tree::{Child, DirId, ROOT, Tree};

/// Blocks at the start of the image for the superblock and the root with its attributes.
pub(crate) const RESERVED_BLOCKS: u64 = 17;
/// Where the root's inode is.
const ROOT_POSITION: usize = SUPER_OFFSET + SUPER_LEN;

/// What the superblock must know.
pub(crate) struct Written {
    pub(crate) root_nid: u16,
    pub(crate) directories: u64,
    /// The start of the image, with the root's inode in it.
    pub(crate) head: Vec<u8>,
}

/// The places of all directories.
struct Plan {
    /// From the root down.
    order: Vec<Planned>,
    /// The number of each, by its index in the tree.
    nids: Vec<u64>,
}

struct Planned {
    dir: DirId,
    position: u64,
    size: u64,
    inline: bool,
    /// The first of its whole blocks.
    start: u32,
}

/// Writes all directories but the root's inode, which is in the returned head of the image.
pub(crate) fn write(tree: &Tree, target: &mut Target<'_>) -> Result<Written, Stop> {
    let plan = plan(tree, target)?;
    let mut head = vec![0; ROOT_POSITION];
    for planned in &plan.order {
        let inode = inode_bytes(tree, &plan, planned);
        if planned.dir == ROOT {
            head.extend_from_slice(&inode);
        } else {
            target.output.piece(planned.position, inode.len())?.copy_from_slice(&inode);
        }
    }
    for planned in &plan.order {
        let blocks = whole_blocks(planned);
        let mut position = u64::from(planned.start) * BLOCK_BYTES;
        let mut written = 0;
        if blocks > 0 {
            dir::encode(entries(tree, &plan, planned.dir), |block| {
                if written < blocks {
                    let piece = target.output.piece(position, BLOCK_LEN)?;
                    let (bytes, padding) = piece.split_at_mut(block.len());
                    bytes.copy_from_slice(block);
                    padding.fill(0);
                }
                written += 1;
                position += BLOCK_BYTES;
                Ok::<_, Stop>(())
            })?;
        }
    }
    let root_nid = number(ROOT_POSITION as u64);
    Ok(Written {
        root_nid: u16::try_from(root_nid).expect("the root is in the first block"),
        directories: plan.order.len() as u64,
        head,
    })
}

/// Gives every directory its place.
fn plan(tree: &Tree, target: &mut Target<'_>) -> Result<Plan, Stop> {
    let mut nids = vec![0; tree.dir_slots()];
    let base = target.output.next_position();
    let mut end = base;
    let mut order = Vec::new();
    for dir in tree.dirs_from_root() {
        let size = dir::size(names(tree, dir));
        let header_len = INODE_LEN + tree.dir(dir).attributes.xattrs.len();
        let inline = if dir == ROOT {
            // The root's place is not at the start of a block.
            fits_inline((ROOT_POSITION + header_len) % BLOCK_LEN, tail_len(size))
        } else {
            fits_inline(header_len, tail_len(size))
        };
        let len = header_len + if inline { tail_len(size) } else { 0 };
        let position = if dir == ROOT {
            ROOT_POSITION as u64
        } else {
            let room = BLOCK_LEN - tail_len(end);
            let position = if len > room { end.next_multiple_of(BLOCK_BYTES) } else { end };
            end = (position + len as u64).next_multiple_of(INODE_ALIGN as u64);
            position
        };
        nids[dir as usize] = number(position);
        order.push(Planned { dir, position, size, inline, start: 0 });
    }
    target.output.allocate(blocks_for(end - base))?;
    for planned in &mut order {
        planned.start = match whole_blocks(planned) {
            0 => 0,
            blocks => target.output.allocate(blocks)?,
        };
    }
    Ok(Plan { order, nids })
}

/// Blocks of the directory that are not behind its inode.
fn whole_blocks(planned: &Planned) -> u64 {
    if planned.inline { planned.size / BLOCK_BYTES } else { blocks_for(planned.size) }
}

/// A directory's inode, its attributes, and its last block if that stands behind them.
fn inode_bytes(tree: &Tree, plan: &Plan, planned: &Planned) -> Vec<u8> {
    let dir = tree.dir(planned.dir);
    let subdirectories = dir.children.values().filter(|child| matches!(child, Child::Dir(_)));
    let attributes = &dir.attributes;
    let record = InodeRecord {
        layout: if planned.inline { Layout::Inline } else { Layout::Plain },
        mode: DIR_TYPE_BITS | attributes.mode,
        size: planned.size,
        start: planned.start,
        uid: attributes.uid,
        gid: attributes.gid,
        mtime: attributes.mtime,
        links: u32::try_from(subdirectories.count() + 2).unwrap_or(u32::MAX),
        xattr_len: attributes.xattrs.len(),
    };
    let mut bytes = record.encode(plan.nids[planned.dir as usize]).to_vec();
    bytes.extend_from_slice(&attributes.xattrs);
    if planned.inline {
        let (mut block, last) = (0, whole_blocks(planned));
        let Ok(()) = dir::encode(entries(tree, plan, planned.dir), |part| {
            if block == last {
                bytes.extend_from_slice(part);
            }
            block += 1;
            Ok::<_, std::convert::Infallible>(())
        });
    }
    bytes
}

/// The names in a directory in the order of bytes, with `.` and `..` in their places.
fn names(tree: &Tree, dir: DirId) -> impl Iterator<Item = &[u8]> {
    children(tree, dir).map(|(name, _)| name)
}

fn entries<'a>(tree: &'a Tree, plan: &'a Plan, dir: DirId) -> impl Iterator<Item = DirEntry<'a>> {
    children(tree, dir).map(|(name, child)| {
        let (nid, file_type) = match child {
            Child::Dir(dir) => (plan.nids[dir as usize], DIR_FILE_TYPE),
            Child::Inode { index, .. } => {
                let inode = tree.inode(index);
                (inode.nid, dir::file_type(&inode.kind))
            }
        };
        DirEntry { name, nid, file_type }
    })
}

fn children(tree: &Tree, dir: DirId) -> impl Iterator<Item = (&[u8], Child)> {
    const DOT: &[u8] = b".";
    const DOTS: &[u8] = b"..";
    let children = &tree.dir(dir).children;
    let range = |from: Bound<&[u8]>, to: Bound<&[u8]>| {
        children.range::<[u8], _>((from, to)).map(|(name, child)| (name.as_ref(), *child))
    };
    range(Bound::Unbounded, Bound::Excluded(DOT))
        .chain(std::iter::once((DOT, Child::Dir(dir))))
        .chain(range(Bound::Excluded(DOT), Bound::Excluded(DOTS)))
        .chain(std::iter::once((DOTS, Child::Dir(tree.dir(dir).parent))))
        .chain(range(Bound::Excluded(DOTS), Bound::Unbounded))
}
