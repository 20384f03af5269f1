// SPDX-License-Identifier: Apache-2.0
//! Taking things out of the tree: whiteouts, opaque directories, and what is replaced.

use std::collections::BTreeMap;

use super::{Child, DirAttributes, DirId, InodeKind, Tree};
use crate::error::Stop;

impl Tree {
    /// A whiteout: what lower layers have under `name` is gone. One that hides nothing is no error.
    pub(crate) fn hide(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<(), Stop> {
        let Some(dir) = self.walk(parents, None)? else {
            return Ok(());
        };
        match self.dirs[dir as usize].children.get(name).copied() {
            Some(child) if self.is_lower(child) => {
                self.dirs[dir as usize].children.remove(name);
                self.forget_name(name.len());
                self.remove(child);
            }
            // This layer has put something below it: it stays, the rest goes.
            Some(Child::Dir(dir)) => {
                self.forget_description(dir);
                self.hide_below(dir);
            }
            Some(Child::Inode { .. }) | None => {}
        }
        Ok(())
    }

    /// An opaque mark: what lower layers have in the directory is gone.
    pub(crate) fn hide_all(&mut self, directory: &[&[u8]]) -> Result<(), Stop> {
        if let Some(dir) = self.walk(directory, None)? {
            self.hide_below(dir);
        }
        Ok(())
    }

    /// Removes what a name stood for; the name itself is gone already.
    pub(super) fn remove(&mut self, child: Child) {
        let mut doomed = vec![child];
        while let Some(child) = doomed.pop() {
            match child {
                Child::Dir(dir) => {
                    let children = std::mem::take(&mut self.dirs[dir as usize].children);
                    self.dirs[dir as usize].attributes = DirAttributes::default();
                    self.unused_dirs.push(dir);
                    for (name, child) in children {
                        self.forget_name(name.len());
                        doomed.push(child);
                    }
                }
                Child::Inode { index, .. } => self.unlink(index),
            }
        }
    }

    fn unlink(&mut self, index: u32) {
        let inode = &mut self.inodes[index as usize];
        inode.links -= 1;
        if inode.links > 0 {
            return;
        }
        match std::mem::replace(&mut inode.kind, InodeKind::Fifo) {
            InodeKind::File(extent) => self.freed.extend(extent),
            InodeKind::Symlink(target) => self.name_bytes -= target.len() as u64,
            InodeKind::CharDevice | InodeKind::BlockDevice | InodeKind::Fifo => {}
        }
        self.unused_inodes.push(index);
    }

    fn hide_below(&mut self, dir: DirId) {
        let mut open = vec![dir];
        while let Some(dir) = open.pop() {
            // A second mark finds nothing more, and must not cost another look at every child.
            if self.dirs[dir as usize].hidden == self.layer {
                continue;
            }
            self.dirs[dir as usize].hidden = self.layer;
            let children = std::mem::take(&mut self.dirs[dir as usize].children);
            let mut kept = BTreeMap::new();
            for (name, child) in children {
                if self.is_lower(child) {
                    self.forget_name(name.len());
                    self.remove(child);
                    continue;
                }
                if let Child::Dir(below) = child {
                    self.forget_description(below);
                    open.push(below);
                }
                kept.insert(name, child);
            }
            self.dirs[dir as usize].children = kept;
        }
    }

    /// A directory that is only there for what this layer has below it is like any missing parent.
    fn forget_description(&mut self, dir: DirId) {
        let dir = &mut self.dirs[dir as usize];
        if dir.described != self.layer {
            dir.attributes = DirAttributes::default();
        }
    }

    /// Whether a child is wholly of lower layers.
    fn is_lower(&self, child: Child) -> bool {
        match child {
            Child::Dir(dir) => self.dirs[dir as usize].touched != self.layer,
            Child::Inode { layer, .. } => layer != self.layer,
        }
    }

    fn forget_name(&mut self, len: usize) {
        self.entries -= 1;
        self.name_bytes -= len as u64;
    }
}
