// SPDX-License-Identifier: Apache-2.0
//! Templates, snapshots, clones, and memory on disk.

use std::process::Stdio;

use expect_test::expect;
use hc_api::stream::Frame;
use hc_api::{CloneContainer, ErrorBody, ErrorKind, PrunedTemplates, Snapshot, Template};
use rustix::process::Signal;
use serde_json::json;

use crate::attach::container;
use crate::daemon::{Conversation, Daemon, ID};
use crate::lists::{ago, check};
use crate::program::{eventually, feed, finish, hyper, run, signal};

fn template(id: &str, network: bool, age: i64) -> Template {
    Template {
        id: id.repeat(32),
        driver: "kvm".into(),
        kernel: "/lib/vmlinux".into(),
        vcpus: 2,
        memory_mib: 512,
        network,
        size: 52_400_000,
        created: ago(age),
        waiting: 1,
    }
}

#[test]
fn templates_are_listed_newest_first() {
    let daemon = Daemon::idle();
    daemon.answer(
        "GET /v1/templates",
        200,
        &[template("a1", true, 7200), template("b2", false, 180)],
    );
    let table = expect![[r"
        ID             DRIVER   CPUS   MEMORY   NETWORK   SIZE     CREATED         WAITING
        b2b2b2b2b2b2   kvm      2      512MiB   none      52.4MB   3 minutes ago   1
        a1a1a1a1a1a1   kvm      2      512MiB   user      52.4MB   2 hours ago     1
        [0]"]];
    check(&daemon, &["template", "ls"], table);
    check(
        &daemon,
        &["template", "list", "-q"],
        expect![[r"
        b2b2b2b2b2b2
        a1a1a1a1a1a1
        [0]"]],
    );
    check(
        &daemon,
        &["template", "ls", "--no-trunc", "--format", "{{.ID}} {{.Kernel}}"],
        expect![[r"
            b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2 /lib/vmlinux
            a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1 /lib/vmlinux
            [0]"]],
    );
    check(
        &daemon,
        &["template", "ls", "--format", "{{.Name}}"],
        expect![[r#"
            error: --format: there is no field "Name" here
            hint: fields: .CPUs .CreatedAt .CreatedSince .Driver .ID .Kernel .Memory .Network .Size .Waiting
            [1]"#]],
    );
    let done = run(&mut hyper(&daemon, ["template", "ls", "--format", "json"]));
    let first: serde_json::Value =
        serde_json::from_str(done.stdout.lines().next().unwrap()).unwrap();
    assert_eq!((&first["Network"], &first["Waiting"]), (&json!("none"), &json!(1)));
}

#[test]
fn a_template_is_waited_for_and_its_id_printed() {
    let daemon = Daemon::idle();
    let id = "a1".repeat(32);
    daemon.answer("POST /v1/templates", 200, &template("a1", true, 0));
    daemon.hold("POST /v1/templates");
    let args = ["template", "create", "-m", "512m", "--network", "none"];
    let child = hyper(&daemon, args).spawn().unwrap();
    eventually("the template is asked for", || daemon.was_asked("POST /v1/templates"));
    daemon.release();
    finish(child).check(0, &format!("{id}\n"), "booting a guest\n");
    assert_eq!(
        daemon.body("POST /v1/templates"),
        r#"{"memory_bytes":536870912,"cpu_millis":null,"driver":null,"kernel":null,"no_network":true}"#
    );
    run(&mut hyper(&daemon, ["template", "create", "-q"])).check(0, &format!("{id}\n"), "");
}

#[test]
fn a_template_that_cannot_be_made_is_an_error() {
    let daemon = Daemon::idle();
    let error = ErrorBody::new(ErrorKind::Unsupported, "qemu-tcg cannot copy guests");
    daemon.refuse("POST /v1/templates", &error.with_hint("use kvm"));
    run(&mut hyper(&daemon, ["template", "create", "-q", "--driver", "qemu-tcg"])).check(
        1,
        "",
        "error: qemu-tcg cannot copy guests\nhint: use kvm\n",
    );
    run(&mut hyper(&daemon, ["template", "create", "-m", "much"])).check(
        1,
        "",
        "error: --memory \"much\" is no size\nhint: write it as 512m or 2g, or in bytes\n",
    );
}

#[test]
fn templates_and_snapshots_are_removed_one_after_the_other() {
    let daemon = Daemon::idle();
    for what in ["template", "snapshot"] {
        for name in ["a", "b"] {
            daemon.answer_bytes(&format!("DELETE /v1/{what}s/{name}"), 204, "");
        }
        let missing = ErrorBody::new(ErrorKind::NotFound, format!("no such {what}: nope"));
        daemon.refuse(&format!("DELETE /v1/{what}s/nope"), &missing);
        run(&mut hyper(&daemon, [what, "rm", "a", "nope", "b"])).check(
            1,
            "a\nb\n",
            &format!("error: cannot remove {what} nope: no such {what}: nope\n"),
        );
    }
}

#[test]
fn pruning_tells_what_is_gone_and_what_it_gave_back() {
    let daemon = Daemon::idle();
    let pruned = PrunedTemplates { removed: vec!["a1".repeat(32)], size: 52_400_000 };
    daemon.answer("POST /v1/templates/prune", 200, &pruned);
    check(
        &daemon,
        &["template", "prune"],
        expect![[r"
            Deleted: a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1
            Total reclaimed space: 52.4MB
            [0]"]],
    );
    daemon.answer("POST /v1/templates/prune", 200, &PrunedTemplates::default());
    check(
        &daemon,
        &["template", "prune"],
        expect![[r"
        Total reclaimed space: 0B
        [0]"]],
    );
}

fn snapshot(name: &str, image: &str, age: i64) -> Snapshot {
    Snapshot {
        name: name.into(),
        container: "web".into(),
        image: image.into(),
        driver: "kvm".into(),
        vcpus: 1,
        memory_mib: 128,
        size: 61_000_000,
        created: ago(age),
        held_micros: 8123,
    }
}

#[test]
fn snapshots_are_listed_newest_first() {
    let daemon = Daemon::idle();
    let by_id = format!("sha256:{}", "1a".repeat(32));
    let list = [snapshot("old", "busybox", 7200), snapshot("warm", &by_id, 180)];
    daemon.answer("GET /v1/snapshots", 200, &list);
    let table = expect![[r"
        NAME   CONTAINER   IMAGE          MEMORY   SIZE   CREATED
        warm   web         1a1a1a1a1a1a   128MiB   61MB   3 minutes ago
        old    web         busybox        128MiB   61MB   2 hours ago
        [0]"]];
    check(&daemon, &["snapshot", "ls"], table);
    check(
        &daemon,
        &["snapshot", "ls", "-q"],
        expect![[r"
        warm
        old
        [0]"]],
    );
    check(
        &daemon,
        &["snapshot", "list", "--no-trunc", "--format", "{{.Image}} {{.HeldMicros}}"],
        expect![[r"
            sha256:1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a 8123
            busybox 8123
            [0]"]],
    );
}

#[test]
fn a_snapshot_is_taken_and_its_name_printed() {
    let daemon = Daemon::idle();
    daemon.answer("POST /v1/containers/web/snapshot", 200, &snapshot("warm", "busybox", 0));
    run(&mut hyper(&daemon, ["snapshot", "create", "web", "warm"])).check(0, "warm\n", "");
    assert_eq!(daemon.body("POST /v1/containers/web/snapshot"), r#"{"name":"warm"}"#);
    let stopped = ErrorBody::new(ErrorKind::InvalidState, "it does not run");
    daemon.refuse("POST /v1/containers/web/snapshot", &stopped);
    run(&mut hyper(&daemon, ["snapshot", "create", "web", "warm"])).check(
        1,
        "",
        "error: cannot copy web: it does not run\n",
    );
}

#[test]
fn a_clone_is_made_and_started_and_its_id_printed() {
    let daemon = Daemon::idle();
    let args = ["clone", "--name", "w2", "--rm", "-p", "81:80", "--label", "a=b", "web"];
    run(&mut hyper(&daemon, args)).check(0, &format!("{ID}\n"), "");
    let asked = ["POST /v1/containers/web/clone".into(), format!("POST /v1/containers/{ID}/start")];
    assert_eq!(daemon.requests(), asked);
    let request: CloneContainer = serde_json::from_str(&daemon.body(&asked[0])).unwrap();
    assert_eq!(request.name.as_deref(), Some("w2"));
    assert!(request.auto_remove && request.publish.len() == 1 && request.labels["a"] == "b");
}

#[test]
fn with_rm_nothing_is_left_of_a_clone_that_does_not_start() {
    let daemon = Daemon::idle();
    let start = format!("POST /v1/containers/{ID}/start");
    daemon.refuse(&start, &ErrorBody::new(ErrorKind::Exhausted, "no memory for the VM"));
    let removal = format!("DELETE /v1/containers/{ID}?force=true");
    run(&mut hyper(&daemon, ["clone", "web"])).check(125, "", "error: no memory for the VM\n");
    assert!(!daemon.was_asked(&removal), "it can be looked at");
    run(&mut hyper(&daemon, ["clone", "--rm", "web"])).check(
        125,
        "",
        "error: no memory for the VM\n",
    );
    assert!(daemon.was_asked(&removal));
}

#[test]
fn a_clone_that_cannot_be_made_is_not_started() {
    let daemon = Daemon::idle();
    let stopped = ErrorBody::new(ErrorKind::InvalidState, "web does not run");
    daemon.refuse("POST /v1/containers/web/clone", &stopped.with_hint("first: hyper start web"));
    run(&mut hyper(&daemon, ["clone", "web"])).check(
        125,
        "",
        "error: web does not run\nhint: first: hyper start web\n",
    );
    assert_eq!(daemon.requests().len(), 1);
}

#[test]
fn a_signal_while_a_clone_is_made_leaves_none() {
    let daemon = Daemon::idle();
    daemon.hold("POST /v1/containers/web/clone");
    let child = hyper(&daemon, ["clone", "web"]).spawn().unwrap();
    eventually("the clone is asked for", || daemon.was_asked("POST /v1/containers/web/clone"));
    signal(child.id(), Signal::INT);
    // Only once the signal has been taken does the answer come.
    eventually("the signal is taken", || !crate::signals::has_pending_signals(child.id()));
    daemon.release();
    finish(child).check(130, "", "");
    assert!(daemon.was_asked(&format!("DELETE /v1/containers/{ID}?force=true")));
}

/// A daemon whose snapshot `warm` is of a container like this, and whose program echoes.
fn with_snapshot(config: &serde_json::Value) -> Daemon {
    let daemon = Daemon::new(async |mut program: Conversation| {
        program.send(Frame::Started).await;
        program.send(Frame::Stdout(b"on: ".to_vec())).await;
        let input = program.all_input().await;
        program.send(Frame::Stdout(input)).await;
        program.exit(3).await;
    });
    daemon.answer(&format!("GET /v1/containers/{ID}"), 200, &container("created", config));
    daemon
}

#[test]
fn a_snapshot_goes_on_attached() {
    let daemon = with_snapshot(&json!({"image": "i", "open_stdin": true}));
    let args = ["run", "-i", "--snapshot", "warm", "--name", "w2", "--hostname", "h"];
    let mut child = hyper(&daemon, args).stdin(Stdio::piped()).spawn().unwrap();
    feed(&mut child, b"words".to_vec());
    finish(child).check(3, "on: words", "");
    let asked = [
        "POST /v1/snapshots/warm/containers".into(),
        format!("GET /v1/containers/{ID}"),
        format!("POST /v1/containers/{ID}/start?stdin=true"),
    ];
    assert_eq!(daemon.requests(), asked);
    let request: CloneContainer = serde_json::from_str(&daemon.body(&asked[0])).unwrap();
    let expected = CloneContainer {
        name: Some("w2".into()),
        hostname: Some("h".into()),
        ..CloneContainer::default()
    };
    assert_eq!(request, expected);
}

#[test]
fn a_snapshot_goes_on_in_the_background() {
    let daemon = Daemon::idle();
    run(&mut hyper(&daemon, ["run", "-d", "--snapshot", "warm"])).check(0, &format!("{ID}\n"), "");
    assert_eq!(
        daemon.requests(),
        ["POST /v1/snapshots/warm/containers".into(), format!("POST /v1/containers/{ID}/start")]
    );
}

#[test]
fn input_for_a_copy_that_takes_none_leaves_no_container() {
    let daemon = with_snapshot(&json!({"image": "i"}));
    run(&mut hyper(&daemon, ["run", "-i", "--snapshot", "warm"])).check(
        125,
        "",
        "error: the copied container has no standard input\nhint: leave --interactive out\n",
    );
    let removal = format!("DELETE /v1/containers/{ID}?force=true");
    assert!(daemon.was_asked(&removal));

    let daemon = with_snapshot(&json!({"image": "i", "open_stdin": true, "terminal": true}));
    run(&mut hyper(&daemon, ["run", "-i", "--snapshot", "warm"])).check(
        125,
        "",
        "error: the input device is not a TTY\nhint: leave --interactive out\n",
    );
    assert!(daemon.was_asked(&removal));
}

#[test]
fn what_a_snapshot_cannot_honour_is_refused_before_anything_is_asked() {
    let daemon = Daemon::idle();
    let refused = [
        (&["-m", "1g"][..], "error: --memory: settled when the snapshot was taken"),
        (&["--entrypoint", "sh"], "error: --entrypoint: settled when the snapshot was taken"),
        (&["-t"], "error: --tty: settled when the snapshot was taken"),
        (&["-v", "/a:/b"], "error: --volume: volumes are not supported yet"),
        (&["-di"], "error: --interactive: with --detach, nothing is connected"),
        (&["img"], "error: --snapshot and the image \"img\" are both named"),
    ];
    for (args, message) in refused {
        let done = run(&mut hyper(&daemon, [&["run", "--snapshot", "warm"], args].concat()));
        assert_eq!((done.status, &*done.stdout), (125, ""), "{args:?}");
        let lines: Vec<_> = done.stderr.lines().collect();
        assert!(
            matches!(lines[..], [first, hint] if first == message && hint.starts_with("hint: ")),
            "{lines:?}"
        );
    }
    run(&mut hyper(&daemon, ["run"])).check(
        125,
        "",
        "error: the following required arguments were not provided: <IMAGE>...\n\
         hint: see: hyper run --help\n",
    );
    assert!(daemon.requests().is_empty());
}

#[test]
fn a_missing_snapshot_is_told_and_nothing_pulled() {
    let daemon = Daemon::idle();
    let missing = ErrorBody::new(ErrorKind::NotFound, "no such snapshot: warm");
    daemon.refuse("POST /v1/snapshots/warm/containers", &missing);
    run(&mut hyper(&daemon, ["run", "--snapshot", "warm"])).check(
        125,
        "",
        "error: no such snapshot: warm\n",
    );
    assert_eq!(daemon.requests().len(), 1);
}

#[test]
fn a_pause_says_whether_the_memory_goes_to_disk() {
    let daemon = Daemon::idle();
    run(&mut hyper(&daemon, ["pause", "a"])).check(0, "a\n", "");
    run(&mut hyper(&daemon, ["pause", "--to-disk", "b", "c"])).check(0, "b\nc\n", "");
    run(&mut hyper(&daemon, ["unpause", "a"])).check(0, "a\n", "");
    assert_eq!(
        daemon.requests(),
        [
            "POST /v1/containers/a/pause?to_disk=false",
            "POST /v1/containers/b/pause?to_disk=true",
            "POST /v1/containers/c/pause?to_disk=true",
            "POST /v1/containers/a/unpause",
        ]
    );
    let unable = ErrorBody::new(ErrorKind::Unsupported, "qemu-tcg cannot put memory on disk");
    daemon.refuse("POST /v1/containers/a/pause?to_disk=true", &unable);
    run(&mut hyper(&daemon, ["pause", "--to-disk", "a"])).check(
        1,
        "",
        "error: cannot pause a: qemu-tcg cannot put memory on disk\n",
    );
}
