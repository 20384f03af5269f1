// SPDX-License-Identifier: Apache-2.0
//! Puts an archive from a guest into a folder of the host, and nowhere else.
//!
//! # Invariants
//!
//! - Every folder on the way to an entry is opened by its name alone, below the folder before it, and
//!   never through a symbolic link; `..` is refused. So neither links in the archive nor links that
//!   appear meanwhile lead outside.
//! - A file is always made anew: what stood there is unlinked first and never written through.
//! - No device or pipe is made, and no setuid, setgid or sticky bit is set unless everything is to be kept.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, fchmod, fchown, futimens,
    linkat, mkdirat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::EntryType;

use super::archive::{Archive, Entry, bad};

/// More folders in one archive than this have their times and modes set without delay.
const MAX_DELAYED: usize = 1 << 20;
/// Skipped entries that are told one by one.
const MAX_TOLD: usize = 20;

/// Where an archive goes.
pub(super) struct Destination {
    /// The folder; it exists.
    pub(super) folder: OwnedFd,
    /// What the top of the archive is called there; `None` puts what is below the top right into the
    /// folder.
    pub(super) name: Option<OsString>,
    /// Whether owners and all mode bits are kept.
    pub(super) keep: bool,
}

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Bytes of files.
    pub(super) bytes: u64,
    /// Entries that were left out, with the reason; the first few.
    pub(super) skipped: Vec<String>,
}

/// Extracts everything.
pub(super) fn extract(source: impl Read, destination: &Destination) -> io::Result<Summary> {
    let mut archive = Archive::new(source);
    let mut extraction = Extraction {
        destination,
        top: None,
        folders: Vec::new(),
        parent: None,
        summary: Summary::default(),
    };
    while let Some(entry) = archive.next()? {
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
        extraction.entry(&entry, &mut archive).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", crate::show::harmless(&shown)))
        })?;
    }
    extraction.finish_folders()?;
    Ok(extraction.summary)
}

struct Extraction<'a> {
    destination: &'a Destination,
    /// The first entry's path: what everything in the archive is below.
    top: Option<Vec<OsString>>,
    /// Folders whose mode and time are set last, because files in them change both.
    folders: Vec<(Vec<OsString>, Entry)>,
    /// The folder of the last entry, since the next one mostly lies there too.
    parent: Option<(Vec<OsString>, OwnedFd)>,
    summary: Summary,
}

impl Extraction<'_> {
    fn entry(&mut self, entry: &Entry, content: &mut impl Read) -> io::Result<()> {
        let path = self.place(&components(&entry.path)?)?;
        let Some((name, parents)) = path.split_last() else {
            // The top itself, whose content goes into a folder that is there already.
            return match entry.kind {
                EntryType::Directory => Ok(()),
                _ => Err(bad("a folder was expected")),
            };
        };
        let kind = entry.kind;
        if !matches!(kind, EntryType::Directory | EntryType::Symlink | EntryType::Link)
            && !is_file(kind)
        {
            if self.summary.skipped.len() < MAX_TOLD {
                let path = String::from_utf8_lossy(&entry.path).into_owned();
                self.summary.skipped.push(format!("{path}: devices and pipes are not copied"));
            }
            return Ok(());
        }
        let link = if kind == EntryType::Link { Some(self.link_target(entry)?) } else { None };
        let parent = self.open_parent(parents)?;
        match (kind, link) {
            (EntryType::Directory, _) => self.folder(&parent, name, path.clone(), entry)?,
            (EntryType::Symlink, _) => {
                make_room(&parent, name)?;
                symlinkat(OsStr::from_bytes(&entry.link), &parent, name)?;
                self.own(&parent, name, entry)?;
                set_times(&parent, name, entry)?;
            }
            (_, Some((folder, target))) => {
                make_room(&parent, name)?;
                linkat(&folder, &target, &parent, name, AtFlags::empty())?;
            }
            _ => self.file(&parent, name, entry, content)?,
        }
        self.parent = Some((parents.to_vec(), parent));
        Ok(())
    }

    /// Maps a path of the archive to one below the destination's folder.
    fn place(&mut self, path: &[OsString]) -> io::Result<Vec<OsString>> {
        let top = self.top.get_or_insert_with(|| path.to_vec());
        let Some(below) = path.strip_prefix(top.as_slice()) else {
            return Err(bad("it is outside of what was asked for"));
        };
        Ok(self.destination.name.iter().chain(below).cloned().collect())
    }

    fn link_target(&mut self, entry: &Entry) -> io::Result<(OwnedFd, OsString)> {
        let path = self.place(&components(&entry.link)?)?;
        let Some((name, parents)) = path.split_last() else {
            return Err(bad("a hard link to a folder"));
        };
        Ok((self.open_parent(parents)?, name.clone()))
    }

    /// Opens the folder an entry lies in; folders that no entry was about are made.
    fn open_parent(&mut self, parents: &[OsString]) -> io::Result<OwnedFd> {
        if let Some((last, folder)) = &self.parent
            && last == parents
        {
            return folder.try_clone();
        }
        let mut folder = self.destination.folder.try_clone()?;
        for name in parents {
            folder = match open_folder(&folder, name) {
                Err(Errno::NOENT) => {
                    mkdirat(&folder, name, Mode::from_raw_mode(0o755))?;
                    open_folder(&folder, name)?
                }
                // A link or a file where a folder must be.
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    return Err(bad("it leads through a link or file"));
                }
                opened => opened?,
            };
        }
        Ok(folder)
    }

    fn folder(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        path: Vec<OsString>,
        entry: &Entry,
    ) -> io::Result<()> {
        match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => match open_folder(parent, name) {
                Ok(_) => {}
                Err(_) => return Err(bad("a file stands where a folder must be")),
            },
            Err(error) => return Err(error.into()),
        }
        if self.folders.len() < MAX_DELAYED {
            let entry = Entry { path: Vec::new(), link: Vec::new(), ..*entry };
            self.folders.push((path, entry));
        }
        Ok(())
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &Entry,
        content: &mut impl Read,
    ) -> io::Result<()> {
        make_room(parent, name)?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
        let written = io::copy(content, &mut file)?;
        self.summary.bytes += written;
        self.attributes(file.as_fd(), entry, 0)
    }

    /// Folders get their attributes children first, so that none is closed before its content is done.
    fn finish_folders(&mut self) -> io::Result<()> {
        while let Some((path, entry)) = self.folders.pop() {
            let Some((name, parents)) = path.split_last() else { continue };
            let parent = self.open_parent(parents)?;
            let folder = open_folder(&parent, name)?;
            // Whoever copies a folder wants to get at it and to remove it again.
            let reachable = if self.destination.keep { 0 } else { 0o700 };
            self.attributes(folder.as_fd(), &entry, reachable)?;
        }
        Ok(())
    }

    fn attributes(
        &self,
        file: std::os::fd::BorrowedFd<'_>,
        entry: &Entry,
        always: u32,
    ) -> io::Result<()> {
        if self.keeps_owner() {
            fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
        }
        let mask = if self.destination.keep { 0o7777 } else { 0o777 };
        fchmod(file, Mode::from_raw_mode((entry.mode & mask) | always))?;
        futimens(file, &times(entry))?;
        Ok(())
    }

    fn own(&self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<()> {
        if self.keeps_owner() {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Only root can give files away; others keep what they copy, as with `cp`.
    fn keeps_owner(&self) -> bool {
        self.destination.keep && rustix::process::geteuid().is_root()
    }
}

/// Opens a folder for an archive's way in; the user's own links may lead there.
pub(super) fn open_destination(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

fn open_folder(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Unlinks what stands in the way of a file or link; a folder stays.
fn make_room(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            Err(bad("a folder stands where a file must be"))
        }
        Ok(_) => Ok(unlinkat(parent, name, AtFlags::empty())?),
    }
}

fn set_times(parent: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<()> {
    Ok(utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: i64::try_from(entry.mtime).unwrap_or(0), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn is_file(kind: EntryType) -> bool {
    matches!(kind, EntryType::Regular | EntryType::Continuous)
}

/// The names in a path. `.` and leading slashes say nothing; `..` has no business in an archive.
fn components(path: &[u8]) -> io::Result<Vec<OsString>> {
    if path.contains(&0) {
        return Err(bad("its path has a NUL in it"));
    }
    Path::new(OsStr::from_bytes(path))
        .components()
        .filter(|component| !matches!(component, Component::CurDir | Component::RootDir))
        .map(|component| match component {
            Component::Normal(name) => Ok(name.to_owned()),
            _ => Err(bad("its path has .. in it")),
        })
        .collect()
}

#[cfg(test)]
mod tests;
