// SPDX-License-Identifier: Apache-2.0
//! Copied guests, in memory and in files.
//!
//! In memory, a guest is files without names, which a hypervisor maps or reads. On disk it is one file
//! with a checksum, which is written and read from start to end:
//!
//! ```text
//! magic "hypersv2" | label length u32 | label
//!                  | state length u64 | state
//!                  | memory length u64 | then pieces: offset u64, length u32 (0: the last), bytes
//!                  | disk length u64   | then pieces
//!                  | SHA-256 of all before                                       (little-endian)
//! ```
//!
//! The label is the owner's; nothing here knows what it says.
//!
//! # Invariants
//!
//! - A file that is damaged, or was not written to its end, is refused as a whole.
//! - A file gets its name when it is whole: a kill at any instant leaves none.
//! - A guest that was read can be changed by nobody any more: any number of hypervisors may be given
//!   it, each as the user that it runs as.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, MemfdFlags, OFlags, SealFlags, SeekFrom, linkat, seek};
use sha2::{Digest as _, Sha256};

const MAGIC: &[u8; 8] = b"hypersv2";
/// A label longer than this is not one of ours.
const MAX_LABEL: usize = 1 << 20;
/// Nor is a state.
const MAX_STATE: u64 = 64 << 20;
/// The longest piece of memory: what is read and written at once.
const PIECE: usize = 1 << 20;
const PAGE: usize = 4096;

/// A copied guest.
#[derive(Debug)]
pub struct Guest {
    /// Its memory.
    pub memory: File,
    /// All else.
    pub state: File,
    /// The scratch disk that a parked guest has mounted; empty where the disk is kept elsewhere.
    pub disk: File,
}

impl Guest {
    /// Empty files, for a hypervisor to write to.
    pub fn empty() -> io::Result<Guest> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = |name| io::Result::Ok(File::from(rustix::fs::memfd_create(name, flags)?));
        Ok(Guest {
            memory: file("guest-memory")?,
            state: file("guest-state")?,
            disk: file("guest-disk")?,
        })
    }

    /// Keeps everybody from changing it, ourselves included.
    pub fn seal(self) -> io::Result<Guest> {
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        for file in [&self.memory, &self.state, &self.disk] {
            rustix::fs::fcntl_add_seals(file, seals)?;
        }
        Ok(self)
    }

    /// Handles of the same files.
    pub fn share(&self) -> io::Result<Guest> {
        Ok(Guest {
            memory: self.memory.try_clone()?,
            state: self.state.try_clone()?,
            disk: self.disk.try_clone()?,
        })
    }

    /// Writes it to the file `path`, replacing the one that is there. It is not synced: a crash of
    /// the host leaves the old file, the new one, or one whose checksum does not fit.
    pub fn write(&self, label: &[u8], path: &Path) -> io::Result<()> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let nameless =
            File::options().read(true).write(true).mode(0o600).custom_flags(O_TMPFILE).open(parent);
        let Ok(file) = nameless else {
            // A file system without nameless files: the name is one that nobody looks for.
            let temporary = path.with_extension("tmp");
            self.write_to(label, &File::create(&temporary)?)?;
            return std::fs::rename(&temporary, path);
        };
        self.write_to(label, &file)?;
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = || linkat(CWD, &own, CWD, path, AtFlags::SYMLINK_FOLLOW);
        match link() {
            Err(rustix::io::Errno::EXIST) => {
                std::fs::remove_file(path)?;
                Ok(link()?)
            }
            linked => Ok(linked?),
        }
    }

    fn write_to(&self, label: &[u8], file: &File) -> io::Result<()> {
        let mut out = Hashing::new(BufWriter::with_capacity(PIECE, file));
        out.write_all(MAGIC)?;
        out.write_all(&u32::try_from(label.len()).map_err(io::Error::other)?.to_le_bytes())?;
        out.write_all(label)?;
        let state_len = self.state.metadata()?.len();
        out.write_all(&state_len.to_le_bytes())?;
        copy_state(&self.state, state_len, &mut out)?;
        for file in [&self.memory, &self.disk] {
            out.write_all(&file.metadata()?.len().to_le_bytes())?;
            pieces(file, |offset, bytes| {
                out.write_all(&offset.to_le_bytes())?;
                let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
                out.write_all(&length.to_le_bytes())?;
                out.write_all(bytes)
            })?;
            out.write_all(&[0; 12])?;
        }
        let (mut inner, sum) = out.end();
        inner.write_all(&sum)?;
        inner.flush()
    }

    /// Reads the file `path`, and its label.
    pub fn read(path: &Path) -> io::Result<(Vec<u8>, Guest)> {
        let file = File::open(path)?;
        let mut input = Hashing::new(BufReader::with_capacity(PIECE, file));
        let label = read_label(&mut input)?;
        let guest = Guest::empty()?;
        let state_len = input.number()?;
        if state_len > MAX_STATE {
            return Err(damaged());
        }
        let copied = io::copy(&mut (&mut input).take(state_len), &mut &guest.state)?;
        if copied < state_len {
            return Err(damaged());
        }
        for file in [&guest.memory, &guest.disk] {
            read_pieces(&mut input, file)?;
        }
        let (mut inner, sum) = input.end();
        let mut written = Vec::new();
        inner.read_to_end(&mut written)?;
        if written != sum {
            return Err(damaged());
        }
        Ok((label, guest.seal()?))
    }
}

/// Reads the label of the file `path`, which may be damaged further on.
pub fn label(path: &Path) -> io::Result<Vec<u8>> {
    read_label(&mut Hashing::new(File::open(path)?))
}

const O_TMPFILE: i32 = OFlags::TMPFILE.bits().cast_signed();

fn read_label(input: &mut Hashing<impl Read>) -> io::Result<Vec<u8>> {
    let mut start = [0; 12];
    input.read_exact(&mut start)?;
    let (magic, length) = start.split_at(MAGIC.len());
    let length = length.first_chunk().map_or(0, |length| u32::from_le_bytes(*length)) as usize;
    if magic != MAGIC || length > MAX_LABEL {
        return Err(damaged());
    }
    let mut label = vec![0; length];
    input.read_exact(&mut label)?;
    Ok(label)
}

/// Reads what `pieces` gave, into an empty file.
fn read_pieces(input: &mut Hashing<impl Read>, file: &File) -> io::Result<()> {
    let len = input.number()?;
    file.set_len(len)?;
    let mut bytes = vec![0; PIECE];
    loop {
        let offset = input.number()?;
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 {
            return Ok(());
        }
        let piece = bytes.get_mut(..length).ok_or_else(damaged)?;
        if offset.checked_add(length as u64).is_none_or(|end| end > len) {
            return Err(damaged());
        }
        input.read_exact(piece)?;
        file.write_all_at(piece, offset)?;
    }
}

fn copy_state(state: &File, len: u64, out: &mut impl Write) -> io::Result<()> {
    let mut bytes = vec![0; PIECE];
    let mut at = 0;
    while at < len {
        let length = usize::try_from(len - at).map_or(PIECE, |left| left.min(PIECE));
        state.read_exact_at(&mut bytes[..length], at)?;
        out.write_all(&bytes[..length])?;
        at += length as u64;
    }
    Ok(())
}

/// Gives every run of pages of a file to `take` that are not zero.
pub(crate) fn pieces(
    file: &File,
    mut take: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut bytes = vec![0; PIECE];
    let mut next = 0;
    while let Ok(start) = seek(file, SeekFrom::Data(next)) {
        let end = seek(file, SeekFrom::Hole(start))?;
        let mut at = start;
        while at < end {
            let length = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
            let piece = &mut bytes[..length];
            file.read_exact_at(piece, at)?;
            let mut run = 0;
            for (number, page) in piece.chunks(PAGE).enumerate() {
                if page.iter().all(|byte| *byte == 0) {
                    give(&piece[run..number * PAGE], at + run as u64, &mut take)?;
                    run = (number + 1) * PAGE;
                }
            }
            give(piece.get(run..).unwrap_or_default(), at + run as u64, &mut take)?;
            at += length as u64;
        }
        next = end;
    }
    Ok(())
}

fn give(
    run: &[u8],
    at: u64,
    take: &mut impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    if run.is_empty() { Ok(()) } else { take(at, run) }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "damaged copy of a guest")
}

/// A reader or writer that sums up what goes through it.
struct Hashing<T> {
    inner: T,
    sum: Sha256,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Hashing<T> {
        Hashing { inner, sum: Sha256::new() }
    }

    fn end(self) -> (T, [u8; 32]) {
        (self.inner, self.sum.finalize().into())
    }
}

impl<R: Read> Hashing<R> {
    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.sum.update(&buffer[..length]);
        Ok(length)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.sum.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    const LEN: u64 = 8 << 20;

    fn guest() -> Guest {
        let guest = Guest::empty().unwrap();
        guest.memory.set_len(LEN).unwrap();
        guest.memory.write_all_at(b"first", 0).unwrap();
        // Zeros that take room, between pages that do not.
        guest.memory.write_all_at(&vec![0; 16 * PAGE], 1 << 20).unwrap();
        guest.memory.write_all_at(b"middle", (1 << 20) + 5 * PAGE as u64).unwrap();
        guest.memory.write_all_at(b"last", LEN - 4).unwrap();
        guest.state.write_all_at(b"state", 0).unwrap();
        guest.disk.set_len(LEN).unwrap();
        guest.disk.write_all_at(b"disk", 1 << 20).unwrap();
        guest
    }

    fn piece(file: &File, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }

    #[test]
    fn a_guest_comes_back_as_it_was_and_sparse() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guest");
        guest().write(b"old", &path).unwrap();
        guest().write(b"label", &path).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 64 << 10);
        assert_eq!(label(&path).unwrap(), b"label");

        let (label, guest) = Guest::read(&path).unwrap();
        assert_eq!(label, b"label");
        assert_eq!(guest.memory.metadata().unwrap().len(), LEN);
        assert!(guest.memory.metadata().unwrap().blocks() * 512 < 64 << 10);
        assert_eq!(piece(&guest.memory, 0, 5), b"first");
        assert_eq!(piece(&guest.memory, (1 << 20) + 5 * PAGE as u64, 6), b"middle");
        assert_eq!(piece(&guest.memory, LEN - 4, 4), b"last");
        assert_eq!(piece(&guest.state, 0, 5), b"state");
        assert_eq!(guest.disk.metadata().unwrap().len(), LEN);
        assert_eq!(piece(&guest.disk, 1 << 20, 4), b"disk");
    }

    #[test]
    fn a_guest_that_was_read_cannot_be_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guest");
        guest().write(b"", &path).unwrap();
        let (_, guest) = Guest::read(&path).unwrap();
        let again =
            File::options().write(true).open(format!("/proc/self/fd/{}", guest.memory.as_raw_fd()));
        assert!(again.unwrap().write_all_at(b"x", 0).is_err());
        assert!(guest.state.set_len(0).is_err());
    }

    #[test]
    fn a_damaged_or_cut_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guest");
        guest().write(b"label", &path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(97) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            assert!(Guest::read(&path).is_err(), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(Guest::read(&path).is_err(), "length {at}");
        }
        let longer = [&whole[..], b"x"].concat();
        std::fs::write(&path, longer).unwrap();
        assert!(Guest::read(&path).is_err());
    }
}
