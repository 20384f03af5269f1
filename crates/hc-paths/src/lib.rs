// SPDX-License-Identifier: Apache-2.0
//! Where the programs find each other: sockets, data, configuration and guest files.
//!
//! The command line, the daemon and the pod processes must agree on these places without talking
//! first, so the rules stand here alone. [`resolve()`] is a pure function of the environment, the
//! user and the program's own place; only [`current`] and [`make_private_dir`] touch the system.
//!
//! | | root | a user |
//! | --- | --- | --- |
//! | sockets, locks | `/run/hyper` | `$XDG_RUNTIME_DIR/hyper`, else `/tmp/hyper-UID` |
//! | images, disks, database | `/var/lib/hyper` | `$XDG_DATA_HOME/hyper`, else `~/.local/share/hyper` |
//! | configuration | `/etc/hyper/config.toml` | `$XDG_CONFIG_HOME/hyper/config.toml`, else `~/.config/…` |
//! | kernel, initramfs | `../lib/hyper` from the program | the same |
//!
//! # Invariants
//!
//! - Every path is absolute: the daemon leaves the folder it was started in.
//! - A folder that holds sockets is used only if it is ours alone, because `/tmp` is everyone's and
//!   whoever owns the socket gets the user's registry password.

pub mod env;
mod error;
mod private;
mod resolve;

pub use error::Error;
pub use private::make_private_dir;
pub use resolve::{Paths, check_socket, current, resolve};
