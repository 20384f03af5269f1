// SPDX-License-Identifier: Apache-2.0
//! The QEMU that is installed: where it is, which version, and what to install if it is not there.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use hc_vmm::{Error, Result};
use tokio::process::Command;

/// The program's name on every distribution but one family.
const NAME: &str = "qemu-system-x86_64";

/// Where the Red Hat family keeps its own build, which has no `microvm` machine and no TCG.
const RED_HAT: &str = "/usr/libexec/qemu-kvm";

/// The oldest version that will do: it brought the `stream` network backend.
pub(crate) const OLDEST: Version = Version { major: 7, minor: 2 };

/// The part of a version that decides what QEMU can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// Reads what `-version` prints, such as `QEMU emulator version 7.2.22 (Debian …)`.
    pub(crate) fn parse(output: &str) -> Option<Version> {
        let (_, rest) = output.split_once("version ")?;
        let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
        let mut numbers = rest[..end].split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(Version { major, minor })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Finds the program, or says how to get it.
pub(crate) fn find(path: Option<&OsStr>) -> Result<PathBuf> {
    let folders = path.map(std::env::split_paths).into_iter().flatten();
    folders
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(NAME))
        .chain([PathBuf::from(RED_HAT)])
        .find(|candidate| is_program(candidate))
        .ok_or_else(|| {
            let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
            Error::Missing { program: NAME, hint: hint(&release) }
        })
}

/// Asks the program for its version.
pub(crate) async fn version(program: &Path) -> io::Result<Version> {
    let output = Command::new(program)
        .arg("-version")
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    Version::parse(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it names no version"))
}

/// Whether this is the build that lacks `microvm`.
pub(crate) fn is_red_hat(program: &Path) -> bool {
    program == Path::new(RED_HAT)
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// What to type on the distribution that `/etc/os-release` describes.
fn hint(release: &str) -> String {
    let families = ["ID=", "ID_LIKE="].into_iter().flat_map(|key| {
        let value = release.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        value.trim_matches(['"', '\'']).split_ascii_whitespace()
    });
    for family in families {
        let command = match family {
            "debian" | "ubuntu" => "apt install qemu-system-x86",
            "fedora" => "dnf install qemu-system-x86-core",
            "rhel" | "centos" => "dnf install qemu-kvm",
            "arch" => "pacman -S qemu-system-x86",
            "suse" | "opensuse" => "zypper install qemu-x86",
            "alpine" => "apk add qemu-system-x86_64",
            _ => continue,
        };
        return command.to_owned();
    }
    format!("install QEMU's system emulator for x86_64, version {OLDEST} or newer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_builds_print() {
        let check = |output, major, minor| {
            assert_eq!(Version::parse(output), Some(Version { major, minor }), "{output}");
        };
        check("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright", 7, 2);
        check("QEMU emulator version 10.0.2 (qemu-10.0.2-1.fc42)", 10, 0);
        check("QEMU emulator version 9.1.50", 9, 1);
        assert_eq!(Version::parse("QEMU emulator version seven"), None);
        assert_eq!(Version::parse(""), None);
    }

    #[test]
    fn the_hint_fits_the_distribution() {
        let check = |release, expected| assert_eq!(hint(release), expected, "{release}");
        check("NAME=x\nID=debian\n", "apt install qemu-system-x86");
        check("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "apt install qemu-system-x86");
        check("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "dnf install qemu-kvm");
        check("ID=fedora\n", "dnf install qemu-system-x86-core");
        check("ID=arch\n", "pacman -S qemu-system-x86");
        check("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", "zypper install qemu-x86");
        check("ID=alpine\n", "apk add qemu-system-x86_64");
        check("", "install QEMU's system emulator for x86_64, version 7.2 or newer");
    }

    #[test]
    fn a_missing_program_is_named_with_what_to_type() {
        if is_program(Path::new(RED_HAT)) {
            return;
        }
        let error = find(Some(OsStr::new("/nonexistent:relative"))).unwrap_err();
        assert_eq!(error.to_string(), "cannot find qemu-system-x86_64 on PATH");
        assert!(error.hint().is_some_and(|hint| hint.contains("qemu") || hint.contains("QEMU")));
    }
}
