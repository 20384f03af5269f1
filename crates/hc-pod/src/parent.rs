// SPDX-License-Identifier: Apache-2.0
//! The process that started us.

use std::time::Duration;

use rustix::process::{Pid, getppid};

/// How often it is looked for, in the moment between a boot and the order to start.
const INTERVAL: Duration = Duration::from_millis(250);

/// Waits until our parent, whose process id was `parent`, has ended; returns at once where it has.
pub(crate) async fn gone(parent: u32) {
    let parent = i32::try_from(parent).ok().and_then(Pid::from_raw);
    let mut looks = tokio::time::interval(INTERVAL);
    // An orphan has another parent, always, so the number cannot be taken for a new process's.
    while getppid() == parent {
        looks.tick().await;
    }
}
