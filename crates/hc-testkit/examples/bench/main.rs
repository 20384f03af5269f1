// SPDX-License-Identifier: Apache-2.0
//! `make bench`: how fast and how small the programs in `dist/` are, beside a bare limit or a peer
//! that is measured in the same run, because absolute times drift with the machine.

#![expect(clippy::unwrap_used, reason = "a panic ends the measurement")]
#![expect(clippy::print_stdout, reason = "figures are what it is for")]

mod exec;
mod idle;
mod import;
mod start;
mod table;

use hc_testkit::Host;

fn main() {
    let archive = std::env::args().nth(1);
    let Some(host) = Host::new() else { return };
    host.busybox();
    start::measure(&host);
    exec::measure(&host);
    import::measure(&host, archive.as_deref());
    idle::measure(&host);
}
