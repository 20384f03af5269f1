// SPDX-License-Identifier: Apache-2.0
//! Figures as people read them.

use std::time::Duration;

/// Prints the head of a group.
pub(crate) fn group(title: &str) {
    println!("\n{title}");
}

/// Prints one figure with the bar it should meet, where it has one.
pub(crate) fn figure(what: &str, value: &str, bar: &str) {
    println!("  {what:<52} {value:>12}   {bar}");
}

/// A time in milliseconds.
pub(crate) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// The middle of several times.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
