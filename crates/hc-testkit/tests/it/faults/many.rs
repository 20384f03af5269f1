// SPDX-License-Identifier: Apache-2.0
//! Twenty pods at once.

use std::process::Child;

use hc_testkit::{Host, memory_kib};

use super::{finish, start};

const PODS: usize = 20;
/// The most memory, in KiB of PSS, that an idle pod's process and the daemon may take.
const MAX_POD_KIB: u64 = 8 * 1024;
const MAX_DAEMON_KIB: u64 = 25 * 1024;

#[test]
fn many_pods_started_at_once_all_run() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let run = |number: usize| {
        let text = number.to_string();
        start(&mut host.command(["run", "--rm", "--memory", "64m", "busybox", "echo", &text]))
    };
    let runs: Vec<Child> = (0..PODS).map(run).collect();
    for (number, run) in runs.into_iter().enumerate() {
        assert_eq!(finish(run).ok(), number.to_string());
    }
    host.assert_clean();
}

#[test]
fn many_idle_pods_all_answer_and_cost_little_memory() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let name = |number: usize| format!("pod-{number}");
    let run = |number: usize| {
        let mut command = host.command(["run", "-d", "--memory", "64m", "--name", &name(number)]);
        start(command.args(["busybox", "sleep", "600"]))
    };
    let runs: Vec<Child> = (0..PODS).map(run).collect();
    for run in runs {
        finish(run).ok();
    }
    for number in 0..PODS {
        let name = name(number);
        assert_eq!(host.hyper(["exec", &name, "hostname"]).ok().len(), 12);
    }
    let pss = |pid| memory_kib(pid, "smaps_rollup", "Pss").unwrap();
    let pods: Vec<u64> = (0..PODS).map(|number| pss(host.pod_pid(&name(number)))).collect();
    let (pod, daemon) = (pods.iter().max().unwrap(), pss(host.daemon_pid()));
    println!("PSS with {PODS} pods: hyper-pod at most {pod} KiB, hyperd {daemon} KiB");
    assert!(*pod <= MAX_POD_KIB && daemon <= MAX_DAEMON_KIB, "pods {pods:?}, daemon {daemon} KiB");
    let names: Vec<String> = (0..PODS).map(name).collect();
    host.hyper(["rm".to_owned(), "--force".to_owned()].into_iter().chain(names)).ok();
    host.assert_clean();
}
