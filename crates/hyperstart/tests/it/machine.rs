// SPDX-License-Identifier: Apache-2.0
//! A machine to boot `hyperstart` in: QEMU without KVM, our kernel, an initramfs of nothing but
//! this program, and a small image.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The serial of the disk with the image.
pub(crate) const IMAGE: &str = "rootfs";
/// The serial of the scratch disk.
pub(crate) const SCRATCH: &str = "scratch";

/// What is in place of the image and the scratch disk until there is a pod: serial, bytes, whether it
/// is read-only.
const PLACEHOLDERS: [(&str, u64, bool); 2] =
    [("placeholder0", 1 << 40, true), ("placeholder1", 32 << 20, false)];

/// The channel's usual form.
const PORT: &str = "virtserialport,chardev=c,name=org.hyper.channel.0";

/// What every machine is made of, built once for all tests.
struct Parts {
    kernel: PathBuf,
    initramfs: PathBuf,
    image: PathBuf,
    _directory: TempDir,
}

static PARTS: OnceLock<Result<Parts, String>> = OnceLock::new();

/// A machine that was copied and has ended.
pub(crate) struct Saved {
    machine: Machine,
}

impl Saved {
    /// Where its scratch disk lies.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.machine.scratch()
    }

    /// Has a copy go on from where the machine was, with devices of its own. As many of them as the
    /// machine had, and of the same kinds.
    pub(crate) fn wake(&self, devices: &Devices) -> Machine {
        let parts = PARTS.get().and_then(|parts| parts.as_ref().ok());
        Machine::start(parts.expect("a machine was booted"), devices, Some(&self.machine.state()))
    }
}

/// A running machine; it ends with this value.
pub(crate) struct Machine {
    /// The line to the guest.
    pub(crate) line: UnixStream,
    /// Takes further connections of the machine, after `line` was closed.
    pub(crate) listener: UnixListener,
    qemu: Child,
    directory: TempDir,
}

/// What a machine has besides the image.
#[derive(Default)]
pub(crate) struct Devices {
    /// Bytes of the scratch disk and of the file system on it; no disk if `None`.
    pub(crate) scratch: Option<(u64, u64)>,
    /// The disk that it is a copy of, if it is not new.
    pub(crate) scratch_of: Option<PathBuf>,
    /// Whether there is a network card, on QEMU's own network.
    pub(crate) network: bool,
    /// Whether there are two empty disks in place of the image and the scratch disk.
    pub(crate) placeholders: bool,
    /// Whether the channel is a console and not a port.
    pub(crate) console: bool,
    /// More words for the kernel.
    pub(crate) parameters: &'static str,
}

impl Machine {
    /// Boots a machine; `None`, with the reason printed, where that is not possible.
    pub(crate) fn boot(devices: &Devices) -> Option<Machine> {
        let parts = match PARTS.get_or_init(build) {
            Ok(parts) => parts,
            Err(reason) => {
                hc_testkit::skip(reason);
                return None;
            }
        };
        Some(Machine::start(parts, devices, None))
    }

    /// Copies the machine, memory and devices but no disks, and ends it.
    pub(crate) fn save(mut self) -> Saved {
        let mut monitor = UnixStream::connect(self.directory.path().join("monitor")).unwrap();
        read_prompt(&mut monitor);
        // It answers when everything is written.
        writeln!(monitor, "migrate \"exec:cat >{}\"", self.state().display()).unwrap();
        read_prompt(&mut monitor);
        self.end();
        Saved { machine: self }
    }

    fn start(parts: &Parts, devices: &Devices, state: Option<&Path>) -> Machine {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("channel");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-M", "microvm,x-option-roms=off,acpi=off,pit=on,rtc=on", "-cpu", "max"])
            .args(["-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(&parts.kernel)
            .arg("-initrd")
            .arg(&parts.initramfs)
            .arg("-append")
            .arg(format!("console=ttyS0 quiet panic=-1 reboot=t {}", devices.parameters))
            .arg("-serial")
            .arg(format!("file:{}", directory.path().join("console").display()))
            .arg("-monitor")
            .arg(format!("unix:{},server=on,wait=off", directory.path().join("monitor").display()))
            .args(["-device", "virtio-serial-device", "-chardev"])
            .arg(format!("socket,id=c,path={},server=off,reconnect=1", socket.display()))
            .args(["-device", if devices.console { "virtconsole,chardev=c" } else { PORT }]);
        if devices.placeholders {
            for (serial, len, read_only) in PLACEHOLDERS {
                let path = directory.path().join(serial);
                fs::File::create(&path).unwrap().set_len(len).unwrap();
                qemu.args(disk(&path, serial, read_only));
            }
        } else {
            qemu.args(disk(&parts.image, IMAGE, true));
        }
        if let Some((disk_bytes, file_system_bytes)) = devices.scratch {
            let path = directory.path().join("scratch");
            match &devices.scratch_of {
                Some(disk) => drop(fs::copy(disk, &path).unwrap()),
                None => make_ext4(&path, disk_bytes, file_system_bytes),
            }
            qemu.args(disk(&path, SCRATCH, false));
        }
        if devices.network {
            qemu.args(["-netdev", "user,id=n", "-device"]);
            qemu.arg("virtio-net-device,netdev=n,mac=52:54:00:12:34:56");
        }
        if let Some(state) = state {
            qemu.arg("-incoming").arg(format!("exec:cat {}", state.display()));
        }
        let qemu = qemu.stdin(Stdio::null()).spawn().unwrap();
        let (line, _) = listener.accept().unwrap();
        Machine { line, listener, qemu, directory }
    }

    /// Where a copy of the machine lies.
    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Where the scratch disk lies.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.directory.path().join("scratch")
    }

    /// What the kernel wrote to its console.
    pub(crate) fn console(&self) -> String {
        fs::read_to_string(self.directory.path().join("console")).unwrap_or_default()
    }

    fn end(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }

    /// Whether the machine has ended by itself, waiting for it up to a deadline.
    pub(crate) fn ends(&mut self) -> bool {
        let deadline = std::time::Instant::now() + crate::host::PATIENCE;
        while std::time::Instant::now() < deadline {
            if let Some(status) = self.qemu.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("console:\n{}", self.console());
        }
    }
}

/// Reads from QEMU's monitor until it waits for a command.
fn read_prompt(monitor: &mut UnixStream) {
    const PROMPT: &[u8] = b"(qemu) ";
    monitor.set_read_timeout(Some(crate::host::PATIENCE)).unwrap();
    let mut said = Vec::new();
    while !said.ends_with(PROMPT) {
        let mut byte = [0];
        monitor.read_exact(&mut byte).unwrap();
        said.extend(byte);
    }
    let said = String::from_utf8_lossy(&said);
    assert!(!said.contains("rror"), "{said}");
}

fn disk(path: &Path, serial: &str, read_only: bool) -> Vec<String> {
    let read_only = if read_only { "on" } else { "off" };
    vec![
        "-drive".into(),
        format!("id={serial},if=none,format=raw,readonly={read_only},file={}", path.display()),
        "-device".into(),
        format!("virtio-blk-device,drive={serial},serial={serial}"),
    ]
}

/// Builds the guest's program, its initramfs and the image, or says what is missing.
fn build() -> Result<Parts, String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let kernel = workspace.join("dist/lib/hyper/vmlinux");
    if !kernel.exists() {
        return Err(format!("no kernel at {}", kernel.display()));
    }
    for (program, argument) in [("qemu-system-x86_64", "--version"), ("mkfs.erofs", "--help")] {
        if Command::new(program).arg(argument).output().is_err() {
            return Err(format!("no {program}"));
        }
    }
    let busybox = static_busybox().ok_or("no static busybox")?;
    let directory = tempfile::tempdir().unwrap();
    let initramfs = directory.path().join("initramfs");
    fs::write(&initramfs, archive(&fs::read(guest_program(&workspace)?).unwrap())).unwrap();
    let image = directory.path().join("image");
    crate::image::build(&busybox, &directory.path().join("root"), &image)?;
    Ok(Parts { kernel, initramfs, image, _directory: directory })
}

fn static_busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| fs::read(path).is_ok_and(|elf| is_static(&elf)))
}

/// Whether an ELF program names no loader (a segment of type `PT_INTERP`).
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u8 = 3;
    let number = |at: usize| usize::from(u16::from_le_bytes([elf[at], elf[at + 1]]));
    let (table, size, count) = (number(32), number(54), number(56));
    (0..count).all(|index| elf[table + index * size] != PT_INTERP)
}

/// Builds `hyperstart` as the guest gets it.
fn guest_program(workspace: &Path) -> Result<PathBuf, String> {
    let target = "x86_64-unknown-linux-gnu";
    let built = Command::new(env!("CARGO"))
        .current_dir(workspace)
        .args(["build", "--quiet", "--profile", "guest", "-p", "hyperstart", "--target", target])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .status();
    if !built.is_ok_and(|status| status.success()) {
        return Err("hyperstart cannot be built as a static program".into());
    }
    let directory = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), PathBuf::from);
    Ok(directory.join(target).join("guest/hyperstart"))
}

/// An initramfs in the "newc" form of cpio: this program as `/init`, and a console.
fn archive(init: &[u8]) -> Vec<u8> {
    let mut cpio = Vec::new();
    for (name, mode, device, contents) in [
        ("dev", 0o040_755, (0, 0), &[][..]),
        ("dev/console", 0o020_600, (5, 1), &[][..]),
        ("init", 0o100_755, (0, 0), init),
        ("TRAILER!!!", 0, (0, 0), &[][..]),
    ] {
        let (size, name_len) = (contents.len(), name.len() + 1);
        let (major, minor) = device;
        write!(
            cpio,
            "0707010000000{mode:09X}{:032X}{size:08X}{:016X}{major:08X}{minor:08X}\
             {name_len:08X}{:08X}{name}\0",
            1, 0, 0
        )
        .unwrap();
        cpio.resize(cpio.len().next_multiple_of(4), 0);
        cpio.extend(contents);
        cpio.resize(cpio.len().next_multiple_of(4), 0);
    }
    cpio
}

fn make_ext4(path: &Path, disk_bytes: u64, file_system_bytes: u64) {
    fs::File::create(path).unwrap().set_len(disk_bytes).unwrap();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-b", "4096", "-O", "has_journal"])
        .arg(path)
        .arg((file_system_bytes / 4096).to_string())
        .status();
    assert!(made.unwrap().success());
}
