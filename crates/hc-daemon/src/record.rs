// SPDX-License-Identifier: Apache-2.0
//! A container as it was created: the request, and what became of it with the image's configuration
//! and the defaults. Pure: the rules of `docker run` as functions of data.

use std::path::PathBuf;

use hc_api::{CloneContainer, CreateContainer, NetworkMode, Ulimit};
use hc_image::ImageConfig;
use hc_pod::config::NetworkConfig;
use hc_pod::merge_env;
use hc_spec::{
    CapabilitySet, ContainerLimits, ContainerSpec, Id, ProcessSpec, Rlimit, Signal, Tmpfs,
    WindowSize,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{Config, MIN_MEMORY_MIB};
use crate::failure::{Failure, Result};
use crate::snapshots::Origin;

/// Memory that the guest's kernel and init take beside the container's limit, so that a container
/// gets what it was promised.
const GUEST_OVERHEAD_MIB: u32 = 64;
/// Docker's size of `/dev/shm`.
const DEFAULT_SHM_BYTES: u64 = 64 << 20;
/// Docker's patience before a stop becomes a kill.
const DEFAULT_STOP_TIMEOUT_SECONDS: u32 = 10;
/// More than this no VM has ever wanted; it catches slips such as bytes for CPUs.
const MAX_VCPUS: u32 = 256;
/// Hex digits of a chain ID in a disk's serial, which has room for 20 bytes.
const SERIAL_DIGITS: usize = 20;
/// The longest host name that the kernel takes.
const MAX_HOSTNAME: usize = 64;

/// What is kept of a container's creation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// When.
    pub(crate) created: Timestamp,
    /// The pod around it.
    pub(crate) pod: Id,
    /// The request.
    pub(crate) request: CreateContainer,
    /// The image's id.
    pub(crate) image_id: String,
    /// The chain ID of its layers.
    pub(crate) chain_id: String,
    /// Labels of image and request.
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    /// The container as the guest will be told.
    pub(crate) spec: ContainerSpec,
    /// The host name.
    pub(crate) hostname: String,
    /// Whole CPUs of the VM.
    pub(crate) vcpus: u32,
    /// The VM's memory.
    pub(crate) memory_mib: u32,
    /// How long a stop waits.
    pub(crate) stop_timeout_seconds: u32,
    /// The kernel file, where the request named one.
    pub(crate) kernel: Option<PathBuf>,
    /// What its first start goes on from, if it is a copy.
    #[serde(default)]
    pub(crate) origin: Option<Origin>,
}

/// The ids of a container under creation.
pub(crate) struct Identity {
    pub(crate) id: Id,
    pub(crate) pod: Id,
}

/// An image as far as a container depends on it.
pub(crate) struct ImageFacts<'a> {
    pub(crate) id: String,
    pub(crate) chain_id: String,
    pub(crate) config: &'a ImageConfig,
}

impl Record {
    /// Resolves a request, or says what is wrong with it.
    pub(crate) fn resolve(
        identity: &Identity,
        request: CreateContainer,
        image: &ImageFacts<'_>,
        config: &Config,
        now: Timestamp,
    ) -> Result<Record> {
        check(&request)?;
        let hostname = match &request.hostname {
            Some(name) => hostname(name)?,
            None => identity.id.short().to_owned(),
        };
        let capabilities =
            CapabilitySet::resolve(&request.cap_add, &request.cap_drop, request.privileged)
                .map_err(|error| Failure::invalid(error.to_string()))?;
        let stop_signal = stop_signal(&request, image.config)?;
        let process = process(&request, image.config, capabilities)?;
        let digits = image.chain_id.rsplit(':').next().unwrap_or_default();
        let spec = ContainerSpec {
            id: identity.id.clone(),
            rootfs: digits.chars().take(SERIAL_DIGITS).collect(),
            read_only: request.read_only,
            tmpfs: request
                .tmpfs
                .iter()
                .map(|mount| Tmpfs { path: mount.path.clone(), options: mount.options.clone() })
                .collect(),
            shm_bytes: request.shm_bytes.unwrap_or(DEFAULT_SHM_BYTES),
            limits: ContainerLimits {
                cpu_millis: request.cpu_millis,
                memory_bytes: request.memory_bytes,
                pids: request.pids,
            },
            privileged: request.privileged,
            capabilities,
            stop_signal,
            process,
        };
        let mut labels = image.config.labels.clone();
        labels.extend(request.labels.clone());
        let (vcpus, memory_mib) = size(&request, config)?;
        Ok(Record {
            created: now,
            pod: identity.pod.clone(),
            image_id: image.id.clone(),
            chain_id: image.chain_id.clone(),
            labels,
            spec,
            hostname,
            vcpus,
            memory_mib,
            stop_timeout_seconds: request
                .stop_timeout_seconds
                .unwrap_or(DEFAULT_STOP_TIMEOUT_SECONDS),
            kernel: request.kernel.as_ref().map(PathBuf::from),
            origin: None,
            request,
        })
    }

    /// The record of a container that goes on where this one's was copied, under `driver`.
    pub(crate) fn copy(
        &self,
        identity: &Identity,
        request: CloneContainer,
        driver: &str,
        origin: Origin,
        now: Timestamp,
    ) -> Result<Record> {
        let mut record = self.clone();
        record.created = now;
        record.pod = identity.pod.clone();
        record.origin = Some(origin);
        record.hostname = match &request.hostname {
            Some(name) => hostname(name)?,
            None => identity.id.short().to_owned(),
        };
        record.labels.extend(request.labels.clone());
        let own = &mut record.request;
        own.name = request.name;
        own.hostname = request.hostname;
        own.labels.extend(request.labels);
        own.publish = request.publish;
        own.auto_remove = request.auto_remove;
        // A copy fits no other.
        own.driver = Some(driver.to_owned());
        check(own)?;
        Ok(record)
    }

    /// How the pod is connected.
    pub(crate) fn network(&self) -> Option<NetworkConfig> {
        match self.request.network {
            NetworkMode::None => None,
            NetworkMode::User => Some(NetworkConfig {
                publish: self.request.publish.clone(),
                allow_host: self.request.allow_host,
            }),
        }
    }
}

/// What can be said of a request without the image.
fn check(request: &CreateContainer) -> Result<()> {
    let nul = |text: &String| text.contains('\0');
    let texts =
        [&request.command, &request.env, request.entrypoint.as_ref().unwrap_or(&Vec::new())]
            .into_iter()
            .flatten()
            .any(nul);
    if texts {
        return Err(Failure::invalid("arguments and variables cannot contain a zero byte"));
    }
    if let Some(pair) = request.env.iter().find(|pair| !pair.contains('=') || pair.starts_with('='))
    {
        return Err(Failure::invalid(format!("environment {pair:?} is not NAME=value")));
    }
    if request.workdir.as_ref().is_some_and(|path| !path.starts_with('/')) {
        return Err(Failure::invalid("the working directory must be an absolute path"));
    }
    if let Some(mount) = request.tmpfs.iter().find(|mount| !mount.path.starts_with('/')) {
        return Err(Failure::invalid(format!("tmpfs {:?} must be an absolute path", mount.path)));
    }
    if request.network == NetworkMode::None && !request.publish.is_empty() {
        return Err(Failure::invalid("ports cannot be published with --network none"));
    }
    if request.network == NetworkMode::None && request.allow_host {
        return Err(Failure::invalid("the host cannot be reached with --network none"));
    }
    if let Some(port) = request.publish.iter().find(|port| port.container_port == 0) {
        return Err(Failure::invalid(format!("port {port:?} has no container port")));
    }
    Ok(())
}

/// Entrypoint and command, as Docker merges them: an entrypoint of the request's own also takes
/// the image's command away.
fn arguments(request: &CreateContainer, image: &ImageConfig) -> Result<Vec<String>> {
    let (entrypoint, image_command) = match &request.entrypoint {
        Some(own) => (own, &[][..]),
        None => (&image.entrypoint, &image.cmd[..]),
    };
    let command = if request.command.is_empty() { image_command } else { &request.command };
    let arguments: Vec<_> = entrypoint.iter().chain(command).cloned().collect();
    if arguments.first().is_none_or(String::is_empty) {
        return Err(Failure::invalid("no command is named, and the image has none")
            .hint("name one after the image"));
    }
    Ok(arguments)
}

fn process(
    request: &CreateContainer,
    image: &ImageConfig,
    capabilities: CapabilitySet,
) -> Result<ProcessSpec> {
    let own_or = |own: &Option<String>, other: &Option<String>, default: &str| {
        own.clone()
            .or_else(|| other.clone().filter(|text| !text.is_empty()))
            .unwrap_or_else(|| default.to_owned())
    };
    let mut cwd = own_or(&request.workdir, &image.working_dir, "/");
    if !cwd.starts_with('/') {
        cwd.insert(0, '/');
    }
    Ok(ProcessSpec {
        args: arguments(request, image)?,
        env: merge_env(&image.env, &request.env),
        cwd,
        user: own_or(&request.user, &image.user, ""),
        terminal: request.terminal.then(WindowSize::default),
        capabilities,
        no_new_privileges: request.no_new_privileges,
        rlimits: request.ulimits.iter().map(rlimit).collect::<Result<_>>()?,
    })
}

fn rlimit(ulimit: &Ulimit) -> Result<Rlimit> {
    let known = Rlimit::NAMES.iter().find(|(name, _)| *name == ulimit.name);
    let Some((_, resource)) = known else {
        return Err(Failure::invalid(format!("unknown ulimit {:?}", ulimit.name)));
    };
    if ulimit.soft > ulimit.hard {
        return Err(Failure::invalid(format!(
            "ulimit {}: soft limit {} is over hard limit {}",
            ulimit.name, ulimit.soft, ulimit.hard
        )));
    }
    Ok(Rlimit { resource: *resource, soft: ulimit.soft, hard: ulimit.hard })
}

fn stop_signal(request: &CreateContainer, image: &ImageConfig) -> Result<Signal> {
    let invalid = |error: hc_spec::ParseSignalError| Failure::invalid(error.to_string());
    match (&request.stop_signal, &image.stop_signal) {
        (Some(own), _) => own.parse().map_err(invalid),
        (None, Some(image)) if !image.is_empty() => image.parse().map_err(invalid),
        (None, _) => Ok(Signal::TERM),
    }
}

/// The VM's whole CPUs and memory.
pub(crate) fn size(request: &CreateContainer, config: &Config) -> Result<(u32, u32)> {
    let vcpus = match request.cpu_millis {
        Some(0) => return Err(Failure::invalid("a container needs more than 0 CPUs")),
        Some(millis) => millis.div_ceil(1000),
        None => config.vcpus(),
    };
    if vcpus > MAX_VCPUS {
        return Err(Failure::invalid(format!("a VM has at most {MAX_VCPUS} CPUs, not {vcpus}")));
    }
    let memory_mib = match request.memory_bytes {
        Some(bytes) => {
            let mib = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX);
            if mib < 6 {
                return Err(Failure::invalid("memory must be at least 6m"));
            }
            mib.checked_add(GUEST_OVERHEAD_MIB)
                .filter(|mib| *mib <= 16 << 20)
                .ok_or_else(|| Failure::invalid("memory is more than any VM can have"))?
                .max(MIN_MEMORY_MIB)
        }
        None => config.memory_mib(),
    };
    Ok((vcpus, memory_mib))
}

fn hostname(name: &str) -> Result<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if name.is_empty() || name.len() > MAX_HOSTNAME || !name.chars().all(good) {
        return Err(Failure::invalid(format!(
            "invalid host name {name:?}: use 1 to {MAX_HOSTNAME} of a-z, A-Z, 0-9, '-' and '.'"
        )));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests;
