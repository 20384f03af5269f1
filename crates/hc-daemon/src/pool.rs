// SPDX-License-Identifier: Apache-2.0
//! The warm pool: VMs that wait, gone on from a template, for pods to come.
//!
//! # Invariants
//!
//! - There are at most as many as the configuration says, all of one template: that of pods which ask
//!   for nothing in particular.
//! - None waits while the host is short of memory.
//! - A VM that waits belongs to its own process, and ends with the daemon.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hc_pod::job::{Job, Shape};
use tokio::sync::Notify;

use crate::process::{Process, Processes};
use crate::templates::{Key, Templates};

/// How often the host's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Percent of the host's memory that must be left for VMs to wait.
const FREE_PERCENT: u64 = 10;
/// Percent of time for which some process waited for memory, lately, that is too much.
const PRESSURE_PERCENT: f64 = 10.0;
/// How long nothing is tried after a VM could not be made.
const RETRY_AFTER: Duration = Duration::from_mins(1);

/// VMs that wait.
pub(crate) struct Pool {
    size: usize,
    waiting: Mutex<VecDeque<(Key, Process)>>,
    changed: Notify,
}

/// What the pool is for.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    pub(crate) key: Key,
    pub(crate) shape: Shape,
}

impl Pool {
    pub(crate) fn new(size: usize) -> Pool {
        Pool { size, waiting: Mutex::default(), changed: Notify::new() }
    }

    /// Whether there is to be one.
    pub(crate) fn is_wanted(&self) -> bool {
        self.size > 0
    }

    /// One VM of this template, if one waits.
    pub(crate) fn take(&self, key: &Key) -> Option<Process> {
        let mut waiting = self.waiting();
        let at = waiting.iter().position(|(waits_for, _)| waits_for == key)?;
        waiting.remove(at).map(|(_, process)| process)
    }

    /// How many wait, of this template.
    pub(crate) fn count(&self, key: &Key) -> usize {
        self.waiting().iter().filter(|(waits_for, _)| waits_for == key).count()
    }

    /// Lets the pool be filled up, once whoever took from it needs the host no more.
    pub(crate) fn refill(&self) {
        self.changed.notify_one();
    }

    /// Keeps the pool full for as long as the daemon lives. `want` says what with: the answer may
    /// change while it runs, as with a new kernel.
    pub(crate) async fn keep_full<F: Future<Output = Option<Want>>>(
        self: Arc<Self>,
        templates: Arc<Templates>,
        processes: Processes,
        want: impl Fn() -> F,
    ) {
        loop {
            let pause = match want().await {
                Some(want) => self.step(&templates, &processes, want).await,
                None => RETRY_AFTER,
            };
            if !pause.is_zero() {
                // Whichever comes first.
                let _ = tokio::time::timeout(pause, self.changed.notified()).await;
            }
        }
    }

    /// Brings the pool one VM nearer to what it should be; how long there is nothing to do then.
    async fn step(
        &self,
        templates: &Arc<Templates>,
        processes: &Processes,
        want: Want,
    ) -> Duration {
        let Want { key, shape } = want;
        if is_short_of_memory() {
            self.waiting().clear();
            return LOOK_EVERY;
        }
        self.waiting().retain(|(waits_for, process)| *waits_for == key && process.lives());
        if self.waiting().len() >= self.size {
            return LOOK_EVERY;
        }
        let Some(guest) = templates.get_or_make(&key, &shape).await else { return RETRY_AFTER };
        let begun = async {
            let warm = templates.rehearsed(&shape).await.map_err(|failure| failure.0.message)?;
            let process = processes.start().map_err(|failure| failure.0.message)?;
            process.give(&Job::Warm(warm, guest)).map_err(|error| error.to_string())?;
            Ok::<_, String>(process)
        };
        let process = match begun.await {
            Ok(process) => process,
            Err(error) => {
                tracing::warn!(error, "no process for a VM of the pool");
                return RETRY_AFTER;
            }
        };
        if let Err(error) = process.outcome().await {
            // The template may be what is wrong: it is made anew.
            tracing::warn!(error, "no VM for the pool, so its template goes");
            templates.remove(&key);
            return RETRY_AFTER;
        }
        self.waiting().push_back((key, process));
        Duration::ZERO
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<(Key, Process)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_short_of_memory() -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    is_short(&read("/proc/meminfo"), &read("/proc/pressure/memory"))
}

/// The same, by what the kernel says; where it does not say, there is enough.
fn is_short(meminfo: &str, pressure: &str) -> bool {
    let kib = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let little = match (kib("MemAvailable"), kib("MemTotal")) {
        (Some(available), Some(total)) => available < total / 100 * FREE_PERCENT,
        _ => false,
    };
    let some = pressure.lines().find_map(|line| line.strip_prefix("some avg10="));
    let share = some.and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    little || share.is_some_and(|share| share > PRESSURE_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_memory_or_processes_that_wait_for_it_are_shortness() {
        let meminfo = |available| {
            format!("MemTotal:       1000000 kB\nMemFree: 1 kB\nMemAvailable:   {available} kB\n")
        };
        let pressure = |share| format!("some avg10={share} avg60=0.00 total=1\nfull avg10=0.00\n");
        assert!(!is_short(&meminfo(200_000), &pressure("0.00")));
        assert!(is_short(&meminfo(99_999), &pressure("0.00")));
        assert!(is_short(&meminfo(200_000), &pressure("10.50")));
        assert!(!is_short("", ""));
    }
}
