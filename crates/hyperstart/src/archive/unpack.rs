// SPDX-License-Identifier: Apache-2.0
//! An archive into a directory.
//!
//! # Invariants
//!
//! - Every name is made in a directory that was resolved below the container's root, so neither the
//!   archive nor the container leads a file anywhere else.
//! - The last name of a path is never followed: what is there is replaced, unless both are
//!   directories.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
    makedev,
};
use rustix::io::Errno;

use super::format::{Entry, Kind, Reader};
use super::named;
use crate::root::Root;

/// Directories whose times are set at the end; those of more keep the time of the unpacking.
const DIRECTORIES_MAX: usize = 1 << 16;

/// Unpacks the archive in `source` into the directory at `path`.
pub(super) fn unpack(
    root: &Root,
    path: &Path,
    keep_owner: bool,
    source: impl Read,
) -> io::Result<()> {
    let top = root.resolve(path)?;
    root.open_at(&top, OFlags::PATH | OFlags::DIRECTORY).map_err(named(path))?;
    let mut reader = Reader::new(source);
    let mut unpacker = Unpacker { root, top, keep_owner, directories: Vec::new() };
    while let Some(entry) = reader.next()? {
        let shown = PathBuf::from(OsStr::from_bytes(&entry.path));
        unpacker.one(&entry, &mut reader).map_err(named(&shown))?;
    }
    unpacker.finish();
    reader.drain()
}

struct Unpacker<'a> {
    root: &'a Root,
    top: PathBuf,
    keep_owner: bool,
    /// New directories with their times, which every name made in them changes.
    directories: Vec<(PathBuf, Timestamps)>,
}

impl Unpacker<'_> {
    fn one(&mut self, entry: &Entry, bytes: &mut impl Read) -> io::Result<()> {
        let path = self.place(&entry.path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(()); // The root itself is there already.
        };
        if path == self.top {
            return Ok(()); // So is the directory to unpack into, which keeps what it is.
        }
        let parent = self.root.ensure_directory(parent)?;
        if make_room(&parent, name, entry.kind)? {
            return Ok(());
        }
        match entry.kind {
            Kind::File => return self.file(&parent, name, entry, bytes),
            Kind::Directory => return self.directory(&parent, name, entry, path.clone()),
            Kind::HardLink => return self.hard_link(&parent, name, entry),
            Kind::Symlink => rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), &parent, name)?,
            Kind::Character => make_node(&parent, name, entry, FileType::CharacterDevice)?,
            Kind::Block => make_node(&parent, name, entry, FileType::BlockDevice)?,
            Kind::Fifo => make_node(&parent, name, entry, FileType::Fifo)?,
        }
        let (uid, gid) = self.owner(entry);
        rustix::fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(rustix::fs::utimensat(&parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Where an entry of this path belongs; one that climbs out is refused.
    fn place(&self, path: &[u8]) -> io::Result<PathBuf> {
        let mut place = self.top.clone();
        for component in Path::new(OsStr::from_bytes(path)).components() {
            match component {
                Component::Normal(name) => place.push(name),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a path in the archive leads out of it",
                    ));
                }
            }
        }
        Ok(place)
    }

    fn file(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &Entry,
        bytes: &mut impl Read,
    ) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(made);
        io::copy(bytes, &mut file)?;
        self.set_attributes(&file, entry)?;
        Ok(rustix::fs::futimens(&file, &times(entry))?)
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &Entry,
        path: PathBuf,
    ) -> io::Result<()> {
        rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        self.set_attributes(&made, entry)?;
        if self.directories.len() < DIRECTORIES_MAX {
            self.directories.push((path, times(entry)));
        }
        Ok(())
    }

    fn hard_link(&self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let target = self.place(&entry.link)?;
        let (Some(from), Some(old)) = (target.parent(), target.file_name()) else {
            return Err(Errno::PERM.into());
        };
        let from = self.root.open_at(from, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(rustix::fs::linkat(&from, old, parent, name, AtFlags::empty())?)
    }

    /// Sets owner, extended attributes and mode, in this order: a change of the owner clears some
    /// of both.
    fn set_attributes(&self, file: impl AsFd, entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.owner(entry);
        rustix::fs::fchown(&file, uid, gid)?;
        for (name, value) in &entry.xattrs {
            match rustix::fs::fsetxattr(&file, &name[..], value, XattrFlags::empty()) {
                // The file system, or the container's rights, have no room for it.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(rustix::fs::fchmod(&file, mode(entry))?)
    }

    fn owner(&self, entry: &Entry) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = if self.keep_owner { (entry.uid, entry.gid) } else { (0, 0) };
        (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
    }

    /// Sets the times of new directories, now that nothing changes them any more.
    fn finish(&self) {
        for (path, times) in self.directories.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            if let Ok(directory) = self.root.open_at(path, flags) {
                // One that was removed or replaced meanwhile needs no time.
                let _ = rustix::fs::futimens(directory, times);
            }
        }
    }
}

/// Removes what has the name, unless it is a directory and stays one; says whether it does.
fn make_room(parent: &OwnedFd, name: &OsStr, kind: Kind) -> io::Result<bool> {
    let found = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        found => FileType::from_raw_mode(found?.st_mode),
    };
    match (found, kind) {
        (FileType::Directory, Kind::Directory) => Ok(true),
        (FileType::Directory, _) => Err(Errno::ISDIR.into()),
        // A link to a directory serves as one: `/bin` often is.
        (FileType::Symlink, Kind::Directory) if leads_to_directory(parent, name) => Ok(true),
        _ => {
            rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
            Ok(false)
        }
    }
}

/// Makes a device node or pipe, with its final mode at once: changing it later would go by name.
fn make_node(
    parent: &OwnedFd,
    name: &OsStr,
    entry: &Entry,
    kind: FileType,
) -> rustix::io::Result<()> {
    let (major, minor) = entry.device;
    rustix::fs::mknodat(parent, name, kind, mode(entry), makedev(major, minor))
}

fn leads_to_directory(parent: &OwnedFd, name: &OsStr) -> bool {
    rustix::fs::statat(parent, name, AtFlags::empty())
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode)
}

fn times(entry: &Entry) -> Timestamps {
    let (seconds, nanos) = entry.modified;
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
            tv_nsec: nanos.into(),
        },
    }
}
