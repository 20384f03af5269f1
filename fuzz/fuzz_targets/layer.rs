// SPDX-License-Identifier: Apache-2.0
//! Layers as a registry may send them: two merged into a file system, whatever their bytes.
#![no_main]

use std::cell::RefCell;
use std::fs::File;

use hc_rootfs::{Builder, Limits, Options};
use libfuzzer_sys::fuzz_target;

/// Small enough that an input which asks for much is refused quickly.
const MAX_IMAGE_BYTES: u64 = 8 << 20;
const BLOCK_LEN: usize = 512;

thread_local! {
    /// One file for all runs; the builder empties it.
    static OUT: RefCell<Option<File>> = const { RefCell::new(None) };
}

fuzz_target!(|input: &[u8]| {
    let mut input = input.to_vec();
    seal(&mut input);
    let middle = input.len() / 2 / BLOCK_LEN * BLOCK_LEN;
    let (lower, upper) = input.split_at(middle);
    OUT.with_borrow_mut(|out| {
        let out = out.get_or_insert_with(|| tempfile::tempfile().expect("a temporary file"));
        let limits = Limits { max_image_bytes: MAX_IMAGE_BYTES, ..Limits::default() };
        let builder =
            Builder::new(out, Options { limits, ..Options::default() }).expect("an empty file");
        // A refusal is as good as an image; only a panic, a hang or lost memory is not.
        let _ = builder
            .add_layer(lower)
            .and_then(|builder| builder.add_layer(upper))
            .and_then(Builder::finish);
    });
});

/// Gives what looks like a header the right checksum, or hardly any input would get further.
fn seal(input: &mut [u8]) {
    for block in input.chunks_exact_mut(BLOCK_LEN).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:0>6o}\0 ").as_bytes());
    }
}
