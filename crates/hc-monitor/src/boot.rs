// SPDX-License-Identifier: Apache-2.0
//! What a kernel finds in memory when it starts: itself, its parameters, and the machine's tables.
//!
//! The kernel is entered by PVH, the boot protocol of Xen's guests without firmware: 32-bit
//! protected mode without paging, `ebx` pointing at an `hvm_start_info`
//! (<https://xenbits.xen.org/docs/unstable/misc/pvh.html>).

mod mptable;
mod pvh;

use std::fs::File;

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};

use crate::config::Segment;
use crate::error::{Error, Result};
use crate::memory::{self, Filled, Memory, PAGE};

/// The structure that `ebx` points at, what it points at, and the kernel's parameters.
const START_INFO: u32 = 0x6000;
const PARAMETERS: u64 = 0x2_0000;
/// Linux's own limit on x86 (`COMMAND_LINE_SIZE`), its final zero included.
const MAX_PARAMETERS: usize = 2048;
/// Where low memory ends; the table of processors is right below, where kernels look for it.
pub(crate) const LOW_END: u64 = 0x9_fc00;
/// Where memory begins again.
pub(crate) const HIGH_START: u64 = 0x10_0000;

/// What goes into memory before the first instruction.
pub(crate) struct Payload<'a> {
    pub(crate) kernel: &'a File,
    pub(crate) segments: &'a [Segment],
    pub(crate) initramfs: &'a File,
    pub(crate) parameters: &'a str,
    pub(crate) vcpus: u32,
}

/// Fills the memory; gives the address that `ebx` is to have, and where files are now.
pub(crate) fn load(memory: &Memory, payload: &Payload<'_>) -> Result<(u32, Filled)> {
    let mut kernel_end = HIGH_START;
    let mut filled = Filled::default();
    for segment in payload.segments {
        kernel_end = kernel_end.max(load_segment(memory, payload.kernel, segment)?);
        filled.add(segment.address..segment.address + segment.file_len);
    }
    let initramfs_len =
        payload.initramfs.metadata().map_err(Error::host("read the initramfs"))?.len();
    let initramfs = place_for_initramfs(memory, kernel_end, initramfs_len)?;
    memory::place(memory, initramfs, payload.initramfs, 0, initramfs_len)?;
    filled.add(initramfs..initramfs + initramfs_len);
    if payload.parameters.len() >= MAX_PARAMETERS {
        let len = payload.parameters.len();
        return Err(Error::Senseless(format!(
            "its kernel parameters have {len} bytes, and Linux takes {} at most",
            MAX_PARAMETERS - 1
        )));
    }
    let parameters = [payload.parameters.as_bytes(), &[0]].concat();
    write(memory, &parameters, PARAMETERS)?;
    write(memory, &mptable::table(payload.vcpus)?, LOW_END)?;
    let info = pvh::StartInfo {
        at: START_INFO.into(),
        parameters: PARAMETERS,
        initramfs: (initramfs, initramfs_len),
        memory: memory_map(memory),
    };
    write(memory, &info.bytes(), START_INFO.into())?;
    Ok((START_INFO, filled))
}

/// Puts a segment in its place; gives its end.
fn load_segment(memory: &Memory, kernel: &File, segment: &Segment) -> Result<u64> {
    let &Segment { offset, address, file_len, memory_len } = segment;
    let end = address.checked_add(memory_len.max(file_len));
    let inside = end.is_some_and(|end| memory.address_in_range(GuestAddress(end)));
    let Some(end) = end.filter(|_| inside && address >= HIGH_START) else {
        return Err(Error::Senseless("its kernel does not fit into its memory".to_owned()));
    };
    memory::place(memory, address, kernel, offset, file_len)?;
    Ok(end)
}

/// The end of low memory, as far from the kernel as it gets; page by page, so that it can be mapped.
fn place_for_initramfs(memory: &Memory, kernel_end: u64, len: u64) -> Result<u64> {
    let low = memory.iter().next().map_or(0, vm_memory::GuestMemoryRegion::len);
    low.checked_sub(len)
        .map(|start| start / PAGE * PAGE)
        .filter(|&start| start >= kernel_end)
        .ok_or_else(|| {
            Error::Senseless("its memory has no room for kernel and initramfs".to_owned())
        })
}

/// What the kernel may use: start and length.
fn memory_map(memory: &Memory) -> Vec<(u64, u64)> {
    let mut map = vec![(0, LOW_END)];
    for region in memory.iter() {
        let start = vm_memory::GuestMemoryRegion::start_addr(region).0.max(HIGH_START);
        let end = vm_memory::GuestMemoryRegion::last_addr(region).0 + 1;
        map.push((start, end - start));
    }
    map
}

fn write(memory: &Memory, bytes: &[u8], at: u64) -> Result<()> {
    memory
        .write_slice(bytes, GuestAddress(at))
        .map_err(|_| Error::Senseless("its memory is too small to boot anything".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn check(memory_mib: u32, segment: Segment, parameters: &str) -> Result<Memory> {
        let memory = memory::map(memory_mib)?;
        let (kernel, initramfs) = (file(&[0xaa; 0x3000]), file(&[0xbb; 0x1001]));
        let payload = Payload {
            kernel: &kernel,
            segments: &[segment],
            initramfs: &initramfs,
            parameters,
            vcpus: 1,
        };
        assert_eq!(load(&memory, &payload)?.0, START_INFO);
        Ok(memory)
    }

    const SEGMENT: Segment =
        Segment { offset: 0x1000, address: HIGH_START, file_len: 0x2000, memory_len: 0x8000 };

    #[test]
    fn kernel_initramfs_and_parameters_are_where_the_start_info_says() {
        let memory = check(4, SEGMENT, "quiet").unwrap();
        let info = u64::from(START_INFO);
        let u64_at = |at: u64| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(HIGH_START)).unwrap(), 0xaa);
        let module = u64_at(info + 16);
        let (initramfs, len) = (u64_at(module), u64_at(module + 8));
        assert_eq!((initramfs, len), ((4 << 20) - 0x2000, 0x1001));
        assert_eq!(memory.read_obj::<u8>(GuestAddress(initramfs + 0x1000)).unwrap(), 0xbb);
        let mut parameters = [0; 6];
        memory.read_slice(&mut parameters, GuestAddress(u64_at(info + 24))).unwrap();
        assert_eq!(&parameters, b"quiet\0");
    }

    #[test]
    fn kernel_that_does_not_fit_is_refused() {
        for segment in [
            Segment { address: 0x1000, ..SEGMENT },
            Segment { address: 4 << 20, ..SEGMENT },
            Segment { memory_len: 4 << 20, ..SEGMENT },
            Segment { memory_len: u64::MAX, ..SEGMENT },
            Segment { file_len: 0x4000, ..SEGMENT },
            Segment { memory_len: (3 << 20) - 0x1000, ..SEGMENT },
        ] {
            let error = check(4, segment, "").unwrap_err();
            assert!(matches!(error, Error::Senseless(_)), "{segment:?}: {error}");
        }
    }

    #[test]
    fn too_many_parameters_are_counted() {
        check(4, SEGMENT, &"x".repeat(MAX_PARAMETERS - 1)).unwrap();
        let error = check(4, SEGMENT, &"x".repeat(MAX_PARAMETERS)).unwrap_err();
        assert!(error.to_string().contains("2048 bytes"), "{error}");
    }
}
