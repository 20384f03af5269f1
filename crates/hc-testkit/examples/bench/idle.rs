// SPDX-License-Identifier: Apache-2.0
//! What pods cost that do nothing.

use hc_testkit::{Host, children_of, memory_kib};

use crate::table::{figure, group};

const PODS: usize = 20;

pub(crate) fn measure(host: &Host) {
    group("idle: 20 pods of 128 MiB that sleep");
    let names: Vec<_> = (0..PODS).map(|number| format!("idle-{number}")).collect();
    for name in &names {
        host.hyper(["run", "-d", "-m", "64m", "--name", name, "busybox", "sleep", "1000"]).ok();
    }
    let pods: Vec<_> = names.iter().map(|name| host.pod_pid(name)).collect();
    let mean = |pids: Vec<u32>| {
        let kib: u64 = pids.iter().map(|pid| pss_kib(*pid)).sum();
        let tenths = kib * 10 / 1024 / pids.len() as u64;
        format!("{}.{} MiB", tenths / 10, tenths % 10)
    };
    let vms = pods.iter().flat_map(|pid| children_of(*pid)).collect();
    figure("hyper-pod, PSS each", &mean(pods), "at most 8 MiB");
    figure("hypervisor with the guest's memory, PSS each", &mean(vms), "");
    figure("hyperd, PSS", &mean(vec![host.daemon_pid()]), "at most 25 MiB");
    host.hyper(["rm", "--force"].into_iter().chain(names.iter().map(String::as_str))).ok();
}

/// The proportional set size: memory of its own and its share of what it shares.
fn pss_kib(pid: u32) -> u64 {
    memory_kib(pid, "smaps_rollup", "Pss").unwrap()
}
