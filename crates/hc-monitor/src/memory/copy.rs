// SPDX-License-Identifier: Apache-2.0
//! The guest's memory as a file: written when a guest is saved, mapped when one goes on.
//!
//! The file is as long as the memory, without the hole for devices, and sparse: what is zero is not
//! written. Most of it is written while the guest runs on; what has changed since, which is found by
//! comparing, is written again when it stands still. Most of a guest's memory was never touched, and touching it to find that out would cost
//! a page each; the kernel's own table tells (`/proc/self/pagemap`).
#![expect(unsafe_code, reason = "reading the guest's memory, and mapping a file in its place")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;
use vm_memory::{GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::{Memory, PAGE};
use crate::confine;
use crate::error::{Error, Result};

/// Pages that are looked up at once; their entries are 64 KiB.
const BATCH: u64 = 8192;
/// Words of a page.
const WORDS: usize = 512;
/// A page's entry: it is in memory, or was and has been put aside.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;

/// Which pages of this process have been touched.
#[derive(Debug)]
pub(crate) struct Pagemap(File);

impl Pagemap {
    /// Opens the table, if there is one. It must not tell where in the host's memory a page is: that
    /// is for those who open it with a capability.
    pub(crate) fn open() -> Option<Pagemap> {
        confine::without_capabilities(|| File::open("/proc/self/pagemap")).ok().map(Pagemap)
    }

    /// The entries of `count` pages from an address of this process on.
    fn entries(&self, address: usize, count: u64) -> io::Result<Vec<u64>> {
        let mut bytes = vec![0; usize::try_from(count * 8).map_err(io::Error::other)?];
        self.0.read_exact_at(&mut bytes, address as u64 / PAGE * 8)?;
        Ok(bytes.as_chunks().0.iter().map(|entry| u64::from_le_bytes(*entry)).collect())
    }
}

/// Parts of the guest's memory that have a content though nobody may have touched them: files are
/// mapped there.
#[derive(Debug, Default)]
pub(crate) struct Filled(Vec<Range<u64>>);

impl Filled {
    /// Adds a part.
    pub(crate) fn add(&mut self, part: Range<u64>) {
        self.0.push(part);
    }

    fn contains(&self, page: u64) -> bool {
        self.0.iter().any(|part| part.start < page + PAGE && page < part.end)
    }
}

/// Maps a file that a [`Saving`] has written over new memory.
pub(super) fn restore(memory: &Memory, file: &File) -> Result<Filled> {
    let what = "map the memory of a copy";
    let len = memory.iter().map(vm_memory::GuestMemoryRegion::len).sum::<u64>();
    if file.metadata().map_err(Error::host(what))?.len() != len {
        return Err(Error::Saved("its memory has another length".to_owned()));
    }
    let data = data(file, len).map_err(Error::host(what))?;
    let mut filled = Filled::default();
    let mut offset = 0;
    for region in memory.iter() {
        let here = offset..offset + region.len();
        let start = libc::off_t::try_from(offset).expect("it is shorter than the file");
        // SAFETY: the range is one region of guest memory, and nobody in this process has a reference
        // into it. The new mapping can be read and written like the old.
        let mapped = unsafe {
            libc::mmap(
                region.as_ptr().cast(),
                region.size(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                start,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(Error::host(what)(io::Error::last_os_error()));
        }
        for part in &data {
            let (from, to) = (part.start.max(here.start), part.end.min(here.end));
            if from < to {
                let base = region.start_addr().0;
                filled.add(base + (from - here.start)..base + (to - here.start));
            }
        }
        offset = here.end;
    }
    Ok(filled)
}

/// The parts of a file that are no holes.
fn data(file: &File, len: u64) -> io::Result<Vec<Range<u64>>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < len {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        parts.push(start..at);
    }
    Ok(parts)
}

/// A copy that is under way, pass by pass: each writes what differs from what was written before.
///
/// The first one may look at a guest that runs; the last one has to look at one that stands still.
pub(crate) struct Saving<'a> {
    memory: &'a Memory,
    filled: &'a Filled,
    pagemap: Option<&'a Pagemap>,
    file: &'a File,
    written: Written<'a>,
}

impl<'a> Saving<'a> {
    /// A copy to a file that is all holes, and as long as the memory.
    pub(crate) fn to(
        file: &'a File,
        memory: &'a Memory,
        filled: &'a Filled,
        pagemap: Option<&'a Pagemap>,
    ) -> io::Result<Saving<'a>> {
        let len = memory.iter().map(vm_memory::GuestMemoryRegion::len).sum::<u64>();
        let written = Written::none(file, len)?;
        Ok(Saving { memory, filled, pagemap, file, written })
    }

    /// Writes what has to be written.
    pub(crate) fn pass(&mut self) -> io::Result<()> {
        let mut offset = 0;
        for region in self.memory.iter() {
            let mut at = 0;
            while at < region.len() {
                let len = (BATCH * PAGE).min(region.len() - at);
                let host =
                    region.as_ptr().addr() + usize::try_from(at).map_err(io::Error::other)?;
                self.batch(region.start_addr().0 + at, len, host, offset + at)?;
                at += len;
            }
            offset += region.len();
        }
        Ok(())
    }

    /// The same for a part, which has an address here and in the guest and a place in the file.
    fn batch(&mut self, start: u64, len: u64, host: usize, offset: u64) -> io::Result<()> {
        let entries = self.pagemap.map(|pagemap| pagemap.entries(host, len / PAGE)).transpose()?;
        let mut run = start..start;
        for (number, page) in (start..start + len).step_by(4096).enumerate() {
            let place = offset + (page - start);
            let touched =
                entries.as_ref().is_none_or(|entries| entries[number] & (PRESENT | SWAPPED) != 0);
            let before = self.written.page(place);
            if (touched || before.is_some() || self.filled.contains(page))
                && differs(self.memory, page, before)
            {
                self.written.set(place);
                if run.end != page {
                    write(self.memory, &run, self.file, offset + (run.start - start))?;
                    run.start = page;
                }
                run.end = page + PAGE;
            }
        }
        write(self.memory, &run, self.file, offset + (run.start - start))
    }
}

/// Which pages of a file have been written, and what they are.
struct Written<'a> {
    /// By number.
    pages: Vec<bool>,
    /// Where the file is mapped.
    start: *const u64,
    len: usize,
    /// It must not get shorter meanwhile.
    _file: &'a File,
}

impl<'a> Written<'a> {
    fn none(file: &'a File, len: u64) -> io::Result<Written<'a>> {
        let pages = vec![false; usize::try_from(len / PAGE).map_err(io::Error::other)?];
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, wherever there is room.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, flags, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Written { pages, start: start.cast(), len, _file: file })
    }

    fn set(&mut self, place: u64) {
        self.pages[usize::try_from(place / PAGE).expect("it is in the file")] = true;
    }

    /// What was written there, if something was. A hole is not looked at, since that would fill it.
    fn page(&self, place: u64) -> Option<*const u64> {
        let number = usize::try_from(place / PAGE).expect("it is in the file");
        self.pages[number].then(|| self.start.wrapping_add(number * WORDS))
    }
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        // SAFETY: nobody else knows of the mapping.
        unsafe { libc::munmap(self.start.cast_mut().cast(), self.len) };
    }
}

/// Whether a page of the guest's is not what was written of it, or not zero.
fn differs(memory: &Memory, page: u64, written: Option<*const u64>) -> bool {
    let Ok(slice) = memory.get_slice(GuestAddress(page), 4096) else { return false };
    let guard = slice.ptr_guard();
    #[expect(clippy::cast_ptr_alignment, reason = "a page begins where a word does")]
    let words = guard.as_ptr().cast::<u64>();
    (0..WORDS).any(|number| {
        // SAFETY: a page of guest memory has as many words, and so has one of the file's mapping.
        unsafe {
            let before = written.map_or(0, |written| written.add(number).read_volatile());
            words.add(number).read_volatile() != before
        }
    })
}

/// Writes a run of pages, if there are any.
fn write(memory: &Memory, run: &Range<u64>, file: &File, offset: u64) -> io::Result<()> {
    let mut done = 0;
    let len = usize::try_from(run.end - run.start).map_err(io::Error::other)?;
    while done < len {
        let at = GuestAddress(run.start + done as u64);
        let slice = memory.get_slice(at, len - done).map_err(io::Error::other)?;
        let guard = slice.ptr_guard();
        let place = libc::off_t::try_from(offset + done as u64).map_err(io::Error::other)?;
        // SAFETY: the kernel reads guest memory, which stays mapped.
        let written =
            unsafe { libc::pwrite(file.as_raw_fd(), guard.as_ptr().cast(), guard.len(), place) };
        match usize::try_from(written) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use vm_memory::Bytes as _;

    use super::*;
    use crate::memory;

    fn put(memory: &Memory, page: u64, byte: u8) {
        memory.write_obj(byte, GuestAddress(page * PAGE + 77)).unwrap();
    }

    fn byte(memory: &Memory, page: u64) -> u8 {
        memory.read_obj(GuestAddress(page * PAGE + 77)).unwrap()
    }

    fn saved(memory: &Memory, filled: &Filled, pagemap: Option<&Pagemap>) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 << 20).unwrap();
        Saving::to(&file, memory, filled, pagemap).unwrap().pass().unwrap();
        file
    }

    #[test]
    fn memory_goes_through_a_file_and_what_is_zero_takes_no_room() {
        let pagemap = Pagemap::open();
        for pagemap in [pagemap.as_ref(), None] {
            let memory = memory::map(2).unwrap();
            for page in [0, 1, 5, 511] {
                put(&memory, page, 9);
            }
            put(&memory, 3, 0);
            let file = saved(&memory, &Filled::default(), pagemap);
            assert!(file.metadata().unwrap().blocks() * 512 <= 8 * PAGE);
            let (copy, filled) = memory::map_saved(2, &file).unwrap();
            let found: Vec<u64> = (0..512).filter(|page| byte(&copy, *page) == 9).collect();
            assert_eq!(found, [0, 1, 5, 511]);
            // A copy of the copy has what nobody touched, what was changed, and not what was erased.
            let (copy, _) = memory::map_saved(2, &file).unwrap();
            put(&copy, 1, 0);
            put(&copy, 8, 7);
            let second = saved(&copy, &filled, pagemap);
            let (again, _) = memory::map_saved(2, &second).unwrap();
            let bytes = [0, 1, 5, 8, 511].map(|page| byte(&again, page));
            assert_eq!(bytes, [9, 0, 9, 7, 9]);
            assert_eq!(byte(&memory::map_saved(2, &file).unwrap().0, 1), 9);
        }
    }

    #[test]
    fn last_pass_writes_what_has_changed() {
        for pagemap in [Pagemap::open(), None] {
            let memory = memory::map(2).unwrap();
            for page in [0, 1, 2, 3] {
                put(&memory, page, 9);
            }
            let file = tempfile::tempfile().unwrap();
            file.set_len(2 << 20).unwrap();
            let filled = Filled::default();
            let mut copy = Saving::to(&file, &memory, &filled, pagemap.as_ref()).unwrap();
            copy.pass().unwrap();
            put(&memory, 1, 0);
            put(&memory, 2, 8);
            put(&memory, 100, 7);
            memory::release(&memory, GuestAddress(3 * PAGE), PAGE);
            copy.pass().unwrap();
            copy.pass().unwrap();
            let (again, _) = memory::map_saved(2, &file).unwrap();
            assert_eq!([0, 1, 2, 3, 4, 100].map(|page| byte(&again, page)), [9, 0, 8, 0, 0, 7]);
            assert!(file.metadata().unwrap().blocks() * 512 <= 10 * PAGE);
        }
    }

    #[test]
    fn mapped_files_are_saved_though_nobody_touched_them() {
        let memory = memory::map(2).unwrap();
        let kernel = tempfile::tempfile().unwrap();
        kernel.write_all_at(&[5; 8192], 0).unwrap();
        memory::place(&memory, 16 * PAGE, &kernel, 0, 8192).unwrap();
        let mut filled = Filled::default();
        filled.add(16 * PAGE..18 * PAGE);
        let file = saved(&memory, &filled, Pagemap::open().as_ref());
        let (copy, _) = memory::map_saved(2, &file).unwrap();
        assert_eq!([15, 16, 17, 18].map(|page| byte(&copy, page)), [0, 5, 5, 0]);
    }

    #[test]
    fn memory_of_another_length_is_refused() {
        let file = tempfile::tempfile().unwrap();
        for len in [0, 1 << 20, (2 << 20) - 1, (2 << 20) + 1] {
            file.set_len(len).unwrap();
            let error = memory::map_saved(2, &file).unwrap_err();
            assert!(error.to_string().contains("another length"), "{error}");
        }
    }
}
