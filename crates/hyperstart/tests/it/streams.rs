// SPDX-License-Identifier: Apache-2.0
//! The bytes of processes: all of them, in order, and no further than their ends.

use hc_proto::message::{Call, FailureKind, Program};
use hc_spec::{Exit, ProcessSpec, Signal, WindowSize};

use crate::host::{Host, container, process};
use crate::machine::Devices;

/// Bytes without a pattern that a lost or doubled piece could hide in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn terminal(args: &[&str]) -> Program {
    let size = WindowSize { rows: 30, columns: 100 };
    Program::Exec(ProcessSpec { terminal: Some(size), ..process(args) })
}

#[test]
fn a_large_input_comes_back_whole() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let bytes = noise(64 << 20);
    let started = host.spawn(&id, false, Program::Exec(process(&["cat"]))).unwrap();
    host.send(started.stdin, &bytes, true);
    assert_eq!(host.process_exit(started.process), Exit::Code(0));
    let back = host.read_all(started.stdout);
    assert_eq!(back.len(), bytes.len());
    assert!(back == bytes);
}

#[test]
fn streams_end_with_their_process_and_not_with_its_children() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    // The child goes on writing where nobody listens and must not die of it.
    let script = "(while echo more; do echo x >>/tmp/count; sleep 0.01; done) & echo done";
    let outcome = host.sh(&id, script);
    assert_eq!(outcome.exit, Exit::Code(0));
    assert!(outcome.stdout.contains("done\n"), "{}", outcome.stdout);
    let more = "wc -l </tmp/count >/tmp/before; \
                until test $(wc -l </tmp/count) -gt $(($(cat /tmp/before) + 20)); do sleep 0.01; done";
    assert_eq!(host.sh(&id, more).exit, Exit::Code(0));
}

#[test]
fn an_input_that_nobody_reads_is_given_up() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let started = host.spawn(&id, false, Program::Exec(process(&["true"]))).unwrap();
    host.send(started.stdin, &noise(1 << 20), false);
    host.expect_reset(started.stdin);
    assert_eq!(host.process_exit(started.process), Exit::Code(0));
    // A program that cannot run leaves no stream behind either.
    let failed = host.spawn(&id, false, Program::Exec(process(&["absent"]))).unwrap_err();
    assert_eq!(failed.kind, FailureKind::ProgramNotFound);
    assert_eq!(host.sh(&id, "head -c 3 | cat").exit, Exit::Code(0));
}

#[test]
fn a_terminal_is_one_with_a_size_that_changes() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let script = "tty; stty size; echo $TERM; trap 'stty size; exit 7' WINCH; \
                  echo ready; while :; do sleep 0.01; done";
    let started = host.spawn(&id, false, terminal(&["sh", "-c", script])).unwrap();
    host.expect(started.stdout, "ready");
    let (process, size) = (started.process, WindowSize { rows: 50, columns: 132 });
    host.call(Call::Resize { process, size }).unwrap();
    let outcome = host.finish(started);
    assert_eq!(outcome.exit, Exit::Code(7));
    assert_eq!(outcome.stdout, "/dev/pts/0\r\n30 100\r\nxterm\r\nready\r\n50 132\r\n");
    let gone = host.call(Call::Resize { process, size }).unwrap_err();
    assert_eq!(gone.kind, FailureKind::NotFound);
}

#[test]
fn control_characters_of_a_terminal_reach_the_program() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let started = host.spawn(&id, false, terminal(&["cat"])).unwrap();
    host.send(started.stdin, b"typed\n", false);
    host.expect(started.stdout, "typed\r\ntyped\r\n");
    host.send(started.stdin, b"\x03", false);
    assert_eq!(host.finish(started).exit, Exit::Signal(2));
    // The end of the input is one for the program too, in the middle of a line.
    let started = host.spawn(&id, false, terminal(&["wc", "-c"])).unwrap();
    host.send(started.stdin, b"half", true);
    let outcome = host.finish(started);
    assert_eq!(outcome.exit, Exit::Code(0));
    assert!(outcome.stdout.ends_with("4\r\n"), "{}", outcome.stdout);
}

#[test]
fn a_user_owns_the_terminal() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let Program::Exec(spec) = terminal(&["sh", "-c", "stat -c %U $(tty); echo x >/dev/tty"]) else {
        unreachable!("it was made as one")
    };
    let spec = ProcessSpec { user: "app".into(), ..spec };
    let started = host.spawn(&id, false, Program::Exec(spec)).unwrap();
    let outcome = host.finish(started);
    assert_eq!((outcome.exit, outcome.stdout.as_str()), (Exit::Code(0), "app\r\nx\r\n"));
}

#[test]
fn a_flood_is_stopped_by_a_signal() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let started = host.spawn(&id, false, Program::Exec(process(&["yes"]))).unwrap();
    host.expect(started.stdout, "y\n");
    host.signal(&id, Some(started.process), Signal::INT);
    assert_eq!(host.finish(started).exit, Exit::Signal(2));
}
