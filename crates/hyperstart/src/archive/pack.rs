// SPDX-License-Identifier: Apache-2.0
//! A file or a tree as an archive.
//!
//! # Invariants
//!
//! - Below the top nothing is followed: every name is opened in the directory that was listed.
//! - An entry has as many bytes as its header says, also when the file changes meanwhile.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::format::{BLOCK, Entry, Kind, encode};
use super::{last_name, named};
use crate::root::Root;

/// Directories in one another; each is held open, and the kernel's paths end before that.
const DEPTH_MAX: usize = 2048;
/// The largest extended attribute, and the longest list of their names, that the kernel has.
const XATTR_MAX: usize = 64 * 1024;

/// Writes what is at `path` to `sink`, under the last name of `path`.
pub(super) fn pack(root: &Root, path: &Path, follow: bool, sink: impl Write) -> io::Result<()> {
    let mut packer = Packer { sink, links: HashMap::new() };
    let name = match last_name(path).as_slice() {
        b"/" => b".".to_vec(),
        name => name.to_vec(),
    };
    let top = if follow { root.resolve(path)? } else { parent_resolved(root, path)? };
    let (parent, last) = match (top.parent(), top.file_name()) {
        (Some(parent), Some(last)) => (parent.to_owned(), last.as_bytes().to_vec()),
        _ => (Path::new("/").to_owned(), b".".to_vec()),
    };
    let parent = root.open_at(&parent, OFlags::PATH | OFlags::DIRECTORY).map_err(named(path))?;
    packer.tree(&parent, &last, name).map_err(named(path))?;
    packer.sink.write_all(&[0; 2 * BLOCK])?;
    packer.sink.flush()
}

/// The path with every link followed but one at its end.
fn parent_resolved(root: &Root, path: &Path) -> io::Result<std::path::PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(root.resolve(parent)?.join(name)),
        _ => root.resolve(path),
    }
}

struct Packer<W> {
    sink: W,
    /// Where files with several names were written first.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// A directory that is being packed: what is left of it, and its place in the archive.
struct Open {
    directory: OwnedFd,
    names: Vec<CString>,
    path: Vec<u8>,
}

impl<W: Write> Packer<W> {
    /// Packs what is called `name` in `parent`, and everything below, as `path`.
    fn tree(&mut self, parent: &OwnedFd, name: &[u8], path: Vec<u8>) -> io::Result<()> {
        let name = CString::new(name)?;
        let mut open: Vec<Open> = self.one(parent, &name, path)?.into_iter().collect();
        while let Some(last) = open.last_mut() {
            let Some(name) = last.names.pop() else {
                open.pop();
                continue;
            };
            let path = [&last.path, &b"/"[..], name.as_bytes()].concat();
            let below = match self.one(&last.directory, &name, path) {
                // It is gone since the directory was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                below => below?,
            };
            open.extend(below);
            if open.len() > DEPTH_MAX {
                return Err(Errno::NAMETOOLONG.into());
            }
        }
        Ok(())
    }

    /// Packs one name; a directory is returned for what is in it.
    fn one(&mut self, parent: &OwnedFd, name: &CString, path: Vec<u8>) -> io::Result<Option<Open>> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::DIRECTORY | OFlags::RDONLY;
                let directory = open_below(parent, name, flags)?;
                let names = list(&directory)?;
                let mut entry = entry(&stat, Kind::Directory, [&path[..], b"/"].concat());
                entry.xattrs = xattrs(&directory)?;
                self.sink.write_all(&encode(&entry))?;
                return Ok(Some(Open { directory, names, path }));
            }
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Character,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            // A socket is nothing without its process.
            FileType::Socket | FileType::Unknown => return Ok(None),
        };
        let mut entry = entry(&stat, kind, path);
        if stat.st_nlink > 1 {
            let first = self.links.entry((stat.st_dev, stat.st_ino));
            if let std::collections::hash_map::Entry::Occupied(first) = &first {
                entry.kind = Kind::HardLink;
                entry.link.clone_from(first.get());
                self.sink.write_all(&encode(&entry))?;
                return Ok(None);
            }
            first.or_insert_with(|| entry.path.clone());
        }
        match kind {
            Kind::File => self.file(parent, name, entry)?,
            Kind::Symlink => {
                entry.link = rustix::fs::readlinkat(parent, name, Vec::new())?.into_bytes();
                self.sink.write_all(&encode(&entry))?;
            }
            _ => self.sink.write_all(&encode(&entry))?,
        }
        Ok(None)
    }

    fn file(&mut self, parent: &OwnedFd, name: &CString, mut entry: Entry) -> io::Result<()> {
        let file = open_below(parent, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::NotFound.into()); // Something else has its name now.
        }
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        entry.xattrs = xattrs(&file)?;
        self.sink.write_all(&encode(&entry))?;
        let padded = entry.size.next_multiple_of(BLOCK as u64);
        let mut bytes = File::from(file).take(entry.size).chain(io::repeat(0)).take(padded);
        io::copy(&mut bytes, &mut self.sink).map(drop)
    }
}

fn open_below(parent: &OwnedFd, name: &CString, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// The names in a directory, last one first.
fn list(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

fn entry(stat: &Stat, kind: Kind, path: Vec<u8>) -> Entry {
    let is_device = matches!(kind, Kind::Character | Kind::Block);
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Entry {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: 0,
        modified: (
            u64::try_from(stat.st_mtime).unwrap_or(0),
            u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
        link: Vec::new(),
        device: if is_device { device } else { (0, 0) },
        xattrs: Vec::new(),
    }
}

/// The extended attributes of an open file or directory, as far as they may be read.
fn xattrs(file: impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; XATTR_MAX];
    let length = match rustix::fs::flistxattr(&file, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; XATTR_MAX];
        match rustix::fs::fgetxattr(&file, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_vec(), value));
            }
            // Gone meanwhile, or not for us to see.
            Err(Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP) => {}
            Err(error) => {
                let fd = file.as_fd().as_raw_fd();
                return Err(io::Error::other(format!("attribute of descriptor {fd}: {error}")));
            }
        }
    }
    Ok(found)
}
