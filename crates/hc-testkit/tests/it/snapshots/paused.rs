// SPDX-License-Identifier: Apache-2.0
//! Pods that stand still, with their memory where it was or on disk.

use hc_testkit::{Host, until};

use super::start_counter;

/// Fails the test unless a container has neither a VM nor a copy of one.
#[track_caller]
fn assert_no_copy_left(host: &Host) {
    let pods = std::fs::read_dir(host.data_dir().join("pods")).unwrap();
    for pod in pods {
        let copy = pod.unwrap().path().join("memory.guest");
        assert!(!copy.exists(), "{}", copy.display());
    }
}

#[test]
fn a_pod_paused_to_disk_can_be_stopped_killed_and_removed() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    start_counter(&host, "x", &["--stop-timeout", "1"]);
    let ends: [(&[&str], i32); 2] = [(&["stop", "x"], 143), (&["kill", "x"], 137)];
    for (end, status) in ends {
        host.hyper(["pause", "--to-disk", "x"]).ok();
        host.hyper(end).ok();
        host.until_state("x", "exited");
        let x = host.inspect("x");
        assert!(x["exit_status"] == status || x["exit_status"] == 137, "{end:?}: {x}");
        assert_no_copy_left(&host);
        host.hyper(["start", "x"]).ok();
        until("it counts anew", || host.hyper(["logs", "--tail", "1", "x"]).ok() == "count 3");
    }
    host.hyper(["pause", "--to-disk", "x"]).ok();
    host.hyper(["rm", "x"]).fails(1, "running");
    host.hyper(["rm", "--force", "x"]).ok();
    host.assert_clean();
}
