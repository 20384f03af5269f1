// SPDX-License-Identifier: Apache-2.0
//! A container's process tree: signalled as a whole, reaped, and gone when it is said to be.

use hc_proto::message::{Answer, Call, FailureKind, Program};
use hc_spec::{Exit, Signal};

use crate::host::{Host, container, process};
use crate::machine::Devices;

#[test]
fn nothing_is_left_of_a_container_that_ended() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let watcher = host.sleeper(&container(1));
    let id = host.create(&container(2));
    let script = "setsid sleep 901 & (sleep 902 &) ; sleep 903 & read line; exit 3";
    let main = host.spawn(&id, true, Program::Exec(process(&["sh", "-c", script]))).unwrap();
    let other = host.spawn(&id, false, Program::Exec(process(&["sleep", "904"]))).unwrap();
    host.send(main.stdin, b"go\n", false);
    assert_eq!(host.container_exit(&id), (Exit::Code(3), false));
    let left = host.sh(&watcher, "ps | grep -c 'slee[p] 90'");
    assert_eq!(left.stdout, "0\n");
    assert_eq!(host.process_exit(other.process), Exit::Signal(9));
    let late = host.spawn(&id, false, Program::Exec(process(&["true"]))).unwrap_err();
    assert_eq!(late.kind, FailureKind::NotFound);
}

#[test]
fn orphans_are_reaped() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let made = host.sh(&id, "for i in 1 2 3 4 5 6 7 8; do (setsid true &) ; done");
    assert_eq!(made.exit, Exit::Code(0));
    let script = "while ps -o stat,args | grep -q '^Z'; do sleep 0.01; done";
    assert_eq!(host.sh(&id, script).exit, Exit::Code(0));
}

#[test]
fn signals_go_to_one_process_or_to_all() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.create(&container(1));
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let trap = Program::Exec(process(&["sh", "-c", script]));
    let main = host.spawn(&id, true, trap.clone()).unwrap();
    let other = host.spawn(&id, false, trap.clone()).unwrap();
    let third = host.spawn(&id, false, trap).unwrap();
    for started in [main, other, third] {
        host.expect(started.stdout, "ready");
    }
    host.signal(&id, Some(other.process), Signal::TERM);
    assert_eq!(host.process_exit(other.process), Exit::Code(9));
    let real_time = Signal::try_from(40).unwrap();
    host.signal(&id, Some(third.process), real_time);
    assert_eq!(host.process_exit(third.process), Exit::Signal(40));
    host.signal(&id, None, Signal::TERM);
    assert_eq!(host.container_exit(&id), (Exit::Code(9), false));

    let id = host.sleeper(&container(2));
    host.signal(&id, None, Signal::KILL);
    assert_eq!(host.container_exit(&id), (Exit::Signal(9), false));
    let call = Call::Signal { container: id, process: None, signal: Signal::KILL };
    assert_eq!(host.call(call).unwrap_err().kind, FailureKind::NotFound);
}

#[test]
fn processes_are_listed() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let started = host.spawn(&id, false, Program::Exec(process(&["cat"]))).unwrap();
    let Ok(Answer::Processes(rows)) = host.call(Call::Processes { container: id }) else {
        panic!("no processes");
    };
    let mut commands: Vec<_> = rows.iter().map(|row| row.command.as_str()).collect();
    commands.sort_unstable();
    assert_eq!(commands, ["cat", "sleep 1000"]);
    for row in &rows {
        assert_eq!((row.ppid, row.uid), (1, 0));
        assert!(row.rss_bytes > 0 && row.started_unix >= 1_699_999_990, "{row:?}");
    }
    host.send(started.stdin, b"", true);
    assert_eq!(host.finish(started).exit, Exit::Code(0));
}
