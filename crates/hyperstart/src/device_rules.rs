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

const CHARACTER: u32 = 2;
const BLOCK: u32 = 1;
const MAKE: u32 = 1;
const READ_WRITE: u32 = 6;

/// One permission; `None` stands for any number.
struct Rule {
    kind: u32,
    access: u32,
    major: Option<u32>,
    minor: Option<u32>,
}

/// A character device that may be made, read and written.
const fn character(major: u32, minor: Option<u32>) -> Rule {
    Rule { kind: CHARACTER, access: MAKE | READ_WRITE, major: Some(major), minor }
}

/// Docker's default: everything may be made, which is harmless by itself; only these be opened.
const RULES: [Rule; 11] = [
    Rule { kind: CHARACTER, access: MAKE, major: None, minor: None },
    Rule { kind: BLOCK, access: MAKE, major: None, minor: None },
    character(1, Some(3)), // null
    character(1, Some(5)), // zero
    character(1, Some(7)), // full
    character(1, Some(8)), // random
    character(1, Some(9)), // urandom
    character(5, Some(0)), // tty
    character(5, Some(1)), // console
    character(5, Some(2)), // ptmx
    character(136, None),  // pts/*
];

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

/// Forbids the processes of a control group every device but the usual ones.
pub(crate) fn restrict(cgroup: impl AsFd) -> io::Result<()> {
    let program = load(&compile(&RULES))?;
    let mut attributes = Attach {
        target: cgroup.as_fd().as_raw_fd().unsigned_abs(),
        program: program.as_raw_fd().unsigned_abs(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the structure is the head of `bpf_attr` for this command and holds no pointers.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attributes) }.map(drop)
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

/// Writes the program that allows exactly what `rules` allow.
///
/// The kernel gives it a pointer (in r1) to three words: access and kind in one, major, minor.
/// A rule is a run of comparisons, each of which leaves for the next rule when it fails.
fn compile(rules: &[Rule]) -> Vec<u64> {
    const CONTEXT: u8 = 1;
    const ACCESS: u8 = 2;
    const KIND: u8 = 3;
    const MAJOR: u8 = 4;
    const MINOR: u8 = 5;
    const SCRATCH: u8 = 1; // The context is not needed once it is read.
    let mut program = vec![
        load_word(ACCESS, CONTEXT, 0),
        move_register(KIND, ACCESS),
        and(KIND, 0xffff),
        shift_right(ACCESS, 16),
        load_word(MAJOR, CONTEXT, 4),
        load_word(MINOR, CONTEXT, 8),
    ];
    for rule in rules {
        let numbers = [(MAJOR, rule.major), (MINOR, rule.minor)];
        let numbers: Vec<_> = numbers.iter().filter_map(|&(r, n)| Some((r, n?))).collect();
        // Lines of this rule behind its first one: what a failed comparison skips.
        let mut behind = 5 + i16::try_from(numbers.len()).expect("at most two");
        program.push(jump_unless_equal(KIND, rule.kind, behind));
        program.push(move_register(SCRATCH, ACCESS));
        program.push(and(SCRATCH, !rule.access));
        behind -= 3;
        program.push(jump_unless_equal(SCRATCH, 0, behind));
        for (register, number) in numbers {
            behind -= 1;
            program.push(jump_unless_equal(register, number, behind));
        }
        program.extend([set(0, 1), EXIT]);
    }
    program.extend([set(0, 0), EXIT]);
    program
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

const fn set(register: u8, value: u32) -> u64 {
    instruction(0xb4, register, 0, 0, value)
}

const fn jump_unless_equal(register: u8, value: u32, lines: i16) -> u64 {
    instruction(0x55, register, 0, lines, value)
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
                0xb4 => registers[to] = number,
                0x55 if registers[to] != number => line += usize::try_from(offset).unwrap(),
                0x55 => {}
                0x95 => return registers[0] == 1,
                other => panic!("code {other:#x}"),
            }
        }
    }

    #[test]
    fn usual_devices_are_open_and_disks_and_ports_are_not() {
        let program = compile(&RULES);
        let read = 2;
        assert!(run(&program, READ_WRITE, CHARACTER, 1, 3), "null");
        assert!(run(&program, READ_WRITE, CHARACTER, 136, 12), "a terminal");
        assert!(run(&program, MAKE, BLOCK, 254, 0), "making a node for a disk");
        assert!(!run(&program, read, BLOCK, 254, 0), "reading a disk");
        assert!(!run(&program, READ_WRITE, CHARACTER, 1, 1), "mem");
        assert!(!run(&program, MAKE | read, CHARACTER, 240, 1), "a port");
        assert!(!run(&program, READ_WRITE, BLOCK, 1, 3), "a block device of null's numbers");
    }

    proptest! {
        #[test]
        fn the_program_says_what_the_rules_say(
            access in 0_u32..8,
            kind in 1_u32..3,
            major in 0_u32..140,
            minor in 0_u32..12,
        ) {
            let allowed = RULES.iter().any(|rule| {
                rule.kind == kind
                    && access & !rule.access == 0
                    && rule.major.is_none_or(|m| m == major)
                    && rule.minor.is_none_or(|m| m == minor)
            });
            prop_assert_eq!(run(&compile(&RULES), access, kind, major, minor), allowed);
        }
    }
}
