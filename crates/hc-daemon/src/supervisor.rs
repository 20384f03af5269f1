// SPDX-License-Identifier: Apache-2.0
//! Starting pod processes, watching them, and finding those of a daemon before us.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hc_api::{ContainerState, ErrorKind};
use hc_pod::config::{CONFIG_VERSION, VmConfig};
use hc_pod::{Phase, PodConfig, PodStatus};
use http_body_util::BodyExt as _;
use jiff::Timestamp;

use crate::containers::{Containers, Entry, View};
use crate::failure::{Failure, Result};
use crate::forward;
use crate::host::{Boot, Choice, Host};

/// Users that hypervisors run as, one a pod, when we are root: above what any distribution gives
/// to people, services or subordinate ranges.
const CONFINED_UIDS: std::ops::Range<u32> = 0x7000_0000..0x7100_0000;
/// What guest kernels are told beside what a driver adds: no chatter, and no network card that the
/// `dummy` driver makes up.
const KERNEL_PARAMETERS: &str = "quiet dummy.numdummies=0";

/// How long a pod may take to say how it is, and to be gone if it has ended: milliseconds, unless it
/// hangs or somebody reads its last output slowly.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(1);

/// Between two attempts to watch a pod where the host is out of descriptors or memory.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// Starts and watches pods.
pub(crate) struct Supervisor {
    pub(crate) containers: Containers,
    pub(crate) host: Arc<Host>,
    /// The folder of `hyper-pod`.
    pub(crate) programs: PathBuf,
    /// The image store's folder of root file systems is asked of the store by chain ID.
    pub(crate) store: hc_image::Store,
}

impl Supervisor {
    /// Takes up everything that a daemon before us left: pods that run are watched again, ends that
    /// nobody saw are recorded, removals go on.
    pub(crate) fn take_up(self: &Arc<Self>) {
        for entry in self.containers.all() {
            match entry.view().state {
                ContainerState::Starting => {
                    // What was known last, until the pod says how it fares now.
                    if let Some(status) = entry.dir.read_status() {
                        entry.observe(status);
                    }
                    self.watch(entry);
                }
                ContainerState::Removing => {
                    if let Err(Failure(error)) = self.containers.remove(&entry) {
                        tracing::error!(id = %entry.id, error = error.message, "cannot remove");
                    }
                }
                ContainerState::Exited if entry.record.request.auto_remove => {
                    self.remove_ended(&entry);
                }
                _ => {}
            }
        }
    }

    /// Starts the pod process of a container that does not run. The container itself waits for the
    /// order that is sent to the process.
    pub(crate) async fn start(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<()> {
        let _work = entry.work.lock().await;
        settle(entry).await;
        let before = entry.view();
        if entry.is_active() {
            return Ok(());
        }
        if before.removed || before.state == ContainerState::Removing {
            return Err(Failure::new(ErrorKind::InvalidState, "container is being removed"));
        }
        let record = &entry.record;
        let rootfs = self.rootfs(entry)?;
        let boot = self.host.boot(record.kernel.as_deref()).await?;
        let wanted = record.request.driver.as_deref();
        let choice = self.host.choose(wanted, boot.transport).await?;
        let config = self.pod_config(entry, rootfs, &choice, boot);
        self.containers.started(entry)?;
        if let Err(error) = spawn(&self.programs, entry, &config) {
            if let Err(Failure(error)) = self.containers.not_started(entry, &before) {
                tracing::error!(id = %entry.id, error = error.message, "cannot be recorded");
            }
            return Err(error);
        }
        self.watch(Arc::clone(entry));
        Ok(())
    }

    fn rootfs(&self, entry: &Entry) -> Result<PathBuf> {
        let chain_id = &entry.record.chain_id;
        let digest = chain_id
            .parse()
            .map_err(|error| Failure::host("cannot find the root file system", &error))?;
        let path = self.store.rootfs_path(&digest);
        if path.exists() {
            return Ok(path);
        }
        Err(Failure::new(
            ErrorKind::InvalidState,
            format!("image {} of this container is gone", entry.record.request.image),
        )
        .hint("pull or load it again"))
    }

    fn pod_config(&self, entry: &Entry, rootfs: PathBuf, choice: &Choice, boot: Boot) -> PodConfig {
        let record = &entry.record;
        let request = &record.request;
        PodConfig {
            version: CONFIG_VERSION,
            id: record.pod.clone(),
            name: entry.name.clone(),
            vm: VmConfig {
                driver: choice.driver,
                kernel: boot.kernel,
                initramfs: boot.initramfs,
                kernel_parameters: KERNEL_PARAMETERS.into(),
                transport: boot.transport,
                vcpus: record.vcpus,
                memory_mib: record.memory_mib,
                scratch_template: self.host.scratch_template(),
                boot_timeout_seconds: self.host.boot_timeout_seconds(),
                confine: confinement(record.pod.as_str()),
            },
            network: record.network(),
            hostname: record.hostname.clone(),
            hosts: request.hosts.clone(),
            dns_servers: request.dns.clone(),
            dns_search: request.dns_search.clone(),
            dns_options: request.dns_options.clone(),
            rootfs,
            container: record.spec.clone(),
            open_stdin: request.open_stdin,
            stop_timeout_seconds: record.stop_timeout_seconds,
            daemon: std::process::id(),
        }
    }

    /// Follows a pod process to its end, then records it.
    fn watch(self: &Arc<Self>, entry: Arc<Entry>) {
        let supervisor = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(Failure(error)) = follow(&entry).await {
                tracing::debug!(id = %entry.id, error = error.message, "watch ended early");
            }
            while let Err(error) = wait_gone(&entry).await {
                tracing::error!(id = %entry.id, %error, "cannot watch pod, trying again");
                tokio::time::sleep(WATCH_PAUSE).await;
            }
            supervisor.ended(&entry);
        });
    }

    fn ended(&self, entry: &Entry) {
        // A host that went down takes the runtime folder along, one that kills a pod leaves it.
        if let Err(error) = entry.dir.remove_runtime() {
            tracing::warn!(id = %entry.id, %error, "runtime folder cannot be removed");
        }
        // What it told us is newer than the record where the disk was full.
        let told = entry.view().run.filter(|run| run.phase == Phase::Exited);
        let recorded = match told.or_else(|| entry.dir.read_status()) {
            Some(status) => self.containers.ended(entry, status.lost(Timestamp::now())),
            // It was killed before it did anything, or never started: so was the container.
            None => self.containers.not_started(entry, &View::CREATED),
        };
        if let Err(Failure(error)) = recorded {
            tracing::error!(id = %entry.id, error = error.message, "end cannot be recorded");
        }
        if entry.record.request.auto_remove {
            self.remove_ended(entry);
        }
    }

    fn remove_ended(&self, entry: &Entry) {
        if let Err(Failure(error)) = self.containers.remove(entry) {
            tracing::error!(id = %entry.id, error = error.message, "cannot remove");
        }
    }

    /// Removes a container; one that is active only with `force`, which kills it first, and again
    /// where it was started meanwhile.
    pub(crate) async fn remove(&self, entry: &Entry, force: bool) -> Result<()> {
        loop {
            settle(entry).await;
            if entry.is_active() {
                if !force {
                    return Err(Failure::new(
                        ErrorKind::InvalidState,
                        format!("container {} is running", entry.name),
                    )
                    .hint("stop it first, or remove it with --force"));
                }
                self.kill(entry).await?;
            }
            let _work = entry.work.lock().await;
            if entry.view().removed {
                return Ok(());
            }
            if !entry.is_active() {
                return self.containers.remove(entry);
            }
        }
    }

    /// Ends a pod at once and waits until its process is gone.
    pub(crate) async fn kill(&self, entry: &Entry) -> Result<()> {
        let request = Request::post("/kill?signal=KILL").body(Body::empty());
        let request = request.map_err(|error| Failure::host("cannot kill", &error))?;
        // A start under way has to be over: until then the pod counts as active, and cannot be asked.
        let work = entry.work.lock().await;
        match forward::forward(&entry.dir.socket(), "/kill", request).await {
            Ok(_) => {}
            // It ended meanwhile.
            Err(Failure(error)) if error.kind == ErrorKind::InvalidState => {}
            Err(failure) => return Err(failure),
        }
        drop(work);
        entry.inactive().await;
        Ok(())
    }
}

/// A user and group for the hypervisor, where we are root.
fn confinement(pod: &str) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let bits = u32::from_str_radix(pod.get(..8)?, 16).ok()?;
    let uid = CONFINED_UIDS.start + bits % (CONFINED_UIDS.end - CONFINED_UIDS.start);
    Some((uid, uid))
}

/// Starts a pod process with everything `hc_pod::run` expects.
fn spawn(programs: &Path, entry: &Entry, config: &PodConfig) -> Result<()> {
    let prepared = prepare(entry, config);
    let (listener, lock, log) =
        prepared.map_err(|error| Failure::host("cannot prepare the pod's folder", &error))?;
    let program = programs.join("hyper-pod");
    let mut child = tokio::process::Command::new(&program)
        .arg(entry.dir.data())
        .arg(entry.dir.runtime())
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::from(lock))
        .stderr(Stdio::from(log))
        .current_dir("/")
        .spawn()
        .map_err(|error| Failure::host(&format!("cannot run {}", program.display()), &error))?;
    // The daemon is its parent and has to take its exit status; what it means is in the record.
    tokio::spawn(async move { child.wait().await });
    Ok(())
}

fn prepare(entry: &Entry, config: &PodConfig) -> io::Result<(UnixListener, File, File)> {
    let dir = &entry.dir;
    dir.create()?;
    let lock = dir.try_lock()?.ok_or_else(|| io::Error::other("a pod process still runs"))?;
    dir.forget_status()?;
    dir.write_config(config)?;
    match std::fs::remove_file(dir.socket()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(dir.socket())?;
    let log = File::options().create(true).append(true).open(dir.own_log())?;
    Ok((listener, lock, log))
}

/// Takes note of everything that a pod process tells until it stops telling.
async fn follow(entry: &Entry) -> Result<()> {
    let mut pod = forward::connect(&entry.dir.socket()).await?;
    let request = Request::get("/watch").body(Body::empty());
    let request = request.map_err(|error| Failure::host("cannot watch", &error))?;
    let broke = |error: hyper::Error| Failure::host("pod broke off", &error);
    let mut body = pod.send_request(request).await.map_err(broke)?.into_body();
    let mut lines = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broke)?.into_data() else { continue };
        lines.extend_from_slice(&data);
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            let status = serde_json::from_slice(&line);
            entry.observe(status.map_err(|error| Failure::host("pod wrote nonsense", &error))?);
        }
    }
    Ok(())
}

/// Waits for an end to be recorded that the pod itself tells already. Its clients hear of an end
/// when it does, and are to find it here, though the daemon hears of it over another connection.
///
/// A pod that lingers, because one of its clients is slow, is not waited for.
pub(crate) async fn catch_up(entry: &Entry) {
    if !entry.is_active() {
        return;
    }
    let recorded = async {
        match status(entry).await {
            Ok(status) if status.phase != Phase::Exited => {}
            Ok(_) | Err(_) => entry.inactive().await,
        }
    };
    // In vain: then what the daemon has heard is what there is to tell.
    let _ = tokio::time::timeout(CATCH_UP_PATIENCE, recorded).await;
}

async fn status(entry: &Entry) -> Result<PodStatus> {
    let mut pod = forward::connect(&entry.dir.socket()).await?;
    let request = Request::get("/status").body(Body::empty());
    let request = request.map_err(|error| Failure::host("cannot ask the pod", &error))?;
    let broke = |error: hyper::Error| Failure::host("pod broke off", &error);
    let body = pod.send_request(request).await.map_err(broke)?.into_body();
    let bytes = body.collect().await.map_err(broke)?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| Failure::host("pod wrote nonsense", &error))
}

/// Waits for an end to be recorded that the pod's lock tells already: whoever was told of the end
/// must be able to build on it.
async fn settle(entry: &Entry) {
    if entry.is_active() && !entry.dir.is_alive() {
        entry.inactive().await;
    }
}

/// Waits until no process holds the pod's lock.
async fn wait_gone(entry: &Entry) -> io::Result<()> {
    let dir = entry.dir.clone();
    let waited = tokio::task::spawn_blocking(move || dir.wait_unlocked()).await;
    waited.map_err(io::Error::other)?
}
