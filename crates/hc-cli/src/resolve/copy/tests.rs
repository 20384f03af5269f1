// SPDX-License-Identifier: Apache-2.0
use std::io;
use std::path::Path;

use clap::{CommandFactory, Parser};
use expect_test::{Expect, expect};
use serde::Serialize;

use super::*;
use crate::args::{Cli, Command, TemplateArgs, TemplateCommand};

fn host() -> Host<'static> {
    let read = |path: &Path| match path.to_str() {
        Some("labels") => Ok("a=from file\nb=2\n".to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    Host { env: &|_| None, read: Box::leak(Box::new(read)), folder: "/cwd".into() }
}

fn shown<T: Serialize>(resolved: Result<T>) -> String {
    match resolved {
        Ok(request) => serde_json::to_string(&request).unwrap(),
        Err(failure) => {
            let mut out = Vec::new();
            failure.print(&mut out, false);
            String::from_utf8(out).unwrap()
        }
    }
}

fn resolve(args: &[&str]) -> String {
    match Cli::try_parse_from(["hyper"].iter().chain(args)).unwrap().command {
        Command::Run(run) => {
            let snapshot = run.snapshot.as_deref().unwrap();
            shown(from_snapshot(snapshot, &run.create, run.rm, &host()))
        }
        Command::Clone(clone) => shown(clone_container(&clone, &host())),
        Command::Template(TemplateArgs { command: TemplateCommand::Create(args) }) => {
            shown(create_template(&args, &host()))
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check(args: &[&str], expected: Expect) {
    expected.assert_eq(&resolve(args));
}

#[test]
fn what_surrounds_a_copy_can_be_chosen() {
    check(
        &["clone", "web"],
        expect![[r#"{"name":null,"hostname":null,"publish":[],"labels":{},"auto_remove":false}"#]],
    );
    let all = ["--rm", "--name", "w2", "--hostname", "h", "-p", "81:80", "-l", "a=1"];
    let expected = expect![[
        r#"{"name":"w2","hostname":"h","publish":[{"protocol":"tcp","host_ip":"0.0.0.0","host_port":81,"container_port":80}],"labels":{"a":"1"},"auto_remove":true}"#
    ]];
    check(&[&["clone"], &all[..], &["web"]].concat(), expected);
    let run = resolve(&[&["run", "--snapshot", "s"], &all[..]].concat());
    assert_eq!(run, resolve(&[&["clone"], &all[..], &["web"]].concat()));
    check(
        &["run", "-diq", "--snapshot", "s", "--label-file", "labels", "-l", "b=3", "-h", "x"],
        expect![[
            r#"{"name":null,"hostname":"x","publish":[],"labels":{"a":"from file","b":"3"},"auto_remove":false}"#
        ]],
    );
    for wrong in [["--name", "-x-"], ["--publish", "x"], ["--label", "=1"]] {
        assert!(resolve(&["clone", &wrong.join("="), "web"]).starts_with("error: "), "{wrong:?}");
    }
}

#[test]
fn what_a_snapshot_has_settled_is_refused_by_name() {
    check(
        &["run", "--snapshot", "s", "-m", "1g", "-e", "A=b"],
        expect![[r"
            error: --env, --memory: settled when the snapshot was taken
            hint: it goes on as it was copied; what can be chosen is --name, --hostname, --publish, --label and --rm
        "]],
    );
    check(
        &["run", "--snapshot", "s", "-v", "/a:/b"],
        expect![[r"
            error: --volume: volumes are not supported yet
            hint: it goes on as it was copied; what can be chosen is --name, --hostname, --publish, --label and --rm
        "]],
    );
    check(
        &["run", "--snapshot", "s", "img", "sh"],
        expect![[r#"
            error: --snapshot and the image "img" are both named
            hint: leave the image and its command out: the snapshot has both
        "#]],
    );
    check(
        &["run", "--snapshot", ""],
        expect![[r"
            error: no snapshot is named
        "]],
    );
}

#[test]
fn every_option_of_run_is_taken_or_refused_with_a_snapshot() {
    // Those that are about the container's surroundings, or about this program.
    const TAKEN: [&str; 16] = [
        "attach",
        "cidfile",
        "detach",
        "detach-keys",
        "hostname",
        "interactive",
        "label",
        "label-file",
        "name",
        "publish",
        "quiet",
        "rm",
        "sig-proxy",
        "snapshot",
        "socket",
        "timings",
    ];
    let mut cli = Cli::command();
    cli.build();
    let run = cli.find_subcommand("run").unwrap();
    for option in
        run.get_opts().chain(run.get_arguments().filter(|a| !a.get_action().takes_values()))
    {
        let Some(long) = option.get_long().filter(|long| *long != "help") else { continue };
        let value = match long {
            "pull" => "never",
            "pids-limit" | "stop-timeout" => "1",
            "publish" => "80",
            "label-file" => "labels",
            "sig-proxy" => "true",
            _ => "x",
        };
        let values = option.get_action().takes_values();
        let given = if values { format!("--{long}={value}") } else { format!("--{long}") };
        let args = if long == "snapshot" {
            vec!["run", &given]
        } else {
            vec!["run", "--snapshot=s", &given]
        };
        let refusal = format!("error: --{long}: ");
        assert_ne!(resolve(&args).starts_with(&refusal), TAKEN.contains(&long), "--{long}");
    }
}

#[test]
fn a_template_has_the_shape_of_its_containers() {
    check(
        &["template", "create"],
        expect![[
            r#"{"memory_bytes":null,"cpu_millis":null,"driver":null,"kernel":null,"no_network":false}"#
        ]],
    );
    check(
        &[
            "template",
            "create",
            "-m",
            "512m",
            "--cpus",
            "1.5",
            "--driver",
            "kvm",
            "--kernel",
            "k",
            "--network",
            "none",
        ],
        expect![[
            r#"{"memory_bytes":536870912,"cpu_millis":1500,"driver":"kvm","kernel":"/cwd/k","no_network":true}"#
        ]],
    );
    check(
        &["template", "create", "--network", "bridge"],
        expect![[r"
            error: --network bridge: such networks are not supported yet
            hint: use user, which reaches out and takes published ports, or none
        "]],
    );
}
