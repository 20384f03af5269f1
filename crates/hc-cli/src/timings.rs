// SPDX-License-Identifier: Apache-2.0
//! Where the time of a `run` went: what this program did and when, and what the pod says of itself.
//!
//! Both tell time by the host's real-time clock, so their steps can stand in one table. Where nobody
//! asked for the table, nothing here looks at a clock.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use hc_api::stream::Step;
use rustix::time::{ClockId, clock_gettime};

use crate::show::Table;

/// What the kernel counts the start of a process in, for programs: a hundredth of a second on every
/// machine that we run on (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
/// Where `/proc/PID/stat` has the start, counted from behind the program's name.
const START_FIELD: usize = 19;

/// The steps so far, or nothing where nobody wants to know.
#[derive(Debug)]
pub(crate) struct Timings(Option<RefCell<Record>>);

#[derive(Debug, Default)]
struct Record {
    steps: Vec<Step>,
    has_output: bool,
}

impl Timings {
    /// Keeps nothing.
    pub(crate) fn off() -> Timings {
        Timings(None)
    }

    /// Keeps steps from the start of this process on.
    pub(crate) fn since_process_start() -> Timings {
        let start = SystemTime::now().checked_sub(process_age()).unwrap_or(SystemTime::now());
        let timings = Timings(Some(RefCell::default()));
        timings.push("process started", start);
        timings
    }

    /// This has just been done.
    pub(crate) fn mark(&self, what: &str) {
        if self.0.is_some() {
            self.push(what, SystemTime::now());
        }
    }

    /// Output has come; only the first is a step.
    pub(crate) fn mark_output(&self) {
        let Some(record) = &self.0 else { return };
        if !std::mem::replace(&mut record.borrow_mut().has_output, true) {
            self.mark("first output byte");
        }
    }

    /// Adds what the pod did.
    pub(crate) fn add_pod(&self, timeline: &[Step]) {
        let Some(record) = &self.0 else { return };
        let step = |step: &Step| Step { what: format!("pod: {}", step.what), ..*step };
        record.borrow_mut().steps.extend(timeline.iter().map(step));
    }

    /// What to show, where somebody wants to know.
    pub(crate) fn table(&self) -> Option<String> {
        self.0.as_ref().map(|record| table(&record.borrow().steps))
    }

    fn push(&self, what: &str, when: SystemTime) {
        let Some(record) = &self.0 else { return };
        let since = when.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let unix_micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        record.borrow_mut().steps.push(Step { what: format!("hyper: {what}"), unix_micros });
    }
}

/// The steps in the order of time; the first given is where time begins.
fn table(steps: &[Step]) -> String {
    let begin = steps.first().map_or(0, |step| step.unix_micros);
    let mut steps: Vec<_> = steps.iter().collect();
    steps.sort_by_key(|step| step.unix_micros);
    let mut table = Table::new(&["STEP", "AT ms", "TOOK ms"]).right([1, 2]);
    let mut before = begin;
    for step in steps {
        let (at, took) = (step.unix_micros.abs_diff(begin), step.unix_micros.abs_diff(before));
        // Only a clock that was set meanwhile makes a step earlier than the beginning.
        let sign = if step.unix_micros < begin { "-" } else { "" };
        table.row([step.what.clone(), format!("{sign}{}", millis(at)), millis(took)]);
        before = step.unix_micros;
    }
    table.row(["total".to_owned(), String::new(), millis(before.saturating_sub(begin))]);
    table.render()
}

fn millis(micros: u64) -> String {
    format!("{}.{:02}", micros / 1000, micros % 1000 / 10)
}

/// How long this process has been there.
fn process_age() -> Duration {
    let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
    let ran = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    age(since_boot, ran, &read("/proc/self/schedstat"), &read("/proc/self/stat"))
}

/// A process is as old as it has run, has waited for a processor (`schedstat`) and has waited for
/// other things. Nothing counts the last, which are few before `main`; but the kernel's own record
/// of the start (`stat`), as coarse as it is, says how far off this can be.
fn age(since_boot: Duration, ran: Duration, schedstat: &str, stat: &str) -> Duration {
    let waited = schedstat.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok());
    let age = ran + Duration::from_nanos(waited.unwrap_or(0));
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().nth(START_FIELD).and_then(|ticks| ticks.parse().ok());
    let Some(ticks) = ticks else { return age };
    let started: Duration = TICK.saturating_mul(ticks);
    let most = since_boot.saturating_sub(started);
    age.clamp(most.saturating_sub(TICK), most)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(steps: &[(&str, u64)], expected: Expect) {
        let step = |&(what, unix_micros): &(&str, u64)| Step { what: what.into(), unix_micros };
        expected.assert_eq(&table(&steps.iter().map(step).collect::<Vec<_>>()));
    }

    #[test]
    fn steps_stand_in_the_order_of_time_and_the_total_last() {
        check(
            &[
                ("hyper: process started", 1_000_000),
                ("hyper: start requested", 1_002_345),
                ("hyper: done", 2_123_999),
                ("pod: guest answers", 1_500_000),
                ("pod: set\x1b back", 999_000),
            ],
            expect![[r"
                STEP                       AT ms   TOOK ms
                pod: set� back             -1.00      1.00
                hyper: process started      0.00      1.00
                hyper: start requested      2.34      2.34
                pod: guest answers        500.00    497.65
                hyper: done              1123.99    623.99
                total                              1123.99
            "]],
        );
    }

    #[test]
    fn what_nobody_asked_for_is_not_kept() {
        let timings = Timings::off();
        timings.mark("connected");
        timings.mark_output();
        timings.add_pod(&[Step { what: "guest answers".into(), unix_micros: 1 }]);
        assert_eq!(timings.table(), None);
    }

    #[test]
    fn only_the_first_output_is_a_step() {
        let timings = Timings::since_process_start();
        timings.mark_output();
        timings.mark_output();
        assert_eq!(timings.table().unwrap().matches("first output byte").count(), 1);
    }

    #[test]
    fn the_age_is_what_was_run_and_waited_within_what_the_kernel_recorded() {
        let millis = Duration::from_millis;
        let stat = format!("1 (a) b) R {} 500 9", "0 ".repeat(START_FIELD - 1));
        let age =
            |since_boot, ran, schedstat| age(millis(since_boot), millis(ran), schedstat, &stat);
        assert_eq!(age(5008, 2, "9 1000000 4"), millis(3), "run and waited");
        assert_eq!(age(5020, 2, "9 1000000 4"), millis(10), "it also waited for other things");
        assert_eq!(age(5001, 2, "9 1000000 4"), millis(1), "not older than its start");
        assert_eq!(super::age(millis(5001), millis(2), "", ""), millis(2), "nothing to read");
    }

    #[test]
    fn this_process_has_an_age() {
        let age = process_age();
        assert!(age > Duration::ZERO && age < Duration::from_hours(1), "{age:?}");
    }
}
