// SPDX-License-Identifier: Apache-2.0
//! What breaks, is killed or lies, and what must hold afterwards: no process, socket, file or row is
//! left over, and nothing that was promised is lost.
//!
//! Where a fault has to come at some instant of work under way, it comes when a condition holds, or
//! after stepped delays that sweep the whole work. Those delays choose instants; nothing waits by
//! them for anything.

mod client;
mod daemon;
mod disk;
mod guest;
mod many;
mod processes;
mod race;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hc_testkit::{Host, Output, is_alive, kill, until};

/// Ends the daemon as a crash would, and waits until it is gone.
fn kill_daemon(pid: u32) {
    kill(pid);
    until("the daemon is gone", || !is_alive(pid));
}

/// The instant `millis` from now: stepped by the caller to sweep what is under way.
fn instant(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Starts a command whose output is kept for [`finish`].
fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of a command.
#[track_caller]
fn finish(mut child: Child) -> Output {
    until("the command ends", || child.try_wait().unwrap().is_some());
    child.wait_with_output().unwrap().into()
}

/// Starts a command and waits for the first line of its output, which must be `line`.
#[track_caller]
fn start_until(command: &mut Command, line: &str) -> Child {
    let mut child = start(command);
    let mut stdout = BufReader::with_capacity(1, child.stdout.take().unwrap());
    let mut found = String::new();
    stdout.read_line(&mut found).unwrap();
    assert!(
        found.trim_end() == line,
        "{found:?} instead of {line:?}: {:#?}",
        Output::from(child.wait_with_output().unwrap())
    );
    child.stdout = Some(stdout.into_inner());
    child
}

/// Makes `/go` in container `x`, whose program ends then, perhaps before this command has.
fn let_end(host: &Host) {
    host.hyper(["exec", "x", "touch", "/go"]);
}

/// The names of all containers, a line each.
fn names(host: &Host) -> String {
    host.hyper(["ps", "--all", "--format", "{{.Names}}"]).ok()
}
