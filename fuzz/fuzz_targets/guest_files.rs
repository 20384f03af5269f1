// SPDX-License-Identifier: Apache-2.0
//! What a container can put before PID 1: its user files, its part of `/proc`, archives.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| hyperstart::fuzzing::read_everything(input));
