// SPDX-License-Identifier: Apache-2.0
//! What can be wrong with the places.

use std::io;
use std::path::PathBuf;

/// Why a place cannot be named or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable of ours must be absolute.
    #[error("{variable} must be an absolute path, not {}", value.display())]
    Relative {
        /// Its name.
        variable: &'static str,
        /// What it holds.
        value: PathBuf,
    },
    /// Nothing says where this user's files are.
    #[error("cannot tell where data belongs: HOME is not set, nor is HYPER_DATA_DIR")]
    NoHome,
    /// The kernel's `sun_path` has room for 107 bytes and a NUL.
    #[error(
        "path of socket {} has {} bytes, and the kernel takes at most 107",
        path.display(),
        path.as_os_str().len()
    )]
    SocketTooLong {
        /// The socket.
        path: PathBuf,
    },
    /// Somebody else could put a socket of theirs in place of ours.
    #[error("refusing to use {}: {reason}", path.display())]
    NotPrivate {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder cannot be made or looked at.
    #[error("cannot use folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program does not know where it lies itself.
    #[error("cannot find the program's own file")]
    Executable {
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::SocketTooLong { .. } => {
                Some("set HYPER_RUNTIME_DIR to a folder with a shorter name".to_owned())
            }
            Error::NotPrivate { path, .. } => Some(format!(
                "if it is yours, run: chmod 700 {}; else set HYPER_RUNTIME_DIR",
                path.display()
            )),
            _ => None,
        }
    }
}
