// SPDX-License-Identifier: Apache-2.0
//! The driver: opens what a machine needs, and describes it to the program that is to be it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use hc_kernel::{Layout, LoadSegment};
use hc_monitor::config;
use hc_vmm::{
    Ability, Access, CHANNEL_NAME, Confinement, Driver, Error, Link, Nic, Result, Saved, Transport,
    Vm, VmSpec,
};
use hc_vmm_process::{ChildVm, Inherited, Plan, Streams, Wires, files};
use rustix::fs::MemfdFlags;

use crate::copier::Copier;
use crate::tap;

const DEVICE: &str = "/dev/kvm";

/// What every kernel needs to be told about this machine.
///
/// A reset is how a guest ends the VM, so a panic has to lead to one, at once (`panic=-1`), and it is
/// the keyboard controller that is asked for it (`reboot=k`). There is no ACPI and no PCI to look for.
const KERNEL_PARAMETERS: &str = "console=ttyS0 reboot=k panic=-1 acpi=off pci=off";

/// KVM, as this host has it.
#[derive(Clone, Debug)]
pub struct Kvm {
    program: PathBuf,
    abilities: BTreeSet<Ability>,
}

impl Kvm {
    /// Uses the `hyper-vmm` at `program`. Whether KVM works is the caller's to know.
    #[must_use]
    pub fn at(program: PathBuf) -> Kvm {
        let mut abilities = BTreeSet::from([
            Ability::Pause,
            Ability::Snapshot,
            Ability::Replace,
            Ability::Network,
            Ability::Socket,
            Ability::Tap,
            Ability::Share,
            Ability::Transport(Transport::Mmio),
        ]);
        if rustix::process::geteuid().is_root() {
            abilities.insert(Ability::Confine);
        }
        Kvm { program, abilities }
    }

    /// The program that is the machine.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

#[async_trait]
impl Driver for Kvm {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn abilities(&self) -> &BTreeSet<Ability> {
        &self.abilities
    }

    async fn create(&self, mut spec: VmSpec) -> Result<Box<dyn Vm>> {
        spec.check(self)?;
        let mut inherited = Inherited::default();
        let host = |what| {
            let vm = spec.name.clone();
            move |source| Error::Host { vm, what, source }
        };
        let nic = spec.nic.take();
        let owner = matches!(nic, Some(Nic { link: Link::Owner, .. }));
        let (streams, wires) = Streams::lay(owner, &mut inherited).map_err(host("open streams"))?;
        let start = match spec.saved.take() {
            Some(saved) => go_on(&spec, saved, &mut inherited)?,
            None => config::Start::Boot(boot(&spec, &mut inherited)?),
        };
        let mut machine = describe(&spec, start, wires, &mut inherited)?;
        if let Some(nic) = nic {
            let card = card(nic, wires.network, &mut inherited);
            machine.card = card.map_err(host("set up its network card"))?;
        }
        for share in std::mem::take(&mut spec.shares) {
            let stream = inherited.file(share.server);
            machine.shares.push(config::Share { tag: share.tag, stream });
        }
        let description = write(&machine).map_err(host("describe the machine"))?;
        let number = inherited.file(description);
        let plan = Plan {
            program: self.program.clone(),
            arguments: vec![number.to_string()],
            inherited: inherited.descriptors(),
            // It changes its user itself, once it has left the host's files.
            user: None,
            explain: None,
        };
        let dialect = Arc::new(Copier { memory_mib: spec.memory_mib });
        Ok(Box::new(ChildVm::new(spec.name, plan, streams).with_dialect(dialect)))
    }
}

/// Opens all that the machine needs, but for what the spec has open, and says what is what.
fn describe(
    spec: &VmSpec,
    start: config::Start,
    wires: Wires,
    inherited: &mut Inherited,
) -> Result<config::Machine> {
    let device = OpenOptions::new().read(true).write(true).open(DEVICE);
    let kvm = device.map_err(|source| file_error("device", Path::new(DEVICE), source))?;
    let mut disks = Vec::new();
    for disk in &spec.disks {
        let failed = |source| Error::Host { vm: spec.name.clone(), what: "open disk", source };
        disks.push(config::Disk {
            file: inherited.file(files::narrow(&disk.file, disk.access).map_err(failed)?),
            id: disk.id.clone(),
            read_only: disk.access == Access::ReadOnly,
            durable: disk.access == Access::Durable,
        });
    }
    Ok(config::Machine {
        kvm: inherited.file(kvm),
        control: wires.control,
        console: wires.console,
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        start,
        channel: config::Channel { stream: wires.channel, name: CHANNEL_NAME.to_owned() },
        disks,
        card: None,
        shares: Vec::new(),
        user: spec.confine.map(|Confinement { uid, gid }| config::User { uid, gid }),
    })
}

/// A guest that boots.
fn boot(spec: &VmSpec, inherited: &mut Inherited) -> Result<config::Boot> {
    Ok(config::Boot {
        kernel: kernel(&spec.kernel, inherited)?,
        initramfs: inherited.file(files::open_readable("initramfs", &spec.initramfs, None)?),
        kernel_parameters: format!("{KERNEL_PARAMETERS} {}", spec.kernel_parameters),
    })
}

/// A guest that goes on. No machine can change what others go on from, too.
fn go_on(spec: &VmSpec, saved: Saved, inherited: &mut Inherited) -> Result<config::Start> {
    if !spec.shares.is_empty() {
        let reason = "a guest that goes on from a copy cannot have shared folders".to_owned();
        return Err(Error::Spec { vm: spec.name.clone(), reason });
    }
    let mut narrow = |file: &File| {
        let what = "open the copy of a guest";
        let failed = |source| Error::Host { vm: spec.name.clone(), what, source };
        Ok(inherited.file(files::narrow(file, Access::ReadOnly).map_err(failed)?))
    };
    let (memory, state) = (narrow(&saved.memory)?, narrow(&saved.state)?);
    Ok(config::Start::Saved(config::Saved { memory, state }))
}

/// A card, whose link to the owner is `stream`.
fn card(
    Nic { mac, link }: Nic,
    stream: Option<RawFd>,
    inherited: &mut Inherited,
) -> io::Result<Option<config::Card>> {
    let link = match link {
        Link::Owner => stream.map(config::Link::Stream),
        Link::Socket(socket) => Some(config::Link::Stream(inherited.file(socket))),
        Link::Tap(device) => {
            tap::prepare(&device)?;
            Some(config::Link::Tap(inherited.file(device)))
        }
    };
    Ok(link.map(|link| config::Card { mac, link }))
}

fn kernel(path: &Path, inherited: &mut Inherited) -> Result<config::Kernel> {
    let file = files::open_readable("kernel", path, None)?;
    let layout = Layout::read(&file, path)
        .map_err(|error| file_error("kernel", path, io::Error::other(error)))?;
    let segments = layout.segments.into_iter();
    Ok(config::Kernel {
        file: inherited.file(file),
        entry: layout.pvh_entry,
        segments: segments
            .map(|LoadSegment { offset, address, file_len, memory_len }| config::Segment {
                offset,
                address,
                file_len,
                memory_len,
            })
            .collect(),
    })
}

fn file_error(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { what, path: path.to_owned(), source }
}

/// Puts the description into a file that has no name.
fn write(machine: &config::Machine) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("machine", MemfdFlags::CLOEXEC)?);
    serde_json::to_writer(&file, machine)?;
    file.rewind()?;
    Ok(file)
}
