// SPDX-License-Identifier: Apache-2.0
//! VMs that wait for pods.

use std::fs;

use hc_testkit::{Host, children_of, is_alive, kill, until};

const SIZE: u64 = 2;

/// An installation whose pool is full, and the processes that wait.
fn full() -> Option<(Host, Vec<u32>)> {
    let host = Host::new()?;
    host.configure(&format!("pool = {SIZE}"));
    host.busybox();
    let waiting = until_full(&host);
    Some((host, waiting))
}

/// Waits until the pool is full, and no other process runs: what is left of a pod, or makes a
/// template.
fn until_full(host: &Host) -> Vec<u32> {
    host.until_waiting(SIZE);
    let mut waiting = Vec::new();
    until("nothing runs but what waits", || {
        waiting = children_of(host.daemon_pid());
        waiting.len() as u64 == SIZE
    });
    waiting
}

#[test]
fn a_run_takes_a_vm_that_waits_and_another_takes_its_place() {
    let Some((host, waiting)) = full() else { return };
    host.hyper(["run", "-d", "--name", "x", "busybox", "sleep", "600"]).ok();
    let pod = host.pod_pid("x");
    assert!(waiting.contains(&pod), "{pod} of {waiting:?}");
    assert!(host.is_copy("x"));
    host.until_waiting(SIZE);
    let now = children_of(host.daemon_pid());
    assert!(
        now.len() == waiting.len() + 1 && waiting.iter().all(|pid| now.contains(pid)),
        "{now:?}"
    );

    // A pod of another shape has no use for them.
    host.hyper(["run", "-d", "--name", "y", "-m", "64m", "busybox", "sleep", "600"]).ok();
    assert!(!now.contains(&host.pod_pid("y")));
    host.hyper(["rm", "--force", "x", "y"]).ok();
    until_full(&host);
    host.assert_clean();
}

#[test]
fn vms_that_wait_and_are_killed_harm_no_later_run() {
    let Some((host, mut waiting)) = full() else { return };
    for what in ["process", "hypervisor", "process", "hypervisor"] {
        for process in &waiting {
            let hypervisors = children_of(*process);
            assert_eq!(hypervisors.len(), 1, "{hypervisors:?}");
            kill(if what == "process" { *process } else { hypervisors[0] });
        }
        // At once, while the daemon may not have noticed.
        assert_eq!(host.hyper(["run", "--rm", "busybox", "echo", "here"]).ok(), "here", "{what}");
        until("those that were killed are gone", || !waiting.iter().any(|pid| is_alive(*pid)));
        waiting = until_full(&host);
    }
    host.assert_clean();
}

#[test]
fn vms_that_wait_end_with_the_daemon() {
    let Some((host, waiting)) = full() else { return };
    let hypervisors: Vec<u32> = waiting.iter().flat_map(|pid| children_of(*pid)).collect();
    assert_eq!(hypervisors.len(), waiting.len());
    host.kill_daemon();
    until("all are gone", || !waiting.iter().chain(&hypervisors).any(|pid| is_alive(*pid)));
    assert_eq!(fs::read_dir(host.runtime_dir().join("vms")).unwrap().count(), 0);
    // The next daemon has its own.
    let waiting = until_full(&host);
    assert_eq!(host.hyper(["run", "--rm", "busybox", "echo", "here"]).ok(), "here");
    until("one of them was that pod's", || waiting.iter().any(|pid| !is_alive(*pid)));
    host.assert_clean();
}

#[test]
fn a_pool_without_templates_is_refused() {
    let Some(host) = Host::new() else { return };
    host.configure("pool = 1\ntemplates = \"off\"");
    host.hyper(["ps"]).fails(1, "a pool needs templates");
}
