// SPDX-License-Identifier: Apache-2.0
//! How fast this processor's time stamp counter runs, which an emulated guest wants to be told.
//!
//! QEMU's translator gives a guest the host's counter, but nothing to learn its rate from other than
//! a timer that is emulated too. On a busy host the guest's measurement fails, and it falls back to
//! counting timer interrupts: its clock then stands still for milliseconds, loses time, and costs a
//! whole pod several percent of a processor while idle. So we measure, with a real clock.
#![expect(unsafe_code, reason = "reading the counter is an intrinsic")]

use std::time::Duration;

use rustix::time::ClockId;

/// Reading both clocks takes about 50 ns, so this far apart the error is below 50 in a million,
/// which is what an ordinary crystal has.
const MIN_DISTANCE: Duration = Duration::from_millis(2);

/// Between moments further apart the host may have slept, and only one of the clocks.
const MAX_DISTANCE: Duration = Duration::from_secs(10);

/// No processor's counter has been seen beyond these.
const PLAUSIBLE_KHZ: std::ops::RangeInclusive<u64> = 500_000..=10_000_000;

/// Attempts to read both clocks with nothing between; the closest counts.
const ATTEMPTS: usize = 5;

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The clock that nobody adjusts.
    nanoseconds: u64,
    ticks: u64,
}

impl Moment {
    /// Reads both clocks; `None` on a host whose counter does not run at one rate for ever.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn now() -> Option<Moment> {
        use std::arch::x86_64::_rdtsc;

        if !counter_is_invariant() {
            return None;
        }
        let attempt = || {
            // SAFETY: reads a register that Linux lets every process read.
            let before = unsafe { _rdtsc() };
            let nanoseconds = nanoseconds();
            // SAFETY: as above.
            let after = unsafe { _rdtsc() };
            (after.wrapping_sub(before), Moment { nanoseconds, ticks: before.midpoint(after) })
        };
        let attempts = std::iter::repeat_with(attempt).take(ATTEMPTS);
        attempts.min_by_key(|(duration, _)| *duration).map(|(_, moment)| moment)
    }

    /// Only x86 has this counter.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn now() -> Option<Moment> {
        None
    }

    /// The counter's rate, measured from this moment if it is not too long ago.
    pub(crate) async fn rate_since(self) -> Option<u64> {
        let passed = Duration::from_nanos(nanoseconds().saturating_sub(self.nanoseconds));
        let (start, passed) =
            if passed > MAX_DISTANCE { (Moment::now()?, Duration::ZERO) } else { (self, passed) };
        tokio::time::sleep(MIN_DISTANCE.saturating_sub(passed)).await;
        start.rate_until(Moment::now()?)
    }

    /// The counter's rate between two moments in kHz, if it makes sense.
    fn rate_until(self, later: Moment) -> Option<u64> {
        let nanoseconds = u128::from(later.nanoseconds.checked_sub(self.nanoseconds)?);
        let ticks = u128::from(later.ticks.checked_sub(self.ticks)?);
        let khz = (ticks * 1_000_000).checked_div(nanoseconds)?;
        u64::try_from(khz).ok().filter(|khz| PLAUSIBLE_KHZ.contains(khz))
    }
}

/// Whether the counter runs at one rate, whatever the processor's speed and sleep.
#[cfg(target_arch = "x86_64")]
fn counter_is_invariant() -> bool {
    use std::arch::x86_64::__cpuid;

    const LARGEST_LEAF: u32 = 0x8000_0000;
    const POWER_LEAF: u32 = 0x8000_0007;
    const INVARIANT: u32 = 1 << 8;
    __cpuid(LARGEST_LEAF).eax >= POWER_LEAF && __cpuid(POWER_LEAF).edx & INVARIANT != 0
}

fn nanoseconds() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::MonotonicRaw);
    let duration = Duration::try_from(time).unwrap_or_default();
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_ticks_by_time() {
        let check = |nanoseconds, ticks, expected| {
            let start = Moment { nanoseconds: 1_000, ticks: 5_000 };
            assert_eq!(start.rate_until(Moment { nanoseconds, ticks }), expected);
        };
        check(1_001_000, 2_605_000, Some(2_600_000));
        // Time that stood still, ran backwards, or raced, is no measure.
        check(1_000, 2_605_000, None);
        check(0, 2_605_000, None);
        check(1_001_000, 4_000, None);
        check(1_001_000, 100_005_000, None);
    }

    #[tokio::test]
    async fn two_measurements_agree() {
        let Some(start) = Moment::now() else { return };
        let first = start.rate_since().await.unwrap();
        let second = start.rate_since().await.unwrap();
        // Far less apart than the 500 in a million that would show in a guest's clock.
        assert!(first.abs_diff(second) * 2_000 < first, "{first} kHz, then {second} kHz");

        // A moment from before the machine slept is not believed.
        let stale = Moment { nanoseconds: 0, ..start };
        let third = stale.rate_since().await.unwrap();
        assert!(first.abs_diff(third) * 2_000 < first, "{first} kHz, then {third} kHz");
    }
}
