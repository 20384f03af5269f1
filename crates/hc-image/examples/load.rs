// SPDX-License-Identifier: Apache-2.0
//! Loads one saved image into a store and says what it took: `load STORE ARCHIVE`.
//!
//! This is what the benchmarks time: reading, checking and storing the archive, and building the
//! root file system.
#![expect(clippy::print_stdout, reason = "an example talks")]

use std::time::Instant;

use hc_image::{Silent, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let (Some(root), Some(archive)) = (args.next(), args.next()) else {
        return Err("usage: load STORE ARCHIVE".into());
    };
    let start = Instant::now();
    let store = Store::open(root)?;
    for loaded in store.load_path(archive.as_ref(), &Silent)? {
        let rootfs = store.ensure_rootfs(&loaded.image, &Silent)?;
        println!("{} {}", loaded.image.id, rootfs.display());
    }
    println!("{:.2} s, at most {} MiB", start.elapsed().as_secs_f64(), peak_mib()?);
    Ok(())
}

/// The most memory that this process ever held.
fn peak_mib() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line.and_then(|l| l.trim().strip_suffix(" kB")).unwrap_or("0").trim().parse()?;
    Ok(kib / 1024)
}
