// SPDX-License-Identifier: Apache-2.0
//! How much memory a build takes. A test of its own, because it is its process that is measured.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{self, Read};

use hc_rootfs::{Builder, Options};

const FILES: u64 = 100_000;
/// What a build may take whatever it builds, and for each file on top.
const BASE_BYTES: u64 = 64 << 20;
const BYTES_PER_FILE: u64 = 1 << 10;

/// An archive that is made while it is read: directories of 500 files of a few kilobytes.
struct Generated {
    next: u64,
    pending: Vec<u8>,
    used: usize,
}

impl Read for Generated {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.used == self.pending.len() {
            self.pending.clear();
            self.used = 0;
            if self.next < FILES {
                let (at, size) = (self.next, self.next % 9_000);
                let path = format!("some/directory-{}/with-a-file-{at}", at / 500);
                self.pending.extend_from_slice(&header(path.as_bytes(), size));
                self.pending.resize(self.pending.len() + usize::try_from(size).unwrap(), b'x');
                self.pending.resize(self.pending.len().next_multiple_of(512), 0);
                self.next += 1;
            }
        }
        let len = target.len().min(self.pending.len() - self.used);
        target[..len].copy_from_slice(&self.pending[self.used..][..len]);
        self.used += len;
        Ok(len)
    }
}

fn header(path: &[u8], size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    block[..path.len()].copy_from_slice(path);
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{size:0>11o}").as_bytes());
    block[148..156].fill(b' ');
    block[156] = b'0';
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:0>6o}\0").as_bytes());
    block
}

#[test]
fn memory_does_not_grow_with_content() {
    let file = tempfile::tempfile().unwrap();
    let layer = Generated { next: 0, pending: Vec::new(), used: 0 };
    let builder = Builder::new(&file, Options::default()).unwrap();
    let summary = builder.add_layer(layer).unwrap().finish().unwrap();
    assert!(summary.inodes > FILES, "{summary:?}");

    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        eprintln!("skipped: no /proc to learn the memory in use from");
        return;
    };
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap();
    let peak = peak << 10;
    eprintln!("{FILES} files in {} bytes with {peak} bytes of memory", summary.image_bytes);
    // A build that comes near the bound has already lost what makes it flat.
    assert!(peak * 2 < BASE_BYTES + BYTES_PER_FILE * FILES, "{peak} bytes");
}
