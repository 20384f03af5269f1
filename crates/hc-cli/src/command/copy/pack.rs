// SPDX-License-Identifier: Apache-2.0
//! Makes an archive of a file or folder of the host, as it is read.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};
use tar::{Builder, EntryType, Header};

/// What to pack.
pub(super) struct Source {
    /// The file or folder.
    pub(super) path: PathBuf,
    /// What it is called in the archive; `None` packs what is in the folder, without itself.
    pub(super) name: Option<PathBuf>,
    /// Whether a symbolic link at `path` is followed; those below never are.
    pub(super) follow: bool,
}

/// Writes the archive.
pub(super) fn pack(source: &Source, out: impl Write) -> io::Result<()> {
    let mut builder = Builder::new(out);
    builder.follow_symlinks(false);
    // Folders wait here instead of on the call stack, so that no depth is too deep.
    let mut waiting = Vec::new();
    match &source.name {
        Some(name) => {
            let metadata = if source.follow {
                std::fs::metadata(&source.path)
            } else {
                std::fs::symlink_metadata(&source.path)
            };
            let metadata = metadata.map_err(|error| about(&source.path, error))?;
            waiting.push((source.path.clone(), name.clone(), metadata));
        }
        None => children(&source.path, Path::new(""), &mut waiting)?,
    }
    while let Some((path, name, metadata)) = waiting.pop() {
        append(&mut builder, &path, &name, &metadata).map_err(|error| about(&path, error))?;
        if metadata.is_dir() {
            children(&path, &name, &mut waiting)?;
        }
    }
    builder.finish()
}

type Waiting = Vec<(PathBuf, PathBuf, Metadata)>;

/// Queues what is in a folder, so that it comes in the order of names.
fn children(folder: &Path, name: &Path, waiting: &mut Waiting) -> io::Result<()> {
    let mut found = Vec::new();
    for child in std::fs::read_dir(folder).map_err(|error| about(folder, error))? {
        let child = child.map_err(|error| about(folder, error))?;
        // DirEntry's metadata is that of a link itself.
        let metadata = child.metadata().map_err(|error| about(&child.path(), error))?;
        found.push((child.path(), name.join(child.file_name()), metadata));
    }
    found.sort_by(|a, b| b.1.cmp(&a.1));
    waiting.append(&mut found);
    Ok(())
}

fn append(
    builder: &mut Builder<impl Write>,
    path: &Path,
    name: &Path,
    metadata: &Metadata,
) -> io::Result<()> {
    let kind = metadata.file_type();
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_size(0);
    if kind.is_file() {
        header.set_entry_type(EntryType::Regular);
        header.set_size(metadata.len());
        let file = File::open(path)?;
        return builder.append_data(&mut header, name, Exactly { file, left: metadata.len() });
    }
    if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        return builder.append_link(&mut header, name, std::fs::read_link(path)?);
    }
    let entry_type = if kind.is_dir() {
        EntryType::Directory
    } else if kind.is_fifo() {
        EntryType::Fifo
    } else if kind.is_char_device() || kind.is_block_device() {
        header.set_device_major(major(metadata.rdev()))?;
        header.set_device_minor(minor(metadata.rdev()))?;
        if kind.is_char_device() { EntryType::Char } else { EntryType::Block }
    } else {
        // A socket is the server behind it; tar leaves it out too.
        return Ok(());
    };
    header.set_entry_type(entry_type);
    builder.append_data(&mut header, name, io::empty())
}

/// A file's content, as long as its header says even when the file changes meanwhile.
struct Exactly {
    file: File,
    left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read(&mut buffer[..wanted])?;
        if length == 0 && wanted > 0 {
            return Err(io::Error::other("the file shrank while it was read"));
        }
        self.left -= length as u64;
        Ok(length)
    }
}

fn about(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Lists an archive: type, mode, path and link.
    fn listed(source: &Source) -> Vec<String> {
        let mut bytes = Vec::new();
        pack(source, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let link = entry.link_name().unwrap().map(|link| format!(" -> {}", link.display()));
                format!(
                    "{:?} {:o} {}{}",
                    header.entry_type(),
                    header.mode().unwrap() & 0o777,
                    entry.path().unwrap().display(),
                    link.unwrap_or_default()
                )
            })
            .collect()
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir_all(top.join("b")).unwrap();
        std::fs::write(top.join("b/file"), "x").unwrap();
        std::fs::set_permissions(top.join("b/file"), std::fs::Permissions::from_mode(0o640))
            .unwrap();
        symlink("/etc/passwd", top.join("a")).unwrap();
        std::fs::set_permissions(top.join("b"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&top, std::fs::Permissions::from_mode(0o700)).unwrap();
        symlink("top", dir.path().join("link")).unwrap();
        dir
    }

    #[test]
    fn a_folder_is_packed_under_a_name_or_without_itself() {
        let dir = tree();
        let source = |name: Option<&str>| Source {
            path: dir.path().join("top"),
            name: name.map(PathBuf::from),
            follow: false,
        };
        assert_eq!(
            listed(&source(Some("new"))),
            [
                "Directory 700 new",
                "Symlink 777 new/a -> /etc/passwd",
                "Directory 755 new/b",
                "Regular 640 new/b/file",
            ]
        );
        assert_eq!(
            listed(&source(None)),
            ["Symlink 777 a -> /etc/passwd", "Directory 755 b", "Regular 640 b/file"]
        );
    }

    #[test]
    fn a_link_at_the_top_is_followed_only_when_asked() {
        let dir = tree();
        let source =
            |follow| Source { path: dir.path().join("link"), name: Some("x".into()), follow };
        assert_eq!(listed(&source(false)), ["Symlink 777 x -> top"]);
        assert_eq!(listed(&source(true))[0], "Directory 700 x");
        assert_eq!(listed(&source(true)).len(), 4);
    }
}
