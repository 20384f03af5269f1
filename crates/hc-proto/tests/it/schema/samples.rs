// SPDX-License-Identifier: Apache-2.0
//! At least one of every message. The matches without a wildcard stop compiling when a kind is
//! added, so that its sample is not forgotten.

use std::collections::BTreeSet;

use hc_proto::message::{
    Answer, Call, Event, Failure, FailureKind, FromGuest, Identity, PathStat, PodSetup, ProcessRow,
    Program, Reply, Request, Scratch, Spawn, Stats,
};
use hc_spec::{
    CapabilitySet, ContainerLimits, ContainerSpec, Exit, HostEntry, Id, NetworkSpec, ProcessSpec,
    Rlimit, Signal, Tmpfs, WindowSize,
};

fn id() -> Id {
    Id::from_bytes([0xab; 32])
}

fn capabilities() -> CapabilitySet {
    CapabilitySet::resolve(&["CHOWN".into()], &["ALL".into()], false).unwrap()
}

fn process() -> ProcessSpec {
    ProcessSpec {
        args: vec!["sh".into(), "-c".into(), "exit 3".into()],
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        user: "nobody:nogroup".into(),
        terminal: Some(WindowSize { rows: 24, columns: 80 }),
        capabilities: capabilities(),
        no_new_privileges: true,
        rlimits: vec![Rlimit { resource: 7, soft: 1024, hard: 4096 }],
    }
}

fn container() -> ContainerSpec {
    ContainerSpec {
        id: id(),
        rootfs: "rootfs0".into(),
        read_only: false,
        tmpfs: vec![Tmpfs { path: "/run".into(), options: "mode=0755".into() }],
        shm_bytes: 64 << 20,
        limits: ContainerLimits {
            cpu_millis: Some(1500),
            memory_bytes: Some(256 << 20),
            pids: None,
        },
        privileged: false,
        capabilities: capabilities(),
        stop_signal: Signal::TERM,
        process: process(),
    }
}

fn setup() -> PodSetup {
    PodSetup { identity: identity(), scratch: Scratch::Disk("scratch".into()) }
}

fn identity() -> Identity {
    Identity {
        hostname: "web".into(),
        unix_nanos: 1_700_000_000_000_000_000,
        entropy: vec![1, 2, 3],
        network: Some(NetworkSpec {
            mac: [2, 0, 0, 0, 0, 1],
            addresses: vec![("10.0.2.15".parse().unwrap(), 24), ("fec0::2".parse().unwrap(), 64)],
            gateways: vec!["10.0.2.2".parse().unwrap()],
            mtu: 1500,
        }),
        dns_servers: vec!["10.0.2.3".parse().unwrap()],
        dns_search: vec!["example.org".into()],
        dns_options: vec!["ndots:1".into()],
        hosts: vec![HostEntry { address: "10.0.0.9".parse().unwrap(), name: "db".into() }],
    }
}

fn spawn(program: Program) -> Call {
    Call::Spawn(Box::new(Spawn {
        container: id(),
        process: 1,
        main: matches!(program, Program::Exec(_)),
        program,
        stdin: Some(1),
        stdout: Some(2),
        stderr: None,
    }))
}

/// Every call, and every program that can be spawned.
pub(crate) fn requests() -> Vec<Request> {
    let path = String::from("/etc");
    let calls = vec![
        Call::SetUp(setup()),
        Call::SetUp(PodSetup {
            identity: Identity { network: None, ..identity() },
            scratch: Scratch::Memory,
        }),
        Call::CreateContainer(Box::new(container())),
        spawn(Program::Exec(process())),
        spawn(Program::Pack { path: path.clone(), follow: true }),
        spawn(Program::Unpack { path: path.clone(), keep_owner: false }),
        spawn(Program::Stat { path }),
        Call::Signal { container: id(), process: Some(1), signal: Signal::KILL },
        Call::Signal { container: id(), process: None, signal: Signal::HUP },
        Call::Resize { process: 1, size: WindowSize { rows: 50, columns: 132 } },
        Call::Stats { container: id() },
        Call::Processes { container: id() },
        Call::Shutdown,
        Call::Park,
        Call::Renew(identity()),
        Call::SetClock { unix_nanos: 1_700_000_000_000_000_000, entropy: vec![4, 5, 6] },
    ];
    let kinds: BTreeSet<u8> = calls.iter().map(kind_of_call).collect();
    assert_eq!(kinds, (0..=13).collect(), "every kind of call has a sample");
    (1..).zip(calls).map(|(id, call)| Request { id, call }).collect()
}

fn kind_of_call(call: &Call) -> u8 {
    match call {
        Call::SetUp(_) => 0,
        Call::CreateContainer(_) => 1,
        Call::Spawn(spawn) => match spawn.program {
            Program::Exec(_) => 2,
            Program::Pack { .. } => 3,
            Program::Unpack { .. } => 4,
            Program::Stat { .. } => 5,
        },
        Call::Signal { .. } => 6,
        Call::Resize { .. } => 7,
        Call::Stats { .. } => 8,
        Call::Processes { .. } => 9,
        Call::Shutdown => 10,
        Call::Park => 11,
        Call::Renew(_) => 12,
        Call::SetClock { .. } => 13,
    }
}

/// Every reply, failure and event.
pub(crate) fn from_guest() -> Vec<FromGuest> {
    let results = [
        Ok(Answer::Done),
        Ok(Answer::Stats(Stats { cpu_usec: 5, memory_bytes: 1 << 20, ..Stats::default() })),
        Ok(Answer::Processes(vec![row()])),
    ];
    let failures = [
        FailureKind::ProgramNotFound,
        FailureKind::ProgramNotExecutable,
        FailureKind::UserNotFound,
        FailureKind::NotFound,
        FailureKind::Invalid,
        FailureKind::System,
    ]
    .map(|kind| Err(Failure { kind, message: "why".into() }));
    let replies = (1..)
        .zip(results.into_iter().chain(failures))
        .map(|(id, result)| FromGuest::Reply(Reply { id, result }));
    let events = [
        Event::ProcessExited { process: 2, exit: Exit::Signal(9) },
        Event::ContainerExited { container: id(), exit: Exit::Code(3), oom_killed: false },
    ]
    .map(FromGuest::Event);
    let messages: Vec<FromGuest> = replies.chain(events).collect();
    let kinds: BTreeSet<u8> = messages.iter().map(kind_of_message).collect();
    assert_eq!(kinds, (0..=10).collect(), "every kind of message has a sample");
    messages
}

fn kind_of_message(message: &FromGuest) -> u8 {
    match message {
        FromGuest::Reply(Reply { result: Ok(answer), .. }) => match answer {
            Answer::Done => 0,
            Answer::Stats(_) => 1,
            Answer::Processes(_) => 2,
        },
        FromGuest::Reply(Reply { result: Err(failure), .. }) => match failure.kind {
            FailureKind::ProgramNotFound => 3,
            FailureKind::ProgramNotExecutable => 4,
            FailureKind::UserNotFound => 5,
            FailureKind::NotFound => 6,
            FailureKind::Invalid => 7,
            FailureKind::System => 8,
        },
        FromGuest::Event(Event::ProcessExited { .. }) => 9,
        FromGuest::Event(Event::ContainerExited { .. }) => 10,
    }
}

fn row() -> ProcessRow {
    ProcessRow {
        pid: 7,
        ppid: 1,
        uid: 0,
        state: 'S',
        cpu_millis: 12,
        started_unix: 1_700_000_000,
        rss_bytes: 4096,
        command: "sleep 9".into(),
    }
}

/// What a [`Program::Stat`] writes; it travels in a stream and not in a message.
pub(crate) fn path_stat() -> PathStat {
    PathStat { name: "etc".into(), size: 4096, mode: 0o040_755, link_to_directory: false }
}
