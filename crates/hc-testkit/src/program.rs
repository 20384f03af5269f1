// SPDX-License-Identifier: Apache-2.0
//! Programs for containers, made by a compiler of this host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Output;

/// Compiles `source`, which is C, to a program that runs in any container.
#[track_caller]
pub fn compile(dir: &Path, name: &str, source: &str) -> PathBuf {
    let (file, program) = (dir.join(format!("{name}.c")), dir.join(name));
    fs::write(&file, source).unwrap();
    let output = Command::new("cc")
        .args(["-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&program, &file])
        .output();
    Output::from(output.unwrap()).ok();
    program
}
