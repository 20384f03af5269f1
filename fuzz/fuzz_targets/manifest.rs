// SPDX-License-Identifier: Apache-2.0
//! Documents as a registry or an archive may send them.
#![no_main]

use hc_image::{Limits, recognise};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = recognise(bytes, &Limits::default());
});
