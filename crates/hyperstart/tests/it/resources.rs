// SPDX-License-Identifier: Apache-2.0
//! Limits, and what is used of them.

use hc_proto::message::{Answer, Call, Program};
use hc_spec::{ContainerLimits, ContainerSpec, Exit};

use crate::host::{Host, container, process};
use crate::machine::Devices;

fn limited(number: u8) -> ContainerSpec {
    let limits =
        ContainerLimits { cpu_millis: Some(500), memory_bytes: Some(32 << 20), pids: Some(8) };
    ContainerSpec { limits, ..container(number) }
}

#[test]
fn limits_are_in_force_and_visible_inside() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&limited(1));
    let files = host.sh(&id, "cd /sys/fs/cgroup; cat cpu.max memory.max pids.max");
    assert_eq!(files.stdout, "50000 100000\n33554432\n8\n");
    let bomb = host.sh(&id, "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; exit 0");
    assert!(bomb.stderr.contains("can't fork"), "{bomb:?}");

    let Ok(Answer::Stats(stats)) = host.call(Call::Stats { container: id.clone() }) else {
        panic!("no stats");
    };
    assert_eq!(stats.memory_limit_bytes, 32 << 20);
    assert!(stats.cpu_usec > 0 && stats.memory_bytes > 0, "{stats:?}");
    assert!((2..=8).contains(&stats.pids), "{stats:?}");

    let unlimited = host.sleeper(&container(2));
    let Ok(Answer::Stats(stats)) = host.call(Call::Stats { container: unlimited }) else {
        panic!("no stats");
    };
    assert!((100 << 20..=256 << 20).contains(&stats.memory_limit_bytes), "{stats:?}");
}

#[test]
fn a_kill_for_want_of_memory_is_told() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.create(&limited(1));
    host.spawn(&id, true, Program::Exec(process(&["tail", "/dev/zero"]))).unwrap();
    assert_eq!(host.container_exit(&id), (Exit::Signal(9), true));
}
