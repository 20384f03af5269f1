// SPDX-License-Identifier: Apache-2.0
//! `run --timings`: where the time went.

use std::time::{SystemTime, UNIX_EPOCH};

use hc_api::stream::{ExitFrame, Frame, Step};
use hc_api::{ErrorBody, ErrorKind};

use crate::daemon::{Conversation, Daemon, ID};
use crate::program::{hyper, run};

fn step(what: &str) -> Step {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Step { what: what.into(), unix_micros: u64::try_from(since.as_micros()).unwrap() }
}

/// A program that writes, and ends with what its pod did on the way.
fn timed() -> Daemon {
    Daemon::new(async |mut program: Conversation| {
        let timeline = vec![step("guest answers"), step("program\x1b runs")];
        program.send(Frame::Started).await;
        program.send(Frame::Stderr(b"words\n".to_vec())).await;
        program.send(Frame::Stdout(b"out\n".to_vec())).await;
        program.send(Frame::Exit(ExitFrame { timeline, ..ExitFrame::of(5) })).await;
        program.remove();
    })
}

/// A line of the table: what, when, how long.
fn row(line: &str) -> (&str, f64, f64) {
    let mut words = line.rsplitn(2, ' ');
    let took = words.next().unwrap().parse().unwrap();
    let mut words = words.next().unwrap().trim_end().rsplitn(2, ' ');
    let at = words.next().unwrap().parse().unwrap();
    (words.next().unwrap().trim_end(), at, took)
}

#[test]
fn every_step_of_both_sides_stands_in_one_table() {
    let daemon = timed();
    let done = run(&mut hyper(&daemon, ["run", "--rm", "--timings", "img"]));
    assert_eq!((done.status, &*done.stdout), (5, "out\n"));
    let table = done.stderr.strip_prefix("words\n").unwrap();
    let lines: Vec<_> = table.lines().collect();
    let [heading, steps @ .., total] = &lines[..] else { panic!("{table}") };
    assert!(lines.iter().all(|line| line.chars().count() == heading.len()), "{table}");
    let rows: Vec<_> = steps.iter().map(|line| row(line)).collect();
    assert_eq!(
        rows.iter().map(|(what, ..)| *what).collect::<Vec<_>>(),
        [
            "hyper: process started",
            "hyper: arguments read",
            "hyper: connected to the daemon",
            "hyper: container created",
            "hyper: start requested",
            "pod: guest answers",
            "pod: program\u{fffd} runs",
            "hyper: first output byte",
            "hyper: exit received",
            "hyper: done",
        ]
    );
    assert!(rows.is_sorted_by_key(|(_, at, _)| *at), "{table}");
    let (what, total) = total.split_once(' ').unwrap();
    let total: f64 = total.trim().parse().unwrap();
    assert_eq!((what, total), ("total", rows.last().unwrap().1), "{table}");
    // Each is cut to hundredths.
    let sum: f64 = rows.iter().map(|(_, _, took)| took).sum();
    assert!((total - sum).abs() < 0.01 * 10.0, "{table}");
}

#[test]
fn without_the_option_there_is_no_table() {
    run(&mut hyper(&timed(), ["run", "img"])).check(5, "out\n", "words\n");
}

#[test]
fn what_is_left_running_has_no_timings() {
    let daemon = timed();
    run(&mut hyper(&daemon, ["run", "-d", "--timings", "img"])).check(
        125,
        "",
        "error: --timings: what is left running has no end to tell of\nhint: leave --detach out\n",
    );
    assert!(daemon.requests().is_empty());
}

#[test]
fn a_failure_has_no_table_to_hide_in() {
    let daemon = timed();
    let start = format!("POST /v1/containers/{ID}/start?stdin=false");
    daemon.refuse(&start, &ErrorBody::new(ErrorKind::Exhausted, "no memory for the VM"));
    run(&mut hyper(&daemon, ["run", "--timings", "img"])).check(
        125,
        "",
        "error: no memory for the VM\n",
    );
}
