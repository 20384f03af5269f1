// SPDX-License-Identifier: Apache-2.0
//! Which devices a container may open or make: Docker's list, as a BPF program on its control
//! group, the only form that version 2 knows.
//!
//! Docker's capabilities let a container make device nodes. Without these rules its root could
//! make one for another container's disk or for hyperstart's own channel.
#![expect(unsafe_code, reason = "bpf(2) takes raw structures")]

use core::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_ATTACH: u32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Lets groups below have further rules, which can only forbid more.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// `BPF_DEVCG_DEV_CHAR`; the other kind is blocks.
const CHARACTER: u32 = 2;
/// `BPF_DEVCG_ACC_READ` and `BPF_DEVCG_ACC_WRITE`; what is left is making a node.
const READ_WRITE: u32 = 6;
/// Bits of a minor number in the kernel.
const MINOR_BITS: u32 = 20;

/// The character devices that may be opened, as major and minor numbers.
const OPEN: [(u32, u32); 8] = [
    (1, 3), // null
    (1, 5), // zero
    (1, 7), // full
    (1, 8), // random
    (1, 9), // urandom
    (5, 0), // tty
    (5, 1), // console
    (5, 2), // ptmx
];
/// The major number of terminals (`pts/*`), any of which may be opened.
const TERMINALS: u32 = 136;

/// What `BPF_PROG_ATTACH` takes.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// What `BPF_PROG_LOAD` takes.
#[repr(C)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach: u32,
}

/// The program in the kernel, which has verified it.
pub(crate) struct DeviceRules(OwnedFd);

impl DeviceRules {
    /// Hands the program to the kernel.
    pub(crate) fn load() -> io::Result<DeviceRules> {
        load(&compile()).map(DeviceRules)
    }

    /// Forbids the processes of a control group every device but the usual ones.
    pub(crate) fn restrict(&self, cgroup: impl AsFd) -> io::Result<()> {
        let mut attributes = Attach {
            target: cgroup.as_fd().as_raw_fd().unsigned_abs(),
            program: self.0.as_raw_fd().unsigned_abs(),
            kind: BPF_CGROUP_DEVICE,
            flags: BPF_F_ALLOW_MULTI,
        };
        // SAFETY: the structure is the head of `bpf_attr` for this command and holds no pointers.
        unsafe { bpf(BPF_PROG_ATTACH, &mut attributes) }.map(drop)
    }
}

/// Hands a program to the kernel.
fn load(program: &[u64]) -> io::Result<OwnedFd> {
    let mut attributes = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr() as u64,
        licence: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"hyper_devices\0\0\0",
        interface: 0,
        expected_attach: BPF_CGROUP_DEVICE,
    };
    // SAFETY: the structure is the head of `bpf_attr` for this command; its pointers lead to
    // `program` and to a constant, which both outlive the call.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attributes) }?;
    let fd = c_int::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Calls `bpf(2)`.
///
/// # Safety
///
/// `attributes` must be laid out as `bpf_attr` for `command`, with pointers that are valid.
unsafe fn bpf<T>(command: u32, attributes: &mut T) -> io::Result<c_long> {
    // SAFETY: as the caller promises; the size keeps the kernel within `attributes`.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, c_long::from(command), &raw mut *attributes, size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Writes the program: any node may be made, which is harmless by itself; only the usual devices may
/// be opened.
///
/// The kernel gives it a pointer (in r1) to three words: access and kind in one, major, minor. It is
/// one straight line of comparisons, because the kernel's verifier walks every way through it
/// before a container can start.
fn compile() -> Vec<u64> {
    const CONTEXT: u8 = 1;
    const ACCESS: u8 = 2;
    const KIND: u8 = 3;
    const NUMBER: u8 = 4;
    const MINOR: u8 = 5;
    let head = [
        load_word(ACCESS, CONTEXT, 0),
        move_register(KIND, ACCESS),
        and(KIND, 0xffff),
        shift_right(ACCESS, 16),
        and(ACCESS, READ_WRITE),
    ];
    // What each comparison jumps over is known at the end only, so it is filled in there.
    let mut tests = vec![
        (Test::Equal(ACCESS, 0), true),
        (Test::NotEqual(KIND, CHARACTER), false),
        (Test::None(load_word(NUMBER, CONTEXT, 4)), false),
        (Test::Equal(NUMBER, TERMINALS), true),
        (Test::None(load_word(MINOR, CONTEXT, 8)), false),
        (Test::None(shift_left(NUMBER, MINOR_BITS)), false),
        (Test::None(or_register(NUMBER, MINOR)), false),
    ];
    let usual = OPEN.map(|(major, minor)| Test::Equal(NUMBER, major << MINOR_BITS | minor));
    tests.extend(usual.map(|test| (test, true)));
    let mut program = head.to_vec();
    for (index, (test, allowed)) in tests.iter().enumerate() {
        // The tail is: set 0, exit, set 1, exit.
        let to_tail = tests.len() - index - 1 + if *allowed { 2 } else { 0 };
        let lines = i16::try_from(to_tail).expect("the program is short");
        program.push(match *test {
            Test::Equal(register, value) => jump_if_equal(register, value, lines),
            Test::NotEqual(register, value) => jump_unless_equal(register, value, lines),
            Test::None(line) => line,
        });
    }
    program.extend([set(0, 0), EXIT, set(0, 1), EXIT]);
    program
}

/// A line that leaves for the answer if a register has, or has not, a value; or one that does not
/// leave.
#[derive(Clone, Copy)]
enum Test {
    Equal(u8, u32),
    NotEqual(u8, u32),
    None(u64),
}

const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

const fn load_word(to: u8, from: u8, offset: i16) -> u64 {
    instruction(0x61, to, from, offset, 0)
}

const fn move_register(to: u8, from: u8) -> u64 {
    instruction(0xbc, to, from, 0, 0)
}

const fn and(register: u8, mask: u32) -> u64 {
    instruction(0x54, register, 0, 0, mask)
}

const fn shift_right(register: u8, bits: u32) -> u64 {
    instruction(0x74, register, 0, 0, bits)
}

const fn shift_left(register: u8, bits: u32) -> u64 {
    instruction(0x64, register, 0, 0, bits)
}

const fn or_register(to: u8, from: u8) -> u64 {
    instruction(0x4c, to, from, 0, 0)
}

const fn set(register: u8, value: u32) -> u64 {
    instruction(0xb4, register, 0, 0, value)
}

const fn jump_if_equal(register: u8, value: u32, lines: i16) -> u64 {
    instruction(0x16, register, 0, lines, value)
}

const fn jump_unless_equal(register: u8, value: u32, lines: i16) -> u64 {
    instruction(0x56, register, 0, lines, value)
}

/// One line as the kernel lays it out: code, registers, offset, number. Little-endian, as all
/// machines here are.
const fn instruction(code: u8, to: u8, from: u8, offset: i16, number: u32) -> u64 {
    code as u64
        | ((from << 4 | to) as u64) << 8
        | (offset.cast_unsigned() as u64) << 16
        | (number as u64) << 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the compiled program answers; panics where the kernel's verifier would refuse it.
    fn run(program: &[u64], access: u32, kind: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_u32; 6];
        let mut line = 0;
        loop {
            let [code, both, o0, o1, n0, n1, n2, n3] = program[line].to_le_bytes();
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            let offset = i16::from_le_bytes([o0, o1]);
            let number = u32::from_le_bytes([n0, n1, n2, n3]);
            line += 1;
            match code {
                0x61 => registers[to] = context[usize::try_from(offset).unwrap() / 4],
                0xbc => registers[to] = registers[from],
                0x54 => registers[to] &= number,
                0x74 => registers[to] >>= number,
                0x64 => registers[to] <<= number,
                0x4c => registers[to] |= registers[from],
                0xb4 => registers[to] = number,
                0x16 if registers[to] == number => line += usize::try_from(offset).unwrap(),
                0x56 if registers[to] != number => line += usize::try_from(offset).unwrap(),
                0x16 | 0x56 => {}
                0x95 => return registers[0] == 1,
                other => panic!("code {other:#x}"),
            }
        }
    }

    #[test]
    fn usual_devices_are_open_and_disks_and_ports_are_not() {
        let program = compile();
        let (make, read, block) = (1, 2, 1);
        assert!(run(&program, READ_WRITE, CHARACTER, 1, 3), "null");
        assert!(run(&program, READ_WRITE, CHARACTER, 136, 12), "a terminal");
        assert!(run(&program, make, block, 254, 0), "making a node for a disk");
        assert!(!run(&program, read, block, 254, 0), "reading a disk");
        assert!(!run(&program, READ_WRITE, CHARACTER, 1, 1), "mem");
        assert!(!run(&program, make | read, CHARACTER, 240, 1), "a port");
        assert!(!run(&program, READ_WRITE, block, 1, 3), "a block device of null's numbers");
    }

    proptest! {
        #[test]
        fn the_program_says_what_the_lists_say(
            access in 0_u32..8,
            kind in 1_u32..3,
            major in 0_u32..140,
            minor in 0_u32..12,
        ) {
            let usual = major == TERMINALS || OPEN.contains(&(major, minor));
            let allowed = access & READ_WRITE == 0 || kind == CHARACTER && usual;
            prop_assert_eq!(run(&compile(), access, kind, major, minor), allowed);
        }
    }
}
