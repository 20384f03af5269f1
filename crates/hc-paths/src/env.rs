// SPDX-License-Identifier: Apache-2.0
//! Every environment variable that the programs read, on the host.

/// The folder of sockets and locks.
pub const RUNTIME_DIR: &str = "HYPER_RUNTIME_DIR";
/// The folder of images, scratch disks and the database.
pub const DATA_DIR: &str = "HYPER_DATA_DIR";
/// The configuration file.
pub const CONFIG: &str = "HYPER_CONFIG";
/// The folder of the guest's kernel and initramfs.
pub const LIB: &str = "HYPER_LIB";
/// The socket of a daemon that somebody else keeps running.
pub const SOCKET: &str = "HYPER_SOCKET";

/// Where a session's sockets belong, by the XDG base directory specification.
pub const XDG_RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";
/// Where a user's data belongs, by the same.
pub const XDG_DATA_HOME: &str = "XDG_DATA_HOME";
/// Where a user's configuration belongs, by the same.
pub const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";
/// The user's home, which the XDG defaults build on.
pub const HOME: &str = "HOME";

/// Where programs are looked for.
pub const PATH: &str = "PATH";
/// Turns colours off where set and not empty.
pub const NO_COLOR: &str = "NO_COLOR";
/// The kind of terminal; `dumb` has no colours and cannot redraw.
pub const TERM: &str = "TERM";
/// The folder of the `config.json` that holds registry credentials, in place of `~/.docker`.
pub const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
/// What the daemon logs, as `tracing` filters are written, such as `debug`.
pub const LOG: &str = "HYPER_LOG";

/// Those that people set, with what they are for; the reference is written from this.
pub const REFERENCE: [(&str, &str); 8] = [
    (
        SOCKET,
        "The socket of a daemon that others keep running; without it, one is started as needed",
    ),
    (RUNTIME_DIR, "The folder of sockets and locks; yours alone"),
    (DATA_DIR, "The folder of images, scratch disks and the database"),
    (CONFIG, "The configuration file"),
    (LIB, "The folder of the guest's kernel and init"),
    (LOG, "What the daemon logs, such as `debug`"),
    (
        DOCKER_CONFIG,
        "The folder of the `config.json` with registry credentials, `~/.docker` by default",
    ),
    (NO_COLOR, "No colours, where set"),
];
