// SPDX-License-Identifier: Apache-2.0
//! Prints what the probe finds, and how long it took: `cargo run -p hc-kvm-probe --example probe`.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::Instant;

fn main() {
    let start = Instant::now();
    let probe = hc_kvm_probe::probe();
    println!("{probe} (asked for {:?})", start.elapsed());
    if let Some(speed) = probe.speed() {
        println!("{speed:?}");
    }
    if let Some(hint) = probe.hint() {
        println!("hint: {hint}");
    }
}
