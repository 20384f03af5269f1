// SPDX-License-Identifier: Apache-2.0
//! Commands that list, show or act on several things.

use expect_test::{Expect, expect};
use hc_api::stream::Frame;
use hc_api::{
    ContainerState, ContainerSummary, ErrorBody, ErrorKind, ImageSummary, PodSummary, Top, TopRow,
};
use jiff::{SignedDuration, Timestamp};

use crate::daemon::Daemon;
use crate::program::{hyper, run};

pub(crate) fn ago(seconds: i64) -> Timestamp {
    Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).unwrap()
}

fn container(name: &str, age: i64, state: ContainerState) -> ContainerSummary {
    ContainerSummary {
        id: name.repeat(32),
        name: name.into(),
        pod: "b0".repeat(32),
        image: "busybox".into(),
        image_id: "sha256:00".into(),
        command: vec!["sleep".into(), "1d".into()],
        created: ago(age),
        state,
        started: Some(ago(age)),
        finished: (state == ContainerState::Exited).then(|| ago(75)),
        exit_status: (state == ContainerState::Exited).then_some(137),
        ports: Vec::new(),
        labels: [("tier".to_owned(), "front".to_owned())].into(),
    }
}

fn two_containers() -> Daemon {
    let daemon = Daemon::idle();
    let running = container("aa", 7200, ContainerState::Running);
    let exited = container("bb", 180, ContainerState::Exited);
    daemon.answer("GET /v1/containers?all=false", 200, &[&running]);
    daemon.answer("GET /v1/containers?all=true", 200, &[running, exited]);
    daemon
}

#[track_caller]
pub(crate) fn check(daemon: &Daemon, args: &[&str], expected: Expect) {
    let done = run(&mut hyper(daemon, args));
    expected.assert_eq(&format!("{}{}[{}]", done.stdout, done.stderr, done.status));
}

#[test]
fn containers_are_listed_newest_first() {
    let daemon = two_containers();
    check(
        &daemon,
        &["ps"],
        expect![[r#"
        CONTAINER ID   IMAGE     COMMAND      CREATED       STATUS       PORTS   NAMES
        aaaaaaaaaaaa   busybox   "sleep 1d"   2 hours ago   Up 2 hours           aa
        [0]"#]],
    );
    check(
        &daemon,
        &["ls", "-a"],
        expect![[r#"
            CONTAINER ID   IMAGE     COMMAND      CREATED         STATUS                            PORTS   NAMES
            bbbbbbbbbbbb   busybox   "sleep 1d"   3 minutes ago   Exited (137) About a minute ago           bb
            aaaaaaaaaaaa   busybox   "sleep 1d"   2 hours ago     Up 2 hours                                aa
            [0]"#]],
    );
    check(
        &daemon,
        &["list", "-aq"],
        expect![[r"
        bbbbbbbbbbbb
        aaaaaaaaaaaa
        [0]"]],
    );
    check(
        &daemon,
        &["ps", "-l", "--format", "{{.Names}}: {{.Status}}"],
        expect![[r"
            bb: Exited (137) About a minute ago
            [0]"]],
    );
    check(
        &daemon,
        &["ps", "-a", "--format", "table {{.ID}}\\t{{.Names}}"],
        expect![[r"
        CONTAINER ID   NAMES
        bbbbbbbbbbbb   bb
        aaaaaaaaaaaa   aa
        [0]"]],
    );
    check(
        &daemon,
        &["ps", "--no-trunc", "--format", "{{.ID}} {{.Labels}}"],
        expect![[r"
        aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa tier=front
        [0]"]],
    );
    check(
        &daemon,
        &["ps", "--format", "{{.Size}}"],
        expect![[r#"
            error: --format: there is no field "Size" here
            hint: fields: .Command .CreatedAt .ExitCode .ID .Image .Labels .Names .Pod .Ports .RunningFor .State .Status
            [1]"#]],
    );
    let json = run(&mut hyper(&daemon, ["ps", "-a", "--format", "json"])).stdout;
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["Names"], "bb");
}

#[test]
fn filters_are_sent_as_json() {
    let daemon = Daemon::idle();
    let query = "GET /v1/containers?all=true&filters=%7B%22status%22%3A%5B%22exited%22%5D%7D";
    daemon.answer(query, 200, &[(); 0]);
    check(&daemon, &["ps", "-q", "--filter", "status=exited"], expect!["[0]"]);
    assert!(daemon.was_asked(query), "{:?}", daemon.requests());
    check(
        &daemon,
        &["ps", "--filter", "colour=red"],
        expect![[r#"
        error: --filter "colour=red" is not understood
        hint: write NAME=VALUE with one of ancestor, exited, id, label, name, status
        [1]"#]],
    );
}

#[test]
fn pods_and_images_are_listed() {
    let daemon = Daemon::idle();
    let pod = PodSummary {
        id: "b0".repeat(32),
        name: "web".into(),
        containers: vec!["web".into()],
        state: ContainerState::Running,
        driver: Some("qemu-tcg".into()),
        vcpus: 2,
        memory_mib: 512,
    };
    daemon.answer("GET /v1/pods", 200, &[pod]);
    check(
        &daemon,
        &["pods"],
        expect![[r"
        POD ID         NAME   STATE     DRIVER     CPUS   MEMORY   CONTAINERS
        b0b0b0b0b0b0   web    running   qemu-tcg   2      512MiB   web
        [0]"]],
    );
    let image = |id: &str, names: &[&str]| ImageSummary {
        id: format!("sha256:{}", id.repeat(32)),
        names: names.iter().map(ToString::to_string).collect(),
        created: Some(ago(86_400 * 3)),
        size_bytes: 7_800_000,
        rootfs_bytes: None,
    };
    let images = [image("1a", &["docker.io/library/busybox:latest", "box:1"]), image("2b", &[])];
    daemon.answer("GET /v1/images", 200, &images);
    check(
        &daemon,
        &["images"],
        expect![[r"
        REPOSITORY                  TAG      IMAGE ID       CREATED      SIZE
        <none>                      <none>   2b2b2b2b2b2b   3 days ago   7.8MB
        docker.io/library/busybox   latest   1a1a1a1a1a1a   3 days ago   7.8MB
        box                         1        1a1a1a1a1a1a   3 days ago   7.8MB
        [0]"]],
    );
    check(
        &daemon,
        &["images", "busybox", "--no-trunc"],
        expect![[r"
        REPOSITORY                  TAG      IMAGE ID                                                                  CREATED      SIZE
        docker.io/library/busybox   latest   sha256:1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a   3 days ago   7.8MB
        [0]"]],
    );
    check(
        &daemon,
        &["images", "-q"],
        expect![[r"
        2b2b2b2b2b2b
        1a1a1a1a1a1a
        [0]"]],
    );
}

#[test]
fn several_names_go_on_after_a_failure() {
    let daemon = Daemon::idle();
    let missing = ErrorBody::new(ErrorKind::NotFound, "no such container: nope");
    daemon.refuse("POST /v1/containers/nope/stop", &missing);
    daemon.refuse("DELETE /v1/containers/nope?force=false", &missing);
    daemon.refuse("DELETE /v1/containers/nope?force=true", &missing);
    check(
        &daemon,
        &["stop", "a", "nope", "b"],
        expect![[r"
        a
        b
        error: cannot stop nope: no such container: nope
        [1]"]],
    );
    check(
        &daemon,
        &["rm", "nope", "b"],
        expect![[r"
        b
        error: cannot remove nope: no such container: nope
        [1]"]],
    );
    check(
        &daemon,
        &["rm", "-f", "nope", "b"],
        expect![[r"
        b
        [0]"]],
    );
    check(
        &daemon,
        &["wait", "a", "b"],
        expect![[r"
        7
        7
        [0]"]],
    );
    check(
        &daemon,
        &["kill", "-s", "FISH", "a"],
        expect![[r#"
        error: --signal: unknown signal "FISH": use a name such as SIGTERM or a number from 1 to 64
        [1]"#]],
    );
}

#[test]
fn inspect_finds_containers_then_images() {
    let daemon = Daemon::idle();
    let value = serde_json::json!({"id": "aa", "exit_status": 3, "labels": {"a": "b"}});
    daemon.answer("GET /v1/containers/web", 200, &value);
    daemon.answer("GET /v1/images/inspect?name=box", 200, &serde_json::json!({"id": "sha256:1"}));
    check(
        &daemon,
        &["inspect", "web", "nope", "box"],
        expect![[r#"
        [
          {
            "exit_status": 3,
            "id": "aa",
            "labels": {
              "a": "b"
            }
          },
          {
            "id": "sha256:1"
          }
        ]
        error: no such container or image: nope
        [1]"#]],
    );
    check(
        &daemon,
        &["inspect", "-f", "{{.ExitStatus}} {{json .Labels}}", "web"],
        expect![[r#"
        3 {"a":"b"}
        [0]"#]],
    );
    check(
        &daemon,
        &["inspect", "--type", "image", "web"],
        expect![[r"
        []
        error: no such image: web
        [1]"]],
    );
}

#[test]
fn logs_keep_outputs_apart_and_can_show_times() {
    let daemon = Daemon::idle();
    let mut body = Vec::new();
    for (nanos, frame) in [
        (1_700_000_000_000_000_001, Frame::Stdout(b"one\ntw".to_vec())),
        (1_700_000_000_500_000_000, Frame::Stderr(b"bad\n".to_vec())),
        (1_700_000_001_000_000_000, Frame::Stdout(b"o\nthree\n".to_vec())),
    ] {
        Frame::Time(nanos).encode(&mut body);
        frame.encode(&mut body);
    }
    daemon.answer_bytes("GET /v1/containers/web/logs?follow=false", 200, body.clone());
    run(&mut hyper(&daemon, ["logs", "web"])).check(0, "one\ntwo\nthree\n", "bad\n");
    run(&mut hyper(&daemon, ["logs", "-t", "web"])).check(
        0,
        "2023-11-14T22:13:20.000000001Z one\n2023-11-14T22:13:20.000000001Z two\n\
         2023-11-14T22:13:21.000000000Z three\n",
        "2023-11-14T22:13:20.500000000Z bad\n",
    );
    let query = "GET /v1/containers/web/logs?follow=true&tail=5&since=2023-11-14T22%3A00%3A00Z";
    daemon.answer_bytes(query, 200, body);
    let args = ["logs", "-f", "--tail", "5", "--since", "2023-11-14T22:00:00Z", "web"];
    assert_eq!(run(&mut hyper(&daemon, args)).status, 0);
}

#[test]
fn processes_are_shown() {
    let daemon = Daemon::idle();
    let top = Top {
        processes: vec![TopRow {
            pid: 12,
            ppid: 1,
            uid: 0,
            state: 'S',
            cpu_millis: 61_000,
            started: "2023-11-14T22:13:20Z".parse().unwrap(),
            rss_bytes: 1 << 20,
            command: "sh \u{1b}[2J".into(),
        }],
    };
    daemon.answer("GET /v1/containers/web/top", 200, &top);
    check(
        &daemon,
        &["top", "web"],
        expect![[r"
        UID   PID   PPID   STATE   STIME   TIME       RSS    CMD
        0     12    1      S       22:13   00:01:01   1MiB   sh �[2J
        [0]"]],
    );
}

#[test]
fn one_sample_of_statistics_needs_two_of_the_daemons() {
    let daemon = Daemon::idle();
    let sample = |second: u32, cpu_usec: u64| {
        serde_json::json!({
            "id": "aa".repeat(32), "name": "web", "time": format!("2024-05-01T12:00:0{second}Z"),
            "cpu_usec": cpu_usec, "vcpus": 1, "memory_bytes": 1 << 20,
            "memory_limit_bytes": 1 << 22, "pids": 1, "block_read_bytes": 0,
            "block_write_bytes": 0, "network_rx_bytes": 0, "network_tx_bytes": 0
        })
    };
    let body = format!("{}\n{}\n", sample(1, 0), sample(2, 500_000));
    daemon.answer_bytes("GET /v1/containers/web/stats?stream=true", 200, body);
    let format = "{{.Name}} {{.CPUPerc}} {{.MemPerc}}";
    check(
        &daemon,
        &["stats", "--no-stream", "--format", format, "web"],
        expect![[r"
        web 50.00% 25.00%
        [0]"]],
    );
    check(
        &daemon,
        &["stats", "--no-stream", "nope"],
        expect![[r"
            error: cannot watch nope: nothing at GET /v1/containers/nope/stats?stream=true
            [1]"]],
    );
}
