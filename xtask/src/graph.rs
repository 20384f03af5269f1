// SPDX-License-Identifier: Apache-2.0
//! The graph of our own crates is the one that ARCHITECTURE.md draws: a new edge is a decision, and
//! shows in a review.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Crates and what they use, apart from what only their tests use.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// The block of ARCHITECTURE.md that holds the graph, a line a crate: `crate: used crates`.
const BLOCK: &str = "```crates";

/// Compares the two graphs.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(root.join("ARCHITECTURE.md"))?;
    Ok(compare(&drawn(&text)?, &real(root)?))
}

fn compare(drawn: &Graph, real: &Graph) -> Vec<String> {
    let names: BTreeSet<_> = drawn.keys().chain(real.keys()).collect();
    let mut complaints = Vec::new();
    for name in names {
        match (drawn.get(name), real.get(name)) {
            (Some(drawn), Some(real)) if drawn != real => complaints.push(format!(
                "ARCHITECTURE.md: {name} uses {real:?}, and the graph says {drawn:?}"
            )),
            (Some(_), None) => {
                complaints.push(format!("ARCHITECTURE.md: there is no crate {name}"));
            }
            (None, Some(_)) => complaints.push(format!("ARCHITECTURE.md: crate {name} is missing")),
            _ => {}
        }
    }
    complaints
}

fn drawn(text: &str) -> Result<Graph> {
    let block = text.split_once(BLOCK).and_then(|(_, rest)| rest.split_once("```"));
    let (block, _) = block.context("ARCHITECTURE.md has no block with the crate graph")?;
    let lines = block.lines().filter_map(|line| line.split_once(':'));
    Ok(lines
        .map(|(name, used)| {
            (name.trim().to_owned(), used.split_whitespace().map(str::to_owned).collect())
        })
        .collect())
}

fn real(root: &Path) -> Result<Graph> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(root)
        .output()?;
    ensure!(output.status.success(), "cargo metadata failed");
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let own: BTreeSet<String> = packages.iter().map(name).collect();
    Ok(packages
        .iter()
        .map(|package| {
            let used = package["dependencies"].as_array().into_iter().flatten();
            let used = used.filter(|dependency| dependency["kind"].is_null());
            let used = used.map(name).filter(|used| own.contains(used));
            (name(package), used.collect())
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_edge_a_new_crate_and_a_gone_crate_are_told() {
        let text = "words\n```crates\na: b\nb:\ngone:\n```\nwords";
        let real = [("a", vec!["b", "c"]), ("b", vec![]), ("c", vec![])];
        let real = real.map(|(name, used)| {
            (name.to_owned(), used.into_iter().map(str::to_owned).collect::<BTreeSet<_>>())
        });
        let complaints = compare(&drawn(text).unwrap(), &real.into());
        assert_eq!(complaints.len(), 3, "{complaints:#?}");
    }
}
