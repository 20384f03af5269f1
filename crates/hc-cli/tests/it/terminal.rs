// SPDX-License-Identifier: Apache-2.0
//! A real terminal on this side: raw mode, its end on every way out, detach keys, sizes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use hc_api::stream::Frame;
use hc_spec::WindowSize;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::daemon::{Conversation, Daemon, ID};
use crate::program::{eventually, hyper, signal, status, wait};

/// Both ends of a terminal, and what was shown on it.
struct Pty {
    keyboard: File,
    device: OwnedFd,
    shown: Arc<Mutex<String>>,
}

impl Pty {
    fn new() -> Pty {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let path = ptsname(&controller, Vec::new()).unwrap();
        let device = open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let keyboard = File::from(controller);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut screen, kept) = (keyboard.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        let pty = Pty { keyboard, device, shown };
        pty.resize(24, 80);
        pty
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).unwrap();
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(self.device.as_fd()).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    fn start(&self, daemon: &Daemon, args: &[&str]) -> Child {
        let end = || Stdio::from(self.device.try_clone().unwrap());
        hyper(daemon, args).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        eventually(text, || self.shown.lock().unwrap().contains(text));
    }
}

/// What the program got to see, as text.
fn seen(frame: &Frame) -> String {
    match frame {
        Frame::Stdin(bytes) => format!("typed {bytes:?}\n"),
        Frame::Resize(WindowSize { rows, columns }) => format!("size {rows}x{columns}\n"),
        other => format!("{other:?}\n"),
    }
}

/// A program that tells what it gets and ends when it is sent `q`.
fn teller() -> (Daemon, Arc<Mutex<String>>) {
    let log = Arc::new(Mutex::new(String::new()));
    let kept = log.clone();
    let daemon = Daemon::new(move |mut program: Conversation| {
        let log = kept.clone();
        async move {
            program.send(Frame::Started).await;
            program.send(Frame::Stdout(b"ready".to_vec())).await;
            loop {
                let state = program.state.clone();
                tokio::select! {
                    frame = program.next() => {
                        let Some(frame) = frame else { break };
                        log.lock().unwrap().push_str(&seen(&frame));
                        if frame == Frame::Stdin(b"q".to_vec()) {
                            return program.exit(9).await;
                        }
                    }
                    signal = state.next_signal() => {
                        *log.lock().unwrap() += &(signal.clone() + "\n");
                        if signal == "SIGTERM" {
                            return program.exit(143).await;
                        }
                    }
                }
            }
            log.lock().unwrap().push_str("gone\n");
        }
    });
    (daemon, log)
}

#[test]
fn the_terminal_is_raw_while_the_program_runs_and_not_after() {
    let (daemon, log) = teller();
    let pty = Pty::new();
    let child = pty.start(&daemon, &["run", "-it", "img"]);
    pty.shows("ready");
    eventually("raw mode", || pty.is_raw());
    // ctrl-C, ctrl-Z and ctrl-D are for the program.
    (&pty.keyboard).write_all(b"\x03\x1a\x04").unwrap();
    eventually("the keys arrive", || *log.lock().unwrap() == "typed [3, 26, 4]\n");
    (&pty.keyboard).write_all(b"q").unwrap();
    assert_eq!(status(&wait(child)), 9);
    assert!(!pty.is_raw());
    assert!(
        daemon.was_asked(&format!("POST /v1/containers/{ID}/start?stdin=true&rows=24&columns=80"))
    );
}

#[test]
fn the_detach_keys_leave_the_program_running() {
    let (daemon, log) = teller();
    let pty = Pty::new();
    let child = pty.start(&daemon, &["run", "-it", "--rm", "img"]);
    pty.shows("ready");
    eventually("raw mode", || pty.is_raw());
    (&pty.keyboard).write_all(b"a\x10").unwrap();
    eventually("the first key", || *log.lock().unwrap() == "typed [97]\n");
    (&pty.keyboard).write_all(b"\x11").unwrap();
    assert_eq!(status(&wait(child)), 0);
    assert!(!pty.is_raw());
    eventually("the connection ends", || *log.lock().unwrap() == "typed [97]\ngone\n");
    assert!(!daemon.requests().iter().any(|line| line.contains("kill") || line.contains("DELETE")));
}

#[test]
fn other_detach_keys_can_be_chosen() {
    let (daemon, log) = teller();
    let pty = Pty::new();
    let child = pty.start(&daemon, &["exec", "-it", "--detach-keys", "ctrl-x,d", "web", "sh"]);
    pty.shows("ready");
    eventually("raw mode", || pty.is_raw());
    (&pty.keyboard).write_all(b"\x10\x11\x18d").unwrap();
    assert_eq!(status(&wait(child)), 0);
    eventually("what came before", || *log.lock().unwrap() == "typed [16, 17]\ngone\n");
}

#[test]
fn a_signal_from_outside_puts_the_terminal_back() {
    let (daemon, log) = teller();
    let pty = Pty::new();
    let child = pty.start(&daemon, &["run", "-it", "img"]);
    eventually("raw mode", || pty.is_raw());
    signal(child.id(), Signal::TERM);
    assert_eq!(status(&wait(child)), 143);
    assert!(!pty.is_raw());
    assert_eq!(*log.lock().unwrap(), "SIGTERM\n");
}

#[test]
fn a_lost_daemon_puts_the_terminal_back() {
    let daemon = Daemon::new(async |mut program: Conversation| {
        program.send(Frame::Started).await;
        let _ = program.next().await;
    });
    let pty = Pty::new();
    let child = pty.start(&daemon, &["run", "-it", "img"]);
    eventually("raw mode", || pty.is_raw());
    (&pty.keyboard).write_all(b"x").unwrap();
    assert_eq!(status(&wait(child)), 125);
    assert!(!pty.is_raw());
    pty.shows("lost the connection");
}

#[test]
fn the_programs_window_follows_ours() {
    let (daemon, log) = teller();
    let pty = Pty::new();
    let child = pty.start(&daemon, &["run", "-it", "img"]);
    pty.shows("ready");
    eventually("raw mode", || pty.is_raw());
    pty.resize(50, 132);
    signal(child.id(), Signal::WINCH);
    eventually("the new size", || *log.lock().unwrap() == "size 50x132\n");
    (&pty.keyboard).write_all(b"q").unwrap();
    assert_eq!(status(&wait(child)), 9);
}

#[test]
fn while_the_vm_boots_ctrl_c_is_still_ours() {
    let daemon = Daemon::new(async |mut program: Conversation| {
        assert_eq!(program.signal().await, "SIGKILL");
        program.exit(137).await;
    });
    let pty = Pty::new();
    let child = pty.start(&daemon, &["run", "-it", "--rm", "img"]);
    eventually("the start", || daemon.requests().len() == 2);
    assert!(!pty.is_raw());
    signal(child.id(), Signal::INT);
    assert_eq!(status(&wait(child)), 130);
    assert!(daemon.was_asked(&format!("DELETE /v1/containers/{ID}?force=true")));
}

#[test]
fn a_terminal_inside_needs_one_outside() {
    let daemon = Daemon::idle();
    for args in [["run", "-it", "img"], ["exec", "-it", "web"]] {
        let mut args = args.to_vec();
        args.push("sh");
        let done = crate::program::run(&mut hyper(&daemon, args));
        done.check(
            125,
            "",
            "error: the input device is not a TTY\n\
             hint: leave -t out to connect pipes and files\n",
        );
    }
    // Without input there is nothing to type at, as in Docker.
    crate::program::run(&mut hyper(&daemon, ["run", "-t", "img"])).check(0, "", "");
    assert!(daemon.requests().len() == 2, "nothing was asked before");
}

#[test]
fn progress_is_drawn_on_a_terminal_and_cleared_at_its_end() {
    let daemon = Daemon::idle();
    let step = r#"{"step":{"what":"pulling layers","done_bytes":5,"total_bytes":10}}"#;
    let done = r#"{"done":{"images":[{"id":"sha256:1a","names":["r/x:1"]}]}}"#;
    daemon.answer_bytes("POST /v1/images/pull", 200, format!("{step}\n{done}\n"));
    let pty = Pty::new();
    let child = pty.start(&daemon, &["pull", "x"]);
    assert_eq!(status(&wait(child)), 0);
    pty.shows("r/x:1");
    assert!(!pty.is_raw());
}

#[test]
fn work_of_unknown_length_has_a_spinner_until_its_end() {
    let daemon = Daemon::idle();
    let template = r#"{"id":"a1","driver":"kvm","kernel":"/k","vcpus":1,"memory_mib":128,
        "network":true,"size":1,"created":"2024-05-01T12:00:00Z","waiting":0}"#;
    daemon.answer_bytes("POST /v1/templates", 200, template);
    daemon.hold("POST /v1/templates");
    let pty = Pty::new();
    let child = pty.start(&daemon, &["template", "create"]);
    pty.shows("booting a guest");
    daemon.release();
    assert_eq!(status(&wait(child)), 0);
    pty.shows("a1\r\n");
    let shown = pty.shown.lock().unwrap();
    let cleared = shown.rfind("\x1b[2K").unwrap();
    assert!(cleared > shown.rfind("booting").unwrap() && cleared < shown.rfind("a1").unwrap());
}
