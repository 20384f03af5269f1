// SPDX-License-Identifier: Apache-2.0
//! `hyper cp` and images that come and go as files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use hc_testkit::{Host, has_program, skip};
use serde_json::{Value, json};

#[test]
fn files_and_folders_are_copied_both_ways() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    host.hyper(["run", "-d", "--name", "c", "busybox", "sleep", "600"]).ok();
    let path = |name: &str| host.path().join(name).display().to_string();
    let copy = |from: &str, to: &str| host.hyper(["cp", "--quiet", from, to]);
    let inside = |script: &str| host.hyper(["exec", "c", "sh", "-c", script]).ok();

    let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    fs::create_dir_all(path("tree/sub")).unwrap();
    fs::write(path("tree/sub/data"), &data).unwrap();
    symlink("sub/data", path("tree/link")).unwrap();
    copy(&path("tree"), "c:/root").ok();
    assert_eq!(inside("wc -c </root/tree/sub/data; readlink /root/tree/link"), "3000000\nsub/data");
    copy("c:/root/tree", &path("back")).ok();
    assert_eq!(fs::read(path("back/sub/data")).unwrap(), data);
    assert_eq!(fs::read_link(path("back/link")).unwrap(), Path::new("sub/data"));
    copy("c:/etc/passwd", &path("passwd")).ok();
    assert_eq!(fs::read_to_string(path("passwd")).unwrap(), inside("cat /etc/passwd") + "\n");

    let tar = host.hyper_with(["cp", "-", "c:/tmp"], &tar_of(&[("piped", b"through a pipe")]));
    tar.ok();
    assert_eq!(inside("cat /tmp/piped"), "through a pipe");
    copy("c:/not-there", &path("x")).fails(1, "/not-there");
    copy(&path("not-there"), "c:/x").fails(1, "not-there");
    copy("not-there:/x", &path("x")).fails(1, "not-there");

    // Links are followed inside the container, however far up they say.
    inside("ln -s ../../../../../../tmp /root/up; ln -s /etc /root/absolute");
    fs::write(path("file"), "escaped?").unwrap();
    copy(&path("file"), "c:/root/up/by-link").ok();
    copy(&path("file"), "c:/root/absolute/by-link").ok();
    assert_eq!(inside("cat /tmp/by-link /etc/by-link"), "escaped?escaped?");
    assert!(!Path::new("/tmp/by-link").exists() && !Path::new("/etc/by-link").exists());
    copy("c:/root/absolute/by-link", &path("again")).ok();
    assert_eq!(fs::read_to_string(path("again")).unwrap(), "escaped?");
    host.hyper(["rm", "-f", "c"]).ok();
    host.assert_clean();
}

/// A tar archive of plain files.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let names = files.iter().map(|(name, _)| name);
    let output = Command::new("tar").arg("-cC").arg(dir.path()).args(names).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// What `docker save` writes of an image of one layer, which is busybox alone.
pub(crate) fn docker_archive(name: &str, command: &[&str]) -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("busybox");
    fs::write(&program, busybox).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let tar = Command::new("tar").arg("-cC").arg(dir.path()).arg("busybox").output().unwrap();
    let layer = tar.stdout;
    fs::write(dir.path().join("layer.tar"), &layer).unwrap();
    let sum = Command::new("sha256sum").arg(dir.path().join("layer.tar")).output().unwrap();
    let digest = String::from_utf8(sum.stdout).unwrap()[..64].to_owned();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": command, "Labels": {"made": "by hand"}},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    tar_of(&[
        ("config.json", config.to_string().as_bytes()),
        ("layer.tar", &layer),
        ("manifest.json", manifest.to_string().as_bytes()),
    ])
}

#[test]
fn images_are_loaded_named_inspected_and_removed() {
    let Some(host) = Host::new() else { return };
    let loaded = host
        .hyper_with(
            ["load", "--quiet"],
            &docker_archive("made/by:hand", &["/busybox", "echo", "it runs"]),
        )
        .ok();
    assert!(loaded.contains("made/by:hand"), "{loaded}");
    let names = || host.hyper(["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    assert_eq!(names(), "docker.io/made/by:hand");
    let image = host.inspect("made/by:hand");
    assert_eq!(image["command"], json!(["/busybox", "echo", "it runs"]), "{image}");
    assert_eq!(image["labels"], json!({"made": "by hand"}), "{image}");

    host.hyper(["tag", "made/by:hand", "other:1"]).ok();
    assert_eq!(names().lines().count(), 2);
    host.hyper(["rmi", "made/by:hand"]).ok();
    assert_eq!(names(), "docker.io/library/other:1");
    assert_eq!(host.hyper(["run", "--rm", "other:1"]).ok(), "it runs");
    host.hyper(["create", "--name", "user", "other:1"]).ok();
    host.hyper(["rmi", "other:1"]).fails(1, "is used by");
    host.hyper(["rm", "user"]).ok();
    host.hyper(["rmi", "other:1"]).ok();
    assert_eq!(names(), "");
    host.hyper(["rmi", "other:1"]).fails(1, "other:1");
    host.hyper_with(["load"], b"no archive").fails(1, "archive");
    assert_eq!(names(), "");
    host.assert_clean();
}

#[test]
fn an_archive_that_skopeo_made_is_loaded() {
    let Some(host) = Host::new() else { return };
    if !has_program("skopeo") {
        return skip("no skopeo");
    }
    let path = |name: &str| host.path().join(name).display().to_string();
    fs::write(path("docker.tar"), docker_archive("made/by:hand", &["/busybox", "echo", "it runs"]))
        .unwrap();
    let target = format!("oci-archive:{}:by/skopeo:2", path("oci.tar"));
    let copy = ["copy", "--insecure-policy", &format!("docker-archive:{}", path("docker.tar"))];
    let output = Command::new("skopeo").args(copy).arg(&target).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    host.hyper(["load", "--quiet", "--input", &path("oci.tar")]).ok();
    let list: Value =
        serde_json::from_str(&host.hyper(["images", "--format", "json"]).ok()).unwrap();
    assert_eq!(list["Tag"], "2", "{list}");
    assert_eq!(host.hyper(["run", "--rm", "by/skopeo:2"]).ok(), "it runs");
    host.assert_clean();
}
