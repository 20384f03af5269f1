// SPDX-License-Identifier: Apache-2.0
//! The driver: finds QEMU, and prepares VMs of it.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use hc_vmm::{Ability, Disk, Driver, Error, Link, Nic, Result, Saved, Transport, Vm, VmSpec};
use hc_vmm_process::{BoxFuture, ChildVm, Inherited, Plan, Streams, User, files};

use crate::clock::Moment;
use crate::command::{Accelerator, Backend, Card, Drive, Machine, Origin};
use crate::copier::Copier;
use crate::program;

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
        let mut abilities = BTreeSet::from([
            Ability::Pause,
            Ability::Snapshot,
            Ability::Replace,
            Ability::Network,
            Ability::Socket,
            Ability::Tap,
            Ability::Transport(Transport::Pci),
        ]);
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

    async fn create(&self, mut spec: VmSpec) -> Result<Box<dyn Vm>> {
        spec.check(self)?;
        if spec.transport == Transport::Mmio && spec.disks.len() > MAX_MMIO_DISKS {
            let reason = format!("more than {MAX_MMIO_DISKS} disks need a kernel with PCI");
            return Err(Error::Spec { vm: spec.name, reason });
        }
        let user = self.user(&spec)?;
        let mut inherited = Inherited::default();
        let failed = |source| Error::Host { vm: spec.name.clone(), what: "open streams", source };
        let nic = spec.nic.take();
        let owner = matches!(nic, Some(Nic { link: Link::Owner, .. }));
        let (streams, wires) = Streams::lay(owner, &mut inherited).map_err(failed)?;
        let card = nic.and_then(|nic| card(nic, wires.network, &mut inherited));
        let mut disks = Vec::new();
        for Disk { id, file, access } in &spec.disks {
            let failed = |source| Error::Host { vm: spec.name.clone(), what: "open disk", source };
            let file = inherited.file(files::narrow(file, *access).map_err(failed)?);
            disks.push(Drive { file, id, access: *access });
        }
        let origin = self.origin(&spec, &mut inherited).await?;
        let state = match origin {
            Origin::Saved { state, .. } => Some(state),
            Origin::Boot { .. } => None,
        };
        let machine = Machine {
            name: &spec.name,
            accelerator: self.accelerator,
            transport: spec.transport,
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            origin,
            wires,
            card,
            disks,
        };
        let program = self.program.clone();
        let plan = Plan {
            program: program.clone(),
            arguments: machine.arguments(),
            inherited: inherited.descriptors(),
            user,
            explain: Some(Box::new(move || too_old(program.clone()))),
        };
        let copier = Copier::new(&spec, state, self.accelerator);
        Ok(Box::new(ChildVm::new(spec.name, plan, streams).with_dialect(Arc::new(copier))))
    }
}

impl Qemu {
    async fn origin<'a>(&self, spec: &'a VmSpec, inherited: &mut Inherited) -> Result<Origin<'a>> {
        if let Some(Saved { memory, state }) = &spec.saved {
            let failed = |source| Error::Host { vm: spec.name.clone(), what: "open copy", source };
            let memory = memory.try_clone().map_err(failed)?;
            // Opened again: each QEMU reads it from its start.
            let state = files::reopen(state).map_err(failed)?;
            return Ok(Origin::Saved {
                memory: inherited.file(memory),
                state: inherited.file(state),
            });
        }
        let kernel = files::open_readable("kernel", &spec.kernel, spec.confine)?;
        let initramfs = files::open_readable("initramfs", &spec.initramfs, spec.confine)?;
        Ok(Origin::Boot {
            kernel: inherited.file(kernel),
            initramfs: inherited.file(initramfs),
            parameters: &spec.kernel_parameters,
            counter_khz: match (self.accelerator, self.made) {
                (Accelerator::Tcg, Some(made)) => made.rate_since().await,
                (Accelerator::Kvm, _) | (Accelerator::Tcg, None) => None,
            },
        })
    }
}

/// A card, whose link to the owner is `stream`.
fn card(Nic { mac, link }: Nic, stream: Option<RawFd>, inherited: &mut Inherited) -> Option<Card> {
    let backend = match link {
        Link::Owner => Backend::Stream(stream?),
        Link::Socket(socket) => Backend::Stream(inherited.file(socket)),
        Link::Tap(device) => Backend::Tap(inherited.file(device)),
    };
    Some(Card { mac, backend })
}

/// Whether a QEMU that failed to start did so for its age. Asked only then, since asking is slow.
fn too_old(program: PathBuf) -> BoxFuture<Option<Error>> {
    Box::pin(async move {
        let found = program::version(&program).await.ok()?;
        (found < program::OLDEST).then(|| Error::TooOld {
            path: program,
            found: found.to_string(),
            needed: program::OLDEST.to_string(),
        })
    })
}
