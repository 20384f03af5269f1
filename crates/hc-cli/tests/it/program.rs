// SPDX-License-Identifier: Apache-2.0
//! Runs `hyper` and waits for it.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;

/// How long anything may take; only a broken program needs it all.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// `hyper ARGS`, which talks to this daemon, with empty standard input and outputs that are kept.
pub(crate) fn hyper(daemon: &Daemon, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hyper"));
    command
        .args(args)
        .env("HYPER_SOCKET", daemon.socket())
        .env("DOCKER_CONFIG", daemon.folder())
        .env("TZ", "UTC")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Done {
    /// The exit status, or 1000 and the signal.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn check(&self, status: i32, stdout: &str, stderr: &str) {
        assert_eq!((self.status, &*self.stdout, &*self.stderr), (status, stdout, stderr));
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Done {
    finish(command.spawn().unwrap())
}

/// Waits for the end of a program whose input is written.
pub(crate) fn finish(child: Child) -> Done {
    let output = wait(child);
    Done {
        status: status(&output),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Waits for the end of a program and gives its outputs as bytes.
pub(crate) fn wait(child: Child) -> Output {
    let pid = child.id();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(child.wait_with_output());
    });
    if let Ok(output) = receiver.recv_timeout(DEADLINE) {
        output.unwrap()
    } else {
        signal(pid, rustix::process::Signal::KILL);
        panic!("hyper did not end within {DEADLINE:?}");
    }
}

pub(crate) fn status(output: &Output) -> i32 {
    let signalled = || output.status.signal().map_or(-1, |signal| 1000 + signal);
    output.status.code().unwrap_or_else(signalled)
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Writes input on a thread, since nobody may read it before its writer is done.
pub(crate) fn feed(child: &mut Child, input: Vec<u8>) {
    let mut stdin = child.stdin.take().unwrap();
    std::thread::spawn(move || {
        // The program may end before it has read everything.
        let _ = stdin.write_all(&input);
    });
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
