// SPDX-License-Identifier: Apache-2.0
//! The `hyper` command is interrupted or killed.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;

use hc_testkit::{Host, interrupt, kill, until};

use super::{finish, instant, let_end, names, start, start_until};

/// Ends at once, and says by whom, when it is interrupted.
const PROGRAM: &str = "trap 'exit 42' INT; echo up; while :; do usleep 10000; done";

#[test]
fn ctrl_c_at_any_stage_of_a_run_leaves_nothing_that_runs() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    host.daemon_pid();
    for rm in [true, false] {
        for step in [0, 4, 8, 12, 16, 20, 30, 50, 100, 300, 700] {
            let options = if rm { &["--rm"][..] } else { &[] };
            let mut command = host.command(["run", "--name", "x"]);
            let run = start(command.args(options).args(["busybox", "sh", "-c", PROGRAM]));
            instant(step);
            interrupt(run.id());
            let output = finish(run);
            assert!([130, 42].contains(&output.status), "after {step} ms: {output:?}");
            assert_eq!(output.stderr, "", "after {step} ms");
            if rm {
                until("it is removed", || names(&host).is_empty());
            } else if !names(&host).is_empty() {
                until("it does not run", || {
                    let state = &host.inspect("x")["state"];
                    state == "created" || state == "exited"
                });
                host.hyper(["rm", "x"]).ok();
            }
            host.assert_clean();
        }
    }
}

#[test]
fn ctrl_c_reaches_the_program_once_it_runs() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    for options in [&["--rm"][..], &[]] {
        let mut command = host.command(["run", "--name", "x"]);
        command.args(options).args(["busybox", "sh", "-c", PROGRAM]);
        let run = start_until(&mut command, "up");
        interrupt(run.id());
        let output = finish(run);
        assert_eq!((output.status, output.stderr.as_str()), (42, ""), "{output:?}");
        if options.is_empty() {
            assert_eq!(host.inspect("x")["exit_status"], 42);
            host.hyper(["rm", "x"]).ok();
        }
        host.assert_clean();
    }
}

#[test]
fn ctrl_c_ends_a_pull_from_a_registry_that_does_not_answer() {
    let Some(host) = Host::new() else { return };
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = registry.local_addr().unwrap().to_string();
    host.configure(&format!("insecure-registries = [\"{name}\"]"));
    let run = start(&mut host.command(["run", "--rm", &format!("{name}/image"), "true"]));
    let (_asked, _) = registry.accept().unwrap();
    interrupt(run.id());
    assert_eq!(finish(run).status, 130);
    host.assert_clean();
}

#[test]
fn a_container_goes_on_without_the_client_that_started_it() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let script = "echo up; until [ -e /go ]; do usleep 10000; done; echo end; exit 7";
    let mut command = host.command(["run", "--name", "x", "busybox", "sh", "-c", script]);
    let run = start_until(&mut command, "up");
    kill(run.id());
    assert_eq!(finish(run).status, 137);
    let_end(&host);
    assert_eq!(host.hyper(["wait", "x"]).ok(), "7");
    assert_eq!(host.hyper(["logs", "x"]).ok(), "up\nend");
    host.hyper(["rm", "x"]).ok();
    host.assert_clean();
}

#[test]
fn the_input_of_a_container_ends_with_the_client_that_wrote_it() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let mut command = host.command(["run", "-i", "--name", "x", "busybox"]);
    command.args(["sh", "-c", "cat; echo end; exit 6"]).stdin(Stdio::piped());
    let mut run = start(&mut command);
    run.stdin.as_mut().unwrap().write_all(b"in\n").unwrap();
    let mut came = [0; 3];
    run.stdout.as_mut().unwrap().read_exact(&mut came).unwrap();
    assert_eq!(&came, b"in\n");
    kill(run.id());
    assert_eq!(host.hyper(["wait", "x"]).ok(), "6");
    assert_eq!(host.hyper(["logs", "x"]).ok(), "in\nend");
    finish(run);
    host.hyper(["rm", "x"]).ok();
    host.assert_clean();
}
