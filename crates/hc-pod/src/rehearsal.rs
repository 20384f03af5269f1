// SPDX-License-Identifier: Apache-2.0
//! A pod of ours that runs in a VM before it waits, from set-up to the end of its container.
//!
//! A hypervisor that translates has translated all that the next pod needs then, which is most of
//! what a start costs; any other has at least its memory in place. The guest forgets the pod, and
//! gets another identity with the next.

use std::time::Duration;

use hc_guest::{Events, Guest, Launch, Stdio};
use hc_proto::message::{Call, Event, Identity, PodSetup, Program, Scratch};
use hc_spec::{CapabilitySet, ContainerLimits, ContainerSpec, Id, ProcessSpec, Signal};
use hc_usernet::Network;
use tokio::time::timeout;

use crate::ROOTFS_DISK;
use crate::failure::{Failure, Result};
use crate::identity::{entropy, network_spec, unix_nanos};

/// How long the container may take: a moment, if the host is not busy.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `/program` of the disk with the root file system, and lets the guest forget it.
pub(crate) async fn rehearse(
    guest: &Guest,
    events: &mut Events,
    network: bool,
    scratch: Scratch,
) -> Result<()> {
    let container = spec()?;
    let id = container.id.clone();
    guest.call(Call::SetUp(setup(network, scratch)?)).await?;
    guest.call(Call::CreateContainer(Box::new(container.clone()))).await?;
    let launch = Launch {
        container: id.clone(),
        main: true,
        program: Program::Exec(container.process),
        stdio: Stdio { stdin: false, stdout: true, stderr: true },
    };
    // Its streams live until it has ended.
    let _main = guest.spawn(launch).await?;
    let ended = timeout(PATIENCE, async {
        loop {
            match events.next().await {
                Some(Event::ContainerExited { container, .. }) if container == id => return Ok(()),
                Some(_) => {}
                None => return Err(Failure::from(guest.ended().await)),
            }
        }
    });
    match ended.await {
        Ok(ended) => ended?,
        Err(_) => {
            return Err(Failure::new(hc_api::ErrorKind::Timeout, "a rehearsal has no end"));
        }
    }
    guest.call(Call::Park).await?;
    Ok(())
}

fn setup(network: bool, scratch: Scratch) -> Result<PodSetup> {
    let network = if network {
        let network = Network::bind(hc_usernet::Config::default())?;
        Some(network_spec(network.guest().clone()))
    } else {
        None
    };
    Ok(PodSetup {
        identity: Identity {
            hostname: "rehearsal".into(),
            unix_nanos: unix_nanos(),
            entropy: entropy()?,
            network,
            dns_servers: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            hosts: Vec::new(),
        },
        scratch,
    })
}

/// A container as most are.
fn spec() -> Result<ContainerSpec> {
    let capabilities = CapabilitySet::resolve(&[], &[], false)
        .map_err(|error| Failure::new(hc_api::ErrorKind::Internal, error.to_string()))?;
    Ok(ContainerSpec {
        id: Id::from_bytes([0; 32]),
        rootfs: ROOTFS_DISK.into(),
        read_only: false,
        tmpfs: Vec::new(),
        shm_bytes: 64 << 20,
        limits: ContainerLimits::default(),
        privileged: false,
        capabilities,
        stop_signal: Signal::TERM,
        process: ProcessSpec {
            args: vec!["/program".into()],
            env: vec!["PATH=/".into()],
            cwd: "/".into(),
            user: String::new(),
            terminal: None,
            capabilities,
            no_new_privileges: false,
            rlimits: Vec::new(),
        },
    })
}
