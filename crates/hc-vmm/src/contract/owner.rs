// SPDX-License-Identifier: Apache-2.0
//! The promise that needs a second process: a VM dies with its owner.

use std::process::Stdio;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::life::{assert_ended, signal};
use super::{Bench, in_time};

/// Tells a copy of the test to be the owner.
const ROLE: &str = "HC_VMM_CONTRACT_OWNER";

/// How the copy says which process its VM is.
const MARK: &str = "hypervisor is process ";

/// SIGKILL leaves the owner no time to clean up, and the VM goes all the same.
///
/// `module` is where the test of this name stands, for the test runs itself again.
pub async fn vm_dies_with_its_owner(bench: &Bench, module: &str) {
    if std::env::var_os(ROLE).is_some() {
        return own(bench).await;
    }
    let (_, path) = module.split_once("::").unwrap_or_default();
    let separator = if path.is_empty() { "" } else { "::" };
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg(format!("{path}{separator}vm_dies_with_its_owner"))
        .env(ROLE, "1")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let process = in_time("wait for the owner", async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the owner says its piece");
            if let Some((_, process)) = line.split_once(MARK) {
                break process.parse::<u32>().ok();
            }
        }
    })
    .await;
    signal(owner.id().unwrap(), Signal::KILL);
    assert_ended(process).await;
}

/// Owns a VM until somebody puts an end to this process.
#[expect(clippy::print_stdout, reason = "the other process reads it")]
async fn own(bench: &Bench) {
    let running = bench.boot(|_| ()).await;
    match running.vm.process_id() {
        Some(process) => println!("\n{MARK}{process}"),
        None => println!("\n{MARK}this one"),
    }
    std::future::pending::<()>().await;
}
