// SPDX-License-Identifier: Apache-2.0
//! From boot to power-off, and hosts that come and go meanwhile.

use std::process::Command;

use hc_proto::message::{Answer, Call, FailureKind, Program};
use hc_proto::{HostMux, SessionId};
use hc_spec::{Exit, Signal};

use crate::host::{Host, container, process, setup};
use crate::machine::{Devices, Machine};

#[test]
fn a_program_runs_and_the_pod_shuts_down() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let outcome = host.sh(&id, "echo out; echo err >&2; exit 42");
    assert_eq!(outcome.exit, Exit::Code(42));
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(host.call(Call::Shutdown), Ok(Answer::Done));
    assert!(host.machine.ends());
}

#[test]
fn a_pod_is_what_the_host_says() {
    let Some(mut host) = Host::greet(&Devices::default()) else { return };
    let early = host.call(Call::CreateContainer(Box::new(container(1)))).unwrap_err();
    assert_eq!(early.kind, FailureKind::Invalid);
    let pod = setup(&Devices::default());
    assert_eq!(host.call(Call::SetUp(pod.clone())), Ok(Answer::Done));
    assert_eq!(host.call(Call::SetUp(pod)).unwrap_err().kind, FailureKind::Invalid);

    let id = host.sleeper(&container(1));
    let outcome = host.sh(&id, "hostname; cat /etc/hostname /etc/resolv.conf; date +%Y");
    assert_eq!(outcome.stdout, "pod\npod\nnameserver 10.0.2.3\n2023\n");
    assert!(host.sh(&id, "cat /etc/hosts").stdout.contains("127.0.0.1\tpod\n"));
    assert!(host.sh(&id, "nc -l -p 9 -w 1 & nc -z 127.0.0.1 9 || true").exit == Exit::Code(0));
    let twice = host.call(Call::CreateContainer(Box::new(container(1)))).unwrap_err();
    assert_eq!(twice.kind, FailureKind::Invalid);
}

#[test]
fn a_scratch_disk_is_grown_kept_and_left_clean() {
    let devices = Devices { scratch: Some((256 << 20, 16 << 20)), ..Devices::default() };
    if Command::new("mkfs.ext4").arg("-V").output().is_err() {
        return hc_testkit::skip("no mkfs.ext4");
    }
    let Some(mut host) = Host::boot(&devices) else { return };
    let id = host.create(&container(1));
    let script = "df -m / | tail -1; echo kept >/data/file";
    let main = Program::Exec(process(&["sh", "-c", script]));
    let started = host.spawn(&id, true, main.clone()).unwrap();
    assert_eq!(host.container_exit(&id), (Exit::Code(0), false));
    let df = host.read_text(started.stdout);
    let megabytes: u64 = df.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(megabytes > 200, "{df}");

    // The container comes back with what it wrote.
    let id = host.create(&container(1));
    let main = Program::Exec(process(&["cat", "/data/file"]));
    let started = host.spawn(&id, true, main).unwrap();
    assert_eq!(host.container_exit(&id), (Exit::Code(0), false));
    assert_eq!(host.read_text(started.stdout), "kept\n");

    host.sleeper(&container(2));
    assert_eq!(host.call(Call::Shutdown), Ok(Answer::Done));
    assert!(host.machine.ends());
    let check = Command::new("e2fsck").args(["-n", "-f"]).arg(host.machine.scratch()).output();
    let check = check.unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

#[test]
fn a_host_that_comes_back_misses_nothing() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.create(&container(1));
    let script = "echo before; read line; echo $line; exit 5";
    let started = host.spawn(&id, true, Program::Exec(process(&["sh", "-c", script]))).unwrap();
    host.expect(started.stdout, "before");
    host.reconnect();
    host.send(started.stdin, b"after\n", false);
    assert_eq!(host.container_exit(&id), (Exit::Code(5), false));
    assert_eq!(host.read_text(started.stdout), "before\nafter\n");
}

#[test]
fn a_host_that_knows_nothing_finds_the_containers_running() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let flood = host.spawn(&id, false, Program::Exec(process(&["yes"]))).unwrap();
    host.expect(flood.stdout, "y\n");
    host.replace(HostMux::new(SessionId(8)));
    host.signal(&id, Some(flood.process), Signal::TERM);
    assert_eq!(host.process_exit(flood.process), Exit::Signal(15));
    assert_eq!(host.sh(&id, "echo here").stdout, "here\n");
}

#[test]
fn a_channel_may_be_a_terminal() {
    let devices =
        Devices { console: true, parameters: "hyper.channel=/dev/hvc0", ..Devices::default() };
    let Some(mut host) = Host::boot(&devices) else { return };
    let id = host.sleeper(&container(1));
    // Every byte must pass, also those that mean something to a terminal.
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let started = host.spawn(&id, false, Program::Exec(process(&["cat"]))).unwrap();
    host.send(started.stdin, &bytes, true);
    assert_eq!(host.process_exit(started.process), Exit::Code(0));
    assert!(host.read_all(started.stdout) == bytes);
    assert_eq!(host.call(Call::Shutdown), Ok(Answer::Done));
    assert!(host.machine.ends());
}

#[test]
fn a_guest_without_its_channel_says_why_and_ends() {
    let devices = Devices { parameters: "hyper.channel=/dev/absent", ..Devices::default() };
    let Some(mut machine) = Machine::boot(&devices) else { return };
    assert!(machine.ends());
    let console = machine.console();
    assert!(
        console.contains("hyperstart: device /dev/absent did not appear within 5s"),
        "{console}"
    );
}
