// SPDX-License-Identifier: Apache-2.0
//! Builds a file system from uncompressed layers: `build OUT.erofs LAYER.tar...`.
//!
//! Prints what was made, how long it took and how much memory, for measuring.
#![expect(clippy::print_stdout, reason = "an example's output is for its reader")]

use std::error::Error;
use std::fs::{self, File};
use std::time::Instant;

use hc_rootfs::{Builder, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let out = arguments.next().ok_or("usage: build OUT.erofs LAYER.tar...")?;
    let start = Instant::now();
    let out = File::create(out)?;
    let mut builder = Builder::new(&out, Options::default())?;
    for layer in arguments {
        builder = builder.add_layer(File::open(layer)?)?;
    }
    let summary = builder.finish()?;
    println!("{summary:?} in {:?}", start.elapsed());
    let status = fs::read_to_string("/proc/self/status")?;
    for line in status.lines().filter(|line| line.starts_with("VmHWM")) {
        println!("{line}");
    }
    Ok(())
}
