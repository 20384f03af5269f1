// SPDX-License-Identifier: Apache-2.0
//! Starting pod processes, watching them, and finding those of a daemon before us.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hc_api::{ContainerState, ErrorKind};
use hc_pod::config::{CONFIG_VERSION, DriverConfig, VmConfig};
use hc_pod::job::{Job, PodDirs, Shape};
use hc_pod::saved::Guest;
use hc_pod::{Phase, PodConfig, PodStatus, ROOTFS_DISK};
use hc_spec::{ContainerSpec, Id};
use http_body_util::BodyExt as _;
use jiff::Timestamp;

use crate::containers::{Containers, Entry, View};
use crate::failure::{Failure, Result};
use crate::forward;
use crate::host::{Boot, Choice, Host};
use crate::pool::{Pool, Want};
use crate::process::{Process, Processes};
use crate::snapshots::{self, Snapshots};
use crate::templates::{Key, Templates};

/// Users that hypervisors run as, one a pod, when we are root: above what any distribution gives
/// to people, services or subordinate ranges.
const CONFINED_UIDS: std::ops::Range<u32> = 0x7000_0000..0x7100_0000;
/// What guest kernels are told beside what a driver adds: no chatter, and no network card that the
/// `dummy` driver makes up.
const KERNEL_PARAMETERS: &str = "quiet dummy.numdummies=0 rcupdate.rcu_expedited=1";

/// How long a pod may take to say how it is, and to be gone if it has ended: milliseconds, unless it
/// hangs or somebody reads its last output slowly.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(1);

/// Between two attempts to watch a pod where the host is out of descriptors or memory.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// Starts and watches pods.
pub(crate) struct Supervisor {
    pub(crate) containers: Containers,
    pub(crate) host: Arc<Host>,
    pub(crate) processes: Processes,
    /// Where pods go on from, unless they are to boot.
    pub(crate) templates: Option<Arc<Templates>>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) snapshots: Snapshots,
    /// Whole CPUs and MiB of pods that ask for nothing in particular.
    pub(crate) usual_size: (u32, u32),
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
        let mut config = self.pod_config(entry, rootfs, &choice, boot);
        let start = match &record.origin {
            Some(origin) if before.state == ContainerState::Created => {
                let (guest, meta) = self.snapshots.go_on(entry, origin).await?;
                config.copied = Some(meta.copied);
                Way { vm: Origin::Copy(guest), missing: None }
            }
            _ => self.way(&config).await,
        };
        self.containers.started(entry)?;
        if let Err(error) = self.spawn(entry, &config, start.vm) {
            if let Err(Failure(error)) = self.containers.not_started(entry, &before) {
                tracing::error!(id = %entry.id, error = error.message, "cannot be recorded");
            }
            return Err(error);
        }
        self.watch(Arc::clone(entry));
        self.prepare_next(entry, start.missing);
        Ok(())
    }

    /// The fastest way to a VM for a pod.
    async fn way(&self, config: &PodConfig) -> Way {
        let shape = Shape { vm: config.vm.clone(), network: config.network.is_some() };
        let Some((templates, key)) = self.template_key(&shape).await else {
            return Way { vm: Origin::Kernel, missing: None };
        };
        if let Some(process) = self.pool.take(&key) {
            return Way { vm: Origin::Waiting(process), missing: None };
        }
        match templates.get(&key).await {
            Some(guest) => Way { vm: Origin::Copy(guest), missing: None },
            None => Way { vm: Origin::Kernel, missing: Some((key, shape)) },
        }
    }

    /// The key of the template for pods of this shape, where there can be one.
    pub(crate) async fn template_key(&self, shape: &Shape) -> Option<(&Arc<Templates>, Key)> {
        let templates = self.templates.as_ref()?;
        let program = self.host.copying_hypervisor(shape.vm.driver)?;
        // What is wrong with a file is told by whoever needs it.
        Some((templates, templates.key(shape, &program).await.ok()?))
    }

    /// Once a pod is under way, makes the next one's start faster.
    fn prepare_next(&self, entry: &Arc<Entry>, missing: Option<(Key, Shape)>) {
        let templates = self.templates.clone();
        let (pool, entry) = (Arc::clone(&self.pool), Arc::clone(entry));
        tokio::spawn(async move {
            let starts = |state| state == ContainerState::Starting;
            // An error means that it is gone, which is as good.
            let _ = entry.watch().wait_for(|view| view.removed || !starts(view.state)).await;
            if let (Some(templates), Some((key, shape))) = (templates, missing) {
                templates.get_or_make(&key, &nobodys(shape)).await;
            }
            pool.refill();
            // It has what it went on from. One whose process was killed before it ran starts again.
            if entry.record.origin == Some(snapshots::Origin::Own)
                && entry.view().state != ContainerState::Created
            {
                let _ = std::fs::remove_dir_all(snapshots::own(&entry)); // Or with the container.
            }
        });
    }

    /// Keeps VMs waiting for as long as the daemon lives.
    pub(crate) fn keep_pool(self: &Arc<Self>) {
        let Some(templates) = self.templates.clone().filter(|_| self.pool.is_wanted()) else {
            return;
        };
        let (pool, processes) = (Arc::clone(&self.pool), self.processes.clone());
        let supervisor = Arc::clone(self);
        tokio::spawn(pool.keep_full(templates, processes, move || {
            let supervisor = Arc::clone(&supervisor);
            async move { supervisor.usual().await }
        }));
    }

    /// The template of pods that ask for nothing in particular.
    async fn usual(self: Arc<Self>) -> Option<Want> {
        let boot = self.host.boot(None).await.ok()?;
        let choice = self.host.choose(None, boot.transport).await.ok()?;
        let (vcpus, memory_mib) = self.usual_size;
        let vm = self.vm_config(choice.driver, boot, vcpus, memory_mib);
        let shape = nobodys(Shape { vm, network: true });
        let (_, key) = self.template_key(&shape).await?;
        Some(Want { key, shape })
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
                confine: confinement(record.pod.as_str()),
                ..self.vm_config(choice.driver, boot, record.vcpus, record.memory_mib)
            },
            network: record.network(),
            hostname: record.hostname.clone(),
            hosts: request.hosts.clone(),
            dns_servers: request.dns.clone(),
            dns_search: request.dns_search.clone(),
            dns_options: request.dns_options.clone(),
            rootfs,
            copied: None,
            container: ContainerSpec { rootfs: ROOTFS_DISK.into(), ..record.spec.clone() },
            open_stdin: request.open_stdin,
            disposable: request.auto_remove,
            stop_timeout_seconds: record.stop_timeout_seconds,
            daemon: std::process::id(),
        }
    }

    /// A VM of nobody in particular.
    pub(crate) fn vm_config(
        &self,
        driver: DriverConfig,
        boot: Boot,
        vcpus: u32,
        memory_mib: u32,
    ) -> VmConfig {
        VmConfig {
            driver,
            kernel: boot.kernel,
            initramfs: boot.initramfs,
            kernel_parameters: KERNEL_PARAMETERS.into(),
            transport: boot.transport,
            vcpus,
            memory_mib,
            scratch_template: self.host.scratch_template(),
            boot_timeout_seconds: self.host.boot_timeout_seconds(),
            confine: None,
        }
    }

    /// Gives a pod to a process, with everything that it needs.
    fn spawn(&self, entry: &Entry, config: &PodConfig, vm: Origin) -> Result<()> {
        let prepared = prepare(entry, config);
        let (listener, lock, log) =
            prepared.map_err(|error| Failure::host("cannot prepare the pod's folder", &error))?;
        let dirs =
            PodDirs { data: entry.dir.data().to_owned(), runtime: entry.dir.runtime().to_owned() };
        let (waiting, guest) = match vm {
            Origin::Kernel => (None, None),
            Origin::Copy(guest) => (None, Some(guest)),
            Origin::Waiting(process) => (Some(process), None),
        };
        let job = Job::Pod { dirs, listener, lock, log, guest };
        // One that waited may have ended a moment ago.
        if waiting.is_some_and(|process| process.give(&job).is_ok()) {
            return Ok(());
        }
        let process = self.processes.start()?;
        process.give(&job).map_err(|error| Failure::host("cannot start the pod's process", &error))
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

/// How a pod gets its VM.
struct Way {
    vm: Origin,
    /// The template that would have made it faster.
    missing: Option<(Key, Shape)>,
}

/// Where a pod's VM comes from.
enum Origin {
    Kernel,
    /// A template, or a pod that ran.
    Copy(Guest),
    Waiting(Process),
}

/// The same shape for a VM that is no pod's, which runs as a user that no pod has.
pub(crate) fn nobodys(mut shape: Shape) -> Shape {
    let mut bytes = [0; 32];
    // Without randomness it shares its user with another such VM.
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    shape.vm.confine = confinement(Id::from_bytes(bytes).as_str());
    shape
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

/// Waits until the daemon knows of the pod what that itself tells already. Its clients hear of a
/// start or an end when it happens, and are to find it here, though the daemon hears of it over
/// another connection.
///
/// A pod that lingers, because one of its clients is slow, is not waited for.
pub(crate) async fn catch_up(entry: &Entry) {
    if !entry.is_active() {
        return;
    }
    let recorded = async {
        match status(entry).await {
            Ok(status) if status.phase != Phase::Exited => entry.knows(status.phase).await,
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
