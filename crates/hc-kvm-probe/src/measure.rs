// SPDX-License-Identifier: Apache-2.0
//! Opens the device and times rounds of the guest, longer and longer ones while they are quick.
//!
//! A round is short, so each entry into the guest comes back by itself even where it is emulated.
//! That is the deadline's whole mechanism.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;

use crate::guest::{Guest, Loop};
use crate::paging;
use crate::verdict::{Probe, Speed};

/// The longest that [`probe`] takes: far over what creating a VM and all rounds need anywhere.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A round that would take longer than this is not begun. An emulator takes some ten milliseconds
/// for the first one, and twenty times this for the last; a processor has done that in one.
const LONGEST_ROUND: Duration = Duration::from_millis(50);

/// Turns of the empty loop, round by round: the more the better, since leaving the guest takes some
/// time as well, a millisecond where KVM itself runs on an emulator.
const ROUNDS: [u32; 3] = [10_000, 100_000, 1_000_000];

/// Turns of loops that may leave the guest each time, which takes from one microsecond to, on an
/// emulator, a millisecond.
const LEAVING_ROUNDS: [u32; 3] = [10, 100, 1000];

/// A busy host takes the processor away from some of the attempts; the fastest one counts.
const ATTEMPTS: usize = 3;

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// KVM's device.
    pub device: PathBuf,
    /// The folder in which the kernel has one for each of its modules.
    pub modules: PathBuf,
}

impl Default for Places {
    fn default() -> Places {
        Places { device: "/dev/kvm".into(), modules: "/sys/module".into() }
    }
}

/// Runs a guest and says what came of it. Blocks for some milliseconds; see [`PATIENCE`].
#[must_use]
pub fn probe() -> Probe {
    probe_at(&Places::default())
}

/// The same for a device and a kernel's account of itself that are elsewhere.
#[must_use]
pub fn probe_at(places: &Places) -> Probe {
    let (verdict, verdict_seen) = mpsc::sync_channel(1);
    let places = places.clone();
    let ask = move || {
        // Fails if we were too slow, and nobody listens any more.
        let _ = verdict.send(ask(&places));
    };
    if let Err(error) = thread::Builder::new().name("kvm-probe".into()).spawn(ask) {
        return Probe::Broken(format!("cannot start a thread: {error}"));
    }
    match verdict_seen.recv_timeout(PATIENCE) {
        Ok(verdict) => verdict,
        Err(RecvTimeoutError::Timeout) => Probe::Broken(format!("no end within {PATIENCE:?}")),
        Err(RecvTimeoutError::Disconnected) => Probe::Broken("the probe itself failed".into()),
    }
}

fn ask(places: &Places) -> Probe {
    let kvm = match open(&places.device) {
        Ok(kvm) => kvm,
        Err(error) => return cannot_open(&error),
    };
    measure(&kvm).map_or_else(
        |failed| failed,
        |speed| Probe::of_speed(speed, paging::nested(&places.modules)),
    )
}

fn open(device: &Path) -> io::Result<Kvm> {
    let path = CString::new(device.as_os_str().as_bytes())?;
    Ok(Kvm::new_with_path(path)?)
}

fn cannot_open(error: &io::Error) -> Probe {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ACCESS | Errno::PERM) => Probe::NoPermission,
        // The last two: a device node without a driver behind it.
        Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => Probe::Absent,
        Some(_) | None => Probe::Broken(format!("cannot open it: {error}")),
    }
}

fn measure(kvm: &Kvm) -> Result<Speed, Probe> {
    let mut guest = Guest::new(kvm)?;
    let loops_per_second = rate(&mut guest, Loop::Empty, &ROUNDS)?;
    if Speed::is_emulated(loops_per_second) {
        // What an emulator makes of the other instructions is nobody's business.
        return Ok(Speed { loops_per_second, ..Speed::default() });
    }
    Ok(Speed {
        loops_per_second,
        switches_per_second: rate(&mut guest, Loop::SwitchPageTables, &LEAVING_ROUNDS)?,
        exits_per_second: rate(&mut guest, Loop::Leave, &LEAVING_ROUNDS)?,
    })
}

/// Runs longer and longer rounds while they are quick; the last one says how fast it goes.
fn rate(guest: &mut Guest, which: Loop, rounds: &[u32]) -> Result<u64, Probe> {
    let overhead = fastest(guest, which, 1)?;
    let mut speed = 0;
    for &turns in rounds {
        let time = fastest(guest, which, turns)?.saturating_sub(overhead);
        speed = per_second(turns, time);
        // The next round has ten times the turns.
        if time * 10 > LONGEST_ROUND {
            break;
        }
    }
    Ok(speed)
}

fn per_second(turns: u32, time: Duration) -> u64 {
    let speed = u128::from(turns) * 1_000_000_000 / time.as_nanos().max(1);
    u64::try_from(speed).unwrap_or(u64::MAX)
}

/// The time of the fastest of some equal rounds.
fn fastest(guest: &mut Guest, which: Loop, turns: u32) -> Result<Duration, Probe> {
    let mut fastest = Duration::MAX;
    for _ in 0..ATTEMPTS {
        let start = Instant::now();
        guest.run(which, turns)?;
        fastest = fastest.min(start.elapsed());
    }
    Ok(fastest)
}

#[cfg(test)]
mod tests;
