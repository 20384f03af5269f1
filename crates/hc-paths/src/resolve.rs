// SPDX-License-Identifier: Apache-2.0
//! From environment, user and program to places; a pure function and its table.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::{Error, env};

/// Bytes of a socket's path that fit into `sockaddr_un` with its final NUL.
const SOCKET_PATH_MAX: usize = 107;

/// All the places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Sockets and locks; gone after a reboot.
    pub runtime_dir: PathBuf,
    /// Images, scratch disks and the database.
    pub data_dir: PathBuf,
    /// The configuration, which need not exist.
    pub config_file: PathBuf,
    /// The guest's kernel and initramfs.
    pub lib_dir: PathBuf,
}

impl Paths {
    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir.join("hyperd.sock")
    }

    /// Whoever starts the daemon holds a lock on this file meanwhile, so that two do not.
    pub fn start_lock(&self) -> PathBuf {
        self.runtime_dir.join("start.lock")
    }

    /// What the daemon writes to standard error when a client started it.
    pub fn daemon_log(&self) -> PathBuf {
        self.runtime_dir.join("hyperd.log")
    }
}

/// The places for this process.
pub fn current() -> Result<Paths, Error> {
    let exe = std::env::current_exe().map_err(|source| Error::Executable { source })?;
    let uid = rustix::process::geteuid().as_raw();
    resolve(&|name| std::env::var_os(name), uid, &exe)
}

/// The places for user `uid` of a program at `exe`, where `env` looks variables up.
///
/// Variables that are empty count as not set. Relative XDG variables are ignored, as their
/// specification asks; relative variables of ours are errors.
pub fn resolve(
    env: &dyn Fn(&str) -> Option<OsString>,
    uid: u32,
    exe: &Path,
) -> Result<Paths, Error> {
    let root = uid == 0;
    let runtime_dir = match own(env, env::RUNTIME_DIR)? {
        Some(path) => path,
        None if root => PathBuf::from("/run/hyper"),
        None => match xdg(env, env::XDG_RUNTIME_DIR) {
            Some(path) => path.join("hyper"),
            None => PathBuf::from(format!("/tmp/hyper-{uid}")),
        },
    };
    let data_dir = match own(env, env::DATA_DIR)? {
        Some(path) => path,
        None if root => PathBuf::from("/var/lib/hyper"),
        None => match xdg(env, env::XDG_DATA_HOME) {
            Some(path) => path.join("hyper"),
            None => xdg(env, env::HOME).ok_or(Error::NoHome)?.join(".local/share/hyper"),
        },
    };
    let config_file = match own(env, env::CONFIG)? {
        Some(path) => path,
        None if root => PathBuf::from("/etc/hyper/config.toml"),
        None => match xdg(env, env::XDG_CONFIG_HOME) {
            Some(path) => path.join("hyper/config.toml"),
            // Without a home there is no file of the user's; the system's still counts.
            None => xdg(env, env::HOME).map_or_else(
                || PathBuf::from("/etc/hyper/config.toml"),
                |home| home.join(".config/hyper/config.toml"),
            ),
        },
    };
    let lib_dir = match own(env, env::LIB)? {
        Some(path) => path,
        None => beside(exe),
    };
    Ok(Paths { runtime_dir, data_dir, config_file, lib_dir })
}

/// Refuses a path that does not fit into a socket's address.
pub fn check_socket(path: &Path) -> Result<(), Error> {
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(Error::SocketTooLong { path: path.to_owned() });
    }
    Ok(())
}

/// `PREFIX/lib/hyper` for a program in `PREFIX/bin`.
fn beside(exe: &Path) -> PathBuf {
    let prefix = exe.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    prefix.join("lib/hyper")
}

fn own(
    env: &dyn Fn(&str) -> Option<OsString>,
    variable: &'static str,
) -> Result<Option<PathBuf>, Error> {
    match env(variable).filter(|value| !value.is_empty()).map(PathBuf::from) {
        Some(value) if value.is_relative() => Err(Error::Relative { variable, value }),
        value => Ok(value),
    }
}

fn xdg(env: &dyn Fn(&str) -> Option<OsString>, variable: &str) -> Option<PathBuf> {
    env(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXE: &str = "/usr/local/bin/hyper";

    fn with(vars: &[(&str, &str)], uid: u32) -> Result<Paths, Error> {
        let env = |name: &str| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        resolve(&env, uid, Path::new(EXE))
    }

    #[track_caller]
    fn check(vars: &[(&str, &str)], uid: u32, expected: [&str; 4]) {
        let paths = with(vars, uid).unwrap();
        let [runtime_dir, data_dir, config_file, lib_dir] = expected.map(PathBuf::from);
        assert_eq!(paths, Paths { runtime_dir, data_dir, config_file, lib_dir });
    }

    #[test]
    fn places_follow_the_table_in_the_crate_docs() {
        const LIB: &str = "/usr/local/lib/hyper";
        let root = ["/run/hyper", "/var/lib/hyper", "/etc/hyper/config.toml", LIB];
        check(&[], 0, root);
        check(&[("HOME", "/root"), ("XDG_RUNTIME_DIR", "/run/user/0")], 0, root);
        check(
            &[("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/7")],
            7,
            [
                "/run/user/7/hyper",
                "/home/u/.local/share/hyper",
                "/home/u/.config/hyper/config.toml",
                LIB,
            ],
        );
        check(
            &[("HOME", "/home/u"), ("XDG_DATA_HOME", "/d"), ("XDG_CONFIG_HOME", "/c")],
            7,
            ["/tmp/hyper-7", "/d/hyper", "/c/hyper/config.toml", LIB],
        );
    }

    #[test]
    fn our_own_variables_win_for_root_and_users_alike() {
        let vars = [
            ("HYPER_RUNTIME_DIR", "/r"),
            ("HYPER_DATA_DIR", "/d"),
            ("HYPER_CONFIG", "/c.toml"),
            ("HYPER_LIB", "/l"),
            ("XDG_RUNTIME_DIR", "/x"),
            ("HOME", "/h"),
        ];
        check(&vars, 0, ["/r", "/d", "/c.toml", "/l"]);
        check(&vars, 7, ["/r", "/d", "/c.toml", "/l"]);
    }

    #[test]
    fn empty_variables_and_relative_xdg_ones_count_for_nothing() {
        check(
            &[
                ("HYPER_DATA_DIR", ""),
                ("XDG_RUNTIME_DIR", "x"),
                ("XDG_DATA_HOME", ""),
                ("HOME", "/h"),
            ],
            7,
            [
                "/tmp/hyper-7",
                "/h/.local/share/hyper",
                "/h/.config/hyper/config.toml",
                "/usr/local/lib/hyper",
            ],
        );
    }

    #[test]
    fn a_relative_variable_of_ours_and_a_missing_home_are_errors() {
        let error = with(&[("HYPER_DATA_DIR", "data")], 0).unwrap_err();
        assert_eq!(error.to_string(), "HYPER_DATA_DIR must be an absolute path, not data");
        assert!(matches!(with(&[], 7), Err(Error::NoHome)));
        // With the data named, a home is not needed.
        assert!(with(&[("HYPER_DATA_DIR", "/d")], 7).is_ok());
    }

    #[test]
    fn a_socket_path_may_have_107_bytes() {
        assert!(check_socket(Path::new(&format!("/{}", "x".repeat(106)))).is_ok());
        let error = check_socket(Path::new(&format!("/{}", "x".repeat(107)))).unwrap_err();
        assert!(error.to_string().ends_with("has 108 bytes, and the kernel takes at most 107"));
    }
}
