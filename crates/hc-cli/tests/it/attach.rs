// SPDX-License-Identifier: Apache-2.0
//! `attach`, `start -a` and `doctor`: commands that look before they act.

use hc_api::stream::Frame;
use serde_json::{Value, json};

use crate::daemon::{Conversation, Daemon};
use crate::program::{hyper, run};

/// What `inspect` says of a container.
pub(crate) fn container(state: &str, config: &Value) -> Value {
    json!({
        "id": "a", "name": "web", "pod": "b", "image": "i", "image_id": "s", "command": [],
        "created": "2024-05-01T12:00:00Z", "state": state, "started": null, "finished": null,
        "exit_status": null, "ports": [], "labels": {}, "config": config, "user": "",
        "workdir": "/", "env": [], "hostname": "h", "capabilities": 0, "stop_signal": "SIGTERM",
        "stop_timeout_seconds": 10, "exit": null, "oom_killed": false, "error": "", "driver": null,
        "kernel": null, "vcpus": 1, "memory_mib": 64, "pod_pid": null, "pod_dir": "/p"
    })
}

fn talker() -> Daemon {
    Daemon::new(async |mut program: Conversation| {
        program.send(Frame::Started).await;
        program.send(Frame::Stdout(b"words\n".to_vec())).await;
        program.exit(4).await;
    })
}

#[test]
fn attach_shows_what_a_running_container_writes_from_now_on() {
    let daemon = talker();
    let config = json!({"image": "i", "auto_remove": true});
    daemon.answer("GET /v1/containers/web", 200, &container("running", &config));
    run(&mut hyper(&daemon, ["attach", "web"])).check(4, "words\n", "");
    assert_eq!(
        daemon.requests(),
        ["GET /v1/containers/web", "POST /v1/containers/web/attach?stdin=false"]
    );
}

#[test]
fn attach_takes_input_where_the_container_has_one() {
    let daemon = talker();
    let config = json!({"image": "i", "open_stdin": true});
    daemon.answer("GET /v1/containers/web", 200, &container("running", &config));
    assert_eq!(run(&mut hyper(&daemon, ["attach", "web"])).status, 4);
    assert_eq!(run(&mut hyper(&daemon, ["attach", "--no-stdin", "web"])).status, 4);
    assert!(daemon.was_asked("POST /v1/containers/web/attach?stdin=true"));
    assert!(daemon.was_asked("POST /v1/containers/web/attach?stdin=false"));
}

#[test]
fn attach_refuses_what_does_not_run() {
    let daemon = talker();
    for (state, why, first) in
        [("exited", "it does not run", "start"), ("paused", "it is paused", "unpause")]
    {
        daemon.answer("GET /v1/containers/web", 200, &container(state, &json!({"image": "i"})));
        run(&mut hyper(&daemon, ["attach", "web"])).check(
            1,
            "",
            &format!("error: cannot attach to web: {why}\nhint: first: hyper {first} web\n"),
        );
    }
}

#[test]
fn start_attaches_to_one_or_starts_many() {
    let daemon = talker();
    daemon.answer("GET /v1/containers/web", 200, &container("exited", &json!({"image": "i"})));
    run(&mut hyper(&daemon, ["start", "-a", "web"])).check(4, "words\n", "");
    assert!(daemon.was_asked("POST /v1/containers/web/start?stdin=false"));
    run(&mut hyper(&daemon, ["start", "web", "two"])).check(0, "web\ntwo\n", "");
    run(&mut hyper(&daemon, ["start", "-a", "web", "two"])).check(
        1,
        "",
        "error: only one container can be started and attached to\n",
    );
}

#[test]
fn doctor_reports_and_fails_when_something_is_broken() {
    let daemon = Daemon::idle();
    let info = json!({
        "version": "1", "containers": 0, "running": 0, "images": 0, "data_dir": "/d",
        "runtime_dir": "/r", "kernel": env!("CARGO_BIN_EXE_hyper"), "driver": "qemu-tcg",
        "driver_reason": "no KVM", "host_cpus": 1, "host_memory_bytes": 1, "host_kernel": "6",
        "root": true,
        "kvm": {"device": "/dev/kvm", "state": "absent", "usable": false, "finding": "no KVM",
            "hint": "get one"},
        "drivers": [{"name": "qemu-tcg", "usable": true, "finding": "QEMU"}]
    });
    daemon.answer("GET /v1/info", 200, &info);
    let lib = daemon.folder().join("lib");
    std::fs::create_dir(&lib).unwrap();
    let doctor = || {
        let mut command = hyper(&daemon, ["doctor", "--format", "json"]);
        command.env("HYPER_LIB", &lib).env("HYPER_DATA_DIR", daemon.folder());
        command.env("HYPER_RUNTIME_DIR", daemon.folder().join("run"));
        let done = run(&mut command);
        let findings: Vec<Value> = serde_json::from_str(&done.stdout).unwrap();
        let of = |check: &str| {
            let found = findings.iter().find(|finding| finding["check"] == check);
            found.unwrap()["status"].as_str().unwrap().to_owned()
        };
        (done.status, of("guest init"), of("kernel"), of("/dev/kvm"), of("driver"))
    };
    let own = |s: [&str; 4]| s.map(str::to_owned);
    let [fail, ok, warn, good] = own(["FAIL", "OK", "WARN", "OK"]);
    assert_eq!(doctor(), (1, fail, ok.clone(), warn.clone(), good.clone()));
    std::fs::write(lib.join("hyperstart"), "x").unwrap();
    let (_, init, kernel, kvm, driver) = doctor();
    assert_eq!((init, kernel, kvm, driver), (ok.clone(), ok, warn, good));
}
