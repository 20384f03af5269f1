// SPDX-License-Identifier: Apache-2.0
//! A guest may do anything to its devices: write their registers, queues and requests as it likes.
//!
//! The input is the number of a device, and then what the guest and the other side of the device do.
#![no_main]

use hc_monitor::fuzz::hostile_guest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let [device, steps @ ..] = input {
        hostile_guest(*device, steps);
    }
});
