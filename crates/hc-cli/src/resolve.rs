// SPDX-License-Identifier: Apache-2.0
//! From arguments to requests: pure functions of the command line and what they are given of the
//! host, so that each is tested as a table.

use std::io;
use std::path::{Path, PathBuf};

mod change;
mod copy;
mod create;
mod files;
mod port;
mod scalar;
mod time;

pub(crate) use change::image_config;
pub(crate) use copy::{clone_container, create_template, from_snapshot};
pub(crate) use create::{create_container, environment, host_platform_only};
pub(crate) use time::{since, tail};

/// What arguments may refer to outside of themselves.
pub(crate) struct Host<'a> {
    /// Looks a variable up.
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file.
    pub(crate) read: &'a dyn Fn(&Path) -> io::Result<String>,
    /// The folder that relative paths start from.
    pub(crate) folder: PathBuf,
}

impl Host<'_> {
    /// The host as it is.
    pub(crate) fn real() -> Host<'static> {
        Host {
            env: &|name| std::env::var(name).ok(),
            read: &|path| std::fs::read_to_string(path),
            // Without one, relative paths stay relative and the daemon refuses them.
            folder: std::env::current_dir().unwrap_or_default(),
        }
    }
}
