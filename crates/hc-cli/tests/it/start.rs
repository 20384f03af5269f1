// SPDX-License-Identifier: Apache-2.0
//! The daemon is started when it is needed, once, and its reasons are told when it cannot.

use std::fs::{Permissions, read_to_string, set_permissions, write};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::program::{Done, eventually, finish, run, signal};

/// A folder with `hyper` in it and a program that plays `hyperd`.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// `script` is what `hyperd --ready-fd N` does, in a shell with N in `$2`.
    fn new(script: &str) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let hyper = folder.path().join("hyper");
        // A copy where a hard link cannot be: the program looks beside its own file.
        if std::fs::hard_link(env!("CARGO_BIN_EXE_hyper"), &hyper).is_err() {
            std::fs::copy(env!("CARGO_BIN_EXE_hyper"), &hyper).unwrap();
        }
        let hyperd = folder.path().join("hyperd");
        write(&hyperd, format!("#!/bin/sh\n{script}\n")).unwrap();
        set_permissions(&hyperd, Permissions::from_mode(0o755)).unwrap();
        Machine { folder }
    }

    /// A daemon that listens: this test program, in another role.
    fn working() -> Machine {
        let test = std::env::current_exe().unwrap();
        Machine::new(&format!(
            "export PLAY_READY_FD=$2\nexec {} --exact start::play_hyperd --nocapture",
            test.display()
        ))
    }

    fn runtime_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("run")
    }

    fn hyper(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.folder.path().join("hyper"));
        command
            .args(args)
            .env("HYPER_RUNTIME_DIR", self.runtime_dir())
            .env("HYPER_DATA_DIR", self.folder.path().join("data"))
            .env_remove("HYPER_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The processes that played the daemon, one a line.
    fn starts(&self) -> Vec<u32> {
        let text = read_to_string(self.runtime_dir().join("starts")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    #[track_caller]
    fn fails(&self, expected: &[&str]) {
        let Done { status, stdout, stderr } = run(&mut self.hyper(&["version"]));
        assert_eq!(status, 1, "{stderr}");
        assert!(stdout.starts_with("Client:\n") && !stdout.contains("Server"), "{stdout}");
        assert_eq!(stderr.lines().collect::<Vec<_>>(), expected);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for pid in self.starts() {
            signal(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Plays `hyperd` when started as one, else does nothing.
#[test]
fn play_hyperd() {
    let Ok(ready) = std::env::var("PLAY_READY_FD") else { return };
    let folder = std::path::PathBuf::from(std::env::var_os("HYPER_RUNTIME_DIR").unwrap());
    let starts = folder.join("starts");
    let mut starts = std::fs::OpenOptions::new().append(true).create(true).open(starts).unwrap();
    writeln!(starts, "{}", std::process::id()).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(folder.join("hyperd.sock")).unwrap();
    write(Path::new("/proc/self/fd").join(ready), "\n").unwrap();
    // The test kills it; should the test itself be killed, it ends with the test's folder.
    listener.set_nonblocking(true).unwrap();
    while folder.exists() {
        let mut ready = [PollFd::new(&listener, PollFlags::IN)];
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        if poll(&mut ready, Some(&second)).is_ok_and(|count| count > 0) {
            answer(&mut listener.accept().unwrap().0);
        }
    }
}

/// Answers any request with a version.
fn answer(stream: &mut std::os::unix::net::UnixStream) {
    use std::io::Read;
    let mut request = [0; 4096];
    // A connection that only looks whether somebody is there sends nothing.
    if stream.read(&mut request).is_ok_and(|length| length > 0) {
        let body = format!(r#"{{"version":"9","api":"v1","pid":{}}}"#, std::process::id());
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all((head + &body).as_bytes());
    }
}

#[test]
fn the_daemon_is_started_once_and_found_again() {
    let machine = Machine::working();
    for _ in 0..2 {
        let done = run(&mut machine.hyper(&["version", "--format", "{{.Server.Version}}"]));
        done.check(0, "9\n", "");
    }
    assert_eq!(machine.starts().len(), 1);
    let mode = machine.runtime_dir().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn many_at_once_start_one_daemon() {
    let machine = Machine::working();
    let children: Vec<_> = (0..8)
        .map(|_| machine.hyper(&["version", "--format", "{{.Server.Version}}"]).spawn().unwrap())
        .collect();
    for child in children {
        finish(child).check(0, "9\n", "");
    }
    assert_eq!(machine.starts().len(), 1);
}

#[test]
fn a_dead_daemons_socket_does_not_hinder_a_new_one() {
    let machine = Machine::working();
    hc_paths::make_private_dir(&machine.runtime_dir()).unwrap();
    let socket = machine.runtime_dir().join("hyperd.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    // The real daemon removes it; the one of this test is spared that.
    let script = read_to_string(machine.folder.path().join("hyperd")).unwrap();
    let script = script.replace("export", &format!("rm {}\nexport", socket.display()));
    write(machine.folder.path().join("hyperd"), script).unwrap();
    run(&mut machine.hyper(&["version"]))
        .stdout
        .lines()
        .find(|line| line.contains("Server"))
        .unwrap();
}

#[test]
fn the_daemon_has_a_session_of_its_own() {
    let machine = Machine::working();
    run(&mut machine.hyper(&["version"]));
    let pid = machine.starts()[0];
    let id = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
    assert_eq!(rustix::process::getsid(id).unwrap(), id.unwrap());
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let machine = Machine::new("echo 'database is of a newer version' > /proc/self/fd/$2");
    let log = machine.runtime_dir().join("hyperd.log");
    machine.fails(&[
        "error: cannot start the daemon: database is of a newer version",
        &format!("hint: see {}", log.display()),
    ]);
}

#[test]
fn a_daemon_that_dies_without_a_word_leaves_its_last_one_in_the_log() {
    let machine = Machine::new("echo 'first' >&2; echo 'segmentation fault' >&2; exit 3");
    let Done { status, stderr, .. } = run(&mut machine.hyper(&["version"]));
    assert_eq!(status, 1);
    assert!(stderr.starts_with("error: cannot start the daemon: it "), "{stderr}");
    assert!(stderr.ends_with("hint: segmentation fault\n"), "{stderr}");
}

#[test]
fn a_missing_daemon_is_told() {
    let machine = Machine::new("");
    std::fs::remove_file(machine.folder.path().join("hyperd")).unwrap();
    let mut command = machine.hyper(&["ps"]);
    command.env("PATH", "/nonexistent");
    run(&mut command).check(
        1,
        "",
        "error: cannot start the daemon hyperd: No such file or directory (os error 2)\n\
         hint: hyperd belongs beside hyper, or on PATH\n",
    );
}

#[test]
fn a_runtime_folder_that_others_can_reach_is_refused() {
    let machine = Machine::working();
    std::fs::create_dir(machine.runtime_dir()).unwrap();
    set_permissions(machine.runtime_dir(), Permissions::from_mode(0o777)).unwrap();
    let shown = machine.runtime_dir().display().to_string();
    machine.fails(&[
        &format!("error: refusing to use {shown}: others have access to it (mode 777)"),
        &format!("hint: if it is yours, run: chmod 700 {shown}; else set HYPER_RUNTIME_DIR"),
    ]);
    assert_eq!(machine.starts().len(), 0);
}

#[test]
fn a_socket_path_that_is_too_long_is_told_before_anything_starts() {
    let machine = Machine::working();
    let mut command = machine.hyper(&["ps"]);
    command.env("HYPER_RUNTIME_DIR", format!("/tmp/{}", "x".repeat(100)));
    let done = run(&mut command);
    assert!(done.stderr.contains("the kernel takes at most 107"), "{}", done.stderr);
    assert!(done.stderr.contains("hint: set HYPER_RUNTIME_DIR to a folder with a shorter name"));
    eventually("nothing was started", || machine.starts().is_empty());
}
