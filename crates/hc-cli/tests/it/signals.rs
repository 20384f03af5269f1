// SPDX-License-Identifier: Apache-2.0
//! `ctrl-C` and other signals at every stage of `run`: nothing may be left behind.

use std::process::Child;

use hc_api::stream::Frame;
use hc_api::{ErrorBody, ErrorKind};
use rustix::process::Signal;

use crate::daemon::{Conversation, Daemon, ID};
use crate::program::{eventually, finish, hyper, signal};

/// Starts `hyper ARGS` and waits until it has asked for something.
fn until_asked(daemon: &Daemon, args: &[&str], request: &str) -> Child {
    let child = hyper(daemon, args).spawn().unwrap();
    eventually(request, || daemon.was_asked(request));
    child
}

fn kill(name: &str) -> String {
    format!("POST /v1/containers/{ID}/kill?signal={name}")
}

fn removal() -> String {
    format!("DELETE /v1/containers/{ID}?force=true")
}

/// Whether a signal has been sent that the process has not taken yet.
pub(crate) fn has_pending_signals(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut masks = status
        .lines()
        .filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")));
    masks.any(|mask| mask.trim().bytes().any(|digit| digit != b'0'))
}

/// A program that writes which signals it gets, and ends with the one that `ends` names.
fn obeys(ends: &'static str, status: u8) -> Daemon {
    Daemon::new(move |mut program: Conversation| async move {
        program.send(Frame::Started).await;
        program.send(Frame::Stdout(b"up\n".to_vec())).await;
        loop {
            let signal = program.signal().await;
            program.send(Frame::Stdout(format!("{signal}\n").into())).await;
            if signal == ends {
                return program.exit(status).await;
            }
        }
    })
}

/// Waits for the program's first words, so that it surely runs.
fn started(daemon: &Daemon, args: &[&str]) -> Child {
    use std::io::Read;
    let mut child = hyper(daemon, args).spawn().unwrap();
    let mut words = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut words).unwrap();
    assert_eq!(&words, b"up\n");
    child
}

#[test]
fn while_the_program_runs_signals_are_its_own() {
    let daemon = obeys("SIGTERM", 143);
    let child = started(&daemon, &["run", "img"]);
    for (sent, name) in
        [(Signal::INT, "SIGINT"), (Signal::USR1, "SIGUSR1"), (Signal::HUP, "SIGHUP")]
    {
        signal(child.id(), sent);
        eventually(name, || daemon.was_asked(&kill(name)));
    }
    signal(child.id(), Signal::TERM);
    finish(child).check(143, "SIGINT\nSIGUSR1\nSIGHUP\nSIGTERM\n", "");
}

#[test]
fn the_third_interrupt_kills() {
    let daemon = obeys("SIGKILL", 137);
    let child = started(&daemon, &["run", "--rm", "img"]);
    for count in 1..=2 {
        signal(child.id(), Signal::INT);
        eventually("an interrupt", || {
            daemon.requests().iter().filter(|line| **line == kill("SIGINT")).count() == count
        });
    }
    signal(child.id(), Signal::INT);
    finish(child).check(130, "SIGINT\nSIGINT\nSIGKILL\n", "");
    assert!(daemon.was_asked(&removal()));
}

#[test]
fn without_sig_proxy_a_signal_ends_us_alone() {
    let daemon = obeys("SIGTERM", 143);
    let child = started(&daemon, &["run", "--rm", "--sig-proxy=false", "img"]);
    signal(child.id(), Signal::INT);
    finish(child).check(130, "", "");
    assert!(!daemon.requests().iter().any(|line| line.contains("kill") || line.contains("DELETE")));
}

#[test]
fn while_the_container_is_created_it_is_waited_for_and_removed() {
    let daemon = Daemon::idle();
    daemon.hold("POST /v1/containers");
    let child = until_asked(&daemon, &["run", "img"], "POST /v1/containers");
    signal(child.id(), Signal::INT);
    eventually("the signal is taken", || !has_pending_signals(child.id()));
    daemon.release();
    finish(child).check(130, "", "");
    assert!(daemon.was_asked(&removal()), "{:?}", daemon.requests());
    assert!(!daemon.requests().iter().any(|line| line.contains("start")));
}

#[test]
fn while_an_image_is_pulled_the_pull_is_broken_off() {
    let daemon = Daemon::idle();
    daemon.refuse("POST /v1/containers", &ErrorBody::new(ErrorKind::NotFound, "no such image"));
    daemon.hold("POST /v1/images/pull");
    let child = until_asked(&daemon, &["run", "img"], "POST /v1/images/pull");
    signal(child.id(), Signal::INT);
    finish(child).check(130, "", "");
    eventually("the daemon sees it", || daemon.was_abandoned("POST /v1/images/pull"));
    assert_eq!(daemon.requests(), ["POST /v1/containers", "POST /v1/images/pull"]);
}

#[test]
fn while_the_start_is_answered_the_container_is_killed_and_removed() {
    let daemon = Daemon::idle();
    let start = format!("POST /v1/containers/{ID}/start?stdin=false");
    daemon.hold("POST /v1/containers/c0ffee");
    let child = until_asked(&daemon, &["run", "--rm", "img"], &start);
    signal(child.id(), Signal::INT);
    eventually("the kill", || daemon.was_asked(&kill("SIGKILL")));
    daemon.release();
    finish(child).check(130, "", "");
    assert!(daemon.was_asked(&removal()));
}

#[test]
fn start_that_the_kill_has_overtaken_is_killed_after_it() {
    for options in [&["run", "img"][..], &["run", "-d", "img"]] {
        let daemon = Daemon::idle();
        daemon.hold("POST /v1/containers/c0ffee");
        let child = hyper(&daemon, options).spawn().unwrap();
        let kills = || daemon.requests().iter().filter(|line| **line == kill("SIGKILL")).count();
        eventually("the start", || daemon.requests().iter().any(|line| line.contains("/start")));
        signal(child.id(), Signal::INT);
        eventually("the kill", || kills() == 1);
        // It finds nothing that runs, and then the order to start is carried out.
        daemon.release();
        finish(child).check(130, "", "");
        assert_eq!(kills(), 2, "{:?}", daemon.requests());
    }
}

#[test]
fn while_the_vm_boots_the_container_is_killed_and_removed() {
    let daemon = Daemon::new(async |mut program: Conversation| {
        // The VM boots until it is killed: nothing has been started.
        assert_eq!(program.signal().await, "SIGKILL");
        program.send(Frame::Error(ErrorBody::new(ErrorKind::Internal, "killed"))).await;
    });
    let start = format!("POST /v1/containers/{ID}/start?stdin=false");
    let child = until_asked(&daemon, &["run", "--rm", "img"], &start);
    signal(child.id(), Signal::INT);
    finish(child).check(130, "", "");
    assert!(daemon.was_asked(&removal()));
}

#[test]
fn while_a_detached_container_starts_it_is_killed_and_removed() {
    let daemon = Daemon::idle();
    let start = format!("POST /v1/containers/{ID}/start");
    daemon.hold("POST /v1/containers/c0ffee");
    let child = until_asked(&daemon, &["run", "-d", "--rm", "img"], &start);
    signal(child.id(), Signal::TERM);
    eventually("the kill", || daemon.was_asked(&kill("SIGKILL")));
    daemon.release();
    finish(child).check(143, "", "");
    assert!(daemon.was_asked(&removal()));
}

#[test]
fn while_the_removal_is_waited_for_a_signal_ends_the_wait() {
    let daemon = Daemon::new(async |mut program: Conversation| {
        program.send(Frame::Started).await;
        program.exit(5).await;
    });
    let wait = format!("POST /v1/containers/{ID}/wait?condition=removed");
    let child = until_asked(&daemon, &["run", "--rm", "img"], &wait);
    signal(child.id(), Signal::INT);
    finish(child).check(5, "", "");
}

#[test]
fn exec_goes_away_with_its_signal() {
    let daemon = obeys("SIGTERM", 143);
    let child = started(&daemon, &["exec", "web", "sh"]);
    signal(child.id(), Signal::INT);
    finish(child).check(130, "", "");
    assert!(!daemon.requests().iter().any(|line| line.contains("kill")));
}
