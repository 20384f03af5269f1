// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with kernel files.

use std::io;
use std::path::PathBuf;

use crate::requirement::MissingOption;

/// Why a kernel, a module or an initramfs could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// What the host's kernel said.
        source: io::Error,
    },

    /// A file or folder could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// What was written.
        path: PathBuf,
        /// What the host's kernel said.
        source: io::Error,
    },

    /// The file named as a kernel is something else.
    #[error("{} is not a kernel that can be booted: it is {what}", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        what: &'static str,
    },

    /// The kernel's own list of options cannot be read.
    #[error("the configuration in {} is damaged: {what}", path.display())]
    DamagedConfig {
        /// The kernel, or the `config-VERSION` file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },

    /// The kernel cannot run a pod.
    #[error("kernel {} lacks options that a pod needs: {}", path.display(), list(missing))]
    Lacks {
        /// The kernel.
        path: PathBuf,
        /// What it would have to have.
        missing: Vec<MissingOption>,
    },

    /// An index of modules is not what `depmod` writes.
    #[error("the module index {} is damaged: {what}", path.display())]
    DamagedIndex {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },

    /// A module does not say what it depends on.
    #[error("cannot tell what module {} depends on: {what}", path.display())]
    DamagedModule {
        /// The module.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },

    /// A module is needed, and the folder of modules does not have it.
    #[error("there is no module {name} in {}", tree.display())]
    NoModule {
        /// The module's name.
        name: String,
        /// The folder of modules.
        tree: PathBuf,
    },

    /// A file is larger than anything of its kind should be.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that would have been taken.
        limit: u64,
    },

    /// A file changed its size while it was packed.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

/// What a caller can do about an error. Closed on purpose: exit status and API codes map from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Name a file that exists.
    NotFound,
    /// Name a file that is a kernel, or a tree that is not damaged.
    InvalidArgument,
    /// Use another kernel.
    Unsupported,
    /// Look at the host; asking again will not help.
    Internal,
}

impl Error {
    /// Sorts the error by what to do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::NotFound,
            Self::NoModule { .. } | Self::Lacks { .. } => Kind::Unsupported,
            Self::NotAKernel { .. }
            | Self::DamagedConfig { .. }
            | Self::DamagedIndex { .. }
            | Self::DamagedModule { .. }
            | Self::TooLarge { .. } => Kind::InvalidArgument,
            Self::Read { .. } | Self::Write { .. } | Self::Changed { .. } => Kind::Internal,
        }
    }

    /// What to try next, for the line below the error.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotAKernel { .. } => {
                Some("name a vmlinux (ELF) or a vmlinuz (bzImage) for x86-64")
            }
            Self::Lacks { .. } => Some(
                "name a kernel that has them, with its modules in lib/modules, or leave the kernel \
                 out to boot the one that belongs to this program",
            ),
            Self::NoModule { .. } | Self::DamagedModule { .. } | Self::DamagedIndex { .. } => {
                Some("run depmod for this folder of modules, or name another kernel")
            }
            _ => None,
        }
    }

    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }

    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source }
    }
}

fn list(missing: &[MissingOption]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
