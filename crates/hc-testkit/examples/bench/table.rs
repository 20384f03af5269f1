// SPDX-License-Identifier: Apache-2.0
//! Figures as people read them.

use std::time::{Duration, Instant};

/// Prints the head of a group.
pub(crate) fn group(title: &str) {
    println!("\n{title}");
}

/// Prints one figure with the bar it should meet, where it has one.
pub(crate) fn figure(what: &str, value: &str, bar: &str) {
    println!("  {what:<52} {value:>12}   {bar}");
}

/// Prints cells side by side below the names of their columns.
pub(crate) fn row(what: &str, cells: [&str; 3], bar: &str) {
    let [a, b, c] = cells;
    println!("  {what:<34} {a:>12} {b:>10} {c:>10}   {bar}");
}

/// A time in milliseconds.
pub(crate) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// How many times `time` is as long as `other`.
pub(crate) fn ratio(time: Duration, other: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() / other.as_secs_f64())
}

/// A piece of memory in MiB.
pub(crate) fn mib(kib: u64) -> String {
    let tenths = kib * 10 / 1024;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// The middle of several times.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// How long something takes.
pub(crate) fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}
