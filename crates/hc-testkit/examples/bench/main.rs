// SPDX-License-Identifier: Apache-2.0
//! `make bench`: how fast and how small the programs in `dist/` are, beside a bare limit or a peer
//! that is measured in the same run, because absolute times drift with the machine.
//!
//! Its arguments are an archive to import, and which parts to measure: all, where none is named.
//! `HYPER_BENCH_ROUNDS` says how often what is fast is measured, for a first look.

#![expect(clippy::unwrap_used, reason = "a panic ends the measurement")]
#![expect(clippy::print_stdout, reason = "figures are what it is for")]

mod exec;
mod idle;
mod import;
mod instructions;
mod many;
mod memory;
mod snapshot;
mod start;
mod table;

use hc_testkit::Host;

/// Rounds of what is measured once a round.
const ROUNDS: usize = 50;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let archive = arguments.next();
    let wanted: Vec<String> = arguments.collect();
    let Some(host) = Host::new() else { return };
    host.busybox();
    let is_wanted = |part| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    let measure = |part, measure: &dyn Fn(&Host)| {
        if is_wanted(part) {
            measure(&host);
        }
    };
    measure("instructions", &instructions::measure);
    measure("start", &start::measure);
    measure("many", &many::measure);
    measure("snapshot", &snapshot::measure);
    measure("exec", &exec::measure);
    measure("import", &|host| import::measure(host, archive.as_deref()));
    measure("idle", &idle::measure);
}

/// How many rounds to measure, at least one.
fn rounds() -> usize {
    let asked = std::env::var("HYPER_BENCH_ROUNDS").ok();
    asked.map_or(ROUNDS, |asked| asked.parse().unwrap()).max(1)
}
