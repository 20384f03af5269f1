// SPDX-License-Identifier: Apache-2.0
use std::io;

use clap::Parser;
use expect_test::{Expect, expect};
use serde_json::Value;

use super::*;
use crate::args::{Cli, Command};

/// Shows what `hyper run ARGS` would send, without the fields that have their default.
#[track_caller]
fn check(args: &[&str], expected: Expect) {
    expected.assert_eq(&match resolve(args) {
        Ok(request) => shown(&request),
        Err(failure) => {
            let mut out = Vec::new();
            failure.print(&mut out, false);
            String::from_utf8(out).unwrap().trim_end().to_owned()
        }
    });
}

fn resolve(args: &[&str]) -> Result<CreateContainer> {
    let cli = Cli::try_parse_from(["hyper", "run"].iter().chain(args)).map_err(|error| {
        Failure::argument(error.to_string().lines().next().unwrap_or_default().to_owned())
    })?;
    let Command::Run(run) = cli.command else { panic!("run is parsed as run") };
    let read = |path: &Path| match path.to_str() {
        Some("vars") => Ok("\u{feff}# comment\n\nA=from file\nHOME\n  B=\nUNSET\n".to_owned()),
        Some("bad") => Ok("A=1\nA B=2\n".to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let env = |name: &str| (name == "HOME").then(|| "/home/u".to_owned());
    let host = Host { env: &env, read: &read, folder: "/cwd".into() };
    create_container(&run.create, run.rm, &host)
}

fn shown(request: &CreateContainer) -> String {
    let to_map = |request: &CreateContainer| match serde_json::to_value(request) {
        Ok(Value::Object(map)) => map,
        other => panic!("{other:?}"),
    };
    let default = to_map(&CreateContainer::default());
    to_map(request)
        .into_iter()
        .filter(|(key, value)| default[key] != *value)
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn options_end_at_the_image() {
    check(&["img"], expect![[r#"image="img""#]]);
    check(
        &["--rm", "-it", "img", "sh", "-c", "echo", "--rm", "--", "-v"],
        expect![[
            r#"auto_remove=true command=["sh","-c","echo","--rm","--","-v"] image="img" open_stdin=true terminal=true"#
        ]],
    );
    check(&["img", "--name", "x"], expect![[r#"command=["--name","x"] image="img""#]]);
    check(&["--", "img", "-x"], expect![[r#"command=["-x"] image="img""#]]);
    check(&[], expect!["error: error: the following required arguments were not provided:"]);
    check(&[""], expect!["error: no image is named"]);
}

#[test]
fn short_forms_are_dockers() {
    check(
        &["-ditw/w", "-uroot", "-hbox", "-m1g", "-eA=b", "-la=b", "-p80", "img"],
        expect![[
            r#"env=["A=b"] hostname="box" image="img" labels={"a":"b"} memory_bytes=1073741824 open_stdin=true publish=[{"container_port":80,"host_ip":"0.0.0.0","host_port":0,"protocol":"tcp"}] terminal=true user="root" workdir="/w""#
        ]],
    );
}

#[test]
fn the_environment_comes_from_files_options_and_this_process() {
    check(
        &["--env-file", "vars", "-e", "A=1", "-e", "HOME", "-e", "NOT_HERE", "img"],
        expect![[r#"env=["A=from file","HOME=/home/u","B=","A=1","HOME=/home/u"] image="img""#]],
    );
    check(&["--env-file", "bad", "img"], expect![[r#"error: bad:2: "A B" is no name"#]]);
    check(&["--env-file", "none", "img"], expect!["error: cannot read none: entity not found"]);
    check(&["-e", "=x", "img"], expect![[r#"error: --env "=x" has no name"#]]);
}

#[test]
fn limits_and_places() {
    check(
        &["--cpus", "1.5", "--pids-limit", "100", "--shm-size", "128m", "--read-only", "img"],
        expect![[r#"cpu_millis=1500 image="img" pids=100 read_only=true shm_bytes=134217728"#]],
    );
    check(&["--pids-limit", "-1", "img"], expect![[r#"image="img""#]]);
    check(&["--pids-limit=-2", "img"], expect!["error: --pids-limit -2 is no number of processes"]);
    check(
        &["-m", "lots", "img"],
        expect![[r#"
        error: --memory "lots" is no size
        hint: write it as 512m or 2g, or in bytes"#]],
    );
    check(
        &["--tmpfs", "/t:size=1m", "--tmpfs=/u", "--ulimit", "nofile=1:2", "img"],
        expect![[
            r#"image="img" tmpfs=[{"options":"size=1m","path":"/t"},{"options":"","path":"/u"}] ulimits=[{"hard":2,"name":"nofile","soft":1}]"#
        ]],
    );
    check(
        &["--tmpfs", "t", "img"],
        expect![[r#"error: --tmpfs "t": the folder must be absolute"#]],
    );
    check(
        &["--kernel", "k/vmlinux", "--driver", "qemu", "img"],
        expect![[r#"driver="qemu" image="img" kernel="/cwd/k/vmlinux""#]],
    );
}

#[test]
fn what_a_process_may_do() {
    check(
        &["--cap-add", "NET_ADMIN", "--cap-drop=ALL", "--security-opt", "no-new-privileges", "img"],
        expect![[r#"cap_add=["NET_ADMIN"] cap_drop=["ALL"] image="img" no_new_privileges=true"#]],
    );
    check(&["--privileged", "img"], expect![[r#"image="img" privileged=true"#]]);
    check(
        &["--cap-add", "FLY", "img"],
        expect![[r#"error: unknown capability "FLY": use a name such as NET_ADMIN, or ALL"#]],
    );
    check(
        &["--security-opt", "seccomp=unconfined", "img"],
        expect![[r"
            error: --security-opt: seccomp profiles are not used
            hint: the VM is the boundary; leave the option out"]],
    );
}

#[test]
fn the_network() {
    check(&["--network", "none", "img"], expect![[r#"image="img" network="none""#]]);
    check(
        &[
            "--allow-host",
            "--dns",
            "1.1.1.1",
            "--dns-search",
            "a.b",
            "--dns-option",
            "ndots:2",
            "--add-host",
            "x:::1",
            "img",
        ],
        expect![[
            r#"allow_host=true dns=["1.1.1.1"] dns_options=["ndots:2"] dns_search=["a.b"] hosts=[{"address":"::1","name":"x"}] image="img""#
        ]],
    );
    check(
        &["--network", "host", "img"],
        expect![[r"
            error: --network host: such networks are not supported yet
            hint: use user, which reaches out and takes published ports, or none"]],
    );
    check(&["--dns", "x", "img"], expect![[r#"error: --dns "x" is no IP address"#]]);
    check(
        &["-p", "127.0.0.1:8080:80", "-p", "53:53/udp", "img"],
        expect![[
            r#"image="img" publish=[{"container_port":80,"host_ip":"127.0.0.1","host_port":8080,"protocol":"tcp"},{"container_port":53,"host_ip":"0.0.0.0","host_port":53,"protocol":"udp"}]"#
        ]],
    );
}

#[test]
fn names_entrypoints_and_stopping() {
    check(
        &["--name", "web", "--entrypoint", "", "img", "x"],
        expect![[r#"command=["x"] entrypoint=[] image="img" name="web""#]],
    );
    check(
        &["--entrypoint", "/bin/sh", "img", "-c", "x"],
        expect![[r#"command=["-c","x"] entrypoint=["/bin/sh"] image="img""#]],
    );
    check(
        &["--name", "a b", "img"],
        expect![[
            r#"error: invalid name "a b": use 1 to 63 of a-z, A-Z, 0-9, '_', '.' and '-', starting with a letter or digit"#
        ]],
    );
    check(
        &["--stop-signal", "INT", "--stop-timeout", "3", "img"],
        expect![[r#"image="img" stop_signal="INT" stop_timeout_seconds=3"#]],
    );
    check(
        &["--stop-signal", "FISH", "img"],
        expect![[
            r#"error: unknown signal "FISH": use a name such as SIGTERM or a number from 1 to 64"#
        ]],
    );
}

#[test]
fn what_docker_has_and_we_do_not_is_refused_with_a_reason() {
    check(&["-v", "/a:/b", "img"], expect!["error: --volume: volumes are not supported yet"]);
    check(&["--mount=type=bind", "img"], expect!["error: --mount: volumes are not supported yet"]);
    check(&["--gpus", "all", "img"], expect!["error: --gpus: host devices are not supported yet"]);
    check(
        &["--restart", "always", "img"],
        expect!["error: --restart: restart policies are not supported yet"],
    );
    check(&["-P", "img"], expect!["error: --publish-all: name each port with --publish"]);
    check(
        &["--init", "img"],
        expect!["error: --init: every pod has an init that reaps; leave the option out"],
    );
    check(
        &["--memory-swap", "-1", "img"],
        expect!["error: --memory-swap: only --memory limits memory"],
    );
    check(
        &["--platform", "linux/s390x", "img"],
        expect![[r"
        error: --platform linux/s390x: other machines are not emulated
        hint: this host runs linux/amd64"]],
    );
    check(
        &["--no-such-option", "img"],
        expect!["error: error: unexpected argument '--no-such-option' found"],
    );
}
