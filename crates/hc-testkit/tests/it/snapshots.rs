// SPDX-License-Identifier: Apache-2.0
//! Pods that are copied while they run, and pods whose memory goes to disk: their programs go on, and
//! cannot tell but by the time.

mod clones;
mod paused;

use hc_testkit::{Host, until};

/// Counts, tells each number, and ends with the status that it finds in `/end`.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo count $i; \
                       [ -e /end ] && exit $(cat /end); usleep 20000; done";

/// Starts container `name`, which counts, and waits until it has begun.
#[track_caller]
fn start_counter(host: &Host, name: &str, options: &[&str]) {
    let run = ["run", "-d", "--name", name];
    host.hyper([&run, options, &["busybox", "sh", "-c", COUNTER]].concat()).ok();
    until("it counts", || counted(host, name).len() > 3);
}

/// The numbers that a container has told, which follow each other.
#[track_caller]
fn counted(host: &Host, name: &str) -> Vec<u32> {
    let logs = host.hyper(["logs", name]).ok();
    let number = |line: &str| line.strip_prefix("count ").unwrap().parse().unwrap();
    let numbers: Vec<u32> = logs.lines().map(number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{name}: {numbers:?}");
    numbers
}

/// Waits until a container counts further than it has.
#[track_caller]
fn until_counted_on(host: &Host, name: &str) {
    let before = counted(host, name).len();
    until("it counts on", || counted(host, name).len() > before + 2);
}

/// Lets a container that counts end with `status`, and checks that it does.
#[track_caller]
fn end_with(host: &Host, name: &str, status: i32) {
    let script = format!("echo {status} >/ending; mv /ending /end");
    host.hyper(["exec", name, "sh", "-c", &script]);
    assert_eq!(host.hyper(["wait", name]).ok(), status.to_string());
    assert_eq!(host.inspect(name)["exit_status"], status);
}
