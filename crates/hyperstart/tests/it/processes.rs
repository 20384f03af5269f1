// SPDX-License-Identifier: Apache-2.0
//! What a process of a container finds itself to be.

use hc_proto::message::{FailureKind, Program};
use hc_spec::{Exit, ProcessSpec, Rlimit};

use crate::host::{Host, container, process};
use crate::machine::Devices;

/// What `script` prints when it runs as `spec` says.
fn output(host: &mut Host, id: &hc_spec::Id, script: &str, spec: ProcessSpec) -> String {
    let args = ["sh", "-c", script].map(String::from).to_vec();
    let outcome = host.run(id, Program::Exec(ProcessSpec { args, ..spec }), &[]);
    assert_eq!((outcome.exit, outcome.stderr.as_str()), (Exit::Code(0), ""), "{script}");
    outcome.stdout
}

fn user(name: &str) -> ProcessSpec {
    ProcessSpec { user: name.into(), ..process(&[]) }
}

#[test]
fn users_are_the_images_own() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let script = "id -u; id -g; id -G; echo $HOME";
    for (name, expected) in [
        ("", "0\n0\n0\n/root\n"),
        ("app", "1000\n1000\n1000 10 29\n/home/app\n"),
        ("1000", "1000\n1000\n1000 10 29\n/home/app\n"),
        ("app:wheel", "1000\n10\n10\n/home/app\n"),
        ("4242:4343", "4242\n4343\n4343\n/\n"),
    ] {
        assert_eq!(output(&mut host, &id, script, user(name)), expected, "{name}");
    }
    for name in ["nobody", "app:nogroup"] {
        let spec = ProcessSpec { args: vec!["true".into()], ..user(name) };
        let failure = host.spawn(&id, false, Program::Exec(spec)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::UserNotFound, "{name}");
    }
}

#[test]
fn programs_that_cannot_run_are_told_apart() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.create(&container(1));
    for (program, kind, message) in [
        ("absent", FailureKind::ProgramNotFound, "executable file not found in $PATH"),
        ("/bin/absent", FailureKind::ProgramNotFound, "no such file or directory"),
        ("orphan", FailureKind::ProgramNotFound, "no such file or directory"),
        ("plain", FailureKind::ProgramNotExecutable, "permission denied"),
        ("garbage", FailureKind::ProgramNotExecutable, "exec format error"),
        ("/tmp", FailureKind::ProgramNotExecutable, "permission denied"),
    ] {
        let failure = host.spawn(&id, true, Program::Exec(process(&[program]))).unwrap_err();
        assert_eq!(failure.kind, kind, "{program}");
        assert_eq!(failure.message, format!("exec: {program:?}: {message}"));
    }
    // None of that was the main process; this is.
    host.spawn(&id, true, Program::Exec(process(&["sh", "-c", "kill -9 $$"]))).unwrap();
    assert_eq!(host.container_exit(&id), (Exit::Signal(9), false));
}

#[test]
fn a_process_starts_in_the_state_that_programs_expect() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let env = output(&mut host, &id, "env | grep -v SHLVL | grep -v PWD", process(&[]));
    let mut lines: Vec<_> = env.lines().collect();
    lines.sort_unstable();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines, ["HOME=/root", "HOSTNAME=pod", path]);

    let made = ProcessSpec { cwd: "/made/for/it".into(), ..user("app") };
    let script = "pwd; umask; stat -c %a:%U . /made; readlink /proc/self/fd/3 || echo no more";
    let expected = "/made/for/it\n0022\n755:root\n755:root\nno more\n";
    assert_eq!(output(&mut host, &id, script, made), expected);

    let signals = "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status | cut -f 2";
    let none = "0000000000000000\n";
    assert_eq!(output(&mut host, &id, signals, process(&[])), none.repeat(3));

    let limited =
        ProcessSpec { rlimits: vec![Rlimit { resource: 7, soft: 100, hard: 200 }], ..process(&[]) };
    assert_eq!(output(&mut host, &id, "ulimit -n; ulimit -Hn", limited), "100\n200\n");
    assert_eq!(output(&mut host, &id, "ulimit -n", process(&[])), "1048576\n");
    let again = ProcessSpec { cwd: "/".into(), ..user("app") };
    assert_eq!(output(&mut host, &id, "echo to >/dev/stdout", again), "to\n");
}

#[test]
fn rights_are_those_that_were_given() {
    let Some(mut host) = Host::boot(&Devices::default()) else { return };
    let id = host.sleeper(&container(1));
    let script = "grep -E '^(Cap|NoNew)' /proc/self/status | cut -f 2";
    let (none, some) = ("0000000000000000", "00000000a80425fb");
    let expected = |fields: [&str; 6]| fields.join("\n") + "\n";
    assert_eq!(
        output(&mut host, &id, script, process(&[])),
        expected([none, some, some, some, none, "0"])
    );
    let bare = ProcessSpec { no_new_privileges: true, ..user("app") };
    assert_eq!(output(&mut host, &id, script, bare), expected([none, none, none, some, none, "1"]));
    let nothing = ProcessSpec { capabilities: hc_spec::CapabilitySet::NONE, ..process(&[]) };
    assert_eq!(
        output(&mut host, &id, script, nothing),
        expected([none, none, none, none, none, "0"])
    );
}
