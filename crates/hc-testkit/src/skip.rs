// SPDX-License-Identifier: Apache-2.0
//! Tests that cannot run here say so.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// Says that the calling test does not run, and why. The caller returns right after.
///
/// The line goes to standard error and, where `HYPER_SKIPS` names a file, to that file, from which
/// `make test` counts.
///
/// In the lab (`docs/lab.md`), which is there to have all that other machines lack, it is a failure.
#[expect(clippy::print_stderr, reason = "cargo shows it with the test")]
pub fn skip(reason: &str) {
    assert!(std::env::var_os("HYPER_LAB").is_none(), "skipped in the lab: {reason}");
    eprintln!("skipped: {reason}");
    if let Some(path) = std::env::var_os("HYPER_SKIPS") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        // In one piece: other tests write to it as well.
        file.and_then(|mut file| file.write_all(format!("{reason}\n").as_bytes())).unwrap();
    }
}

/// Whether a program is on `PATH`, or where Debian keeps those for administrators.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/sbin", "/usr/sbin"]).any(|dir| Path::new(dir).join(name).is_file())
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
