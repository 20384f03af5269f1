// SPDX-License-Identifier: Apache-2.0
//! Pods that stand still, with their memory where it was or on disk.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use hc_testkit::{Host, Output, children_of, is_alive, until};

use super::{counted, end_with, start_counter, until_counted_on};
use crate::probe::{assert_clock_is_right, since_epoch, start_with_probe};

const SECOND: u64 = 1_000_000_000;

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
fn a_pod_that_was_paused_has_the_right_time_again() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    start_with_probe(&host, "x", &[]);
    assert_clock_is_right(&host, "x");
    for way in [&["pause", "x"][..], &["pause", "--to-disk", "x"]] {
        // What an hour's pause does, without the hour.
        let wrong = since_epoch() / SECOND - 3600;
        let set = ["exec", "--privileged", "x", "date", "-s", &format!("@{wrong}")];
        host.hyper(set).ok();
        let told: u64 = host.hyper(["exec", "x", "date", "+%s"]).ok().parse().unwrap();
        assert!(told < since_epoch() / SECOND - 3000, "the clock was not set wrong");
        host.hyper(way).ok();
        host.hyper(["unpause", "x"]).ok();
        assert_clock_is_right(&host, "x");
    }
    host.hyper(["rm", "--force", "x"]).ok();
    host.assert_clean();
}

#[test]
fn a_pod_paused_to_disk_has_no_vm_and_goes_on_where_it_was() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    start_counter(&host, "x", &[]);
    let script = "echo in; exec sleep 600";
    let mut exec = host
        .command(["exec", "x", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(exec.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "in\n");

    for round in 0..3 {
        let (pod, hypervisor) = (host.pod_pid("x"), host.hypervisor("x"));
        host.hyper(["pause", "--to-disk", "x"]).ok();
        assert_eq!(host.inspect("x")["state"], "paused");
        assert!(!is_alive(hypervisor) && children_of(pod).is_empty());
        let before = counted(&host, "x");
        host.hyper(["exec", "x", "true"]).fails(125, "paused");
        host.hyper(["pause", "x"]).fails(1, "paused");
        host.hyper(["pause", "--to-disk", "x"]).fails(1, "paused");
        if round == 1 {
            // Nor does it need the daemon.
            host.kill_daemon();
            assert_eq!(host.inspect("x")["state"], "paused");
        }
        assert_eq!(counted(&host, "x"), before);
        host.hyper(["unpause", "x"]).ok();
        assert_eq!(
            (host.inspect("x")["state"].as_str(), host.pod_pid("x")),
            (Some("running"), pod)
        );
        assert_no_copy_left(&host);
        until_counted_on(&host, "x");
    }
    // Whoever ran a command in it was cut off; the command was not.
    let exec = Output::from(exec.wait_with_output().unwrap());
    assert_ne!(exec.status, 0, "{exec:?}");
    let top = host.hyper(["top", "x"]).ok();
    assert!(top.contains("sleep 600"), "{top}");
    end_with(&host, "x", 9);
    host.hyper(["rm", "x"]).ok();
    host.assert_clean();
}

#[test]
fn a_run_in_the_foreground_outlasts_a_pause_to_disk() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let script =
        "echo up; until [ -e /go ]; do usleep 10000; done; read line; echo \"<$line>\"; exit 6";
    let mut run = host
        .command(["run", "-i", "--rm", "--name", "x", "busybox", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(run.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    host.hyper(["pause", "--to-disk", "x"]).ok();
    run.stdin.as_mut().unwrap().write_all(b"typed meanwhile\n").unwrap();
    host.hyper(["unpause", "x"]).ok();
    // Detached: the container ends as soon as it sees the file, and everything in it.
    host.hyper(["exec", "-d", "x", "touch", "/go"]).ok();
    line.clear();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "<typed meanwhile>\n");
    assert_eq!(hc_testkit::until_ended(&mut run), 6);
    host.assert_clean();
}

#[test]
fn a_pod_paused_to_disk_can_be_stopped_killed_and_removed() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    start_counter(&host, "x", &["--stop-timeout", "1"]);
    let ends: [(&[&str], i32); 2] = [(&["stop", "x"], 143), (&["kill", "x"], 137)];
    // Each run counts past three, and no run does twice.
    let runs = || {
        let log = host.hyper(["logs", "x"]).ok();
        log.lines().filter(|line| *line == "count 3").count()
    };
    for (number, (end, status)) in ends.into_iter().enumerate() {
        until("it counts", || runs() == number + 1);
        host.hyper(["pause", "--to-disk", "x"]).ok();
        host.hyper(end).ok();
        host.until_state("x", "exited");
        let x = host.inspect("x");
        assert!(x["exit_status"] == status || x["exit_status"] == 137, "{end:?}: {x}");
        assert_no_copy_left(&host);
        host.hyper(["start", "x"]).ok();
    }
    until("it counts anew", || runs() == ends.len() + 1);
    host.hyper(["pause", "--to-disk", "x"]).ok();
    host.hyper(["rm", "x"]).fails(1, "running");
    host.hyper(["rm", "--force", "x"]).ok();
    host.assert_clean();
}

#[test]
fn a_pod_that_is_paused_can_be_copied_and_stays_so() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    start_counter(&host, "x", &[]);
    host.hyper(["pause", "x"]).ok();
    let last = *counted(&host, "x").last().unwrap();
    host.hyper(["clone", "--name", "y", "x"]).ok();
    assert_eq!(host.inspect("x")["state"], "paused");
    until("the copy counts on", || !counted(&host, "y").is_empty());
    let first = counted(&host, "y")[0];
    // A line may have been on its way.
    assert!(first == last + 1 || first == last + 2, "{last} {first}");
    assert_eq!(counted(&host, "x").last(), Some(&last));
    host.hyper(["unpause", "x"]).ok();
    until_counted_on(&host, "x");
    end_with(&host, "x", 3);
    end_with(&host, "y", 4);
    host.hyper(["rm", "x", "y"]).ok();
    host.assert_clean();
}
