// SPDX-License-Identifier: Apache-2.0
//! Files of variables or labels: `NAME=VALUE` a line, `#` comments, blank lines.

use std::path::Path;

use super::Host;
use crate::failure::{Failure, Result};

/// The lines that say something, each with its number.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_start()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Reads the file and checks its names.
pub(super) fn entries(host: &Host<'_>, path: &Path) -> Result<Vec<String>> {
    let text = (host.read)(path)
        .map_err(|error| Failure::system(format_args!("cannot read {}", path.display()), error))?;
    lines(&text)
        .map(|(number, line)| {
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains(char::is_whitespace) {
                let place = format!("{}:{number}", path.display());
                return Err(Failure::argument(format!("{place}: {name:?} is no name")));
            }
            Ok(line.to_owned())
        })
        .collect()
}
