// SPDX-License-Identifier: Apache-2.0
//! The guest's own programs, which copy files into and out of a container and look at one. They run
//! as processes of the container, with its root and no more rights than files need.
//!
//! Why not a program of the image: there may be none.

mod format;
mod pack;
mod unpack;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use hc_proto::message::{PathStat, Program};
use rustix::fs::{FileType, OFlags, fstat};

use crate::error::reason;
use crate::root::Root;

/// Bytes moved at once: what a pipe of ours holds.
const BUFFER_LEN: usize = 64 * 1024;

/// Runs one of the guest's own programs on the standard streams and gives its exit status.
pub(crate) fn run(program: &Program) -> u8 {
    let Err(error) = attempt(program) else { return 0 };
    let mut stderr = io::stderr();
    let _ = writeln!(stderr, "{}", reason(&error)); // Who does not listen needs no reason.
    1
}

fn attempt(program: &Program) -> io::Result<()> {
    rustix::process::umask(rustix::fs::Mode::empty()); // Archives say what modes they want.
    let root = Root::open("/")?;
    // Files and not the library's streams: those look for the ends of lines.
    let input = File::from(rustix::io::dup(rustix::stdio::stdin())?);
    let output = File::from(rustix::io::dup(rustix::stdio::stdout())?);
    match program {
        Program::Pack { path, follow } => {
            let output = io::BufWriter::with_capacity(BUFFER_LEN, output);
            pack::pack(&root, Path::new(path), *follow, output)
        }
        Program::Unpack { path, keep_owner } => {
            let input = io::BufReader::with_capacity(BUFFER_LEN, input);
            unpack::unpack(&root, Path::new(path), *keep_owner, input)
        }
        Program::Stat { path } => {
            Ok(serde_json::to_writer(output, &stat(&root, Path::new(path))?)?)
        }
        Program::Exec(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Reads an archive to its end or its first error, for the fuzzer.
pub(crate) fn list(bytes: &[u8]) {
    let mut reader = format::Reader::new(bytes);
    while let Ok(Some(_)) = reader.next() {}
}

/// What is at `path`; a link there is not followed.
fn stat(root: &Root, path: &Path) -> io::Result<PathStat> {
    let found = fstat(root.open_at(path, OFlags::PATH | OFlags::NOFOLLOW).map_err(named(path))?)?;
    let is_link = FileType::from_raw_mode(found.st_mode) == FileType::Symlink;
    let link_to_directory = is_link && root.open_at(path, OFlags::PATH | OFlags::DIRECTORY).is_ok();
    Ok(PathStat {
        name: String::from_utf8_lossy(&last_name(path)).into_owned(),
        size: u64::try_from(found.st_size).unwrap_or(0),
        mode: found.st_mode,
        link_to_directory,
    })
}

/// The last name of a path, or `/`.
fn last_name(path: &Path) -> Vec<u8> {
    path.file_name().map_or_else(|| b"/".to_vec(), |name| name.as_bytes().to_vec())
}

/// Puts the path before what the kernel says about it.
fn named<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> io::Error {
    move |error| {
        let error = error.into();
        io::Error::new(error.kind(), format!("{}: {}", path.display(), reason(&error)))
    }
}

#[cfg(test)]
mod tests;
