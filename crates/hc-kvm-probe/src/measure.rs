// SPDX-License-Identifier: Apache-2.0
//! The throw-away VM: one processor in 64-bit mode that counts down and reports.
//!
//! A round is short, so each entry into the guest comes back by itself even where it is emulated.
//! That is the deadline's whole mechanism: no signal has to interrupt anything.
#![expect(unsafe_code, reason = "the guest's memory is a mapping")]

use std::ffi::CStr;
use std::io;
use std::ptr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use rustix::mm::{MapFlags, ProtFlags};

use crate::verdict::Probe;

/// The longest that [`probe`] takes: far over what creating a VM and two rounds need anywhere.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A round that would take longer than this is not begun. An emulator takes some ten milliseconds
/// for the first one, and twenty times this for the last; a processor has done that in one.
const LONGEST_ROUND: Duration = Duration::from_millis(50);

/// Turns of the loop, round by round: the more the better, since leaving the guest takes some time
/// as well, a millisecond where KVM itself runs on an emulator.
const ROUNDS: [u32; 3] = [10_000, 100_000, 1_000_000];

/// A busy host takes the processor away from some of the attempts; the fastest one counts.
const ATTEMPTS: usize = 3;

const DEVICE: &CStr = c"/dev/kvm";

/// One page of 2 MiB holds everything.
const MEMORY_LEN: usize = 2 << 20;
const PML4: usize = 0x1000;
const PDPT: usize = 0x2000;
const DIRECTORY: usize = 0x3000;
const CODE: usize = 0x8000;

/// The guest: counts down from what is in `ecx` and tells us by a write to a port.
const PROGRAM: [u8; 6] = [
    0xff, 0xc9, // dec ecx
    0x75, 0xfc, // jnz to the dec
    0xe6, 0x10, // out 0x10, al
];

/// Runs a guest and says what came of it. Blocks for some milliseconds; see [`PATIENCE`].
#[must_use]
pub fn probe() -> Probe {
    probe_device(DEVICE)
}

fn probe_device(device: &'static CStr) -> Probe {
    let (verdict, verdict_seen) = mpsc::sync_channel(1);
    let ask = move || {
        // Fails if we were too slow, and nobody listens any more.
        let _ = verdict.send(ask(device));
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

fn ask(device: &CStr) -> Probe {
    let kvm = match Kvm::new_with_path(device) {
        Ok(kvm) => kvm,
        Err(error) => return cannot_open(error.into()),
    };
    match loops_per_second(&kvm) {
        Ok(speed) => Probe::of_speed(speed),
        Err(reason) => Probe::Broken(reason),
    }
}

fn cannot_open(error: io::Error) -> Probe {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ACCESS | Errno::PERM) => Probe::NoPermission,
        // The last two: a device node without a driver behind it.
        Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => Probe::Absent,
        Some(_) | None => Probe::Broken(format!("cannot open it: {error}")),
    }
}

fn loops_per_second(kvm: &Kvm) -> Result<u64, String> {
    let vm = kvm.create_vm().map_err(|error| format!("cannot create a VM: {error}"))?;
    let mut memory = Memory::new().map_err(|error| format!("cannot map memory: {error}"))?;
    memory.write(PML4, &entry(PDPT));
    memory.write(PDPT, &entry(DIRECTORY));
    memory.write(DIRECTORY, &LARGE_PAGE.to_le_bytes());
    memory.write(CODE, &PROGRAM);
    let region = kvm_userspace_memory_region {
        memory_size: MEMORY_LEN as u64,
        userspace_addr: memory.start as u64,
        ..kvm_userspace_memory_region::default()
    };
    // SAFETY: the region is a mapping of this length that `memory` keeps until `vm`, which was made
    // before it and so is dropped after it, can run no more: its only processor lives in this call.
    unsafe { vm.set_user_memory_region(region) }
        .map_err(|error| format!("cannot give a VM memory: {error}"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(|error| format!("cannot create a vCPU: {error}"))?;
    enter_long_mode(&vcpu).map_err(|error| format!("cannot set a vCPU's registers: {error}"))?;
    let speed = count(&mut vcpu);
    drop(vcpu);
    speed
}

/// Runs longer and longer rounds while they are quick; the last one says how fast it goes.
fn count(vcpu: &mut VcpuFd) -> Result<u64, String> {
    let overhead = fastest(vcpu, 1)?;
    let mut speed = 0;
    for turns in ROUNDS {
        let time = fastest(vcpu, turns)?.saturating_sub(overhead);
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
fn fastest(vcpu: &mut VcpuFd, turns: u32) -> Result<Duration, String> {
    let mut fastest = Duration::MAX;
    for _ in 0..ATTEMPTS {
        fastest = fastest.min(round(vcpu, turns)?);
    }
    Ok(fastest)
}

/// Runs the loop from its start.
fn round(vcpu: &mut VcpuFd, turns: u32) -> Result<Duration, String> {
    let cannot_run = |error| format!("cannot run a vCPU: {error}");
    let mut registers = vcpu.get_regs().map_err(cannot_run)?;
    registers.rip = CODE as u64;
    registers.rcx = turns.into();
    registers.rflags = RESERVED_FLAG;
    vcpu.set_regs(&registers).map_err(cannot_run)?;
    let start = Instant::now();
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(..)) => return Ok(start.elapsed()),
            Ok(exit) => return Err(format!("a guest of three instructions ended with {exit:?}")),
            Err(error) if error.errno() == rustix::io::Errno::INTR.raw_os_error() => {}
            Err(error) => return Err(cannot_run(error)),
        }
    }
}

/// The one bit of the flags that is always set.
const RESERVED_FLAG: u64 = 1 << 1;

/// Present and writable, 2 MiB large, at address zero.
const LARGE_PAGE: u64 = 0b1000_0011;

/// A present and writable page table entry that points to `table`.
fn entry(table: usize) -> [u8; 8] {
    (table as u64 | 0b11).to_le_bytes()
}

fn enter_long_mode(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    const PROTECTED_AND_PAGED: u64 = 1 << 31 | 1;
    const PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
    const LONG_MODE_ENABLED_AND_ACTIVE: u64 = 1 << 8 | 1 << 10;

    let mut special = vcpu.get_sregs()?;
    special.cr0 = PROTECTED_AND_PAGED;
    special.cr3 = PML4 as u64;
    special.cr4 = PHYSICAL_ADDRESS_EXTENSION;
    special.efer = LONG_MODE_ENABLED_AND_ACTIVE;
    special.cs = segment(0x8, Kind::Code);
    let data = segment(0x10, Kind::Data);
    (special.ds, special.es, special.fs) = (data, data, data);
    (special.gs, special.ss) = (data, data);
    vcpu.set_sregs(&special)
}

#[derive(PartialEq)]
enum Kind {
    Code,
    Data,
}

/// A flat segment of ring 0.
fn segment(selector: u16, kind: Kind) -> kvm_segment {
    const EXECUTE_READ_ACCESSED: u8 = 0b1011;
    const READ_WRITE_ACCESSED: u8 = 0b0011;
    let code = kind == Kind::Code;
    kvm_segment {
        selector,
        limit: u32::MAX,
        type_: if code { EXECUTE_READ_ACCESSED } else { READ_WRITE_ACCESSED },
        present: 1,
        s: 1,
        g: 1,
        l: u8::from(code),
        db: u8::from(!code),
        ..kvm_segment::default()
    }
}

/// The guest's memory.
struct Memory {
    start: *mut u8,
}

impl Memory {
    fn new() -> rustix::io::Result<Memory> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), MEMORY_LEN, access, MapFlags::PRIVATE)
        }?;
        Ok(Memory { start: start.cast() })
    }

    /// Writes before the guest runs.
    fn write(&mut self, address: usize, bytes: &[u8]) {
        assert!(address + bytes.len() <= MEMORY_LEN, "all addresses are constants of this file");
        // SAFETY: the range lies in the mapping, which is ours alone while no vCPU exists.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(address), bytes.len()) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and nothing refers into it.
        let unmapped = unsafe { rustix::mm::munmap(self.start.cast(), MEMORY_LEN) };
        debug_assert!(unmapped.is_ok(), "a whole mapping can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probing_this_host_ends_in_time_with_the_same_answer_twice() {
        let start = Instant::now();
        let first = probe();
        assert!(start.elapsed() < PATIENCE + Duration::from_secs(1), "{first}");
        assert_eq!(first.is_usable(), probe().is_usable());
        // Another hypervisor may hold the processor, but whoever makes a VM can run the loop.
        let broken = matches!(&first, Probe::Broken(reason) if !reason.contains("create a VM"));
        assert!(!broken, "{first}");
    }

    #[test]
    fn a_missing_device_is_absent() {
        assert_eq!(probe_device(c"/nonexistent/kvm"), Probe::Absent);
    }

    #[test]
    fn a_device_of_another_kind_is_broken() {
        assert!(matches!(probe_device(c"/dev/null"), Probe::Broken(_)));
    }

    #[test]
    fn a_refused_open_is_told_from_a_missing_device() {
        let check = |errno, expected| {
            assert_eq!(cannot_open(io::Error::from_raw_os_error(errno)), expected);
        };
        check(13, Probe::NoPermission);
        check(1, Probe::NoPermission);
        check(2, Probe::Absent);
        check(6, Probe::Absent);
        check(19, Probe::Absent);
    }

    #[test]
    fn the_loop_jumps_where_its_comment_says() {
        let jump = |at: usize| (at + 2).wrapping_add_signed(PROGRAM[at + 1].cast_signed().into());
        assert_eq!((PROGRAM[2], jump(2)), (0x75, 0));
    }
}
