// SPDX-License-Identifier: Apache-2.0
//! SIGKILL of whoever makes a template, while it does.

use std::process::{Child, Stdio};

use hc_testkit::{Host, Output, children_of, is_alive, kill, processes_naming, until};

use super::{files, next_is_copy};

/// Starts to make a template, and waits for its process and its hypervisor.
fn start_making(host: &Host) -> (Child, u32, u32) {
    let daemon = host.daemon_pid();
    let create = host
        .command(["template", "create", "--quiet"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut process, mut hypervisor) = (0, 0);
    until("a template is being made", || {
        process = children_of(daemon).first().copied().unwrap_or(0);
        hypervisor = children_of(process).first().copied().unwrap_or(0);
        process != 0 && hypervisor != 0
    });
    (create, process, hypervisor)
}

/// The end of a command.
fn finish(child: Child) -> Output {
    child.wait_with_output().unwrap().into()
}

/// Fails the test unless nothing is left of an attempt, and the next one succeeds.
#[track_caller]
fn assert_nothing_left(host: &Host, process: u32, hypervisor: u32) {
    until("both processes are gone", || !is_alive(process) && !is_alive(hypervisor));
    let vms = host.runtime_dir().join("vms");
    until("no process without a pod is left", || {
        processes_naming(&vms.display().to_string()).is_empty()
    });
    assert_eq!(std::fs::read_dir(vms).unwrap().count(), 0);
    assert!(files(host).is_empty(), "{:?}", files(host));
    host.hyper(["template", "create", "--quiet"]).ok();
    assert!(next_is_copy(host));
    host.hyper(["template", "prune"]).ok();
    host.assert_clean();
}

#[test]
fn a_template_whose_makers_are_killed_leaves_nothing_and_can_be_made_again() {
    let Some(host) = Host::new() else { return };
    host.busybox();

    let (create, process, hypervisor) = start_making(&host);
    kill(hypervisor);
    finish(create).fails(1, "cannot make a template");
    assert_nothing_left(&host, process, hypervisor);

    let (create, process, hypervisor) = start_making(&host);
    kill(process);
    finish(create).fails(1, "cannot make a template");
    assert_nothing_left(&host, process, hypervisor);

    let (create, process, hypervisor) = start_making(&host);
    host.kill_daemon();
    finish(create).fails(1, "lost the connection");
    assert_nothing_left(&host, process, hypervisor);
}

#[test]
fn a_daemon_killed_while_it_writes_a_template_leaves_a_whole_one_or_none() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    for millis in [0, 2, 5, 10, 20, 40, 80] {
        let daemon = host.daemon_pid();
        let (create, process, hypervisor) = start_making(&host);
        // From here on it is written.
        until("the guest is copied", || !is_alive(hypervisor) || !is_alive(process));
        // One of the instants of that work; nothing waits for anything by it.
        std::thread::sleep(std::time::Duration::from_millis(millis));
        kill(daemon);
        until("the daemon is gone", || !is_alive(daemon));
        let created = finish(create);
        let left = files(&host);
        // A file that is not whole would have no right label, or make the next pod boot.
        assert_eq!(host.templates().len(), left.len(), "{left:?}");
        assert_eq!(next_is_copy(&host), left.len() == 1, "{left:?}");
        assert!(created.status != 0 || left.len() == 1, "what was promised is lost");
        host.hyper(["template", "prune"]).ok();
        host.assert_clean();
    }
}
