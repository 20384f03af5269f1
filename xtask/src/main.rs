// SPDX-License-Identifier: Apache-2.0
//! What building and checking the tree needs beyond cargo: `cargo xtask COMMAND`.

mod dependencies;
mod graph;
mod scratch;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow, ensure};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  lint           check what cargo does not: the crate graph, the list of dependencies, tidiness
  scratch FILE   make the template of pods' scratch disks
";

#[expect(clippy::print_stderr, reason = "the error goes where the user sees it")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["lint"] => lint(),
        ["scratch", file] => scratch::make(&PathBuf::from(file)),
        _ => Err(anyhow!("unknown command\n\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs every check and tells all complaints, not only the first.
#[expect(clippy::print_stderr, reason = "complaints are for people")]
fn lint() -> Result<()> {
    let root = root();
    let mut complaints = graph::check(root)?;
    complaints.extend(dependencies::check(root)?);
    complaints.extend(tidy::check(root)?);
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    ensure!(complaints.is_empty(), "{} complaints", complaints.len());
    Ok(())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}
