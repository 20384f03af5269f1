// SPDX-License-Identifier: Apache-2.0
//! Paths inside a container's root, where every name may be a trap.
//!
//! An image, or a process that runs, can put a symbolic link anywhere. Whatever acts with more
//! rights than the container has must not be led out of its root by one: neither by `/` or `..`
//! nor by the magic links of `/proc`.
//!
//! # Invariants
//!
//! - The kernel itself resolves every path below the root (`openat2(2)` with `RESOLVE_IN_ROOT` and
//!   `RESOLVE_NO_MAGICLINKS`), so swapping a directory for a link in the middle gains nothing.
//! - Names are made only in directories that were opened that way.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// Symbolic links followed in one path, as in the kernel.
const LINKS_MAX: usize = 40;
/// Attempts while the tree changes under the search; the kernel asks for another with EAGAIN.
const RETRIES_MAX: usize = 32;

/// An open root directory.
pub(crate) struct Root(OwnedFd);

impl Root {
    /// Opens the directory at `path`, which is trusted.
    pub(crate) fn open(path: &str) -> io::Result<Root> {
        Ok(Root(rustix::fs::openat(
            CWD,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?))
    }

    /// Opens what is at `path`.
    pub(crate) fn open_at(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        let mut tries = 0;
        loop {
            match openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tries < RETRIES_MAX => tries += 1,
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Opens the directory at `path`, making what is missing of it with mode 0755.
    pub(crate) fn ensure_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open_at(path, flags) {
            Err(Errno::NOENT) => {}
            result => return Ok(result?),
        }
        let real = self.resolve(path)?;
        let mut made = PathBuf::new();
        for name in &real {
            let parent = self.open_at(&made, flags)?;
            made.push(name);
            match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.open_at(&made, flags)?)
    }

    /// Opens the file at `path`, making it and its directories if they are missing. The descriptor
    /// names the file and cannot read or write it.
    pub(crate) fn ensure_file(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open_at(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            result => return Ok(result?),
        }
        let real = self.resolve(path)?;
        let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(Errno::ISDIR.into());
        };
        let parent = self.ensure_directory(parent)?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        drop(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644))?);
        Ok(self.open_at(&real, OFlags::PATH | OFlags::NOFOLLOW)?)
    }

    /// The first bytes of the regular file at `path`, at most `limit`; `None` if nothing is there.
    ///
    /// A pipe or device in its place is an error and blocks nobody.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            result => result?,
        };
        let found = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        if found != FileType::RegularFile {
            return Err(Errno::INVAL.into());
        }
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Follows every symbolic link in `path` and gives the plain path below the root, also where
    /// its end does not exist (yet).
    pub(crate) fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut rest: Vec<OsString> = steps(path);
        let mut real = PathBuf::new();
        let mut links = 0;
        while let Some(step) = rest.pop() {
            if step == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&step);
            let Some(target) = self.link_target(&next)? else {
                real = next;
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP.into());
            }
            if target.is_absolute() {
                real = PathBuf::new();
            }
            rest.extend(steps(&target));
        }
        Ok(real)
    }

    /// Where the symbolic link at the plain path `path` leads; `None` if there is none.
    fn link_target(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        let file = match self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            result => result?,
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::Symlink {
            return Ok(None);
        }
        let target = rustix::fs::readlinkat(file, "", Vec::new())?;
        Ok(Some(PathBuf::from(OsString::from_vec(target.into_bytes()))))
    }
}

/// The steps of a path, last one first, without those that lead nowhere.
fn steps(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// A path that names an open descriptor to calls that take only paths.
pub(crate) fn path_of(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("usr/bin")).unwrap();
        fs::write(path.join("usr/bin/tool"), "tool").unwrap();
        symlink("/usr/bin", path.join("bin")).unwrap();
        symlink("../../../../etc/made", path.join("dangling")).unwrap();
        symlink("loop", path.join("loop")).unwrap();
        let root = Root::open(path.to_str().unwrap()).unwrap();
        (directory, root)
    }

    #[test]
    fn links_are_followed_below_the_root() {
        let (_directory, root) = tree();
        for (path, real) in [
            ("/bin/tool", "usr/bin/tool"),
            ("bin/../../..", ""),
            ("/dangling/x", "etc/made/x"),
            ("/none/at/all", "none/at/all"),
        ] {
            assert_eq!(root.resolve(Path::new(path)).unwrap(), Path::new(real), "{path}");
        }
        assert!(root.resolve(Path::new("/loop")).is_err());
    }

    #[test]
    fn what_is_missing_is_made_inside_even_behind_a_dangling_link() {
        let (directory, root) = tree();
        root.ensure_file(Path::new("/dangling/deep/file")).unwrap();
        assert!(directory.path().join("etc/made/deep/file").is_file());
        root.ensure_directory(Path::new("/bin/new/../other")).unwrap();
        assert!(directory.path().join("usr/bin/other").is_dir());
    }

    #[test]
    fn magic_links_of_proc_are_refused() {
        let root = Root::open("/").unwrap();
        let error = root.open_at(Path::new("/proc/self/root"), OFlags::PATH).unwrap_err();
        assert_eq!(error, Errno::LOOP);
    }

    #[test]
    fn only_regular_files_are_read_and_only_so_far() {
        let (directory, root) = tree();
        assert_eq!(root.read(Path::new("bin/tool"), 2).unwrap(), Some(b"to".to_vec()));
        assert_eq!(root.read(Path::new("bin/none"), 2).unwrap(), None);
        rustix::fs::mknodat(
            CWD,
            directory.path().join("pipe"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(root.read(Path::new("pipe"), 2).is_err());
    }
}
