// SPDX-License-Identifier: Apache-2.0
//! The table of processors and interrupts for a kernel without ACPI (the MP
//! specification 1.4 of Intel, chapter 4).

use crate::error::{Error, Result};
use crate::interrupt::LINES;

/// APIC ids are bytes here, and 255 means all; the I/O APIC takes the one after the last vCPU's.
const MAX_VCPUS: u32 = 254;
const SPECIFICATION: u8 = 4;
const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;
const APIC_VERSION: u8 = 0x14;
/// Processor is usable; it is the one that boots.
const ENABLED: u8 = 1;
const BOOTS: u8 = 2;
/// An APIC, and an FPU: all that the flags of a processor have to say.
const FEATURES: u32 = 0x201;
/// Kinds of interrupts.
const VECTORED: u8 = 0;
const NMI: u8 = 1;
const EXTERNAL: u8 = 3;
const ALL_APICS: u8 = 0xff;

/// The floating pointer and the table, to be put where low memory ends.
pub(crate) fn table(vcpus: u32) -> Result<Vec<u8>> {
    let too_many = || Error::Senseless(format!("it has {vcpus} vcpus; {MAX_VCPUS} are possible"));
    let io_apic = u8::try_from(vcpus).ok().filter(|_| vcpus <= MAX_VCPUS).ok_or_else(too_many)?;
    let entries = entries(io_apic);
    let mut table = Vec::from(*b"PCMP");
    let len: usize = 44 + entries.iter().map(Vec::len).sum::<usize>();
    table.extend(u16::try_from(len).map_err(|_| too_many())?.to_le_bytes());
    table.extend([SPECIFICATION, 0]);
    table.extend(b"HYPER   VM          ");
    table.extend([0; 6]);
    table.extend(u16::try_from(entries.len()).map_err(|_| too_many())?.to_le_bytes());
    table.extend(LOCAL_APIC.to_le_bytes());
    table.extend([0; 4]);
    table.extend(entries.concat());
    table[7] = checksum(&table);

    let mut pointer = Vec::from(*b"_MP_");
    let at = u32::try_from(super::LOW_END).expect("low memory is low") + 16;
    pointer.extend(at.to_le_bytes());
    pointer.extend([1, SPECIFICATION, 0, 0, 0, 0, 0, 0]);
    pointer[10] = checksum(&pointer);
    Ok([pointer, table].concat())
}

fn entries(io_apic: u8) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    for id in 0..io_apic {
        let flags = if id == 0 { ENABLED | BOOTS } else { ENABLED };
        let mut processor = vec![0, id, APIC_VERSION, flags, 0, 6, 0, 0];
        processor.extend(FEATURES.to_le_bytes());
        processor.extend([0; 8]);
        entries.push(processor);
    }
    entries.push(b"\x01\x00ISA   ".to_vec());
    let mut apic = vec![2, io_apic, APIC_VERSION, 1];
    apic.extend(IO_APIC.to_le_bytes());
    entries.push(apic);
    for line in 0..LINES {
        entries.push(vec![3, VECTORED, 0, 0, 0, line, io_apic, line]);
    }
    entries.push(vec![4, EXTERNAL, 0, 0, 0, 0, 0, 0]);
    entries.push(vec![4, NMI, 0, 0, 0, 0, ALL_APICS, 1]);
    entries
}

/// What makes the bytes add up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_adds_up_and_says_its_length() {
        for vcpus in [1, 2, 254] {
            let bytes = table(vcpus).unwrap();
            let (pointer, table) = bytes.split_at(16);
            let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            assert_eq!((sum(pointer), sum(table)), (0, 0));
            assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
            let count = u16::from_le_bytes([table[34], table[35]]);
            assert_eq!(u32::from(count), vcpus + 1 + 1 + u32::from(LINES) + 2);
        }
    }

    #[test]
    fn vcpus_without_an_id_are_refused() {
        let error = table(255).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot make this machine: it has 255 vcpus; 254 are possible"
        );
    }
}
