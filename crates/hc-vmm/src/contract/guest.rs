// SPDX-License-Identifier: Apache-2.0
//! The contract's guest: a static program that a compiler of this host makes, in an initramfs.
//!
//! # Requests
//!
//! The guest says `ready`, and then answers each line with one line. A disk is named by its id, and
//! `error N` gives the number of a Linux error.
//!
//! | request | answer |
//! | --- | --- |
//! | `echo N` and N bytes | the same bytes |
//! | `cpus`, `memory`, `clock` | a number; memory in MiB, the clock in nanoseconds |
//! | `read DISK` | `ok` and the disk's first line |
//! | `write DISK TEXT` | `ok` or `error N` |
//! | `size DISK` | its bytes, or `error N` |
//! | `unbind`, `bind` | `ok` or `error N`; the disks have no driver in between |
//! | `keep WORD` | `ok`; `kept` then answers with the word |
//! | `fill DISK`, `trim DISK` | `ok` or `error N` |
//! | `mount TAG` | `ok` or `error N`; the shared folder is then where the next three look |
//! | `get FILE` | `ok` and the file's first line, or `error N` |
//! | `put FILE TEXT` | `ok` or `error N` |
//! | `sum FILE` | the file's length, and a number made of its bytes; or `error N` |
//! | `bounce N` | `ok`; then sends N Ethernet frames back |
//! | `say TEXT`, `flood KIB` | `ok`, with that on the console |
//! | `tick` | `tick`, every few milliseconds, without end |
//! | `stop`, `panic` | none |

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("guest.c");

/// Makes the initramfs below `dir`, or says what is missing for it.
///
/// Its name has a hash of the source in it, so a second call finds the first one's result.
pub fn initramfs(dir: &Path) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    let path = dir.join(format!("contract-{:016x}.cpio", hasher.finish()));
    if !path.is_file() {
        let program = compile(dir)?;
        write(dir, &path, &archive(&program))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(path)
}

/// Makes the guest's program and reads it.
fn compile(dir: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("cannot compile the contract's guest: {error}");
    let dir = tempfile::tempdir_in(dir).map_err(failed)?;
    let (source, program) = (dir.path().join("guest.c"), dir.path().join("guest"));
    fs::write(&source, SOURCE).map_err(failed)?;
    let output = Command::new("cc")
        .args(["-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&program, &source])
        .output()
        .map_err(failed)?;
    if !output.status.success() {
        return Err(format!("cc failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    fs::read(&program).map_err(failed)
}

/// Writes a file that nobody ever sees half.
fn write(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

fn archive(program: &[u8]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.add("dev", Kind::Folder, &[]);
    archive.add("proc", Kind::Folder, &[]);
    archive.add("sys", Kind::Folder, &[]);
    archive.add("dev/console", Kind::Console, &[]);
    archive.add("init", Kind::Program, program);
    archive.add("TRAILER!!!", Kind::End, &[]);
    archive.bytes
}

#[derive(Clone, Copy)]
enum Kind {
    Folder,
    Console,
    Program,
    End,
}

/// A cpio archive of the kind that kernels read (`newc`).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: usize,
}

impl Archive {
    fn add(&mut self, name: &str, kind: Kind, content: &[u8]) {
        let (mode, device) = match kind {
            Kind::Folder => (0o040_755, (0, 0)),
            Kind::Console => (0o020_600, (5, 1)),
            Kind::Program => (0o100_755, (0, 0)),
            Kind::End => (0, (0, 0)),
        };
        self.entries += 1;
        let (major, minor) = device;
        let fields = [
            self.entries,
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time
            content.len(),
            0, // device that the archive was made on
            0,
            major,
            minor,
            name.len() + 1,
            0, // checksum
        ];
        self.bytes.extend_from_slice(b"070701");
        self.bytes.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// Headers and contents begin at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
