// SPDX-License-Identifier: Apache-2.0
//! What can go wrong while layers are merged.

use std::io;

/// Why no file system was made.
///
/// Each message says what was acted on; the reason is its `source`. Print the whole chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's reader failed: the reason is wholly its own, a wrong digest for instance.
    #[error("cannot read layer {layer}")]
    Read {
        /// Which layer, 0 being the lowest.
        layer: usize,
        /// What the reader said.
        source: io::Error,
    },

    /// A layer is no archive that can be read.
    #[error("layer {layer} is broken at byte {offset}")]
    Tar {
        /// Which layer, 0 being the lowest.
        layer: usize,
        /// Where in its uncompressed stream the entry starts that is broken.
        offset: u64,
        /// What is wrong there.
        source: TarFault,
    },

    /// An entry asks for something that cannot or must not be.
    #[error("cannot add \"{path}\" of layer {layer}")]
    Entry {
        /// Which layer, 0 being the lowest.
        layer: usize,
        /// The path as the layer has it, escaped for terminals and cut if it is long.
        path: String,
        /// What is wrong with it.
        source: EntryFault,
    },

    /// The layers ask for more than the caller allows.
    #[error("the image is over the limit of {limit} {unit}")]
    Limit {
        /// The bound from [`Limits`](crate::Limits).
        limit: u64,
        /// What it counts.
        unit: &'static str,
    },

    /// The output file could not be written.
    #[error("cannot write the file system image")]
    Write {
        /// What the kernel said.
        source: io::Error,
    },
}

/// What is wrong with an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TarFault {
    /// The stream ends within an entry.
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    /// A header's checksum does not match its bytes.
    #[error("wrong header checksum")]
    Checksum,
    /// One block of zeros is followed by more entries.
    #[error("a single block of zeros between entries")]
    LoneZeroBlock,
    /// A number is malformed, negative or too large for its field.
    #[error("bad number in field {field}")]
    Number {
        /// The header field or PAX keyword.
        field: &'static str,
    },
    /// The type is none that a layer may have.
    #[error("unknown entry type {:?}", char::from(*.0))]
    UnknownType(u8),
    /// A PAX record is malformed.
    #[error("malformed pax record")]
    Pax,
    /// A global PAX header sets what only a single entry can have.
    #[error("global pax header sets {keyword}")]
    PaxGlobal {
        /// The keyword.
        keyword: &'static str,
    },
    /// A PAX or long-name header is larger than any honest one.
    #[error("extension header of {len} bytes")]
    ExtensionTooLarge {
        /// Its claimed length.
        len: u64,
    },
    /// A PAX or long-name header is not followed by an entry.
    #[error("extension header without an entry")]
    DanglingExtension,
    /// A sparse file's map is malformed or does not fit its data.
    #[error("bad map of a sparse file")]
    SparseMap,
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// The path is empty.
    #[error("empty path")]
    EmptyPath,
    /// A path or a link's target has a NUL byte in it.
    #[error("NUL byte in a path")]
    NulInPath,
    /// The path has a component `..`.
    #[error("`..` in a path")]
    DotDot,
    /// The path is longer than the limit.
    #[error("path of {len} bytes is over the limit of {limit}")]
    PathTooLong {
        /// Its length.
        len: usize,
        /// The bound.
        limit: usize,
    },
    /// A component is longer than a file name can be.
    #[error("name of {len} bytes is over the limit of 255")]
    NameTooLong {
        /// Its length.
        len: usize,
    },
    /// The entry lies too many directories deep.
    #[error("more than {limit} directories deep")]
    TooDeep {
        /// The bound.
        limit: u32,
    },
    /// The file is larger than the limit.
    #[error("file of {size} bytes is over the limit of {limit}")]
    FileTooLarge {
        /// Its size.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// Something above the entry is neither a directory nor a link to one.
    #[error("a parent is not a directory")]
    ParentNotDirectory,
    /// The symbolic links above the entry lead in a circle, or through too many of themselves.
    #[error("too many symbolic links in the path")]
    SymlinkLoop,
    /// A symbolic link's target is empty or longer than Linux takes.
    #[error("target of a symbolic link has {len} bytes")]
    SymlinkLength {
        /// Its length.
        len: usize,
    },
    /// The root would become something other than a directory.
    #[error("the root must be a directory")]
    RootNotDirectory,
    /// A hard link leads to nothing.
    #[error("no such target of a hard link: {target}")]
    LinkMissing {
        /// The target, escaped and cut.
        target: String,
    },
    /// A hard link leads to a directory.
    #[error("hard link to a directory: {target}")]
    LinkToDirectory {
        /// The target, escaped and cut.
        target: String,
    },
    /// A hard link leads to itself.
    #[error("hard link to itself")]
    LinkToItself,
    /// A whiteout hides no possible name, or stands as a directory in a path.
    #[error("malformed whiteout")]
    Whiteout,
    /// A device number does not fit what Linux has.
    #[error("device number {major}:{minor} is out of range")]
    Device {
        /// Major number.
        major: u64,
        /// Minor number.
        minor: u64,
    },
    /// The extended attributes are more than fit.
    #[error("extended attributes of {len} bytes are over the limit of {limit}")]
    XattrsTooLarge {
        /// Their encoded size.
        len: usize,
        /// The bound.
        limit: usize,
    },
    /// An extended attribute's name is empty or longer than Linux takes.
    #[error("bad name of an extended attribute")]
    XattrName,
}

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: the image itself is bad.
    InvalidArgument,
    /// Make room or raise a limit.
    Exhausted,
    /// Look at the reader, or at the host.
    Internal,
}

impl Error {
    /// Sorts the error by what to do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Tar { .. } | Error::Entry { .. } => Kind::InvalidArgument,
            Error::Limit { .. } => Kind::Exhausted,
            Error::Write { source } if is_full(source) => Kind::Exhausted,
            Error::Read { .. } | Error::Write { .. } => Kind::Internal,
        }
    }
}

/// An [`Error`] before it is known where it happened.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The caller's reader failed.
    Source(io::Error),
    /// The archive is broken.
    Tar(TarFault),
    /// The entry cannot be.
    Entry(EntryFault),
    /// A limit is reached.
    Limit { limit: u64, unit: &'static str },
    /// The output file failed.
    Write(io::Error),
}

impl Stop {
    /// Says where it happened.
    pub(crate) fn at(self, layer: usize, offset: u64, path: &[u8]) -> Error {
        match self {
            Stop::Source(source) => Error::Read { layer, source },
            Stop::Tar(source) => Error::Tar { layer, offset, source },
            Stop::Entry(source) => Error::Entry { layer, path: shown(path), source },
            Stop::Limit { limit, unit } => Error::Limit { limit, unit },
            Stop::Write(source) => Error::Write { source },
        }
    }

    /// Whether the bytes of the layer are to blame, rather than the host or a limit.
    pub(crate) fn blames_layer(&self) -> bool {
        matches!(self, Stop::Tar(_) | Stop::Entry(_))
    }
}

impl From<TarFault> for Stop {
    fn from(fault: TarFault) -> Stop {
        Stop::Tar(fault)
    }
}

impl From<EntryFault> for Stop {
    fn from(fault: EntryFault) -> Stop {
        Stop::Entry(fault)
    }
}

/// Whether the disk, the quota or the file's largest size is reached.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Bytes of a path that an error shows.
const SHOWN_PATH_LEN: usize = 256;

/// A path for an error message: escaped, so that it cannot drive a terminal, and cut.
pub(crate) fn shown(path: &[u8]) -> String {
    match path.get(..SHOWN_PATH_LEN) {
        Some(start) if path.len() > SHOWN_PATH_LEN => format!("{}...", start.escape_ascii()),
        _ => path.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_can_be_told_from_a_broken_one() {
        let kind = |kind: io::ErrorKind| Error::Write { source: kind.into() }.kind();
        assert_eq!(kind(io::ErrorKind::StorageFull), Kind::Exhausted);
        assert_eq!(kind(io::ErrorKind::QuotaExceeded), Kind::Exhausted);
        assert_eq!(kind(io::ErrorKind::PermissionDenied), Kind::Internal);
    }

    #[test]
    fn shown_paths_are_short_and_cannot_drive_a_terminal() {
        assert_eq!(shown(b"a\x1b[1m\xff"), "a\\x1b[1m\\xff");
        assert_eq!(shown(&[b'x'; 1000]).len(), SHOWN_PATH_LEN + 3);
    }
}
