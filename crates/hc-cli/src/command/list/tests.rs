// SPDX-License-Identifier: Apache-2.0
use expect_test::{Expect, expect};
use hc_api::{ContainerState, Port};

use super::*;

fn container(state: ContainerState) -> ContainerSummary {
    ContainerSummary {
        id: "a1".repeat(32),
        name: "web".into(),
        pod: "b2".repeat(32),
        image: "docker.io/library/busybox:latest".into(),
        image_id: format!("sha256:{}", "c3".repeat(32)),
        command: vec!["sh".into(), "-c".into(), "while true; do sleep 1; done".into()],
        created: "2024-05-01T11:58:00Z".parse().unwrap(),
        state,
        started: Some("2024-05-01T11:59:00Z".parse().unwrap()),
        finished: Some("2024-05-01T11:59:50Z".parse().unwrap()),
        exit_status: (state == ContainerState::Exited).then_some(3),
        ports: vec![Port { host_port: 8080, container_port: 80, ..Port::default() }],
        labels: [("a", "b"), ("c", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
    }
}

fn row(state: ContainerState, whole: bool) -> Value {
    container_row(&container(state), whole, "2024-05-01T12:00:00Z".parse().unwrap(), &TimeZone::UTC)
}

#[track_caller]
fn check(value: &Value, expected: Expect) {
    expected.assert_eq(&serde_json::to_string_pretty(value).unwrap());
}

#[test]
fn a_row_has_what_docker_shows() {
    check(
        &row(ContainerState::Running, false),
        expect![[r#"
        {
          "Command": "\"sh -c while true; d…\"",
          "CreatedAt": "2024-05-01 11:58:00 +0000 UTC",
          "ExitCode": null,
          "ID": "a1a1a1a1a1a1",
          "Image": "docker.io/library/busybox:latest",
          "Labels": "a=b,c=",
          "Names": "web",
          "Pod": "b2b2b2b2b2b2",
          "Ports": "0.0.0.0:8080->80/tcp",
          "RunningFor": "2 minutes ago",
          "State": "running",
          "Status": "Up About a minute"
        }"#]],
    );
    check(
        &row(ContainerState::Exited, true),
        expect![[r#"
        {
          "Command": "\"sh -c while true; do sleep 1; done\"",
          "CreatedAt": "2024-05-01 11:58:00 +0000 UTC",
          "ExitCode": 3,
          "ID": "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
          "Image": "docker.io/library/busybox:latest",
          "Labels": "a=b,c=",
          "Names": "web",
          "Pod": "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2",
          "Ports": "0.0.0.0:8080->80/tcp",
          "RunningFor": "2 minutes ago",
          "State": "exited",
          "Status": "Exited (3) 10 seconds ago"
        }"#]],
    );
}

#[test]
fn every_field_of_a_row_is_offered_to_templates() {
    let Value::Object(fields) = row(ContainerState::Created, false) else { unreachable!() };
    assert_eq!(fields.keys().map(String::as_str).collect::<Vec<_>>(), CONTAINER_FIELDS);
    assert!(CONTAINER_COLUMNS.iter().all(|(_, field)| CONTAINER_FIELDS.contains(field)));
    assert!(POD_COLUMNS.iter().all(|(_, field)| POD_FIELDS.contains(field)));
}

#[test]
fn filters_are_grouped_by_name_and_unknown_ones_refused() {
    let parse =
        |texts: &[&str]| filters(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(
        json!(parse(&["label=a=b", "label=c", "status=exited"]).unwrap()),
        json!({"label": ["a=b", "c"], "status": ["exited"]})
    );
    for wrong in ["", "name", "size=3"] {
        assert!(parse(&[wrong]).is_err(), "{wrong}");
    }
}
