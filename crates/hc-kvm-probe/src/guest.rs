// SPDX-License-Identifier: Apache-2.0
//! The throw-away VM: one processor in 64-bit mode that runs a loop of kernel code and reports.
//!
//! It knows nothing of clocks and verdicts. A round always comes back by itself, because each loop
//! ends with a write to a port; no signal has to interrupt anything.
#![expect(unsafe_code, reason = "the guest's memory is a mapping")]

use std::ptr;

use kvm_bindings::{kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::mm::{MapFlags, ProtFlags};

use crate::verdict::Probe;

/// One page of 2 MiB holds everything.
const MEMORY_LEN: usize = 2 << 20;
const PML4: usize = 0x1000;
const PDPT: usize = 0x2000;
const DIRECTORY: usize = 0x3000;
const CODE: usize = 0x8000;
/// Room for each loop.
const CODE_STRIDE: usize = 0x100;

/// What the guest does, as often as `ecx` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loop {
    /// Nothing: how fast instructions of a kernel run.
    Empty,
    /// Takes its page tables anew. A processor that translates the guest's addresses itself does
    /// this alone; else the guest is left each time, as for every other change of page tables.
    SwitchPageTables,
    /// Asks what processor this is, for which every guest is left: the measure of leaving one.
    Leave,
}

impl Loop {
    const ALL: [Loop; 3] = [Loop::Empty, Loop::SwitchPageTables, Loop::Leave];

    fn code(self) -> &'static [u8] {
        match self {
            Loop::Empty => &[
                0xff, 0xc9, // dec ecx
                0x75, 0xfc, // jnz to the dec
                0xe6, 0x10, // out 0x10, al
            ],
            Loop::SwitchPageTables => &[
                0x0f, 0x20, 0xd8, // mov rax, cr3
                0x0f, 0x22, 0xd8, // mov cr3, rax
                0xff, 0xc9, // dec ecx
                0x75, 0xf9, // jnz to the write of cr3
                0xe6, 0x10, // out 0x10, al
            ],
            Loop::Leave => &[
                0x89, 0xcf, // mov edi, ecx
                0x31, 0xc0, // xor eax, eax
                0x0f, 0xa2, // cpuid, which overwrites ecx
                0xff, 0xcf, // dec edi
                0x75, 0xf8, // jnz to the xor
                0xe6, 0x10, // out 0x10, al
            ],
        }
    }

    fn address(self) -> usize {
        CODE + self as usize * CODE_STRIDE
    }
}

/// A VM with one processor, ready for rounds.
pub(crate) struct Guest {
    // Dropped in this order: the memory is the last to go.
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: Memory,
}

impl Guest {
    /// Makes the VM.
    pub(crate) fn new(kvm: &Kvm) -> Result<Guest, Probe> {
        let vm = kvm.create_vm().map_err(|error| match rustix_errno(error) {
            rustix::io::Errno::BUSY => Probe::Busy,
            error => broken("create a VM", error),
        })?;
        let mut memory = Memory::new().map_err(|error| broken("map memory", error))?;
        memory.write(PML4, &entry(PDPT));
        memory.write(PDPT, &entry(DIRECTORY));
        memory.write(DIRECTORY, &LARGE_PAGE.to_le_bytes());
        for each in Loop::ALL {
            memory.write(each.address(), each.code());
        }
        let region = kvm_userspace_memory_region {
            memory_size: MEMORY_LEN as u64,
            userspace_addr: memory.start as u64,
            ..kvm_userspace_memory_region::default()
        };
        // SAFETY: the region is a mapping of this length that lives in the `Guest` and is unmapped
        // only after VM and processor, which hold the last references to it, are closed.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(|error| broken("give a VM memory", error))?;
        let vcpu = vm.create_vcpu(0).map_err(|error| broken("create a vCPU", error))?;
        enter_long_mode(&vcpu).map_err(|error| broken("set a vCPU's registers", error))?;
        Ok(Guest { vcpu, _vm: vm, _memory: memory })
    }

    /// Runs a loop from its start to its end.
    pub(crate) fn run(&mut self, which: Loop, turns: u32) -> Result<(), Probe> {
        let cannot_run = |error| broken("run a vCPU", error);
        let mut registers = self.vcpu.get_regs().map_err(cannot_run)?;
        registers.rip = which.address() as u64;
        registers.rcx = turns.into();
        registers.rflags = RESERVED_FLAG;
        self.vcpu.set_regs(&registers).map_err(cannot_run)?;
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoOut(..)) => return Ok(()),
                Ok(exit) => {
                    let reason = format!("a guest of a few instructions ended with {exit:?}");
                    return Err(Probe::Broken(reason));
                }
                Err(error) if rustix_errno(error) == rustix::io::Errno::INTR => {}
                Err(error) => return Err(cannot_run(error)),
            }
        }
    }
}

fn rustix_errno(error: kvm_ioctls::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_raw_os_error(error.errno())
}

fn broken(what: &str, error: impl std::fmt::Display) -> Probe {
    Probe::Broken(format!("cannot {what}: {error}"))
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
    fn each_loop_fits_its_room_jumps_where_its_comment_says_and_ends_with_the_report() {
        let check = |which: Loop, target: usize| {
            let code = which.code();
            let jump = code.len() - 4;
            assert_eq!(code[jump], 0x75, "{which:?}");
            let distance = code[jump + 1].cast_signed();
            assert_eq!((jump + 2).wrapping_add_signed(distance.into()), target, "{which:?}");
            assert_eq!(code[jump + 2..], [0xe6, 0x10], "{which:?}");
            assert!(code.len() <= CODE_STRIDE);
        };
        check(Loop::Empty, 0);
        check(Loop::SwitchPageTables, 3);
        check(Loop::Leave, 2);
    }
}
