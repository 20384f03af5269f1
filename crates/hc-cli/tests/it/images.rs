// SPDX-License-Identifier: Apache-2.0
//! `pull`, `load`, `import`, and the pull that `run` does by itself.

use std::process::Stdio;

use hc_api::{ErrorBody, ErrorKind, ImageProgress, ImageRef};

use crate::daemon::Daemon;
use crate::program::{feed, finish, hyper, run};

fn lines(lines: &[ImageProgress]) -> String {
    lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
}

fn step(what: &str, done_bytes: u64) -> ImageProgress {
    ImageProgress::Step { what: what.into(), done_bytes, total_bytes: Some(10) }
}

fn done(names: &[&str]) -> ImageProgress {
    let names = names.iter().map(ToString::to_string).collect();
    ImageProgress::Done { images: vec![ImageRef { id: "sha256:1a".into(), names }] }
}

#[test]
fn a_pull_says_each_step_once_and_prints_the_name() {
    let daemon = Daemon::idle();
    let body = lines(&[step("a", 1), step("b", 1), step("a", 9), step("b", 9), done(&["r/x:1"])]);
    daemon.answer_bytes("POST /v1/images/pull", 200, body);
    run(&mut hyper(&daemon, ["pull", "x:1"])).check(0, "r/x:1\n", "a\nb\n");
    run(&mut hyper(&daemon, ["pull", "-q", "x:1"])).check(0, "r/x:1\n", "");
}

#[test]
fn a_pull_that_fails_or_breaks_off_is_an_error() {
    let daemon = Daemon::idle();
    let failed = ErrorBody::new(ErrorKind::NotFound, "no such tag").with_hint("look again");
    let body = lines(&[step("a", 1), ImageProgress::Failed(failed)]);
    daemon.answer_bytes("POST /v1/images/pull", 200, body);
    run(&mut hyper(&daemon, ["pull", "x"])).check(
        1,
        "",
        "a\nerror: cannot pull x: no such tag\nhint: look again\n",
    );
    daemon.answer_bytes("POST /v1/images/pull", 200, lines(&[step("a", 1)]));
    let done = run(&mut hyper(&daemon, ["pull", "x"]));
    assert_eq!(done.status, 1);
    assert!(done.stderr.contains("it broke off in the middle"), "{}", done.stderr);
}

#[test]
fn the_users_credentials_go_into_the_body() {
    let daemon = Daemon::idle();
    let config = r#"{"auths": {"r.example": {"auth": "dTpw"}}}"#;
    std::fs::write(daemon.folder().join("config.json"), config).unwrap();
    daemon.answer_bytes("POST /v1/images/pull", 200, lines(&[done(&[])]));
    run(&mut hyper(&daemon, ["pull", "r.example/x"])).check(0, "sha256:1a\n", "");
    assert_eq!(
        daemon.body("POST /v1/images/pull"),
        r#"{"reference":"r.example/x","authorization":"dTpw"}"#
    );
}

#[test]
fn run_pulls_what_is_missing_unless_told_not_to() {
    let daemon = Daemon::idle();
    let missing = ErrorBody::new(ErrorKind::NotFound, "no such image: x");
    daemon.refuse("POST /v1/containers", &missing);
    run(&mut hyper(&daemon, ["run", "--pull", "never", "x"])).check(
        125,
        "",
        "error: no such image: x\n",
    );
    assert!(!daemon.was_asked("POST /v1/images/pull"));
    daemon.answer_bytes("POST /v1/images/pull", 200, lines(&[step("pulling", 1), done(&["x"])]));
    // It is still missing after the pull: the second answer counts.
    run(&mut hyper(&daemon, ["run", "x"])).check(125, "", "pulling\nerror: no such image: x\n");
    assert_eq!(
        daemon.requests()[1..],
        ["POST /v1/containers", "POST /v1/images/pull", "POST /v1/containers",]
    );
}

#[test]
fn run_with_pull_always_pulls_first() {
    let daemon = Daemon::idle();
    daemon.answer_bytes("POST /v1/images/pull", 200, lines(&[done(&["x"])]));
    run(&mut hyper(&daemon, ["run", "--pull=always", "x"])).check(0, "", "");
    assert_eq!(daemon.requests()[..2], ["POST /v1/images/pull", "POST /v1/containers"]);
}

#[test]
fn archives_are_loaded_from_files_and_pipes() {
    let daemon = Daemon::idle();
    daemon.answer_bytes("POST /v1/images/load", 200, lines(&[done(&["a:1", "b:2"])]));
    let file = daemon.folder().join("image.tar");
    std::fs::write(&file, "an archive").unwrap();
    run(&mut hyper(&daemon, ["load", "-i", file.to_str().unwrap()])).check(
        0,
        "Loaded image: a:1\nLoaded image: b:2\n",
        "",
    );
    assert_eq!(daemon.body("POST /v1/images/load"), "an archive");
    let mut child = hyper(&daemon, ["load", "-q"]).stdin(Stdio::piped()).spawn().unwrap();
    feed(&mut child, vec![b'x'; 1 << 20]);
    assert_eq!(finish(child).status, 0);
    run(&mut hyper(&daemon, ["load", "-i", "/no/such/file"])).check(
        1,
        "",
        "error: cannot read /no/such/file: No such file or directory (os error 2)\n",
    );
}

#[test]
fn import_sends_the_configuration_and_prints_the_id() {
    let daemon = Daemon::idle();
    let query = "POST /v1/images/import?name=box%3A1&config=%7B%22Cmd%22%3A%5B%22sh%22%5D%7D";
    daemon.answer_bytes(query, 200, lines(&[done(&["box:1"])]));
    let file = daemon.folder().join("root.tar");
    std::fs::write(&file, "a root").unwrap();
    let args = ["import", "-c", r#"CMD ["sh"]"#, file.to_str().unwrap(), "box:1"];
    run(&mut hyper(&daemon, args)).check(0, "sha256:1a\n", "");
    assert_eq!(daemon.body(query), "a root");
    run(&mut hyper(&daemon, ["import", "-m", "words", "-", "box:1"])).check(
        1,
        "",
        "error: --message: images keep no commit messages\n",
    );
}

#[test]
fn names_and_images_are_removed_and_tagged() {
    let daemon = Daemon::idle();
    let removed = serde_json::json!({"untagged": ["a:1"], "deleted": ["sha256:1a"]});
    daemon.answer("DELETE /v1/images?name=a&force=false", 200, &removed);
    daemon.refuse(
        "DELETE /v1/images?name=b&force=false",
        &ErrorBody::new(ErrorKind::InvalidState, "container web uses it"),
    );
    run(&mut hyper(&daemon, ["rmi", "b", "a"])).check(
        1,
        "Untagged: a:1\nDeleted: sha256:1a\n",
        "error: cannot remove image b: container web uses it\n",
    );
    run(&mut hyper(&daemon, ["tag", "a", "c:1"])).check(0, "", "");
    assert_eq!(daemon.body("POST /v1/images/tag"), r#"{"source":"a","target":"c:1"}"#);
}
