// SPDX-License-Identifier: Apache-2.0
//! Waiting for conditions.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;
use std::time::{Duration, Instant};

/// How long anything may take that a test waits for: long enough for a loaded machine without
/// hardware virtualisation, short enough to notice a hang.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until `condition` holds; fails the test with `what` when it does not in [`PATIENCE`].
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        // Not a wait for the condition, only a pause between two looks at it.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a program has ended, and says its exit status; fails the test, and ends the program,
/// when it does not in [`PATIENCE`].
#[track_caller]
pub fn until_ended(program: &mut Child) -> i32 {
    let start = Instant::now();
    loop {
        if let Some(status) = program.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        }
        if start.elapsed() > PATIENCE {
            program.kill().unwrap();
            panic!("{program:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
