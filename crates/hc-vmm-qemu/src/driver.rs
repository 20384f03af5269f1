// SPDX-License-Identifier: Apache-2.0
//! The driver: finds QEMU, and prepares VMs of it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hc_vmm::{Ability, Disk, Driver, Error, Nic, Result, Transport, Vm, VmSpec};

use crate::clock::Moment;
use crate::command::{Accelerator, Card, Drive, Machine, Wires};
use crate::files;
use crate::process::User;
use crate::program;
use crate::vm::{Plan, QemuVm, Streams};

/// `microvm` has eight places for devices; channel, random numbers, balloon and card take four.
const MAX_MMIO_DISKS: usize = 4;

/// QEMU, as it is installed on this host.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: PathBuf,
    accelerator: Accelerator,
    abilities: BTreeSet<Ability>,
    /// When this driver was made, from which on the counter's rate is measured.
    made: Option<Moment>,
}

impl Qemu {
    /// Finds QEMU on `PATH`. Whether KVM works is the caller's to know.
    pub fn find(accelerator: Accelerator) -> Result<Qemu> {
        let program = program::find(std::env::var_os("PATH").as_deref())?;
        Ok(Qemu::at(program, accelerator))
    }

    /// Uses the QEMU at `program`.
    #[must_use]
    pub fn at(program: PathBuf, accelerator: Accelerator) -> Qemu {
        let mut abilities =
            BTreeSet::from([Ability::Pause, Ability::Network, Ability::Transport(Transport::Pci)]);
        if !program::is_red_hat(&program) {
            abilities.insert(Ability::Transport(Transport::Mmio));
        }
        if rustix::process::geteuid().is_root() {
            abilities.insert(Ability::Confine);
        }
        Qemu { program, accelerator, abilities, made: Moment::now() }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// What runs the guest's instructions.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// Runs the program to ask for its version, such as `7.2`: for reports, too slow for a start.
    pub async fn version(&self) -> Result<String> {
        let version = program::version(&self.program).await;
        let source = |source| Error::Spawn { path: self.program.clone(), source };
        version.map(|version| version.to_string()).map_err(source)
    }

    fn user(&self, spec: &VmSpec) -> Result<Option<User>> {
        let Some(identity) = spec.confine else { return Ok(None) };
        let groups = match self.accelerator {
            Accelerator::Tcg => Vec::new(),
            Accelerator::Kvm => files::kvm_groups()?,
        };
        Ok(Some(User { identity, groups }))
    }
}

#[async_trait]
impl Driver for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn abilities(&self) -> &BTreeSet<Ability> {
        &self.abilities
    }

    async fn create(&self, spec: VmSpec) -> Result<Box<dyn Vm>> {
        spec.check(self)?;
        if spec.transport == Transport::Mmio && spec.disks.len() > MAX_MMIO_DISKS {
            let reason = format!("more than {MAX_MMIO_DISKS} disks need a kernel with PCI");
            return Err(Error::Spec { vm: spec.name, reason });
        }
        let user = self.user(&spec)?;
        let mut inherited = Inherited::default();
        let kernel = files::open_readable("kernel", &spec.kernel, spec.confine)?;
        let initramfs = files::open_readable("initramfs", &spec.initramfs, spec.confine)?;
        let (kernel, initramfs) = (inherited.file(kernel), inherited.file(initramfs));
        let failed = |source| Error::Host { vm: spec.name.clone(), what: "open streams", source };
        let (streams, wires) = Wires::lay(&spec, &mut inherited).map_err(failed)?;
        let mut disks = Vec::new();
        for Disk { id, file, access } in &spec.disks {
            let failed = |source| Error::Host { vm: spec.name.clone(), what: "open disk", source };
            let file = inherited.file(files::narrow(file, *access).map_err(failed)?);
            disks.push(Drive { file, id, access: *access });
        }
        let counter_khz = match (self.accelerator, self.made) {
            (Accelerator::Tcg, Some(made)) => made.rate_since().await,
            (Accelerator::Kvm, _) | (Accelerator::Tcg, None) => None,
        };
        let machine = Machine {
            name: &spec.name,
            accelerator: self.accelerator,
            transport: spec.transport,
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            kernel,
            initramfs,
            kernel_parameters: &spec.kernel_parameters,
            counter_khz,
            wires,
            disks,
        };
        let plan = Plan {
            program: self.program.clone(),
            arguments: machine.arguments(),
            inherited: inherited.descriptors,
            user,
        };
        Ok(Box::new(QemuVm::new(spec.name, plan, streams)))
    }
}

/// What QEMU is going to inherit.
#[derive(Default)]
struct Inherited {
    descriptors: Vec<OwnedFd>,
}

impl Inherited {
    /// Takes a file, and says under which number QEMU will find it.
    fn file(&mut self, file: impl Into<OwnedFd>) -> RawFd {
        let descriptor = file.into();
        let number = descriptor.as_raw_fd();
        self.descriptors.push(descriptor);
        number
    }

    /// Makes a stream to QEMU: our end, non-blocking, and the number of the other.
    fn stream(&mut self) -> io::Result<(UnixStream, RawFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((ours, self.file(theirs)))
    }
}

impl Wires {
    /// Makes the streams of a VM.
    fn lay(spec: &VmSpec, inherited: &mut Inherited) -> io::Result<(Streams, Wires)> {
        let (control, control_wire) = inherited.stream()?;
        let (channel, channel_wire) = inherited.stream()?;
        let (console, console_wire) = inherited.stream()?;
        let (console_reader, console_copy) = UnixStream::pair()?;
        console_reader.set_nonblocking(true)?;
        console_copy.set_nonblocking(true)?;
        let (network, card) = match spec.nic {
            Some(Nic { mac }) => {
                let (network, stream) = inherited.stream()?;
                (Some(network), Some(Card { stream, mac }))
            }
            None => (None, None),
        };
        let wires =
            Wires { control: control_wire, channel: channel_wire, console: console_wire, card };
        let streams = Streams { control, channel, console, console_copy, console_reader, network };
        Ok((streams, wires))
    }
}
