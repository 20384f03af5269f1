// SPDX-License-Identifier: Apache-2.0
//! Waiting for conditions.

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
