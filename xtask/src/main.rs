// SPDX-License-Identifier: Apache-2.0
//! What building and checking the tree needs beyond cargo: `cargo xtask COMMAND`.

mod scratch;

use std::path::PathBuf;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  scratch FILE   make the template of pods' scratch disks
";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["scratch", file] => scratch::make(&PathBuf::from(file)),
        _ => bail!("unknown command\n\n{USAGE}"),
    }
}
