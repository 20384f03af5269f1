// SPDX-License-Identifier: Apache-2.0
//! Making a pod's VM: disks, network, driver, and the first word of its guest.
//!
//! A new pod gets its VM in one of three ways, and cannot tell which: a VM that waits, gone on from a
//! template; a template; or a kernel that boots. Whatever fails in one way is tried in the next.
//! What such a VM has of its pod's own it gets here (`disks`), and from `SetUp` afterwards.
//!
//! A pod that was copied while it ran goes on from the copy, or not at all.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hc_guest::{Events, Guest, Predecessor, Process};
use hc_proto::message::Scratch;
use hc_usernet::{Dns, Network, Publish};
use hc_vmm::{Access, Confinement, Disk, Driver, Exit, Link, Nic, Saved, Transport, Vm, VmSpec};
use hc_vmm_kvm::Kvm;
use hc_vmm_qemu::{Accelerator, Qemu};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::{DriverConfig, TransportConfig, VmConfig};
use crate::failure::{Failure, Result, chain};
use crate::job::Rehearsed;
use crate::pod::Pod;
use crate::rehearsal::rehearse;
use crate::{OUR_FAILURE, PodConfig, ROOTFS_DISK, ROOTFS_MAX, saved, scratch};

/// The serial of the scratch disk.
pub(crate) const SCRATCH_DISK: &str = "scratch";
/// How long a guest that goes on from a copy may take to answer. It needs a tenth of a second; on a
/// host that starts dozens at once, seconds.
const COPY_PATIENCE: Duration = Duration::from_secs(15);
/// How long the driver may take to tell why a VM ended whose line has ended.
const POST_MORTEM_PATIENCE: Duration = Duration::from_secs(2);
/// The longest piece of a guest's last words in an error.
const MAX_LAST_WORDS: usize = 400;

/// A VM whose guest answers, and that knows of no pod.
pub(crate) struct Booted {
    /// The VM.
    pub(crate) vm: Box<dyn Vm>,
    /// Its guest.
    pub(crate) guest: Guest,
    /// What that tells by itself.
    pub(crate) events: Events,
    /// What the guest is to be told of its scratch disk, if it has not been.
    scratch: Option<Scratch>,
}

/// Where a new pod's VM comes from.
pub(crate) enum Source {
    /// It boots.
    Kernel,
    /// A template's guest.
    Template(saved::Guest),
    /// One that waits.
    Waiting(Waiting),
}

/// A VM that waits for a pod.
pub(crate) struct Waiting {
    /// The VM. Its guest is parked.
    pub(crate) booted: Booted,
    /// The scratch disk that the guest has mounted.
    disk: File,
}

/// A pod's VM, and the host's side of its devices.
pub(crate) struct Machine {
    /// The VM.
    pub(crate) vm: Box<dyn Vm>,
    /// Its guest.
    pub(crate) guest: Guest,
    /// Where the published ports listen.
    pub(crate) ports: Vec<hc_api::Port>,
    /// What the guest is to be told of its scratch disk, if it has not been.
    pub(crate) scratch: Option<Scratch>,
    /// What the guest is told about its network, where it has one.
    pub(crate) guest_network: Option<hc_usernet::GuestNetwork>,
    network: Option<JoinHandle<()>>,
}

impl Machine {
    /// Makes the VM of `pod` and waits until its guest answers. When this fails, or is given up,
    /// nothing is left running.
    pub(crate) async fn start(pod: &Pod, source: Source) -> Result<(Machine, Events)> {
        let network = bind_network(pod)?;
        let booted = match source {
            Source::Kernel => None,
            Source::Template(guest) => unless_it_fails(from_template(pod, guest).await),
            Source::Waiting(waiting) => unless_it_fails(from_waiting(pod, waiting).await),
        };
        let booted = match booted {
            Some(booted) => booted,
            None => from_kernel(pod).await?,
        };
        Machine::connect(pod, network, booted)
    }

    /// Makes the VM of a pod that goes on from a copy of one that ran: also gives the main process.
    pub(crate) async fn go_on(
        pod: &Pod,
        copy: saved::Guest,
        before: Predecessor,
    ) -> Result<(Machine, Events, Process)> {
        let network = bind_network(pod)?;
        let vm = &pod.config.vm;
        let mut spec =
            spec(vm, pod_name(&pod.config), pod.dir.vm(), disks(pod)?, card(&pod.config));
        spec.saved = Some(Saved { memory: copy.memory, state: copy.state });
        let (mut vm, channel) = launch(vm.driver, spec).await?;
        pod.reached("VM is started");
        let adopted = meet(&mut *vm, Guest::adopt(channel, before, COPY_PATIENCE)).await;
        let (guest, events, main) = adopted?;
        let booted = Booted { vm, guest, events, scratch: None };
        let (machine, events) = Machine::connect(pod, network, booted)?;
        Ok((machine, events, main))
    }

    /// Connects the VM's card, which nobody has looked at, with the pod's network.
    fn connect(
        pod: &Pod,
        network: Option<Network>,
        Booted { mut vm, guest, events, scratch }: Booted,
    ) -> Result<(Machine, Events)> {
        pod.reached("guest answers");
        let mut ports = Vec::new();
        let mut guest_network = None;
        let task = match network {
            Some(network) => {
                ports.extend(network.published().iter().map(port));
                guest_network = Some(network.guest().clone());
                let frames = stream(vm.network(), "network card")?;
                Some(tokio::spawn(async move {
                    if let Err(error) = network.run(frames).await {
                        tracing::warn!(error = %chain(&error), "network ended");
                    }
                }))
            }
            None => None,
        };
        Ok((Machine { vm, guest, ports, scratch, guest_network, network: task }, events))
    }

    /// Closes every flow and published port.
    pub(crate) fn stop_network(&mut self) {
        if let Some(task) = self.network.take() {
            task.abort();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop_network();
    }
}

/// A template is a shortcut: where it leads nowhere, there is the long way.
fn unless_it_fails(booted: Result<Booted>) -> Option<Booted> {
    booted
        .inspect_err(|error| tracing::warn!(%error, "no VM of a template, so the kernel boots"))
        .ok()
}

async fn from_kernel(pod: &Pod) -> Result<Booted> {
    let vm = &pod.config.vm;
    let patience = Duration::from_secs(vm.boot_timeout_seconds.into());
    let spec = spec(vm, pod_name(&pod.config), pod.dir.vm(), disks(pod)?, card(&pod.config));
    boot(vm.driver, spec, patience, || pod.reached("VM is started")).await
}

async fn from_template(pod: &Pod, guest: saved::Guest) -> Result<Booted> {
    let vm = &pod.config.vm;
    let (disks, scratch) = replacements(pod, &guest.disk)?;
    let mut spec = spec(vm, pod_name(&pod.config), pod.dir.vm(), disks, card(&pod.config));
    spec.saved = Some(Saved { memory: guest.memory, state: guest.state });
    let booted = boot(vm.driver, spec, COPY_PATIENCE, || pod.reached("VM is started")).await?;
    Ok(Booted { scratch: Some(scratch), ..booted })
}

async fn from_waiting(pod: &Pod, Waiting { mut booted, disk }: Waiting) -> Result<Booted> {
    let (disks, scratch) = replacements(pod, &disk)?;
    let Some(replace) = booted.vm.replace() else {
        return Err(Failure::new(hc_api::ErrorKind::Unsupported, "its disks cannot be changed"));
    };
    for disk in disks {
        replace.replace(disk).await?;
    }
    Ok(Booted { scratch: Some(scratch), ..booted })
}

/// The disks of a pod, in place of those of a rehearsal, and what the guest is to be told of the scratch
/// disk: a new one is a copy of the one that the guest has `parked`.
///
/// The guest takes their sizes for those of the others: an image may be smaller, while a scratch disk,
/// whose file system is grown to its size, has to be as large.
fn replacements(pod: &Pod, parked: &File) -> Result<(Vec<Disk>, Scratch)> {
    let is_new = scratch::create_from(parked, &pod.dir.scratch())
        .map_err(|error| Failure::io("cannot make the scratch disk", &error))?;
    let disks = disks(pod)?;
    let len = |file: &File| {
        file.metadata()
            .map(|metadata| metadata.len())
            .map_err(|error| Failure::io("cannot look at a disk", &error))
    };
    for disk in &disks {
        let fits = match disk.access {
            Access::ReadOnly => len(&disk.file)? <= ROOTFS_MAX,
            Access::Scratch | Access::Durable => len(&disk.file)? == len(parked)?,
        };
        if !fits {
            let message = format!("disk {} has not the size of a template's", disk.id);
            return Err(Failure::new(hc_api::ErrorKind::Unsupported, message));
        }
    }
    Ok((disks, if is_new { Scratch::Parked } else { own_disk() }))
}

/// What a guest is told of a scratch disk that it has not seen.
fn own_disk() -> Scratch {
    Scratch::Disk(SCRATCH_DISK.into())
}

impl Waiting {
    /// Makes a VM of a template, for whichever pod comes next, and rehearses a pod in it.
    pub(crate) async fn make(
        new: &Rehearsed,
        guest: saved::Guest,
        run_dir: &Path,
    ) -> Result<Waiting> {
        let disk = scratch::in_memory(&guest.disk).map_err(|error| no_scratch(&error))?;
        let mut spec = nobodys(new, run_dir, &disk)?;
        spec.saved = Some(Saved { memory: guest.memory, state: guest.state });
        let mut booted = boot(new.shape.vm.driver, spec, COPY_PATIENCE, || ()).await?;
        let events = &mut booted.events;
        rehearse(&booted.guest, events, new.shape.network, Scratch::Parked).await?;
        Ok(Waiting { booted, disk })
    }
}

/// Boots a VM of this shape, rehearses a pod in it, and copies its guest to the empty files of
/// `guest`.
///
/// What a kernel does when it does something for the first time is done then, and not again in each
/// copy.
pub(crate) async fn make_template(
    new: &Rehearsed,
    guest: &saved::Guest,
    run_dir: &Path,
) -> Result<()> {
    let vm = &new.shape.vm;
    let patience = Duration::from_secs(vm.boot_timeout_seconds.into());
    scratch::format(&vm.scratch_template, &guest.disk).map_err(|error| no_scratch(&error))?;
    let spec = nobodys(new, run_dir, &guest.disk)?;
    let mut booted = boot(vm.driver, spec, patience, || ()).await?;
    rehearse(&booted.guest, &mut booted.events, new.shape.network, own_disk()).await?;
    let Some(snapshot) = booted.vm.snapshot() else {
        return Err(Failure::new(hc_api::ErrorKind::Unsupported, "this driver copies no guests"));
    };
    snapshot.take(&guest.memory, &guest.state).await?;
    booted.vm.kill().await?;
    Ok(())
}

fn no_scratch(error: &std::io::Error) -> Failure {
    Failure::io("cannot make a scratch disk", error)
}

/// A VM of no pod, with the root file system of a rehearsal.
fn nobodys(
    Rehearsed { shape, rehearsal }: &Rehearsed,
    run_dir: &Path,
    scratch: &File,
) -> Result<VmSpec> {
    let rootfs = Disk {
        id: ROOTFS_DISK.into(),
        file: File::open(rehearsal)
            .map_err(|error| Failure::io("cannot open the rehearsal's disk", &error))?,
        access: Access::ReadOnly,
    };
    let scratch = Disk {
        id: SCRATCH_DISK.into(),
        file: scratch.try_clone().map_err(|error| no_scratch(&error))?,
        access: Access::Scratch,
    };
    let mac = hc_usernet::Config::default().guest_mac;
    let nic = shape.network.then_some(Nic { mac, link: Link::Owner });
    let name = "hyper-template".to_owned();
    Ok(spec(&shape.vm, name, run_dir.to_owned(), vec![rootfs, scratch], nic))
}

/// Starts a VM and meets its guest.
async fn boot(
    driver_config: DriverConfig,
    spec: VmSpec,
    patience: Duration,
    started: impl FnOnce(),
) -> Result<Booted> {
    let (mut vm, channel) = launch(driver_config, spec).await?;
    started();
    let (guest, events) = meet(&mut *vm, Guest::connect(channel, patience)).await?;
    Ok(Booted { vm, guest, events, scratch: Some(own_disk()) })
}

/// Starts a VM; also gives the line to its guest.
async fn launch(driver_config: DriverConfig, spec: VmSpec) -> Result<(Box<dyn Vm>, UnixStream)> {
    let mut vm = driver(driver_config)?.create(spec).await?;
    vm.start().await?;
    let channel = stream(vm.channel(), "channel")?;
    Ok((vm, channel))
}

/// Waits until the guest of `vm` has been met.
async fn meet<T>(vm: &mut dyn Vm, meeting: impl Future<Output = hc_guest::Result<T>>) -> Result<T> {
    tokio::select! {
        met = meeting => match met {
            Ok(met) => Ok(met),
            // A guest whose line ended has often died of something that the driver knows better.
            Err(error) => Err(match timeout(POST_MORTEM_PATIENCE, vm.wait()).await {
                Ok(exit) => obituary(exit),
                Err(_) => error.into(),
            }),
        },
        exit = vm.wait() => Err(obituary(exit)),
    }
}

/// Why a VM that nobody ended has ended.
pub(crate) fn obituary(exit: hc_vmm::Result<Exit>) -> Failure {
    let reason = match exit {
        Err(error) => return error.into(),
        Ok(Exit::Stopped) => "the guest powered off by itself".to_owned(),
        Ok(Exit::Killed) => "it was killed".to_owned(),
        Ok(Exit::Crashed { status, last_words }) => {
            let words = last_words.trim().replace('\n', " | ");
            let from = words.char_indices().rev().nth(MAX_LAST_WORDS).map_or(0, |(at, _)| at);
            match &words[from..] {
                "" => status,
                words => format!("{status}; last words: {words}"),
            }
        }
    };
    let mut failure = Failure::new(hc_api::ErrorKind::Internal, format!("VM ended: {reason}"));
    failure.0.exit_status = Some(OUR_FAILURE);
    failure
}

fn driver(config: DriverConfig) -> Result<Box<dyn Driver>> {
    Ok(match config {
        DriverConfig::Kvm => Box::new(Kvm::at(beside_us("hyper-vmm")?)),
        DriverConfig::QemuKvm => Box::new(Qemu::find(Accelerator::Kvm)?),
        DriverConfig::QemuTcg => Box::new(Qemu::find(Accelerator::Tcg)?),
    })
}

/// A program that is installed with this one.
fn beside_us(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()
        .map_err(|error| Failure::io("cannot find the program's own file", &error))?;
    Ok(own.with_file_name(name))
}

/// A stream that every driver owes for a VM that was asked to have it.
fn stream(
    stream: Option<std::os::unix::net::UnixStream>,
    what: &'static str,
) -> Result<UnixStream> {
    let missing = || std::io::Error::other("the driver gave none");
    stream
        .ok_or_else(missing)
        .and_then(UnixStream::from_std)
        .map_err(|error| Failure::io(&format!("cannot use the VM's {what}"), &error))
}

fn bind_network(pod: &Pod) -> Result<Option<Network>> {
    let config = &pod.config;
    let Some(network) = &config.network else {
        return Ok(None);
    };
    // A pod that had a VM before keeps the numbers that were picked for it.
    let bound = pod.status.borrow().ports.clone();
    let publish = if bound.is_empty() { &network.publish } else { &bound };
    let publish = publish.iter().map(|port| Publish {
        protocol: match port.protocol {
            hc_api::Protocol::Tcp => hc_usernet::Protocol::Tcp,
            hc_api::Protocol::Udp => hc_usernet::Protocol::Udp,
        },
        host_ip: port.host_ip,
        host_port: port.host_port,
        guest_port: port.container_port,
    });
    let dns = if config.dns_servers.is_empty() {
        Dns::System
    } else {
        Dns::Servers(config.dns_servers.iter().map(|server| (*server, 53).into()).collect())
    };
    let network = hc_usernet::Config {
        dns,
        publish: publish.collect(),
        allow_host: network.allow_host,
        guest_mac: guest_mac(config),
        ..hc_usernet::Config::default()
    };
    Ok(Some(Network::bind(network)?))
}

fn port(bound: &hc_usernet::Bound) -> hc_api::Port {
    hc_api::Port {
        protocol: match bound.protocol {
            hc_usernet::Protocol::Tcp => hc_api::Protocol::Tcp,
            hc_usernet::Protocol::Udp => hc_api::Protocol::Udp,
        },
        host_ip: bound.host.ip(),
        host_port: bound.host.port(),
        container_port: bound.guest_port,
    }
}

/// The disks of a pod, made if they are not there.
fn disks(pod: &Pod) -> Result<Vec<Disk>> {
    let Pod { config, dir, .. } = pod;
    let open =
        |what: &str, path: &Path, write: bool| {
            File::options().read(true).write(write).open(path).map_err(|error| {
                Failure::io(&format!("cannot open {what} {}", path.display()), &error)
            })
        };
    scratch::create(&config.vm.scratch_template, &dir.scratch())
        .map_err(|error| Failure::io("cannot make the scratch disk", &error))?;
    let rootfs = Disk {
        id: ROOTFS_DISK.into(),
        file: open("root file system", &config.rootfs, false)?,
        access: Access::ReadOnly,
    };
    let scratch = Disk {
        id: SCRATCH_DISK.into(),
        file: open("scratch disk", &dir.scratch(), true)?,
        access: Access::Scratch,
    };
    Ok(vec![rootfs, scratch])
}

fn pod_name(config: &PodConfig) -> String {
    format!("hyper-{}", config.name)
}

fn card(config: &PodConfig) -> Option<Nic> {
    config.network.as_ref().map(|_| Nic { mac: guest_mac(config), link: Link::Owner })
}

/// An address of the pod's own: the first byte says that it was given locally, the others are of
/// the pod's id.
fn guest_mac(config: &PodConfig) -> [u8; 6] {
    let id = u64::from_str_radix(config.id.as_str().get(..10).unwrap_or_default(), 16);
    let mut mac = [0x02; 6];
    mac[1..].copy_from_slice(&id.unwrap_or_default().to_be_bytes()[3..]);
    mac
}

fn spec(
    vm: &VmConfig,
    name: String,
    run_dir: PathBuf,
    disks: Vec<Disk>,
    nic: Option<Nic>,
) -> VmSpec {
    VmSpec {
        name,
        run_dir,
        kernel: vm.kernel.clone(),
        initramfs: vm.initramfs.clone(),
        kernel_parameters: vm.kernel_parameters.clone(),
        transport: match vm.transport {
            TransportConfig::Mmio => Transport::Mmio,
            TransportConfig::Pci => Transport::Pci,
        },
        vcpus: vm.vcpus,
        memory_mib: vm.memory_mib,
        disks,
        nic,
        shares: Vec::new(),
        saved: None,
        confine: vm.confine.map(|(uid, gid)| Confinement { uid, gid }),
    }
}
