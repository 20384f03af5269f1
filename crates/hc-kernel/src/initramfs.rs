// SPDX-License-Identifier: Apache-2.0
//! The archive that a guest kernel starts from: the init, and modules for a kernel that needs them.
//!
//! ```text
//! /init              the guest's init
//! /dev/console       so that the init has a standard error before it mounted /dev
//! /modules/NN-NAME   modules, only if there are any
//! /modules.list      the names of those files, one a line, in the order of loading
//! ```
//!
//! The format is cpio, "newc", not compressed: unpacking costs the guest more than reading. It is
//! written here directly, since it is short and needs a device node that an ordinary user could
//! not create as a file.

use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::modules::Module;

/// Goes into every cache key: a new layout of the archive must not find old files.
const LAYOUT: u32 = 1;
/// The format's file sizes have eight hexadecimal digits.
const FILE_MAX_LEN: u64 = u32::MAX as u64;

const DIRECTORY: u32 = 0o04_0755;
const PROGRAM: u32 = 0o10_0755;
const FILE: u32 = 0o10_0644;
const CONSOLE: u32 = 0o02_0600;
/// Major and minor number of `/dev/console`.
const CONSOLE_DEVICE: (u32, u32) = (5, 1);

/// Writes the archive with this `init` and these `modules`, in the order in which they are loaded.
///
/// `path` is where `out` leads, for errors.
pub fn build(out: impl Write, path: &Path, init: &Path, modules: &[Module]) -> Result<(), Error> {
    let mut archive = Archive { out, path, inode: 0 };
    archive.directory("dev")?;
    archive
        .entry(Entry { device: CONSOLE_DEVICE, ..Entry::new("dev/console", CONSOLE) }, &[][..])?;
    archive.file("init", PROGRAM, init)?;
    if !modules.is_empty() {
        archive.directory("modules")?;
        let mut list = String::new();
        for (number, module) in modules.iter().enumerate() {
            let name = format!("{number:02}-{}", file_name(module));
            archive.file(&format!("modules/{name}"), FILE, &module.file)?;
            list.push_str(&name);
            list.push('\n');
        }
        let entry = Entry { len: list.len() as u64, ..Entry::new("modules.list", FILE) };
        archive.entry(entry, list.as_bytes())?;
    }
    archive.end()
}

/// The archive as a file in `cache_dir`, made if it is not there yet.
///
/// The name is a hash of where the inputs are, how large they are, and when they last changed, so
/// that a start has to read none of them. A file of that name is whole: it is renamed into place.
/// Archives of inputs that are no more are left to whoever owns the folder.
pub fn cached(cache_dir: &Path, init: &Path, modules: &[Module]) -> Result<PathBuf, Error> {
    let path = cache_dir.join(format!("initramfs-{}.cpio", key(init, modules)?));
    if path.is_file() {
        return Ok(path);
    }
    fs::create_dir_all(cache_dir).map_err(Error::write(cache_dir))?;
    let file = tempfile::Builder::new().prefix(".initramfs-").tempfile_in(cache_dir);
    let mut file = file.map_err(Error::write(cache_dir))?;
    build(BufWriter::new(file.as_file_mut()), &path, init, modules)?;
    file.persist(&path).map_err(|error| Error::write(&path)(error.error))?;
    Ok(path)
}

/// Names an archive by its inputs.
fn key(init: &Path, modules: &[Module]) -> Result<String, Error> {
    let mut hash = Sha256::new();
    hash.update(LAYOUT.to_le_bytes());
    for input in std::iter::once(init).chain(modules.iter().map(|module| module.file.as_path())) {
        let path = fs::canonicalize(input).map_err(Error::read(input))?;
        let metadata = fs::metadata(&path).map_err(Error::read(input))?;
        hash.update((path.as_os_str().len() as u64).to_le_bytes());
        hash.update(path.as_os_str().as_bytes());
        for number in identity(&metadata) {
            hash.update(number.to_le_bytes());
        }
    }
    // 80 bits: enough that two inputs on one machine never meet.
    Ok(hash.finalize().iter().take(10).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Writing to a string cannot fail.
        text
    }))
}

/// What changes when a file is replaced or written to.
fn identity(metadata: &Metadata) -> [u64; 6] {
    let signed = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
    let [mtime, mtime_ns, ctime, ctime_ns] = signed.map(i64::cast_unsigned);
    [metadata.len(), metadata.ino(), mtime, mtime_ns, ctime, ctime_ns]
}

/// The name of the module's file, whose ending says how it is compressed.
fn file_name(module: &Module) -> String {
    let ending = module.file.extension().filter(|_| module.compressed);
    let ending = ending.map(|ending| format!(".{}", ending.to_string_lossy())).unwrap_or_default();
    format!("{}.ko{ending}", module.name)
}

/// One entry's header.
struct Entry<'a> {
    name: &'a str,
    mode: u32,
    len: u64,
    device: (u32, u32),
}

impl<'a> Entry<'a> {
    fn new(name: &'a str, mode: u32) -> Self {
        Self { name, mode, len: 0, device: (0, 0) }
    }
}

/// An archive that is being written.
struct Archive<'a, W> {
    out: W,
    path: &'a Path,
    inode: u32,
}

impl<W: Write> Archive<'_, W> {
    fn directory(&mut self, name: &str) -> Result<(), Error> {
        self.entry(Entry::new(name, DIRECTORY), &[][..])
    }

    fn file(&mut self, name: &str, mode: u32, source: &Path) -> Result<(), Error> {
        let file = File::open(source).map_err(Error::read(source))?;
        let len = file.metadata().map_err(Error::read(source))?.len();
        if len > FILE_MAX_LEN {
            return Err(Error::TooLarge { path: source.to_owned(), limit: FILE_MAX_LEN });
        }
        let copied = self.copy(Entry { len, ..Entry::new(name, mode) }, file, source)?;
        if copied == len { Ok(()) } else { Err(Error::Changed { path: source.to_owned() }) }
    }

    /// Writes an entry whose contents cannot fail to be read.
    fn entry(&mut self, entry: Entry, contents: &[u8]) -> Result<(), Error> {
        self.copy(entry, contents, Path::new("memory")).map(drop)
    }

    /// Writes an entry and says how many bytes `contents` really had, up to the length promised.
    fn copy(&mut self, entry: Entry, contents: impl Read, source: &Path) -> Result<u64, Error> {
        let len = entry.len;
        self.header(&entry).map_err(Error::write(self.path))?;
        let copied = copy(contents.take(len), &mut self.out, source, self.path)?;
        self.pad(copied).map_err(Error::write(self.path))?;
        Ok(copied)
    }

    fn end(&mut self) -> Result<(), Error> {
        self.entry(Entry::new("TRAILER!!!", 0), &[])?;
        self.out.flush().map_err(Error::write(self.path))
    }

    fn header(&mut self, entry: &Entry) -> io::Result<()> {
        self.inode += 1;
        let name_len = entry.name.len() as u64 + 1;
        let fields = [
            u64::from(self.inode),
            entry.mode.into(),
            0, // user
            0, // group
            1, // links
            0, // time: the same inputs give the same archive
            entry.len,
            0, // device that holds the file
            0,
            entry.device.0.into(),
            entry.device.1.into(),
            name_len,
            0, // checksum, unused in this variant
        ];
        let mut header = String::from("070701");
        for field in fields {
            let _ = write!(header, "{field:08x}"); // Writing to a string cannot fail.
        }
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(entry.name.as_bytes())?;
        self.out.write_all(b"\0")?;
        self.pad(header.len() as u64 + name_len)
    }

    /// Header and contents each end on a multiple of four.
    fn pad(&mut self, written: u64) -> io::Result<()> {
        match written % 4 {
            0 => Ok(()),
            1 => self.out.write_all(&[0; 3]),
            2 => self.out.write_all(&[0; 2]),
            _ => self.out.write_all(&[0; 1]),
        }
    }
}

/// Copies and tells a failed read from a failed write.
fn copy(
    mut from: impl Read,
    to: &mut impl Write,
    from_path: &Path,
    to_path: &Path,
) -> Result<u64, Error> {
    let mut buffer = vec![0; 64 << 10];
    let mut copied = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(len) => {
                to.write_all(&buffer[..len]).map_err(Error::write(to_path))?;
                copied += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::read(from_path)(error)),
        }
    }
}

#[cfg(test)]
mod tests;
