// SPDX-License-Identifier: Apache-2.0
//! SIGKILL of the daemon while it works.

use std::fs;

use hc_testkit::{Host, children_of, is_alive, until};

use super::{finish, instant, kill_daemon, let_end, names, start, start_until};

#[test]
fn a_daemon_killed_while_it_creates_leaves_a_whole_container_or_none() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    for step in 0..12 {
        let daemon = host.daemon_pid();
        let create = start(&mut host.command(["create", "--name", "x", "busybox", "true"]));
        instant(step * 3);
        kill_daemon(daemon);
        let created = finish(create);
        let found = names(&host);
        if created.status == 0 {
            assert_eq!(found, "x", "what was promised is lost: {created:?}");
        }
        if !found.is_empty() {
            assert_eq!(host.inspect("x")["state"], "created");
            host.hyper(["rm", "x"]).ok();
        }
    }
    host.assert_clean();
}

/// What to wait for before the daemon is killed in the middle of a start.
enum When {
    /// Some milliseconds.
    After(u64),
    /// The pod's folder is there.
    Folder,
    /// Its socket is.
    Socket,
    /// Its process runs.
    Process,
    /// It has written down how it fares.
    Record,
}

impl When {
    fn wait(&self, host: &Host) {
        let pods = host.data_dir().join("pods");
        let sockets = host.runtime_dir().join("pods");
        let any = |dir: &std::path::Path, file: &str| {
            let entries = fs::read_dir(dir).into_iter().flatten();
            entries.flatten().any(|pod| pod.path().join(file).exists())
        };
        match self {
            When::After(millis) => instant(*millis),
            When::Folder => until("the pod's folder is there", || any(&pods, "")),
            When::Socket => until("the pod's socket is there", || any(&sockets, "pod.sock")),
            When::Process => {
                let daemon = host.daemon_pid();
                until("the pod's process runs", || !children_of(daemon).is_empty());
            }
            When::Record => until("the pod's record is there", || any(&pods, "status.json")),
        }
    }
}

#[test]
fn a_daemon_killed_while_it_starts_a_container_leaves_it_as_it_was_or_loses_no_exit_code() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let instants = [
        When::After(0),
        When::After(8),
        When::Folder,
        When::Socket,
        When::Process,
        When::Record,
        When::After(400),
    ];
    for when in instants {
        host.hyper(["create", "--name", "x", "busybox", "sh", "-c", "echo ran; exit 5"]).ok();
        let daemon = host.daemon_pid();
        let started = start(&mut host.command(["start", "x"]));
        when.wait(&host);
        kill_daemon(daemon);
        let started = finish(started);

        until("the start is over, one way or the other", || {
            let state = &host.inspect("x")["state"];
            state == "created" || state == "exited"
        });
        let x = host.inspect("x");
        let ran = x["started"].is_string();
        assert!(ran || started.status != 0, "{started:?} but {x}");
        if ran {
            assert_eq!(x["exit_status"], 5, "{x}");
            assert_eq!(host.hyper(["logs", "x"]).ok(), "ran");
        } else if x["state"] == "exited" {
            assert_eq!(x["exit_status"], 125, "{x}");
            assert!(x["error"].as_str().unwrap().contains("the daemon was killed"), "{x}");
        }
        host.hyper(["rm", "x"]).ok();
        host.assert_clean();
    }
}

#[test]
fn a_container_counts_on_without_a_daemon_and_no_line_and_no_exit_code_is_lost() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let script =
        "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); usleep 10000; done; exit 9";
    host.hyper(["run", "-d", "--name", "x", "busybox", "sh", "-c", script]).ok();
    let pod = host.pod_pid("x");
    for seen in ["line 5\n", "line 40\n"] {
        until("it counts", || host.hyper(["logs", "x"]).stdout.contains(seen));
        kill_daemon(host.daemon_pid());
        assert_eq!(host.inspect("x")["state"], "running");
        assert_eq!(host.pod_pid("x"), pod);
    }
    // It ends while nobody looks.
    kill_daemon(host.daemon_pid());
    until("the pod has ended by itself", || !is_alive(pod));
    assert_eq!(host.hyper(["wait", "x"]).ok(), "9");
    let lines: Vec<String> = (0..300).map(|i| format!("line {i}")).collect();
    assert_eq!(host.hyper(["logs", "x"]).ok(), lines.join("\n"));
    assert_eq!(host.inspect("x")["exit_status"], 9);
    host.hyper(["rm", "x"]).ok();
    host.assert_clean();
}

#[test]
fn a_run_that_loses_its_daemon_says_so_and_the_container_goes_on_and_is_removed_at_its_end() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let script = "echo up; until [ -e /go ]; do usleep 10000; done; exit 3";
    let mut command = host.command(["run", "--rm", "--name", "x", "busybox", "sh", "-c", script]);
    let run = start_until(&mut command, "up");
    kill_daemon(host.daemon_pid());
    finish(run).fails(125, "lost the connection");
    assert_eq!(host.inspect("x")["state"], "running");
    let_end(&host);
    until("it is removed", || names(&host).is_empty());
    host.assert_clean();

    // It ends, and is to be removed, while there is no daemon.
    let run = start_until(&mut command, "up");
    let pod = host.pod_pid("x");
    let script = "(sleep 1; touch /go) >/dev/null 2>&1 &";
    host.hyper(["exec", "x", "sh", "-c", script]).ok();
    kill_daemon(host.daemon_pid());
    finish(run).fails(125, "lost the connection");
    until("the pod has ended by itself", || !is_alive(pod));
    until("the next daemon removes it", || names(&host).is_empty());
    host.assert_clean();
}

#[test]
fn a_daemon_killed_during_an_exec_hurts_neither_the_process_nor_those_that_follow() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    host.hyper(["run", "-d", "--name", "x", "busybox", "sleep", "600"]).ok();
    let script = "echo in; until [ -e /go ]; do usleep 10000; done; echo whole >/result";
    let exec = start_until(&mut host.command(["exec", "x", "sh", "-c", script]), "in");
    kill_daemon(host.daemon_pid());
    finish(exec).fails(125, "lost the connection");
    host.hyper(["exec", "x", "touch", "/go"]).ok();
    until("the process went on", || {
        host.hyper(["exec", "x", "cat", "/result"]).stdout == "whole\n"
    });

    for step in 0..10 {
        let daemon = host.daemon_pid();
        let exec = start(&mut host.command(["exec", "x", "true"]));
        instant(step * 4);
        kill_daemon(daemon);
        finish(exec);
        assert_eq!(host.hyper(["exec", "x", "echo", "ok"]).ok(), "ok");
    }
    host.hyper(["rm", "--force", "x"]).ok();
    host.assert_clean();
}

#[test]
fn a_daemon_killed_during_a_stop_or_a_removal_leaves_what_can_be_stopped_and_removed() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    // The signal arrives, and the container takes its time.
    let script =
        "trap 'echo term; usleep 500000; exit 4' TERM; echo up; while :; do usleep 10000; done";
    host.hyper(["run", "-d", "--name", "x", "busybox", "sh", "-c", script]).ok();
    until("it has its trap", || host.hyper(["logs", "x"]).stdout == "up\n");
    let daemon = host.daemon_pid();
    let stop = start(&mut host.command(["stop", "x"]));
    until("the signal is there", || logged(&host, "term"));
    kill_daemon(daemon);
    assert_ne!(finish(stop).status, 0);
    host.until_state("x", "exited");
    assert_eq!(host.inspect("x")["exit_status"], 4);
    host.hyper(["rm", "x"]).ok();
    host.assert_clean();

    // It never ends by itself, and the stop is lost with the daemon.
    let script =
        "i=0; trap 'i=$((i+1)); echo term $i' TERM; echo up; while :; do usleep 10000; done";
    host.hyper(["run", "-d", "--name", "x", "busybox", "sh", "-c", script]).ok();
    until("it has its trap", || host.hyper(["logs", "x"]).stdout == "up\n");
    for round in 1..=3 {
        let daemon = host.daemon_pid();
        let stop = start(&mut host.command(["stop", "--time", "60", "x"]));
        until("the signal is there", || logged(&host, &format!("term {round}")));
        kill_daemon(daemon);
        assert_ne!(finish(stop).status, 0);
        assert_eq!(host.inspect("x")["state"], "running");
    }
    host.hyper(["stop", "--time", "0", "x"]).ok();
    assert_eq!(host.inspect("x")["exit_status"], 137);

    // Removals are finished by the next daemon, or can be asked for again.
    host.hyper(["rm", "x"]).ok();
    for step in 0..8 {
        host.hyper(["create", "--name", "x", "busybox", "true"]).ok();
        let daemon = host.daemon_pid();
        let removal = start(&mut host.command(["rm", "x"]));
        instant(step * 3);
        kill_daemon(daemon);
        let removal = finish(removal);
        if names(&host).is_empty() {
            continue;
        }
        assert_ne!(removal.status, 0, "a removal that was promised did not happen");
        host.hyper(["rm", "x"]).ok();
    }
    host.assert_clean();
}

/// Whether a container's log on disk has `text`, asked without the daemon.
fn logged(host: &Host, text: &str) -> bool {
    let pods = fs::read_dir(host.data_dir().join("pods")).into_iter().flatten().flatten();
    let logs = pods.flat_map(|pod| fs::read_dir(pod.path().join("logs")).into_iter().flatten());
    logs.flatten().any(|log| {
        let bytes = fs::read(log.path()).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}
