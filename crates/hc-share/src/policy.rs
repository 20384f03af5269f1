// SPDX-License-Identifier: Apache-2.0
//! What a guest may ask for, as a pure function of a request.
//!
//! The numbers and layouts are those of `linux/fuse.h`.

use rustix::io::Errno;

/// What a guest may do with a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look, and nothing else.
    ReadOnly,
    /// All that the server's user may.
    ReadWrite,
}

/// `struct fuse_in_header`.
pub(crate) const HEADER_LEN: usize = 40;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
pub(crate) const SYMLINK: u32 = 6;
const MKNOD: u32 = 8;
pub(crate) const RENAME: u32 = 12;
const OPEN: u32 = 14;
const OPENDIR: u32 = 27;
pub(crate) const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;
pub(crate) const RENAME2: u32 = 45;

/// Requests that change nothing, whatever their arguments: get attributes, read link, read, status,
/// release, sync, read attributes (2), flush, init, read folder, release folder, sync folder, access,
/// interrupt, destroy, read folder with attributes, seek.
const HARMLESS: [u32; 17] = [3, 5, 15, 17, 18, 20, 22, 23, 25, 26, 28, 29, 30, 34, 36, 38, 44];
const SEEK: u32 = 46;

/// A request, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) operation: u32,
    pub(crate) number: u64,
    arguments: &'a [u8],
}

impl<'a> Request<'a> {
    /// Takes a request apart; `None` if it is shorter than a header.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Request<'a>> {
        let (header, arguments) = bytes.split_at_checked(HEADER_LEN)?;
        let (_len, rest) = header.split_first_chunk::<4>()?;
        let (operation, rest) = rest.split_first_chunk()?;
        let number = rest.first_chunk()?;
        Some(Request {
            operation: u32::from_le_bytes(*operation),
            number: u64::from_le_bytes(*number),
            arguments,
        })
    }

    /// Whether somebody waits for an answer.
    pub(crate) fn has_answer(&self) -> bool {
        !matches!(self.operation, FORGET | BATCH_FORGET)
    }

    /// Refuses what a guest may not ask for.
    pub(crate) fn check(&self, access: Access) -> Result<(), Errno> {
        let name = self.arguments.split(|byte| *byte == 0).next();
        match self.operation {
            // The guest's kernel knows its way up, and up from here is none of its business.
            LOOKUP if matches!(name, Some(b"." | b"..")) => Err(Errno::INVAL),
            MKNOD if self.makes_device() => Err(Errno::PERM),
            _ if access == Access::ReadWrite => Ok(()),
            OPEN | OPENDIR if self.opens_to_change() => Err(Errno::ROFS),
            LOOKUP | FORGET | BATCH_FORGET | OPEN | OPENDIR | SEEK => Ok(()),
            harmless if HARMLESS.contains(&harmless) => Ok(()),
            _ => Err(Errno::ROFS),
        }
    }

    fn makes_device(&self) -> bool {
        let kind = self.word() & libc::S_IFMT;
        kind == libc::S_IFCHR || kind == libc::S_IFBLK
    }

    fn opens_to_change(&self) -> bool {
        const CHANGING: i32 = libc::O_ACCMODE | libc::O_TRUNC | libc::O_CREAT | libc::O_APPEND;
        self.word() & CHANGING.cast_unsigned() != libc::O_RDONLY.cast_unsigned()
    }

    /// The first argument. What is missing is refused by whoever reads all of them.
    fn word(&self) -> u32 {
        self.arguments.first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(operation: u32, arguments: &[u8], access: Access) -> Result<(), Errno> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..8].copy_from_slice(&operation.to_le_bytes());
        bytes.extend_from_slice(arguments);
        Request::parse(&bytes).unwrap().check(access)
    }

    #[test]
    fn only_what_changes_nothing_is_done_read_only() {
        let refused: Vec<u32> =
            (0..64).filter(|&op| check(op, &[0; 8], Access::ReadOnly).is_err()).collect();
        let changing = [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47];
        assert!(changing.iter().all(|op| refused.contains(op)), "{refused:?}");
        assert!([1, 2, 3, 5, 14, 15, 26, 27, 28].iter().all(|op| !refused.contains(op)));
        // What nobody here knows may change something.
        assert!((48..64).all(|op| refused.contains(&op)), "{refused:?}");
    }

    #[test]
    fn read_only_file_is_opened_to_read() {
        for (flags, expected) in [
            (libc::O_RDONLY | libc::O_DIRECTORY, Ok(())),
            (libc::O_WRONLY, Err(Errno::ROFS)),
            (libc::O_RDWR, Err(Errno::ROFS)),
            (libc::O_RDONLY | libc::O_TRUNC, Err(Errno::ROFS)),
        ] {
            for operation in [OPEN, OPENDIR] {
                let arguments = flags.to_le_bytes();
                assert_eq!(check(operation, &arguments, Access::ReadOnly), expected);
                assert_eq!(check(operation, &arguments, Access::ReadWrite), Ok(()));
            }
        }
    }

    #[test]
    fn nobody_goes_up_or_makes_a_device() {
        for access in [Access::ReadOnly, Access::ReadWrite] {
            for name in [&b"..\0"[..], b".\0", b"..", b"..\0x"] {
                assert_eq!(check(LOOKUP, name, access), Err(Errno::INVAL));
            }
            assert_eq!(check(LOOKUP, b"..x\0", access), Ok(()));
            for kind in [libc::S_IFCHR, libc::S_IFBLK] {
                assert_eq!(check(MKNOD, &(kind | 0o666).to_le_bytes(), access), Err(Errno::PERM));
            }
        }
        let file = (libc::S_IFREG | 0o666).to_le_bytes();
        assert_eq!(check(MKNOD, &file, Access::ReadWrite), Ok(()));
    }

    #[test]
    fn what_is_shorter_than_a_header_is_no_request() {
        assert!(Request::parse(&[0; HEADER_LEN - 1]).is_none());
        assert!(Request::parse(&[0; HEADER_LEN]).is_some());
    }
}
