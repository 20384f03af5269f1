// SPDX-License-Identifier: Apache-2.0
//! An image's way from an archive to something that can run, beside the tools that unpack it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hc_testkit::{Host, has_program, memory_kib};

use crate::table::{figure, group, median};

const ROUNDS: usize = 3;

pub(crate) fn measure(host: &Host, archive: Option<&str>) {
    group("import: a Debian image of three layers, loaded and made ready to run");
    let Some(archive) = archive.map(Path::new).filter(|path| path.exists()) else {
        return figure("no archive to load", "", "");
    };
    let size = archive.metadata().unwrap().len() >> 20;
    figure("archive", &format!("{size} MiB"), "");
    let ours = median((0..ROUNDS).map(|_| load(host, archive)).collect());
    figure("hyper load", &seconds(ours), "");
    let peak = memory_kib(host.daemon_pid(), "status", "VmHWM").unwrap_or_default() >> 10;
    figure("hyperd's peak memory", &format!("{peak} MiB"), "at most 64 MiB and 1 KiB a file");
    let mut best: Option<Duration> = None;
    for (name, peer) in [("podman load", podman as Peer), ("skopeo copy + umoci unpack", umoci)] {
        let Some(time) = peer(archive) else {
            figure(name, "not installed", "");
            continue;
        };
        figure(name, &seconds(time), "");
        best = Some(best.map_or(time, |best| best.min(time)));
    }
    if let Some(best) = best {
        let ratio = best.as_secs_f64() / ours.as_secs_f64();
        figure("times as fast as the fastest of them", &format!("{ratio:.1}"), "at least 2");
    }
}

type Peer = fn(&Path) -> Option<Duration>;

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn load(host: &Host, archive: &Path) -> Duration {
    let start = Instant::now();
    host.hyper(["load".as_ref(), "--quiet".as_ref(), "-i".as_ref(), archive.as_os_str()]).ok();
    let time = start.elapsed();
    host.hyper(["rmi", "bench/debian"]).ok();
    time
}

fn podman(archive: &Path) -> Option<Duration> {
    if !has_program("podman") {
        return None;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut command = Command::new("podman");
    command.arg("--root").arg(dir.path().join("root")).arg("--runroot").arg(dir.path().join("run"));
    command.args(["--storage-driver", "overlay", "load", "-q", "-i"]).arg(archive);
    let time = timed(&mut command);
    // Its overlay holds a mount, which a plain removal would stumble over.
    let _ = Command::new("podman")
        .arg("--root")
        .arg(dir.path().join("root"))
        .arg("--runroot")
        .arg(dir.path().join("run"))
        .args(["--storage-driver", "overlay", "system", "reset", "--force"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    time
}

fn umoci(archive: &Path) -> Option<Duration> {
    if !has_program("umoci") || !has_program("skopeo") {
        return None;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let layout = dir.path().join("oci");
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "-q", "--insecure-policy"]);
    copy.arg(format!("docker-archive:{}", archive.display()));
    copy.arg(format!("oci:{}:bench", layout.display()));
    let copied = timed(&mut copy)?;
    let mut unpack = Command::new("umoci");
    unpack.args(["unpack", "--image"]).arg(format!("{}:bench", layout.display()));
    unpack.arg(dir.path().join("bundle"));
    if !hc_testkit::is_root() {
        unpack.arg("--rootless");
    }
    Some(copied + timed(&mut unpack)?)
}

/// How long a command takes, if it succeeds.
fn timed(command: &mut Command) -> Option<Duration> {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    status.success().then(|| start.elapsed())
}
