// SPDX-License-Identifier: Apache-2.0
//! A private installation.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::{Output, has_program, is_alive, processes_naming, processes_using, skip, until};

/// A private installation with its own daemon.
#[derive(Debug)]
pub struct Host {
    // Unmounted after the daemon has ended and before the folder is removed, by the order of fields.
    mount: Option<Mount>,
    dir: TempDir,
    bin: PathBuf,
    lib: Option<PathBuf>,
}

impl Host {
    /// A fresh installation, or `None`, with the reason told, where pods cannot run here.
    pub fn new() -> Option<Host> {
        let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist").canonicalize();
        let Ok(dist) = dist else {
            skip("dist/ is not built; run `make test`");
            return None;
        };
        for file in ["bin/hyper", "bin/hyperd", "bin/hyper-pod", "lib/hyper/vmlinux"] {
            if !dist.join(file).exists() {
                skip("dist/ is not built; run `make test`");
                return None;
            }
        }
        if !has_program("qemu-system-x86_64") {
            skip("no qemu-system-x86_64");
            return None;
        }
        // Short, because sockets below it have a limit of 107 bytes.
        let dir = tempfile::Builder::new().prefix("hyper-t").tempdir_in("/tmp").unwrap();
        Some(Host { mount: None, dir, bin: dist.join("bin"), lib: None })
    }

    /// Takes the guest's kernel and init from a folder of the test's own, which begins with those of
    /// `dist/`, linked. Called before the first command.
    pub fn own_lib(&mut self) -> PathBuf {
        let own = self.path().join("lib");
        fs::create_dir(&own).unwrap();
        let dist = self.bin.join("../lib/hyper");
        for entry in fs::read_dir(dist).unwrap() {
            let entry = entry.unwrap();
            std::os::unix::fs::symlink(entry.path(), own.join(entry.file_name())).unwrap();
        }
        self.lib = Some(own.clone());
        own
    }

    /// Puts a memory disk of `mib` MiB below everything that the installation keeps, so that a test
    /// can fill it. Called before the first command, as root.
    pub fn limit_disk(&mut self, mib: u32) {
        fs::create_dir(self.data_dir()).unwrap();
        self.mount = Some(Mount::tmpfs(&self.data_dir(), mib));
    }

    /// Writes the daemon's configuration file. Called before the first command.
    pub fn configure(&self, text: &str) {
        fs::write(self.path().join("config.toml"), text).unwrap();
    }

    /// The folder of everything that the installation writes.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The programs and guest files, laid out as they are installed.
    pub fn dist(&self) -> &Path {
        self.bin.parent().unwrap()
    }

    /// The folder of images, disks and the database.
    pub fn data_dir(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The folder of sockets.
    pub fn runtime_dir(&self) -> PathBuf {
        self.path().join("run")
    }

    /// The folder of the programs.
    pub fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// A `hyper` command that has not been started.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(self.bin.join("hyper"));
        command
            .args(args)
            .env("HYPER_RUNTIME_DIR", self.runtime_dir())
            .env("HYPER_DATA_DIR", self.data_dir())
            .env("HYPER_CONFIG", self.path().join("config.toml"))
            .env_remove("HYPER_SOCKET")
            .stdin(Stdio::null());
        if let Some(lib) = &self.lib {
            command.env("HYPER_LIB", lib);
        }
        command
    }

    /// Runs a `hyper` command to its end.
    #[track_caller]
    pub fn hyper<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.command(args).output().unwrap().into()
    }

    /// Runs a `hyper` command to its end with `input` as its standard input.
    #[track_caller]
    pub fn hyper_with<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(&input); // The command may end before it has read everything.
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output.into()
    }

    /// Imports the image `busybox`.
    #[track_caller]
    pub fn busybox(&self) {
        self.hyper_with(
            ["import", "--quiet", "--change", "CMD [\"sh\"]", "-", "busybox"],
            busybox_root(),
        )
        .ok();
    }

    /// What `hyper inspect` says of one thing.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> Value {
        let text = self.hyper(["inspect", name]).ok();
        let list: Value = serde_json::from_str(&text).unwrap();
        list[0].clone()
    }

    /// Waits until a container is in `state`.
    #[track_caller]
    pub fn until_state(&self, name: &str, state: &str) {
        until(&format!("{name} is {state}"), || self.inspect(name)["state"] == state);
    }

    /// The daemon's process id; a daemon is started where none runs.
    #[track_caller]
    pub fn daemon_pid(&self) -> u32 {
        let text = self.hyper(["version", "--format", "json"]).ok();
        let version: Value = serde_json::from_str(&text).unwrap();
        let pid = &version["server"]["pid"];
        u32::try_from(pid.as_u64().unwrap_or_else(|| panic!("{version}"))).unwrap()
    }

    /// Kills the daemon. The next command starts another.
    #[track_caller]
    pub fn kill_daemon(&self) {
        let daemon = self.daemon_pid();
        crate::kill(daemon);
        until("the daemon is dead", || !is_alive(daemon));
    }

    /// What the daemon has to say.
    pub fn daemon_log(&self) -> String {
        fs::read_to_string(self.runtime_dir().join("hyperd.log")).unwrap_or_default()
    }

    /// The process that owns a container's VM.
    #[track_caller]
    pub fn pod_pid(&self, name: &str) -> u32 {
        let container = self.inspect(name);
        let pid = &container["pod_pid"];
        u32::try_from(pid.as_u64().unwrap_or_else(|| panic!("{container}"))).unwrap()
    }

    /// Fails the test unless nothing of any container is left: no process, socket, disk or row.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert_eq!(self.hyper(["ps", "--all", "--quiet"]).ok(), "", "containers are left");
        let pods = self.data_dir().join("pods");
        until("no process of a pod is left", || {
            let pods = pods.display().to_string();
            processes_naming(&pods).is_empty() && processes_using(&pods).is_empty()
        });
        for dir in [pods, self.runtime_dir().join("pods")] {
            let left: Vec<_> = fs::read_dir(&dir)
                .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
                .unwrap_or_default();
            assert!(left.is_empty(), "left over: {left:?}");
        }
    }
}

impl Drop for Host {
    #[expect(clippy::print_stderr, reason = "cargo shows it with the test that failed")]
    fn drop(&mut self) {
        if !self.runtime_dir().join("hyperd.sock").exists() {
            return;
        }
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.daemon_log());
        }
        let ids = self.hyper(["ps", "--all", "--quiet"]).stdout;
        let ids: Vec<_> = ids.lines().collect();
        if !ids.is_empty() {
            let args = ["rm", "--force"].into_iter().chain(ids);
            let _ = self.hyper(args); // What it leaves is found below.
        }
        let daemon = self.daemon_pid();
        let pid = i32::try_from(daemon).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        until("the daemon ends when it is asked to", || !is_alive(daemon));
        if !std::thread::panicking() {
            let own = self.path().display().to_string();
            until("no process of the installation is left", || processes_naming(&own).is_empty());
        }
    }
}

/// A file system that is mounted for as long as this lives.
#[derive(Debug)]
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(dir: &Path, mib: u32) -> Mount {
        let options = format!("size={mib}m,mode=0700");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "hyper-test"])
            .arg(dir)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Mount(dir.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, so that a failed test leaves no mount either.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The tar of a small root file system, made once.
fn busybox_root() -> &'static [u8] {
    static ROOT: OnceLock<Vec<u8>> = OnceLock::new();
    ROOT.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/busybox-root");
        let output = Command::new(script).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    })
}
