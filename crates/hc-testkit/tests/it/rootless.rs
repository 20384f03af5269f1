// SPDX-License-Identifier: Apache-2.0
//! Who has which rights on the host: an ordinary user runs pods, and root's hypervisors have none.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use hc_testkit::{Host, Output, children_of, has_program, is_alive, is_root, skip, status, until};

/// The user and group that Debian calls `nobody` and `nogroup`.
const NOBODY: u32 = 65534;

#[test]
fn the_hypervisor_can_do_nothing_but_run_its_guest() {
    let Some(host) = Host::new() else { return };
    host.busybox();
    host.hyper(["run", "-d", "--name", "c", "busybox", "sleep", "600"]).ok();
    let qemu = children_of(host.pod_pid("c"));
    assert_eq!(qemu.len(), 1, "one pod, one VM, no other process");
    assert_eq!(status(qemu[0], "NoNewPrivs"), "1");
    assert_eq!(status(qemu[0], "Seccomp"), "2");
    assert_eq!(status(qemu[0], "CapEff"), "0000000000000000");
    if is_root() {
        for key in ["Uid", "Gid"] {
            let ids = status(qemu[0], key);
            assert!(ids.split('\t').all(|id| id != "0"), "{key} {ids}");
        }
        assert_eq!(status(qemu[0], "Groups"), "");
    }
    host.hyper(["rm", "-f", "c"]).ok();
    host.assert_clean();
}

/// An installation of a user that is nobody.
struct Nobodys {
    dir: tempfile::TempDir,
}

impl Nobodys {
    /// Copies the programs to where everybody can read them.
    fn new(host: &Host) -> Nobodys {
        let dir = tempfile::Builder::new().prefix("hyper-n").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = Command::new("cp")
            .args(["-rL", "--preserve=mode"])
            .arg(host.bin_dir())
            .arg(host.bin_dir().join("../lib"))
            .arg(dir.path())
            .output()
            .unwrap();
        assert!(copy.status.success(), "{copy:?}");
        for name in ["home", "run"] {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Nobodys { dir }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"])
            .arg(self.path().join("bin/hyper"))
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path().join("home"))
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn hyper(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap().into()
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn daemon_pid(&self) -> u32 {
        let version: serde_json::Value =
            serde_json::from_str(&self.hyper(&["version", "--format", "json"]).ok()).unwrap();
        u32::try_from(version["server"]["pid"].as_u64().unwrap()).unwrap()
    }
}

impl Drop for Nobodys {
    fn drop(&mut self) {
        let daemon = self.daemon_pid();
        for id in self.hyper(&["ps", "-aq"]).stdout.lines() {
            self.hyper(&["rm", "-f", id]);
        }
        hc_testkit::kill(daemon);
        until("the daemon is dead", || !is_alive(daemon));
    }
}

#[test]
fn an_ordinary_user_runs_pods_without_any_rights() {
    let Some(host) = Host::new() else { return };
    if !is_root() || !has_program("setpriv") {
        return skip("not root, who alone can become another user");
    }
    let nobodys = Nobodys::new(&host);
    let image = host.path().join("image");
    let archive = crate::copy::docker_archive("app:1", &["/busybox", "id", "-u"]);
    fs::write(&image, archive).unwrap();
    let load = nobodys.command(&["load", "--quiet"]).stdin(fs::File::open(image).unwrap()).output();
    Output::from(load.unwrap()).ok();

    let info = nobodys.hyper(&["info"]).ok();
    assert!(info.contains("Rootless:     yes"), "{info}");
    assert_eq!(nobodys.hyper(&["run", "--rm", "app:1"]).ok(), "0");

    let run = ["run", "-d", "--name", "c", "-p", "127.0.0.1:0:80", "app:1", "/busybox", "sleep"];
    nobodys.hyper(&[&run[..], &["600"]].concat()).ok();
    assert_eq!(nobodys.hyper(&["exec", "c", "/busybox", "echo", "hi"]).ok(), "hi");
    let inspected: serde_json::Value =
        serde_json::from_str(&nobodys.hyper(&["inspect", "c"]).ok()).unwrap();
    assert_ne!(inspected[0]["ports"][0]["host_port"], 0, "{inspected}");
    let pod = u32::try_from(inspected[0]["pod_pid"].as_u64().unwrap()).unwrap();
    for pid in [&[nobodys.daemon_pid(), pod][..], &children_of(pod)].concat() {
        assert_eq!(status(pid, "Uid"), [NOBODY; 4].map(|id| id.to_string()).join("\t"));
        assert_eq!(status(pid, "CapEff"), "0000000000000000");
    }
    nobodys.hyper(&["rm", "-f", "c"]).ok();
    assert_eq!(nobodys.hyper(&["ps", "-aq"]).ok(), "");
    let own = nobodys.path().join("home").display().to_string();
    until("no pod is left", || {
        hc_testkit::processes_naming(&own).iter().all(|pid| *pid == nobodys.daemon_pid())
    });
    host.assert_clean();
}
