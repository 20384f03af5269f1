// SPDX-License-Identifier: Apache-2.0
//! What every source file owes its readers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// A longer file hides a seam.
const MAX_LINES: usize = 500;
/// The first line of every source file.
const LICENCE: &str = "// SPDX-License-Identifier: Apache-2.0";
/// Where sources are.
const FOLDERS: [&str; 3] = ["crates", "fuzz", "xtask"];

/// Looks at every source file.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for folder in FOLDERS {
        for file in sources(&root.join(folder))? {
            let text = fs::read_to_string(&file)?;
            let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            complaints.extend(look(&name, &text));
        }
    }
    Ok(complaints)
}

fn look(name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        complaints.push(format!("{name}: {lines} lines, and {MAX_LINES} is the limit"));
    }
    if text.lines().next() != Some(LICENCE) {
        complaints.push(format!("{name}: the first line is not `{LICENCE}`"));
    }
    if name.ends_with("/mod.rs") {
        complaints.push(format!("{name}: call it after its module, beside the module's folder"));
    }
    for (number, line) in text.lines().enumerate() {
        // Spelt apart, so that this file passes.
        for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("#[ig", "nore")] {
            if line.contains(word) {
                complaints.push(format!("{name}:{}: {word} is no way to leave work", number + 1));
            }
        }
    }
    complaints
}

fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" {
                found.extend(sources(&path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_with_its_place() {
        assert!(look("a/b.rs", &format!("{LICENCE}\nfn main() {{}}\n")).is_empty());
        assert_eq!(look("a/b.rs", "fn main() {}\n").len(), 1);
        assert_eq!(look("a/mod.rs", &format!("{LICENCE}\n")).len(), 1);
        assert_eq!(look("a/b.rs", &format!("{LICENCE}\n{}", "\n".repeat(500))).len(), 1);
        let word = concat!("TO", "DO");
        let unfinished = look("a/b.rs", &format!("{LICENCE}\n// {word}: later\n"));
        assert_eq!(unfinished, [format!("a/b.rs:2: {word} is no way to leave work")]);
    }
}
