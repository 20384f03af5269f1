// SPDX-License-Identifier: Apache-2.0
//! The guest's memory, and files laid into it.
//!
//! ```text
//! 0          640 KiB  1 MiB                  3.25 GiB           4 GiB
//! |  low memory |  ROM  |  memory ...            | devices, APICs  |  ... the rest of it
//! ```
//!
//! # Invariants
//!
//! - Memory is mapped once and stays where it is until the process ends.
//! - No page of it takes room on the host before the guest, or we, have touched it.
#![expect(unsafe_code, reason = "mapping files over the guest's memory, and giving pages back")]

mod copy;

use std::fs::File;
use std::os::fd::AsRawFd as _;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes as _, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion as _,
    GuestRegionMmap,
};

pub(crate) use self::copy::{Filled, Pagemap, Saving};
use crate::error::{Error, Result};

/// Where the devices begin, and memory ends for now.
pub(crate) const HOLE_START: u64 = 0xd000_0000;
/// Where memory goes on.
pub(crate) const HOLE_END: u64 = 1 << 32;

pub(crate) const PAGE: u64 = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// The guest's memory, as one or two regions.
pub(crate) type Memory = GuestMemoryMmap<()>;

/// The regions of a guest with this much memory: where each starts, and its length.
pub(crate) fn regions(memory_mib: u32) -> Vec<(u64, u64)> {
    let len = u64::from(memory_mib) << 20;
    let mut regions = vec![(0, len.min(HOLE_START))];
    if len > HOLE_START {
        regions.push((HOLE_END, len - HOLE_START));
    }
    regions
}

/// Maps memory for a guest.
pub(crate) fn map(memory_mib: u32) -> Result<Memory> {
    let mut mapped = Vec::new();
    for (start, len) in regions(memory_mib) {
        let len = usize::try_from(len).map_err(|_| too_large())?;
        let start_of_host = reserve(len)?;
        let builder = MmapRegionBuilder::new(len)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE);
        // SAFETY: `reserve` has mapped as much, for good, with this protection and these flags.
        let region = unsafe { builder.with_raw_mmap_pointer(start_of_host) }
            .build()
            .map_err(|error| Error::Senseless(format!("no room for its memory: {error}")))?;
        mapped.push(GuestRegionMmap::new(region, GuestAddress(start)).ok_or_else(too_large)?);
    }
    Memory::from_regions(mapped).map_err(|error| Error::Senseless(error.to_string()))
}

/// Maps memory whose content is that of a file, which stays as it is.
pub(crate) fn map_saved(memory_mib: u32, file: &File) -> Result<(Memory, Filled)> {
    let memory = map(memory_mib)?;
    let filled = copy::restore(&memory, file)?;
    Ok((memory, filled))
}

/// Maps memory that can be made of huge pages, with nothing right before and behind it.
///
/// Only where host and guest agree on where a huge page begins does the processor use one.
fn reserve(len: usize) -> Result<*mut u8> {
    let failed = || Error::host("map the guest's memory")(std::io::Error::last_os_error());
    let room = len.checked_add(2 * HUGE_PAGE).ok_or_else(too_large)?;
    let flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, wherever there is room.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), room, libc::PROT_NONE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(failed());
    }
    let base = base.cast::<u8>();
    let start = base.wrapping_add(HUGE_PAGE - base.addr() % HUGE_PAGE);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the range is inside the mapping made above, which nobody else knows of.
    let mapped = unsafe { libc::mmap(start.cast(), len, access, flags | libc::MAP_FIXED, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(failed());
    }
    // SAFETY: advice about that range; a host without huge pages does without.
    unsafe { libc::madvise(mapped, len, libc::MADV_HUGEPAGE) };
    Ok(start)
}

fn too_large() -> Error {
    Error::Senseless("its memory is larger than an address space".to_owned())
}

/// Gives the memory to the VM.
pub(crate) fn register(memory: &Memory, vm: &VmFd) -> Result<()> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region is mapped for as long as the process lives, and nothing else of this
        // VM has its addresses: `regions` makes them disjoint.
        unsafe { vm.set_user_memory_region(region) }.map_err(Error::kvm("take the memory"))?;
    }
    Ok(())
}

/// Puts `len` bytes of `file` from `offset` on at `address`.
///
/// Whole pages are mapped: they are read when they are touched, and pods that boot the same file
/// share what they do not change. Only what shares its page with something else is copied.
pub(crate) fn place(
    memory: &Memory,
    address: u64,
    file: &File,
    offset: u64,
    len: u64,
) -> Result<()> {
    let what = "put the kernel into memory";
    let outside = || Error::Senseless("its kernel does not fit into its memory".to_owned());
    let size = usize::try_from(len).map_err(|_| outside())?;
    let here = GuestAddress(address);
    if !GuestMemoryBackend::check_range(memory, here, size) {
        return Err(outside());
    }
    // A mapping beyond the end of its file is a signal for whoever touches it.
    let end = offset.checked_add(len).ok_or_else(outside)?;
    if file.metadata().map_err(Error::host(what))?.len() < end {
        return Err(Error::Senseless("its kernel is shorter than it says".to_owned()));
    }
    let aligned = address.is_multiple_of(PAGE) && offset.is_multiple_of(PAGE);
    let whole = if aligned { len / PAGE * PAGE } else { 0 };
    if whole > 0 {
        let size = usize::try_from(whole).map_err(|_| outside())?;
        let host = memory.get_slice(here, size).map_err(|_| outside())?;
        let start = libc::off_t::try_from(offset).map_err(|_| outside())?;
        // SAFETY: the range is inside one region of guest memory, page by page, and nobody in this
        // process has a reference into it. The new mapping can be read and written like the old.
        let mapped = unsafe {
            libc::mmap(
                host.ptr_guard_mut().as_ptr().cast(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                start,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(Error::host(what)(std::io::Error::last_os_error()));
        }
    }
    copy(memory, address + whole, file, offset + whole, len - whole).map_err(Error::host(what))
}

fn copy(
    memory: &Memory,
    address: u64,
    file: &File,
    mut offset: u64,
    len: u64,
) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut buffer = vec![0; 64 << 10];
    let mut at = GuestAddress(address);
    let mut left = len;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..part], offset)?;
        memory.write_slice(&buffer[..part], at).map_err(std::io::Error::other)?;
        at = GuestAddress(at.0 + part as u64);
        (offset, left) = (offset + part as u64, left - part as u64);
    }
    Ok(())
}

/// Gives the pages that lie wholly in a range back to the host; the guest finds zeros there, or
/// what the kernel's file had.
pub(crate) fn release(memory: &Memory, address: GuestAddress, len: u64) {
    let Some(start) = address.0.checked_next_multiple_of(PAGE) else { return };
    let Some(end) = address.0.checked_add(len).map(|end| end / PAGE * PAGE) else { return };
    let Some(len) = end.checked_sub(start).filter(|&len| len > 0) else { return };
    let Ok(len) = usize::try_from(len) else { return };
    // A guest that offers what it does not have gets nothing done.
    let Ok(slice) = memory.get_slice(GuestAddress(start), len) else { return };
    // SAFETY: the range is inside one region of guest memory; we hold no references into it, and
    // what is read there from now on is defined.
    unsafe { libc::madvise(slice.ptr_guard_mut().as_ptr().cast(), len, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn memory_makes_room_for_devices() {
        assert_eq!(regions(128), [(0, 128 << 20)]);
        assert_eq!(regions(3328), [(0, HOLE_START)]);
        assert_eq!(regions(4096), [(0, HOLE_START), (HOLE_END, (4 << 30) - HOLE_START)]);
    }

    /// A file of pages that are numbered from one.
    fn pages(count: u8) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for number in 1..=count {
            file.write_all(&[number; 4096]).unwrap();
        }
        file
    }

    #[test]
    fn file_is_placed_page_by_page_and_to_the_last_byte() {
        let memory = map(1).unwrap();
        memory.write_obj(0xffu8, GuestAddress(0x4000 + 2 * PAGE + 10)).unwrap();
        place(&memory, 0x4000, &pages(3), PAGE, PAGE + 10).unwrap();
        let byte = |at| memory.read_obj::<u8>(GuestAddress(at)).unwrap();
        assert_eq!((byte(0x3fff), byte(0x4000), byte(0x4000 + PAGE + 9)), (0, 2, 3));
        assert_eq!(byte(0x4000 + PAGE + 10), 0);
    }

    #[test]
    fn odd_offset_is_copied() {
        let memory = map(1).unwrap();
        place(&memory, 0x4001, &pages(2), PAGE - 1, PAGE).unwrap();
        let byte = |at| memory.read_obj::<u8>(GuestAddress(at)).unwrap();
        assert_eq!((byte(0x4000), byte(0x4001), byte(0x4002)), (0, 1, 2));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let memory = map(1).unwrap();
        for (address, offset, len) in [
            (0x4000, 0, 3 * PAGE),
            ((1 << 20) - PAGE, 0, 2 * PAGE),
            (u64::MAX, 0, 1),
            (0, u64::MAX, 1),
        ] {
            place(&memory, address, &pages(2), offset, len).unwrap_err();
        }
    }

    #[test]
    fn released_page_is_zero_and_its_neighbours_stay() {
        let memory = map(1).unwrap();
        memory.write_slice(&[7; 3 * 4096], GuestAddress(0)).unwrap();
        release(&memory, GuestAddress(1), 2 * PAGE);
        let byte = |at| memory.read_obj::<u8>(GuestAddress(at)).unwrap();
        assert_eq!((byte(0), byte(PAGE), byte(2 * PAGE)), (7, 0, 7));
        release(&memory, GuestAddress(u64::MAX), u64::MAX);
        release(&memory, GuestAddress(1 << 20), PAGE);
    }
}
