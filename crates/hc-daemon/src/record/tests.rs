// SPDX-License-Identifier: Apache-2.0
use hc_api::{Port, TmpfsMount};

use super::*;

fn identity() -> Identity {
    Identity { id: Id::from_bytes([0xaa; 32]), pod: Id::from_bytes([0xbb; 32]) }
}

fn image() -> ImageConfig {
    let document = br#"{"architecture":"amd64","os":"linux","config":{
        "Entrypoint":["/entry"],"Cmd":["serve","--all"],"Env":["PATH=/bin","MODE=image"],
        "WorkingDir":"/srv","User":"app","Labels":{"from":"image","tier":"back"},
        "StopSignal":"SIGQUIT"},"rootfs":{"type":"layers","diff_ids":[
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;
    ImageConfig::parse(document, &hc_image::Limits::default()).unwrap()
}

fn resolve_with(request: CreateContainer, image: &ImageConfig) -> Result<Record> {
    let facts = ImageFacts {
        id: "sha256:1234".into(),
        chain_id: "sha256:00112233445566778899aabbccddeeff".into(),
        config: image,
    };
    Record::resolve(&identity(), request, &facts, &Config::default(), Timestamp::UNIX_EPOCH)
}

#[track_caller]
fn resolve(request: CreateContainer) -> Record {
    resolve_with(request, &image()).unwrap()
}

#[track_caller]
fn refused(request: CreateContainer, part: &str) {
    let Failure(error) = resolve_with(request, &image()).unwrap_err();
    assert_eq!(error.kind, hc_api::ErrorKind::InvalidArgument);
    assert!(error.message.contains(part), "no {part:?} in {:?}", error.message);
}

fn own(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_request_is_what_the_image_says() {
    let record = resolve(CreateContainer::default());
    let process = &record.spec.process;
    assert_eq!(process.args, ["/entry", "serve", "--all"]);
    assert_eq!(process.env, ["PATH=/bin", "MODE=image"]);
    assert_eq!((process.cwd.as_str(), process.user.as_str()), ("/srv", "app"));
    assert_eq!(record.spec.stop_signal.to_string(), "SIGQUIT");
    assert_eq!(record.labels["tier"], "back");
    assert_eq!(record.hostname, "aaaaaaaaaaaa");
    assert_eq!((record.vcpus, record.memory_mib), (1, 512));
    assert_eq!(record.stop_timeout_seconds, 10);
    assert_eq!(record.spec.rootfs, "00112233445566778899");
    assert_eq!(process.terminal, None);
    assert!(record.network().is_some());
}

#[test]
fn the_request_goes_over_the_image() {
    let record = resolve(CreateContainer {
        env: own(&["MODE=mine", "NEW=1"]),
        workdir: Some("/tmp".into()),
        user: Some("0:10".into()),
        stop_signal: Some("INT".into()),
        stop_timeout_seconds: Some(3),
        hostname: Some("box.example".into()),
        labels: [("from".into(), "request".into())].into(),
        terminal: true,
        ..CreateContainer::default()
    });
    let process = &record.spec.process;
    assert_eq!(process.env, ["PATH=/bin", "MODE=mine", "NEW=1"]);
    assert_eq!((process.cwd.as_str(), process.user.as_str()), ("/tmp", "0:10"));
    assert_eq!(record.spec.stop_signal, Signal::INT);
    assert_eq!(record.stop_timeout_seconds, 3);
    assert_eq!(record.hostname, "box.example");
    assert_eq!((&*record.labels["from"], &*record.labels["tier"]), ("request", "back"));
    assert_eq!(process.terminal, Some(WindowSize::default()));
}

#[test]
fn entrypoint_and_command_merge_as_in_docker() {
    type Words = &'static [&'static str];
    let table: [(Option<Words>, Words, Words); 5] = [
        (None, &[], &["/entry", "serve", "--all"]),
        (None, &["x"], &["/entry", "x"]),
        (Some(&["/mine"]), &[], &["/mine"]),
        (Some(&["/mine"]), &["x"], &["/mine", "x"]),
        (Some(&[]), &["x", "y"], &["x", "y"]),
    ];
    for (entrypoint, command, expected) in table {
        let record = resolve(CreateContainer {
            entrypoint: entrypoint.map(own),
            command: own(command),
            ..CreateContainer::default()
        });
        assert_eq!(record.spec.process.args, expected);
    }
    refused(
        CreateContainer { entrypoint: Some(Vec::new()), ..CreateContainer::default() },
        "no command",
    );
}

#[test]
fn the_vm_is_as_large_as_the_container_needs() {
    let table = [
        (Some(1), None, (1, 512)),
        (Some(1500), None, (2, 512)),
        (Some(4000), Some(1 << 30), (4, 1024 + 64)),
        (None, Some(6 << 20), (1, 70)),
        (None, Some((100 << 20) + 1), (1, 101 + 64)),
    ];
    for (cpu_millis, memory_bytes, expected) in table {
        let record =
            resolve(CreateContainer { cpu_millis, memory_bytes, ..CreateContainer::default() });
        assert_eq!((record.vcpus, record.memory_mib), expected);
        assert_eq!(record.spec.limits.cpu_millis, cpu_millis);
        assert_eq!(record.spec.limits.memory_bytes, memory_bytes);
    }
    refused(CreateContainer { cpu_millis: Some(0), ..CreateContainer::default() }, "0 CPUs");
    refused(CreateContainer { cpu_millis: Some(999_000), ..CreateContainer::default() }, "999");
    refused(CreateContainer { memory_bytes: Some(1), ..CreateContainer::default() }, "6m");
    refused(
        CreateContainer { memory_bytes: Some(u64::MAX), ..CreateContainer::default() },
        "any VM",
    );
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let base = CreateContainer::default;
    refused(CreateContainer { env: own(&["NOVALUE"]), ..base() }, "NOVALUE");
    refused(CreateContainer { env: own(&["=x"]), ..base() }, "=x");
    refused(CreateContainer { command: own(&["a\0b"]), ..base() }, "zero byte");
    refused(CreateContainer { workdir: Some("here".into()), ..base() }, "absolute");
    refused(CreateContainer { hostname: Some("a b".into()), ..base() }, "a b");
    refused(CreateContainer { hostname: Some("x".repeat(65)), ..base() }, "host name");
    refused(CreateContainer { cap_add: own(&["FLY"]), ..base() }, "FLY");
    refused(CreateContainer { stop_signal: Some("SIGWHAT".into()), ..base() }, "SIGWHAT");
    let tmpfs = TmpfsMount { path: "tmp".into(), options: String::new() };
    refused(CreateContainer { tmpfs: vec![tmpfs], ..base() }, "tmp");
    let ulimit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
    refused(CreateContainer { ulimits: vec![ulimit("files", 1, 1)], ..base() }, "files");
    refused(CreateContainer { ulimits: vec![ulimit("nofile", 2, 1)], ..base() }, "nofile");
    let port = Port { container_port: 80, ..Port::default() };
    let none = NetworkMode::None;
    refused(CreateContainer { publish: vec![port], network: none, ..base() }, "--network none");
    refused(CreateContainer { publish: vec![Port::default()], ..base() }, "container port");
    refused(CreateContainer { allow_host: true, network: none, ..base() }, "--network none");
}

#[test]
fn an_image_that_says_nothing_runs_as_root_in_the_root_directory() {
    let bare = ImageConfig {
        entrypoint: Vec::new(),
        cmd: own(&["sh"]),
        working_dir: Some(String::new()),
        user: Some(String::new()),
        stop_signal: None,
        ..image()
    };
    let record = resolve_with(CreateContainer::default(), &bare).unwrap();
    assert_eq!((&*record.spec.process.cwd, &*record.spec.process.user), ("/", ""));
    assert_eq!(record.spec.stop_signal, Signal::TERM);
}
