// SPDX-License-Identifier: Apache-2.0
//! `cp` through the API; what hostile archives may do is tested where they are extracted.

use std::io::Read;
use std::process::Stdio;

use hc_api::{ErrorBody, ErrorKind};

use crate::daemon::Daemon;
use crate::program::{feed, finish, hyper, run, status, wait};

/// An archive of a folder `d` with one file, as the guest packs it.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    builder.append_data(&mut header, "d", std::io::empty()).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(5);
    builder.append_data(&mut header, "d/file", &b"hello"[..]).unwrap();
    builder.into_inner().unwrap()
}

fn get(path: &str, follow: bool, stat: bool) -> String {
    let path = path.replace('/', "%2F");
    format!(
        "GET /v1/containers/web/archive?path={path}&follow={follow}&keep_owner=false&stat={stat}"
    )
}

fn put(path: &str, keep_owner: bool) -> String {
    let path = path.replace('/', "%2F");
    format!(
        "PUT /v1/containers/web/archive?path={path}&follow=false&keep_owner={keep_owner}&stat=false"
    )
}

#[test]
fn a_folder_comes_out_whole_or_as_its_content() {
    let daemon = Daemon::idle();
    daemon.answer_bytes(&get("/srv/d", false, false), 200, archive());
    daemon.answer_bytes(&get("/srv/d", true, false), 200, archive());
    let target = daemon.folder().join("out");
    std::fs::create_dir(&target).unwrap();
    let copy = |from: &str, to: &std::path::Path| {
        run(&mut hyper(&daemon, ["cp", from, to.to_str().unwrap()])).check(0, "", "");
    };
    copy("web:/srv/d", &target);
    assert_eq!(std::fs::read_to_string(target.join("d/file")).unwrap(), "hello");
    copy("web:/srv/d/.", &target);
    assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "hello");
    copy("web:srv/d", &target.join("new"));
    assert_eq!(std::fs::read_to_string(target.join("new/file")).unwrap(), "hello");
}

#[test]
fn an_archive_that_breaks_off_is_an_error() {
    let daemon = Daemon::idle();
    daemon.answer_bytes(&get("/d", false, false), 200, archive()[..1024 + 300].to_vec());
    let target = daemon.folder().join("out");
    let done = run(&mut hyper(&daemon, ["cp", "web:/d", target.to_str().unwrap()]));
    assert_eq!(done.status, 1);
    assert!(done.stderr.contains("the archive breaks off in the middle"), "{}", done.stderr);
}

#[test]
fn a_stream_passes_as_it_is() {
    let daemon = Daemon::idle();
    daemon.answer_bytes(&get("/d", false, false), 200, archive());
    let output = wait(hyper(&daemon, ["cp", "web:/d", "-"]).spawn().unwrap());
    assert_eq!(status(&output), 0);
    assert!(output.stdout == archive());
    daemon.answer_bytes(&put("/in", true), 200, "");
    let mut child =
        hyper(&daemon, ["cp", "-a", "-", "web:/in"]).stdin(Stdio::piped()).spawn().unwrap();
    feed(&mut child, b"any bytes".to_vec());
    finish(child).check(0, "", "");
    assert_eq!(daemon.body(&put("/in", true)), "any bytes");
}

#[test]
fn a_file_goes_in_under_the_name_that_dockers_rules_give_it() {
    let daemon = Daemon::idle();
    let file = daemon.folder().join("file");
    std::fs::write(&file, "hello").unwrap();
    let file = file.to_str().unwrap();
    let names = |request: &str| {
        let body = daemon.body(request);
        let mut archive = tar::Archive::new(body.as_bytes());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            format!("{} {content}", entry.path().unwrap().display())
        });
        entries.collect::<Vec<_>>().join(",")
    };
    // Into a folder that is there.
    daemon.answer_bytes(&get("/in", false, true), 200, "");
    daemon.answer_bytes(&put("/in", false), 200, "");
    run(&mut hyper(&daemon, ["cp", file, "web:/in"])).check(0, "", "");
    assert_eq!(names(&put("/in", false)), "file hello");
    // Under a new name.
    daemon.refuse(&get("/etc/new", false, true), &ErrorBody::new(ErrorKind::NotFound, "no"));
    daemon.answer("GET /v1/containers/web", 200, &container());
    daemon.answer_bytes(&put("/etc", false), 200, "");
    run(&mut hyper(&daemon, ["cp", file, "web:/etc/new"])).check(0, "", "");
    assert_eq!(names(&put("/etc", false)), "new hello");
}

/// The least that `inspect` says of a container.
fn container() -> serde_json::Value {
    serde_json::json!({
        "id": "a", "name": "web", "pod": "b", "image": "i", "image_id": "s", "command": [],
        "created": "2024-05-01T12:00:00Z", "state": "running", "started": null, "finished": null,
        "exit_status": null, "ports": [], "labels": {}, "config": {"image": "i"}, "user": "",
        "workdir": "/", "env": [], "hostname": "h", "capabilities": 0, "stop_signal": "SIGTERM",
        "stop_timeout_seconds": 10, "exit": null, "oom_killed": false, "error": "", "driver": null,
        "kernel": null, "vcpus": 1, "memory_mib": 64, "pod_pid": null, "pod_dir": "/p"
    })
}

#[test]
fn what_cannot_be_copied_is_refused() {
    let daemon = Daemon::idle();
    let check = |args: [&str; 2], error: &str| {
        let done = run(&mut hyper(&daemon, ["cp", args[0], args[1]]));
        assert_eq!(done.status, 1);
        let first = done.stderr.lines().next().unwrap_or_default();
        assert_eq!(first, format!("error: {error}"));
    };
    check(["a", "b"], "neither side is in a container");
    check(["a:/x", "b:/y"], "copying from one container to another is not supported");
    check(["web:", "b"], "\"web:\" is no CONTAINER:PATH");
    check(["/no/such", "web:/x"], "cannot copy /no/such: No such file or directory (os error 2)");
    check(["web:/nope", "/tmp"], &format!("nothing at {}", get("/nope", false, false)));
}
