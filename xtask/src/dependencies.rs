// SPDX-License-Identifier: Apache-2.0
//! Every dependency stands in docs/dependencies.md with its reason, and nothing else does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Compares the workspace's dependencies with the table.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let manifest: toml::Table = manifest.parse()?;
    let dependencies = manifest["workspace"]["dependencies"].as_table();
    let used: BTreeSet<&str> = dependencies
        .context("Cargo.toml has no dependencies")?
        .iter()
        .filter(|(_, value)| value.get("path").is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    let text = fs::read_to_string(root.join("docs/dependencies.md"))?;
    let listed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    let missing = used.difference(&listed);
    let stale = listed.difference(&used);
    Ok(missing
        .map(|name| format!("docs/dependencies.md: {name} has no reason"))
        .chain(stale.map(|name| format!("docs/dependencies.md: {name} is not used")))
        .collect())
}
