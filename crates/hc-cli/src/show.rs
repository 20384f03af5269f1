// SPDX-License-Identifier: Apache-2.0
//! What people and programs get to see: tables, templates, progress, and plain text.
//!
//! Standard output carries data alone; everything else goes to standard error.

use std::io::{IsTerminal, Write};

use crate::failure::{Failure, Result};

pub(crate) mod human;
pub(crate) mod progress;
mod table;
pub(crate) mod template;

pub(crate) use table::Table;
pub(crate) use template::{Format, Template};

/// Writes data to standard output, all of it.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Failure::stdout(&e))
}

/// Writes one line of data.
pub(crate) fn print_line(text: &str) -> Result<()> {
    print(&format!("{text}\n"))
}

/// Tells the person that something failed.
pub(crate) fn print_failure(failure: &Failure) {
    failure.print(&mut std::io::stderr().lock(), colours());
}

/// Tells the person something that is no data and no failure.
pub(crate) fn print_note(text: &str) {
    // Standard error that nobody reads must not stop the work.
    let _ = writeln!(std::io::stderr(), "{}", harmless(text));
}

/// Shows the person a text of several lines that is no data.
pub(crate) fn print_aside(text: &str) {
    // Likewise.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Whether standard error can show colours.
fn colours() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os(hc_paths::env::TERM).is_none_or(|term| term == "dumb");
    std::io::stderr().is_terminal() && !dumb && !set(hc_paths::env::NO_COLOR)
}

/// Names and ids from images and guests may hold anything; what moves the cursor is not shown.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
