// SPDX-License-Identifier: Apache-2.0
//! QEMU's command line as a pure function of a machine.
//!
//! Why each option is what it is, with figures, is in `docs/decisions/0002-qemu-microvm.md`.

use std::os::fd::RawFd;

use hc_vmm::{Access, CHANNEL_NAME, Transport};
use hc_vmm_process::Wires;
use serde_json::{Value, json};

/// What every kernel needs to be told about this machine, whatever the pod wants of it.
///
/// A reset is how a guest ends the VM, so a panic has to lead to one, at once (`panic=-1`), and it
/// has to be the kind that works on a machine without ACPI and keyboard controller (`reboot=t`).
const KERNEL_PARAMETERS: &str = "console=ttyS0 reboot=t panic=-1";

/// What the quick machine lacks, so that a kernel does not look for it, nor complains.
const MMIO_PARAMETERS: &str = "acpi=off";

/// What a kernel does in vain on an emulated processor: test its timer by waiting for it, which is a
/// panic if the host is busy just then, measure that timer, and guard against a processor that
/// speculates. Only the project's own kernel can be told the timer's rate; others ignore it.
const EMULATED_PARAMETERS: &str = "no_timer_check lapic_timer_khz=1000000 mitigations=off";

/// The emulated processor: all that QEMU can do, but for fast string copies, which it does byte by
/// byte. Its name is one that Linux knows to have a counter of constant rate, so that it measures no
/// processor's speed after the first one's.
const EMULATED_PROCESSOR: &str = "max,vendor=GenuineIntel,family=6,model=85,stepping=7,-erms,-fsrm";

/// The name of the guest's memory.
pub(crate) const MEMORY: &str = "memory";

/// Room for translated code. It grows with the amount of code that a guest runs: booting takes 22 MiB
/// of it. QEMU's own limit is 1 GiB, which would be the larger part of most pods.
const TRANSLATIONS_MIB: u32 = 256;

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor, by KVM.
    Kvm,
    /// QEMU's own translator: works everywhere, ten times slower or worse.
    Tcg,
}

/// A machine, with all that QEMU is to open as the numbers of descriptors it inherits.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) name: &'a str,
    pub(crate) accelerator: Accelerator,
    pub(crate) transport: Transport,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) origin: Origin<'a>,
    /// QEMU's ends of the streams.
    pub(crate) wires: Wires,
    pub(crate) card: Option<Card>,
    pub(crate) disks: Vec<Drive<'a>>,
}

/// Where the guest comes from.
#[derive(Debug)]
pub(crate) enum Origin<'a> {
    /// It boots.
    Boot {
        kernel: RawFd,
        initramfs: RawFd,
        parameters: &'a str,
        /// The rate of the time stamp counter, for a guest that cannot measure it.
        counter_khz: Option<u64>,
    },
    /// It goes on from this state, in a copy of this memory.
    Saved { memory: RawFd, state: RawFd },
}

/// A network card, with its hardware address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Card {
    pub(crate) mac: [u8; 6],
    pub(crate) backend: Backend,
}

/// What a card's frames go through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backend {
    /// A stream socket.
    Stream(RawFd),
    /// A tap device.
    Tap(RawFd),
}

#[derive(Debug)]
pub(crate) struct Drive<'a> {
    pub(crate) file: RawFd,
    pub(crate) id: &'a str,
    pub(crate) access: Access,
}

/// The two layers behind a disk: the device sees `diskN`, below which the file can be exchanged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layers {
    pub(crate) number: usize,
    pub(crate) access: Access,
}

impl Layers {
    /// The upper layer's name.
    pub(crate) fn name(self) -> String {
        format!("disk{}", self.number)
    }

    /// The name of the lower layer for the file in descriptor set `set`.
    pub(crate) fn file_name(set: usize) -> String {
        format!("file{set}")
    }

    /// That layer.
    pub(crate) fn file(self, set: usize) -> Value {
        let mut layer = self.layer("file", &Layers::file_name(set));
        layer["filename"] = json!(format!("/dev/fdset/{set}"));
        // The caller owns the file; a lock would tell QEMU nothing and cost calls.
        layer["locking"] = json!("off");
        layer
    }

    /// The upper layer, above it.
    pub(crate) fn disk(self, set: usize) -> Value {
        let mut layer = self.layer("raw", &self.name());
        layer["file"] = json!(Layers::file_name(set));
        layer
    }

    fn layer(self, driver: &str, name: &str) -> Value {
        json!({
            "driver": driver,
            "node-name": name,
            "read-only": self.access == Access::ReadOnly,
            // What the guest trims is given back to the host.
            "discard": "unmap",
            "cache": { "no-flush": self.access == Access::Scratch },
        })
    }
}

impl Machine<'_> {
    /// The arguments, without the program.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut line = Line::default();
        self.basics(&mut line);
        self.streams(&mut line);
        for (number, drive) in self.disks.iter().enumerate() {
            self.drive(&mut line, number, drive);
        }
        line.arguments
    }

    fn basics(&self, line: &mut Line) {
        line.flag("-nodefaults").flag("-no-user-config").flag("-no-reboot");
        line.option("-display", "none");
        line.option(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        );
        line.option("-name", format!("guest={}", escape(self.name)));
        line.option("-machine", self.board());
        match self.accelerator {
            Accelerator::Kvm => line.option("-accel", "kvm").option("-cpu", "host"),
            Accelerator::Tcg => line
                .option("-accel", format!("tcg,tb-size={TRANSLATIONS_MIB}"))
                .option("-cpu", EMULATED_PROCESSOR),
        };
        line.option("-smp", self.vcpus.to_string());
        line.option("-m", format!("{}M", self.memory_mib));
        line.json("-object", self.memory());
        match self.origin {
            Origin::Boot { kernel, initramfs, parameters, counter_khz } => line
                .option("-kernel", format!("/proc/self/fd/{kernel}"))
                .option("-initrd", format!("/proc/self/fd/{initramfs}"))
                .option("-append", self.parameters(parameters, counter_khz)),
            // A command says where from.
            Origin::Saved { .. } => line.option("-incoming", "defer"),
        };
    }

    /// The guest's memory: an object of its own, so that it has the same name wherever it lives.
    fn memory(&self) -> Value {
        let size = u64::from(self.memory_mib) << 20;
        let mut memory = json!({ "id": MEMORY, "size": size, "dump": false });
        match self.origin {
            Origin::Boot { .. } => memory["qom-type"] = json!("memory-backend-ram"),
            Origin::Saved { memory: file, .. } => {
                memory["qom-type"] = json!("memory-backend-file");
                memory["mem-path"] = json!(format!("/proc/self/fd/{file}"));
                // What this guest changes stays its own.
                memory["share"] = json!(false);
            }
        }
        memory
    }

    /// The kernel's parameters, the pod's own last, so that they win.
    fn parameters(&self, own: &str, counter_khz: Option<u64>) -> String {
        let mut parameters = vec![KERNEL_PARAMETERS.to_owned()];
        if self.transport == Transport::Mmio {
            parameters.push(MMIO_PARAMETERS.to_owned());
        }
        if self.accelerator == Accelerator::Tcg {
            parameters.push(EMULATED_PARAMETERS.to_owned());
            parameters.extend(counter_khz.map(|khz| format!("tsc_early_khz={khz} tsc=reliable")));
            if self.vcpus == 1 {
                // A single processor does not need lock prefixes, but the emulator ignores them by
                // itself: taking them out only makes it translate the code again.
                parameters.push("noreplace-smp".to_owned());
            }
        }
        parameters.push(own.to_owned());
        parameters.join(" ")
    }

    fn board(&self) -> String {
        match self.transport {
            // Without ACPI, QEMU names the devices on the kernel's command line.
            Transport::Mmio => {
                format!("microvm,acpi=off,x-option-roms=off,memory-backend={MEMORY}")
            }
            Transport::Pci => format!("q35,usb=off,memory-backend={MEMORY}"),
        }
    }

    fn streams(&self, line: &mut Line) {
        let Wires { control, channel, console, network: _ } = self.wires;
        line.option("-chardev", format!("socket,id=control,fd={control}"));
        line.option("-mon", "chardev=control,mode=control");
        line.option("-chardev", format!("socket,id=console,fd={console}"));
        line.option("-serial", "chardev:console");
        line.device(self.virtio("serial"), json!({ "max_ports": 2 }));
        line.option("-chardev", format!("socket,id=channel,fd={channel}"));
        line.device("virtserialport", json!({ "chardev": "channel", "name": CHANNEL_NAME }));
        line.device(self.virtio("rng"), json!({}));
        line.device(self.virtio("balloon"), json!({ "free-page-reporting": true }));
        if let Some(Card { mac: [a, b, c, d, e, f], backend }) = self.card {
            let backend = match backend {
                Backend::Stream(stream) => {
                    format!("stream,id=card,addr.type=fd,addr.str={stream}")
                }
                // Without `vhost`, the host's kernel does not read the guest's queues.
                Backend::Tap(tap) => format!("tap,id=card,fd={tap},vhost=off"),
            };
            line.option("-netdev", backend);
            let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
            // Nobody needs to hear that a guest goes on: it is on a link of its own.
            let card = json!({ "netdev": "card", "mac": mac, "guest_announce": false });
            line.device(self.virtio("net"), card);
        }
    }

    fn drive(&self, line: &mut Line, number: usize, drive: &Drive<'_>) {
        let &Drive { file, id, access } = drive;
        let layers = Layers { number, access };
        line.option("-add-fd", format!("fd={file},set={number}"));
        line.json("-blockdev", layers.file(number));
        line.json("-blockdev", layers.disk(number));
        line.device(
            self.virtio("blk"),
            json!({
                "drive": layers.name(),
                "serial": id,
                // A full host disk is an error for the guest to deal with, not a stopped VM.
                "rerror": "report",
                "werror": "report",
            }),
        );
    }

    /// The name of a virtio device on this machine's bus.
    fn virtio(&self, kind: &str) -> String {
        match self.transport {
            Transport::Mmio => format!("virtio-{kind}-device"),
            Transport::Pci => format!("virtio-{kind}-pci"),
        }
    }
}

/// A growing command line.
#[derive(Default)]
struct Line {
    arguments: Vec<String>,
}

impl Line {
    fn flag(&mut self, name: &str) -> &mut Line {
        self.arguments.push(name.to_owned());
        self
    }

    fn option(&mut self, name: &str, value: impl Into<String>) -> &mut Line {
        self.arguments.extend([name.to_owned(), value.into()]);
        self
    }

    fn device(&mut self, driver: impl Into<String>, mut properties: Value) -> &mut Line {
        properties["driver"] = Value::String(driver.into());
        self.json("-device", properties)
    }

    /// JSON, where QEMU takes it, needs no escaping rules of QEMU's own.
    fn json(&mut self, name: &str, value: Value) -> &mut Line {
        self.option(name, value.to_string())
    }
}

/// A value inside a comma-separated option.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests;
