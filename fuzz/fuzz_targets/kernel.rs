// SPDX-License-Identifier: Apache-2.0
//! Any file may be named as a kernel: looking at it ends, and its release is never a path.
#![no_main]

use std::fs;

use hc_kernel::{Fitness, Kernel, Requirements, Transport};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("hyper-fuzz-kernel-{}", std::process::id()));
    fs::write(&path, bytes).expect("the temporary folder can be written to");
    if let Ok(kernel) = Kernel::inspect(&path) {
        assert!(kernel.release().is_none_or(|release| !release.contains('/')));
        let requirements = Requirements::pod().with_transport(Transport::MmioCommandLine).with_pvh();
        if kernel.config().is_none() {
            assert_ne!(kernel.fitness(&requirements), Fitness::Fits);
        }
    }
});
