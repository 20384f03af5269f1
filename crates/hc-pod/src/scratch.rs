// SPDX-License-Identifier: Apache-2.0
//! Scratch disks: the sparse files behind writable layers.
//!
//! A fresh ext4 file system of 64 GiB has about 200 KiB that are not zero. Those pieces are kept in
//! a template made when the program is built, and written into an empty sparse file for each new
//! pod: no `mkfs` runs, and nothing of it is needed on the host.
//!
//! ```text
//! magic "hyperscr" | size u64 | then pieces: offset u64 | length u32 | bytes     (little-endian)
//! ```

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{SeekFrom, seek};

use crate::saved::pieces;

/// What a template begins with.
const MAGIC: &[u8; 8] = b"hyperscr";
/// A template larger than this is not one of ours.
const MAX_TEMPLATE: u64 = 16 << 20;

/// Makes the sparse file `disk` from `template`, or leaves it as it is where it exists.
///
/// A kill at any instant leaves no half-made disk: it gets its name when it is whole.
pub fn create(template: &Path, disk: &Path) -> io::Result<()> {
    make(disk, |file| format(template, file)).map(drop)
}

/// The same as a copy of the disk in the file `from`; tells whether it was made.
pub(crate) fn create_from(from: &File, disk: &Path) -> io::Result<bool> {
    make(disk, |file| copy_data(from, file))
}

fn make(disk: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<bool> {
    if disk.exists() {
        return Ok(false);
    }
    let temporary = disk.with_extension("tmp");
    let file =
        File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    write(&file)?;
    std::fs::rename(&temporary, disk)?;
    Ok(true)
}

/// Makes an empty file a disk, from `template`.
pub(crate) fn format(template: &Path, file: &File) -> io::Result<()> {
    fill(&read_template(template)?, file)
}

/// A copy of the disk in the file `from`, of no name, in memory.
pub(crate) fn in_memory(from: &File) -> io::Result<File> {
    let file = File::from(rustix::fs::memfd_create("scratch", rustix::fs::MemfdFlags::CLOEXEC)?);
    copy_data(from, &file)?;
    Ok(file)
}

/// Makes an empty file a disk like that in `from`, which others may read meanwhile.
fn copy_data(from: &File, file: &File) -> io::Result<()> {
    file.set_len(from.metadata()?.len())?;
    pieces(from, |offset, bytes| file.write_all_at(bytes, offset))
}

/// Makes the file `to` a copy of the disk `from`: the same blocks where the file system can share
/// them, else a copy of those that were written.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let temporary = to.with_extension("tmp");
    let file =
        File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    if rustix::fs::ioctl_ficlone(&file, &source).is_err() {
        copy_written(&source, &file)?;
    }
    std::fs::rename(&temporary, to)
}

fn copy_written(source: &File, file: &File) -> io::Result<()> {
    file.set_len(source.metadata()?.len())?;
    let mut offset = 0;
    while let Ok(start) = seek(source, SeekFrom::Data(offset)) {
        let end = seek(source, SeekFrom::Hole(start))?;
        let (mut from, mut to) = (start, start);
        while from < end {
            let length = usize::try_from(end - from).unwrap_or(usize::MAX);
            let copied =
                rustix::fs::copy_file_range(source, Some(&mut from), file, Some(&mut to), length)?;
            if copied == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        offset = end;
    }
    Ok(())
}

fn read_template(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_TEMPLATE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn fill(template: &[u8], file: &File) -> io::Result<()> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "damaged scratch disk template");
    let rest = template.strip_prefix(MAGIC).ok_or_else(broken)?;
    let (size, mut rest) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
    let size = u64::from_le_bytes(*size);
    file.set_len(size)?;
    while !rest.is_empty() {
        let (offset, after) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
        let (length, after) = after.split_first_chunk::<4>().ok_or_else(broken)?;
        let (offset, length) = (u64::from_le_bytes(*offset), u32::from_le_bytes(*length));
        let piece = after.get(..length as usize).ok_or_else(broken)?;
        if offset.checked_add(u64::from(length)).is_none_or(|end| end > size) {
            return Err(broken());
        }
        file.write_all_at(piece, offset)?;
        rest = &after[length as usize..];
    }
    Ok(())
}

/// Writes the template of the file system in the sparse file `disk`.
pub fn write_template(disk: &Path, template: &Path) -> io::Result<()> {
    const BLOCK: usize = 4096;
    let file = File::open(disk)?;
    let size = file.metadata()?.len();
    let mut out = Vec::from(*MAGIC);
    out.extend_from_slice(&size.to_le_bytes());
    let mut offset = 0;
    while let Ok(start) = seek(&file, SeekFrom::Data(offset)) {
        let end = seek(&file, SeekFrom::Hole(start))?;
        for at in (start..end).step_by(BLOCK) {
            let length = usize::try_from(end - at).map_or(BLOCK, |left| left.min(BLOCK));
            let mut block = vec![0; length];
            file.read_exact_at(&mut block, at)?;
            if block.iter().any(|byte| *byte != 0) {
                out.extend_from_slice(&at.to_le_bytes());
                out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
                out.extend_from_slice(&block);
            }
        }
        offset = end;
    }
    let temporary = template.with_extension("tmp");
    File::create(&temporary)?.write_all(&out)?;
    std::fs::rename(&temporary, template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_made_from_a_template_has_the_same_bytes_and_stays_sparse() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        let original = File::create(path("original")).unwrap();
        original.set_len(1 << 30).unwrap();
        original.write_all_at(b"first", 1000).unwrap();
        original.write_all_at(b"last", (1 << 30) - 4).unwrap();

        write_template(&path("original"), &path("template")).unwrap();
        create(&path("template"), &path("disk")).unwrap();

        let disk = File::open(path("disk")).unwrap();
        assert_eq!(disk.metadata().unwrap().len(), 1 << 30);
        assert!(disk.metadata().unwrap().blocks() * 512 < 1 << 20);
        let mut piece = [0; 5];
        disk.read_exact_at(&mut piece, 1000).unwrap();
        assert_eq!(&piece, b"first");
        disk.read_exact_at(&mut piece[..4], (1 << 30) - 4).unwrap();
        assert_eq!(&piece[..4], b"last");
    }

    #[test]
    fn a_copy_of_a_disk_has_the_same_bytes_and_stays_sparse() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let original = File::create(&from).unwrap();
        original.set_len(1 << 30).unwrap();
        original.write_all_at(b"middle", 1 << 29).unwrap();
        copy(&from, &to).unwrap();
        original.write_all_at(b"change", 1 << 29).unwrap();
        let disk = File::open(&to).unwrap();
        assert_eq!(disk.metadata().unwrap().len(), 1 << 30);
        assert!(disk.metadata().unwrap().blocks() * 512 < 1 << 20);
        let mut piece = [0; 6];
        disk.read_exact_at(&mut piece, 1 << 29).unwrap();
        assert_eq!(&piece, b"middle");
    }

    #[test]
    fn a_disk_that_exists_keeps_its_data() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        std::fs::write(&disk, b"mine").unwrap();
        create(&dir.path().join("no-template"), &disk).unwrap();
        assert_eq!(std::fs::read(&disk).unwrap(), b"mine");
    }

    #[test]
    fn a_damaged_template_is_refused_and_leaves_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (template, disk) = (dir.path().join("template"), dir.path().join("disk"));
        let mut whole = Vec::from(*MAGIC);
        whole.extend_from_slice(&100_u64.to_le_bytes());
        whole.extend_from_slice(&98_u64.to_le_bytes());
        whole.extend_from_slice(&4_u32.to_le_bytes());
        whole.extend_from_slice(b"over");
        for bytes in [&b""[..], b"hyperscr", &whole[..30], &whole] {
            std::fs::write(&template, bytes).unwrap();
            let error = create(&template, &disk).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(!disk.exists());
        }
    }
}
