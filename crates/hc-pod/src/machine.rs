// SPDX-License-Identifier: Apache-2.0
//! Making a pod's VM: disks, network, driver.

use std::fs::File;
use std::path::PathBuf;

use hc_usernet::{Dns, Network, Publish};
use hc_vmm::{Access, Confinement, Disk, Driver, Link, Nic, Transport, Vm, VmSpec};
use hc_vmm_kvm::Kvm;
use hc_vmm_qemu::{Accelerator, Qemu};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::config::{DriverConfig, TransportConfig};
use crate::failure::{Failure, Result};
use crate::{PodConfig, PodDir, scratch};

/// The serial of the scratch disk.
pub(crate) const SCRATCH_DISK: &str = "scratch";

/// A VM that boots, and the host's side of its devices.
pub(crate) struct Machine {
    /// The VM.
    pub(crate) vm: Box<dyn Vm>,
    /// Where the published ports listen.
    pub(crate) ports: Vec<hc_api::Port>,
    /// What the guest is told about its network, where it has one.
    pub(crate) guest_network: Option<hc_usernet::GuestNetwork>,
    network: Option<JoinHandle<()>>,
}

impl Machine {
    /// Makes the VM and lets it boot; also gives the line to the guest's init. When this fails, nothing is left running.
    pub(crate) async fn boot(config: &PodConfig, dir: &PodDir) -> Result<(Machine, UnixStream)> {
        let driver = driver(config.vm.driver)?;
        let network = bind_network(config)?;
        let spec = spec(config, dir, network.as_ref())?;
        let mut vm = driver.create(spec).await?;
        vm.start().await?;
        let channel = stream(vm.channel(), "channel")?;
        let mut ports = Vec::new();
        let mut guest_network = None;
        let task = match network {
            Some(network) => {
                ports.extend(network.published().iter().map(port));
                guest_network = Some(network.guest().clone());
                let frames = stream(vm.network(), "network card")?;
                Some(tokio::spawn(async move {
                    if let Err(error) = network.run(frames).await {
                        tracing::warn!(error = %crate::failure::chain(&error), "network ended");
                    }
                }))
            }
            None => None,
        };
        Ok((Machine { vm, ports, guest_network, network: task }, channel))
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

fn bind_network(config: &PodConfig) -> Result<Option<Network>> {
    let Some(network) = &config.network else {
        return Ok(None);
    };
    let publish = network.publish.iter().map(|port| Publish {
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
    let config = hc_usernet::Config {
        dns,
        publish: publish.collect(),
        allow_host: network.allow_host,
        ..hc_usernet::Config::default()
    };
    Ok(Some(Network::bind(config)?))
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

fn spec(config: &PodConfig, dir: &PodDir, network: Option<&Network>) -> Result<VmSpec> {
    let vm = &config.vm;
    let open =
        |what: &str, path: &std::path::Path, write: bool| {
            File::options().read(true).write(write).open(path).map_err(|error| {
                Failure::io(&format!("cannot open {what} {}", path.display()), &error)
            })
        };
    scratch::create(&vm.scratch_template, &dir.scratch())
        .map_err(|error| Failure::io("cannot make the scratch disk", &error))?;
    let rootfs = Disk {
        id: config.container.rootfs.clone(),
        file: open("root file system", &config.rootfs, false)?,
        access: Access::ReadOnly,
    };
    let scratch = Disk {
        id: SCRATCH_DISK.into(),
        file: open("scratch disk", &dir.scratch(), true)?,
        access: Access::Scratch,
    };
    Ok(VmSpec {
        name: format!("hyper-{}", config.name),
        run_dir: dir.vm(),
        kernel: vm.kernel.clone(),
        initramfs: vm.initramfs.clone(),
        kernel_parameters: vm.kernel_parameters.clone(),
        transport: match vm.transport {
            TransportConfig::Mmio => Transport::Mmio,
            TransportConfig::Pci => Transport::Pci,
        },
        vcpus: vm.vcpus,
        memory_mib: vm.memory_mib,
        disks: vec![rootfs, scratch],
        nic: network.map(|network| Nic { mac: network.guest().mac, link: Link::Owner }),
        shares: Vec::new(),
        saved: None,
        confine: vm.confine.map(|(uid, gid)| Confinement { uid, gid }),
    })
}
