// SPDX-License-Identifier: Apache-2.0
//! `hyper-vmm`: one virtual machine. Started by the KVM driver, and of no use to anybody else.

use std::fs::File;
use std::os::fd::RawFd;
use std::process::ExitCode;

use anyhow::Context as _;
use hc_monitor::config::Machine;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The owner keeps this for the VM's last words.
            #[expect(clippy::print_stderr, reason = "this is where a program says why it failed")]
            {
                eprintln!("{error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let usage = "hyper-vmm is started by hyper-pod, with the number of a descriptor";
    let number: RawFd = std::env::args().nth(1).context(usage)?.parse().context(usage)?;
    let description = File::open(format!("/proc/self/fd/{number}")).context(usage)?;
    let machine: Machine =
        serde_json::from_reader(description).context("cannot read the machine's description")?;
    Ok(hc_monitor::run(&machine)?)
}
