// SPDX-License-Identifier: Apache-2.0
//! One process of a container.

use serde::{Deserialize, Serialize};

use crate::CapabilitySet;

/// A program to run inside a container, wholly resolved but for what only the image's own files
/// tell: user and group names, the home directory, the program's place on `PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The program and its arguments; at least the program.
    pub args: Vec<String>,
    /// `NAME=value` pairs. The guest adds `PATH`, `HOME`, `HOSTNAME` and, with a terminal, `TERM`
    /// where they are not set.
    pub env: Vec<String>,
    /// The working directory; absolute. Made if it is missing.
    pub cwd: String,
    /// `user`, `uid`, `user:group`, … as in an image's `USER`; empty for root.
    pub user: String,
    /// The window of the terminal to run in, or `None` for pipes.
    pub terminal: Option<WindowSize>,
    /// What it may do as root, and at most as anyone.
    pub capabilities: CapabilitySet,
    /// Whether setuid programs gain nothing.
    pub no_new_privileges: bool,
    /// Resource limits to set; others stay as the guest has them.
    pub rlimits: Vec<Rlimit>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

impl Default for WindowSize {
    /// What terminals have been since the VT100.
    fn default() -> WindowSize {
        WindowSize { rows: 24, columns: 80 }
    }
}

/// A limit of `setrlimit(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// The kernel's number of the resource, such as 7 for `RLIMIT_NOFILE`.
    pub resource: u32,
    /// The limit in force; `u64::MAX` for none.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

impl Rlimit {
    /// The resources by their names in `docker run --ulimit`, with the kernel's numbers.
    pub const NAMES: [(&str, u32); 16] = [
        ("cpu", 0),
        ("fsize", 1),
        ("data", 2),
        ("stack", 3),
        ("core", 4),
        ("rss", 5),
        ("nproc", 6),
        ("nofile", 7),
        ("memlock", 8),
        ("as", 9),
        ("locks", 10),
        ("sigpending", 11),
        ("msgqueue", 12),
        ("nice", 13),
        ("rtprio", 14),
        ("rttime", 15),
    ];
}
