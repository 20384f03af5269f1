// SPDX-License-Identifier: Apache-2.0
//! What containers wrote, while they run and afterwards.

use std::process::Stdio;

use hc_testkit::{Host, Output, until};

#[test]
fn logs_keep_both_streams_apart_and_can_be_narrowed() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf 'no end'";
    host.hyper(["run", "-d", "--name", "c", "busybox", "sh", "-c", script]).ok();
    let follow = host.hyper(["logs", "--follow", "c"]);
    assert_eq!(follow.stdout, "out 1\nout 2\nout 3\nno end", "{follow:?}");
    assert_eq!(follow.stderr, "err 1\nerr 2\nerr 3\n", "{follow:?}");
    host.until_state("c", "exited");

    // The same of a container that has ended, and when no daemon saw it run.
    host.kill_daemon();
    let logs = |options: &[&str]| host.hyper([&["logs"], options, &["c"]].concat());
    assert_eq!((logs(&[]).stdout, logs(&[]).stderr), (follow.stdout, follow.stderr));

    // Which stream was the last to write is up to the guest.
    let last = logs(&["--tail", "1"]);
    assert!(["no end", "err 3\n"].contains(&&*(last.stdout + &last.stderr)));
    assert_eq!(logs(&["--tail", "0"]).stdout, "");
    let tail = logs(&["--tail", "3"]);
    assert_eq!(tail.stdout.lines().count() + tail.stderr.lines().count(), 3, "{tail:?}");
    assert_eq!(logs(&["--since", "1h"]).stdout, "out 1\nout 2\nout 3\nno end");
    assert_eq!(logs(&["--since", "2100-01-01T00:00:00Z"]).stdout, "");
    assert_eq!(logs(&["--until", "1h"]).stdout, "");
    for line in logs(&["--timestamps"]).stdout.lines() {
        let (time, text) = line.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{line}");
        assert!(text.starts_with("out ") || text == "no end", "{line}");
    }
    host.hyper(["logs", "not-there"]).fails(1, "not-there");
    host.hyper(["rm", "c"]).ok();
    host.assert_clean();
}

#[test]
fn a_follower_sees_lines_as_they_come_and_ends_with_the_container() {
    use std::io::{BufRead as _, BufReader};
    let Some(host) = Host::new() else { return };
    host.busybox();
    let echo = "while read line; do echo got $line; done";
    let mut run = host.command(["run", "-i", "--name", "c", "busybox", "sh", "-c", echo]);
    let mut run = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut keyboard = run.stdin.take().unwrap();
    until("it runs", || host.hyper(["ps", "-q"]).ok() != "");
    let mut follower = host.command(["logs", "-f", "c"]);
    let mut follower = follower.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    for word in ["one", "two", "three"] {
        use std::io::Write as _;
        writeln!(keyboard, "{word}").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), format!("got {word}"));
    }
    drop(keyboard);
    assert!(lines.next().is_none());
    assert!(follower.wait().unwrap().success());
    let ran: Output = run.wait_with_output().unwrap().into();
    assert_eq!(ran.ok(), "got one\ngot two\ngot three");

    // A second run adds to the log of the first.
    assert_eq!(host.hyper_with(["start", "-ai", "c"], b"four\n").ok(), "got four");
    assert_eq!(host.hyper(["logs", "--tail", "2", "c"]).ok(), "got three\ngot four");
    host.hyper(["rm", "c"]).ok();
    host.assert_clean();
}
