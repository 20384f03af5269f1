// SPDX-License-Identifier: Apache-2.0
//! Containers from their making to their removal, and what can be asked of them in between.

use hc_testkit::{Host, Output};
use serde_json::Value;

#[track_caller]
fn json(output: Output) -> Value {
    let text = output.ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Ends with 3 when it is asked to, and shows that it runs.
const POLITE: &str = "trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done";

#[test]
fn a_container_goes_through_its_whole_life() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let create = ["create", "--name", "c", "--stop-signal", "USR1", "busybox", "sh", "-c", POLITE];
    let id = host.hyper(create).ok();
    let state = || host.inspect("c")["state"].as_str().unwrap().to_owned();
    assert_eq!(state(), "created");
    assert_eq!(host.hyper(["ps", "-q"]).ok(), "");
    assert_eq!(host.hyper(["ps", "-aq"]).ok(), &id[..12]);
    host.hyper(["kill", "c"]).fails(1, "not running");
    host.hyper(["pause", "c"]).fails(1, "not running");

    assert_eq!(host.hyper(["start", &id[..6]]).ok(), &id[..6]);
    assert_eq!(state(), "running");
    host.hyper(["start", "c"]).ok(); // It runs, which is what is asked for.
    hc_testkit::until("it is ready", || host.hyper(["logs", "c"]).ok() == "ready");
    host.hyper(["exec", "c", "sh", "-c", "echo 1 >>/root/runs; rm /bin/vi"]).ok();

    host.hyper(["pause", "c"]).ok();
    assert_eq!(state(), "paused");
    host.hyper(["exec", "c", "true"]).fails(125, "paused");
    host.hyper(["pause", "c"]).fails(1, "already paused");
    host.hyper(["unpause", "c"]).ok();
    host.hyper(["unpause", "c"]).fails(1, "not paused");
    host.hyper(["exec", "c", "true"]).ok();

    assert_eq!(host.hyper(["stop", "c"]).ok(), "c");
    assert_eq!(state(), "exited");
    assert_eq!(host.inspect("c")["exit_status"], 3);
    assert_eq!(host.hyper(["wait", "c"]).ok(), "3");
    host.hyper(["stop", "c"]).ok(); // It is stopped, which is what is asked for.
    assert_eq!(host.hyper(["ps", "-q"]).ok(), "");

    // What it wrote is there in the next run, and what it removed is not.
    host.hyper(["restart", "c"]).ok();
    let kept = ["exec", "c", "sh", "-c", "cat /root/runs; ls /bin/vi"];
    let output = host.hyper(kept);
    assert_eq!((output.status, output.stdout.as_str()), (1, "1\n"), "{output:?}");

    host.hyper(["rm", "c"]).fails(1, "running");
    host.hyper(["kill", "--signal", "USR1", "c"]).ok();
    host.until_state("c", "exited");
    host.hyper(["rm", "c"]).ok();
    host.hyper(["rm", "c"]).fails(1, "c");
    host.hyper(["rm", "--force", "c"]).ok();
    host.assert_clean();
}

#[test]
fn a_container_that_does_not_stop_is_killed_after_its_time() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let stubborn = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let run = ["run", "-d", "--name", "c", "--stop-timeout", "1", "busybox", "sh", "-c", stubborn];
    host.hyper(run).ok();
    hc_testkit::until("it is ready", || host.hyper(["logs", "c"]).ok() == "ready");
    let waiting = {
        let mut command = host.command(["wait", "c"]);
        command.stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    host.hyper(["stop", "c"]).ok();
    let waited: Output = waiting.wait_with_output().unwrap().into();
    assert_eq!(waited.ok(), "137");
    host.hyper(["start", "c"]).ok();
    host.hyper(["rm", "--force", "c"]).ok();
    host.assert_clean();
}

#[test]
fn what_runs_can_be_listed_measured_and_inspected() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    let run = ["run", "-d", "--name", "c", "-m", "100m", "-l", "a=b", "busybox", "sleep", "600"];
    let id = host.hyper(run).ok();

    let row = json(host.hyper(["ps", "--format", "json"]));
    assert_eq!((&row["Names"], &row["State"]), (&"c".into(), &"running".into()), "{row}");
    let template = "{{.ID}} {{.Image}} {{.Names}}";
    assert_eq!(host.hyper(["ps", "--format", template]).ok(), format!("{} busybox c", &id[..12]));
    let table = host.hyper(["list"]).ok();
    assert!(table.starts_with("CONTAINER ID"), "{table}");
    host.hyper(["ps", "--filter", "colour=red"]).fails(1, "colour");
    let pods = host.hyper(["pods", "--format", "json"]).ok();
    assert!(serde_json::from_str::<Value>(&pods).is_ok(), "{pods}");

    let container = host.inspect("c");
    assert_eq!(container["id"], id);
    assert_eq!(container["command"], serde_json::json!(["sleep", "600"]));
    assert_eq!(container["labels"], serde_json::json!({"a": "b"}));
    let driver = container["driver"].as_str().unwrap();
    assert!(["kvm", "qemu-kvm", "qemu-tcg"].contains(&driver), "{driver}");
    assert_eq!(host.hyper(["inspect", "--format", "{{.name}}", "c"]).ok(), "c");
    host.hyper(["inspect", "not-there"]).fails(1, "not-there");

    let top = host.hyper(["top", "c"]).ok();
    assert!(top.lines().any(|line| line.ends_with("sleep 600")), "{top}");
    let stats = json(host.hyper(["stats", "--no-stream", "--format", "json", "c"]));
    assert_eq!(stats["Name"], "c", "{stats}");
    let limit = stats["MemUsage"].as_str().unwrap();
    assert!(limit.ends_with("/ 100MiB"), "{stats}");

    let info = json(host.hyper(["info", "--format", "json"]));
    assert_eq!((&info["containers"], &info["running"]), (&1.into(), &1.into()), "{info}");
    host.hyper(["rm", "--force", "c"]).ok();
    host.assert_clean();
}

#[test]
fn the_installation_tells_about_itself() {
    let Some(host) = Host::new() else { return };
    let version = json(host.hyper(["version", "--format", "json"]));
    assert_eq!(version["client"]["version"], version["server"]["version"], "{version}");
    let info = host.hyper(["info"]).ok();
    assert!(info.contains("qemu-tcg: usable"), "{info}");
    let doctor = host.hyper(["doctor"]);
    assert!(doctor.stdout.contains("OK    driver"), "{doctor:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = host.hyper(["completion", shell]).ok();
        assert!(script.contains("unpause"), "{script}");
    }
    let manual = host.path().join("man");
    host.hyper(["man", manual.to_str().unwrap()]).ok();
    assert!(std::fs::read_dir(manual).unwrap().count() > 10);

    let alias = host.path().join("hyperctl");
    std::os::unix::fs::symlink(host.bin_dir().join("hyper"), &alias).unwrap();
    let output = std::process::Command::new(alias).arg("--version").output();
    let output: Output = output.unwrap().into();
    assert_eq!(output.ok(), host.hyper(["--version"]).ok());
}

#[test]
fn the_api_describes_itself() {
    use std::io::{Read as _, Write as _};
    let Some(host) = Host::new() else { return };
    host.daemon_pid();
    let socket = host.runtime_dir().join("hyperd.sock");
    let mut socket = std::os::unix::net::UnixStream::connect(socket).unwrap();
    socket
        .write_all(b"GET /openapi.json HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let document: Value = serde_json::from_str(body).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{document}");
    let paths = document["paths"].as_object().unwrap();
    for (path, method) in [
        ("/version", "get"),
        ("/info", "get"),
        ("/pods", "get"),
        ("/containers", "get"),
        ("/containers", "post"),
        ("/containers/{name}", "get"),
        ("/containers/{name}", "delete"),
        ("/containers/{name}/start", "post"),
        ("/containers/{name}/attach", "post"),
        ("/containers/{name}/exec", "post"),
        ("/containers/{name}/archive", "get"),
        ("/containers/{name}/archive", "put"),
        ("/containers/{name}/stop", "post"),
        ("/containers/{name}/restart", "post"),
        ("/containers/{name}/kill", "post"),
        ("/containers/{name}/pause", "post"),
        ("/containers/{name}/unpause", "post"),
        ("/containers/{name}/wait", "post"),
        ("/containers/{name}/logs", "get"),
        ("/containers/{name}/top", "get"),
        ("/containers/{name}/stats", "get"),
        ("/images", "get"),
        ("/images", "delete"),
        ("/images/inspect", "get"),
        ("/images/pull", "post"),
        ("/images/load", "post"),
        ("/images/import", "post"),
        ("/images/tag", "post"),
    ] {
        assert!(paths.get(path).is_some_and(|item| item.get(method).is_some()), "{method} {path}");
    }
}
