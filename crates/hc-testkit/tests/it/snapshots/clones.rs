// SPDX-License-Identifier: Apache-2.0
//! Containers that go on where another was copied.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use hc_testkit::{Host, is_alive, kill, until};

use super::{counted, end_with, start_counter, until_counted_on};
use crate::probe::{assert_clock_is_right, assert_nothing_in_common, start_with_probe};

#[track_caller]
fn snapshots(host: &Host) -> String {
    host.hyper(["snapshot", "ls", "--format", "{{.Name}} {{.Container}} {{.Image}}"]).ok()
}

/// Fails the test unless nothing is left of any snapshot.
#[track_caller]
fn assert_none_left(host: &Host) {
    host.assert_clean();
    let left: Vec<_> =
        fs::read_dir(host.data_dir().join("snapshots")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn clones_go_on_from_one_moment_each_on_its_own() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    start_counter(&host, "origin", &["-m", "64m"]);
    let inside = |name: &str, script: &str| host.hyper(["exec", name, "sh", "-c", script]).ok();
    inside("origin", "echo before >/root/note");
    let before = *counted(&host, "origin").last().unwrap();
    assert_eq!(host.hyper(["snapshot", "create", "origin", "warm"]).ok(), "warm");
    let after = *counted(&host, "origin").last().unwrap();
    assert_eq!(snapshots(&host), "warm origin busybox");
    inside("origin", "echo origin >/root/note");

    for name in ["a", "b"] {
        host.hyper(["run", "-d", "--snapshot", "warm", "--name", name]).ok();
        assert!(host.is_copy(name), "{name}");
        until("it counts", || !counted(&host, name).is_empty());
    }
    let first = ["a", "b"].map(|name| counted(&host, name)[0]);
    assert!(
        first[0] == first[1] && (before..=after + 1).contains(&first[0]),
        "{before} {first:?} {after}"
    );

    // Each has the files of that moment, and then its own.
    assert_eq!(inside("a", "cat /root/note"), "before");
    inside("a", "echo a >/root/note");
    assert_eq!(inside("b", "cat /root/note"), "before");
    inside("b", "sync; echo 3 >/root/b");
    assert_eq!(inside("a", "cat /root/note; ls /root"), "a\nnote");
    assert_eq!(inside("origin", "cat /root/note; ls /root"), "origin\nnote");

    // None needs another, or the snapshot.
    assert_eq!(host.hyper(["snapshot", "rm", "warm"]).ok(), "warm");
    assert_eq!(snapshots(&host), "");
    end_with(&host, "a", 7);
    until_counted_on(&host, "b");
    end_with(&host, "b", 8);
    until_counted_on(&host, "origin");
    end_with(&host, "origin", 9);

    // A clone that starts again begins anew, with what it wrote.
    host.hyper(["start", "a"]).ok();
    assert_eq!(host.hyper(["wait", "a"]).ok(), "7");
    assert!(host.hyper(["logs", "a"]).ok().ends_with("\ncount 1"));
    host.hyper(["rm", "--force", "a", "b", "origin"]).ok();
    assert_none_left(&host);
}

#[test]
fn a_clone_has_its_own_name_network_and_secrets_and_the_right_time() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    start_with_probe(&host, "origin", &[]);
    for name in ["a", "b"] {
        let id = host.hyper(["clone", "--name", name, "origin"]).ok();
        assert!(host.is_copy(name), "{name}");
        assert_eq!(host.hyper(["exec", name, "hostname"]).ok(), &id[..12]);
        assert_clock_is_right(&host, name);
    }
    assert_clock_is_right(&host, "origin");
    for pair in [["a", "b"], ["a", "origin"], ["b", "origin"]] {
        assert_nothing_in_common(&host, pair);
    }
    let named = ["clone", "--name", "c", "--hostname", "other", "--label", "k=v", "a"];
    host.hyper(named).ok();
    assert_eq!(host.hyper(["exec", "c", "hostname"]).ok(), "other");
    assert_eq!(host.inspect("c")["labels"]["k"], "v");
    host.hyper(["rm", "--force", "origin", "a", "b", "c"]).ok();
    assert_none_left(&host);
}

#[test]
fn a_clone_serves_on_a_port_of_its_own() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let script = "mkdir /www; echo the page >/www/page; exec httpd -f -p 80 -h /www";
    let run = ["run", "-d", "--name", "origin", "-p", "127.0.0.1::80"];
    host.hyper([&run[..], &["busybox", "sh", "-c", script]].concat()).ok();
    let port = |name: &str| {
        let port = host.inspect(name)["ports"][0]["host_port"].as_u64().unwrap();
        u16::try_from(port).unwrap()
    };
    let serves = |name: &str| {
        until(&format!("{name} serves"), || {
            page(port(name)).is_some_and(|page| page == "the page\n")
        });
    };
    serves("origin");
    host.hyper(["clone", "--name", "a", "-p", "127.0.0.1::80", "origin"]).ok();
    serves("a");
    serves("origin");
    assert_ne!(port("a"), port("origin"));

    // Also one whose memory was on disk, on the port that it had.
    let before = port("a");
    host.hyper(["pause", "--to-disk", "a"]).ok();
    host.hyper(["unpause", "a"]).ok();
    serves("a");
    assert_eq!(port("a"), before);

    // And out into the world, whose line this is.
    let resolved = host.hyper(["exec", "a", "ip", "route"]).ok();
    assert!(resolved.contains("default via"), "{resolved}");
    host.hyper(["rm", "--force", "origin", "a"]).ok();
    assert_none_left(&host);
}

/// What is served on a port, without its head.
fn page(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

#[test]
fn what_cannot_be_copied_or_gone_on_from_is_refused() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    start_counter(&host, "x", &[]);
    host.hyper(["snapshot", "create", "x", "warm"]).ok();
    host.hyper(["snapshot", "create", "x", "warm"]).fails(1, "snapshot warm exists");
    host.hyper(["snapshot", "create", "x", "../up"]).fails(1, "invalid name");
    host.hyper(["snapshot", "create", "y", "other"]).fails(1, "y");
    host.hyper(["run", "--snapshot", "other"]).fails(125, "no such snapshot: other");
    host.hyper(["clone", "y"]).fails(125, "y");
    host.hyper(["clone", "--name", "x", "x"]).fails(125, "name x is in use");
    end_with(&host, "x", 3);
    host.hyper(["snapshot", "create", "x", "other"]).fails(1, "not running");
    host.hyper(["clone", "--name", "z", "x"]).fails(125, "not running");
    assert_eq!(host.hyper(["ps", "--all", "--format", "{{.Names}}"]).ok(), "x");
    assert_eq!(snapshots(&host), "warm x busybox");

    // A snapshot is none the worse for its container's end.
    host.hyper(["rm", "x"]).ok();
    host.hyper(["run", "-d", "--snapshot", "warm", "--name", "x"]).ok();
    until_counted_on(&host, "x");
    end_with(&host, "x", 4);
    host.hyper(["rm", "x"]).ok();
    host.hyper(["snapshot", "rm", "warm"]).ok();
    host.hyper(["snapshot", "rm", "warm"]).fails(1, "no such snapshot: warm");
    assert_none_left(&host);
}

#[test]
fn a_snapshot_is_shown_from_where_it_was_taken_to_whoever_runs_it_in_the_foreground() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let script = "until [ -e /go ]; do usleep 10000; done; echo went; exit 6";
    host.hyper(["run", "-d", "--name", "x", "busybox", "sh", "-c", script]).ok();
    host.hyper(["exec", "x", "true"]).ok();
    host.hyper(["snapshot", "create", "x", "warm"]).ok();
    host.hyper(["rm", "--force", "x"]).ok();
    let run = ["run", "--rm", "--name", "y", "--snapshot", "warm"];
    let run = host.command(run).stdout(std::process::Stdio::piped()).spawn().unwrap();
    // It may end, and be removed, before this command has.
    until("it is told to go", || {
        matches!(host.hyper(["exec", "y", "touch", "/go"]).status, 0 | 137)
    });
    let output = hc_testkit::Output::from(run.wait_with_output().unwrap());
    assert_eq!((output.status, output.stdout.as_str()), (6, "went\n"), "{output:?}");
    host.hyper(["snapshot", "rm", "warm"]).ok();
    assert_none_left(&host);
}

#[test]
fn a_snapshot_cut_off_by_a_kill_leaves_the_container_running_and_no_half_of_itself() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    start_counter(&host, "x", &[]);
    for millis in [0, 10, 30, 60, 120, 240] {
        let daemon = host.daemon_pid();
        let mut create = host.command(["snapshot", "create", "x", "warm"]).spawn().unwrap();
        // One of the instants of that work; nothing waits for anything by it.
        std::thread::sleep(std::time::Duration::from_millis(millis));
        kill(daemon);
        until("the daemon is gone", || !is_alive(daemon));
        let created = create.wait().unwrap();
        until_counted_on(&host, "x");
        let found = snapshots(&host);
        assert!(!found.is_empty() || !created.success(), "what was promised is lost");
        if !found.is_empty() {
            host.hyper(["run", "-d", "--snapshot", "warm", "--name", "y"]).ok();
            until_counted_on(&host, "y");
            host.hyper(["rm", "--force", "y"]).ok();
            host.hyper(["snapshot", "rm", "warm"]).ok();
        }
        // The pod may still be writing for the daemon that is gone.
        host.hyper(["snapshot", "create", "x", "next"]).ok();
        host.hyper(["snapshot", "rm", "next"]).ok();
        host.kill_daemon();
        host.daemon_pid();
        let left: Vec<_> =
            fs::read_dir(host.data_dir().join("snapshots")).unwrap().flatten().collect();
        assert!(left.is_empty(), "after {millis} ms: {left:?}");
    }
    end_with(&host, "x", 5);
    host.hyper(["rm", "x"]).ok();
    assert_none_left(&host);
}
