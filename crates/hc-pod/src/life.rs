// SPDX-License-Identifier: Apache-2.0
//! The life of a pod: from the first instruction of its VM to its last record.
//!
//! ```text
//! get a VM --> set up, make container --> [order to start] --> spawn --> runs
//!    |                 |                         |               |        |
//!    +-----------------+-------------------------+---------------+--------+
//!                                                                         v
//!                  exit record <-- VM gone <-- shut down <-- container has ended
//! ```
//!
//! # Invariants
//!
//! - Whatever happens, the life ends with the VM gone and an exit in the record.
//! - The exit status is the program's own, or 125, 126 or 127 with the reason beside it; it is never
//!   made up.
//! - The guest's own story (`guest_story`) knows nothing of the VM, so that orders and the VM's
//!   death are served at every point of it.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hc_api::ErrorKind;
use hc_api::stream::ExitFrame;
use hc_guest::{Events, Guest, Launch, Stdio};
use hc_proto::message::{Call, Event, Identity, PodSetup, Program, Scratch};
use hc_spec::{Exit, NetworkSpec, Signal};
use hc_vmm::Vm;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::failure::{Failure, Result, chain};
use crate::log::Source as Stream;
use crate::machine::{Machine, SCRATCH_DISK, Source, obituary};
use crate::output::News;
use crate::pod::{Order, Pod, Running};
use crate::{OUR_FAILURE, Phase, parent};

/// How long a guest may take to write its disks back and say goodbye.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);
/// How long the driver may take to tell why a VM ended whose line has ended.
const POST_MORTEM_PATIENCE: Duration = Duration::from_secs(2);
/// Random bytes that a guest is given: twice what its pool holds.
const ENTROPY_BYTES: usize = 64;

/// How a pod's life ended.
#[derive(Debug, PartialEq, Eq)]
struct End {
    exit: Option<Exit>,
    exit_status: u8,
    oom_killed: bool,
    error: String,
    hint: String,
}

impl End {
    fn exited(exit: Exit, oom_killed: bool) -> End {
        End {
            exit: Some(exit),
            exit_status: exit.status(),
            oom_killed,
            error: String::new(),
            hint: String::new(),
        }
    }

    fn failed(failure: &Failure) -> End {
        End {
            exit: None,
            exit_status: failure.exit_status(),
            oom_killed: false,
            error: failure.0.message.clone(),
            hint: failure.0.hint.clone().unwrap_or_default(),
        }
    }

    /// What becomes of a container whose VM is ended on a client's order.
    fn killed(pod: &Pod) -> End {
        if pod.status.borrow().started.is_some() {
            return End::exited(Exit::Signal(Signal::KILL.number()), false);
        }
        let message = "the container was stopped before its program ran";
        End::failed(&Failure::new(ErrorKind::InvalidState, message))
    }

    fn vm_ended(pod: &Pod, exit: hc_vmm::Result<hc_vmm::Exit>) -> End {
        match exit {
            Ok(hc_vmm::Exit::Killed) => End::killed(pod),
            exit => End::failed(&obituary(exit)),
        }
    }
}

/// Takes the pod through its whole life.
pub(crate) async fn live(pod: Arc<Pod>, mut orders: mpsc::Receiver<Order>, source: Source) {
    pod.record();
    let end = match machine(&pod, source, &mut orders).await {
        Ok(Some((machine, events))) => live_in(&pod, machine, events, &mut orders).await,
        Ok(None) => End::killed(&pod),
        Err(failure) => {
            // It may have come before whoever orders the start has connected to hear of it.
            tokio::select! {
                _ = wait_for_order(&pod) => {}
                _ = orders.recv() => {}
            }
            End::failed(&failure)
        }
    };
    tracing::info!(status = end.exit_status, error = end.error, "pod ended");
    let last = if pod.status.borrow().started.is_some() {
        let timeline = pod.steps();
        News::Exit(ExitFrame { status: end.exit_status, error: end.error.clone(), timeline })
    } else {
        let mut failure = Failure::new(ErrorKind::Internal, end.error.clone());
        failure.0.hint = Some(end.hint.clone()).filter(|hint| !hint.is_empty());
        failure.0.exit_status = Some(end.exit_status);
        News::Failed(failure.0)
    };
    pod.running.send_replace(None);
    pod.change(|status| {
        status.phase = Phase::Exited;
        status.finished = Some(Timestamp::now());
        status.exit = end.exit;
        status.exit_status = Some(end.exit_status);
        status.oom_killed = end.oom_killed;
        status.error = end.error;
        status.hint = end.hint;
    });
    pod.output.finish(last);
}

/// Gets the pod its VM; `None` if an order ended that.
async fn machine(
    pod: &Pod,
    source: Source,
    orders: &mut mpsc::Receiver<Order>,
) -> Result<Option<(Machine, Events)>> {
    let mut machine = pin!(Machine::start(pod, source));
    loop {
        tokio::select! {
            machine = &mut machine => return machine.map(Some),
            order = orders.recv() => match order {
                Some(Order::Pause(done) | Order::Unpause(done)) => {
                    let message = "container is not running yet";
                    // A client that left does not care.
                    let _ = done.send(Err(Failure::new(ErrorKind::InvalidState, message)));
                }
                Some(Order::Kill) | None => return Ok(None),
            },
        }
    }
}

async fn live_in(
    pod: &Arc<Pod>,
    mut machine: Machine,
    events: Events,
    orders: &mut mpsc::Receiver<Order>,
) -> End {
    pod.change(|status| status.ports.clone_from(&machine.ports));
    let network = machine.guest_network.clone();
    let end = {
        let guest = machine.guest.clone();
        let mut story = pin!(guest_story(Arc::clone(pod), guest, events, network));
        loop {
            tokio::select! {
                end = &mut story => break end,
                order = orders.recv() => match order {
                    Some(order) => {
                        if carry_out(pod, machine.vm.as_mut(), order).await {
                            break Ok(End::killed(pod));
                        }
                    }
                    None => break Ok(End::killed(pod)),
                },
                exit = machine.vm.wait() => break Ok(last_of(pod, story, exit).await),
            }
        }
    };
    pod.output.container_ended();
    let end = match end {
        Ok(end) => end,
        Err(failure) => post_mortem(pod, machine.vm.as_mut(), failure).await,
    };
    machine.stop_network();
    if let Err(error) = machine.vm.kill().await {
        tracing::error!(error = %chain(&error), "VM could not be ended");
    }
    pod.reached("VM is gone");
    drain(pod).await;
    end
}

/// The end of a pod whose VM has ended. What the guest said before may still be on its way to the
/// story, which then knows how the container ended.
async fn last_of(
    pod: &Pod,
    story: impl Future<Output = Result<End>>,
    exit: hc_vmm::Result<hc_vmm::Exit>,
) -> End {
    match timeout(POST_MORTEM_PATIENCE, story).await {
        Ok(Ok(end)) => end,
        Ok(Err(_)) | Err(_) => End::vm_ended(pod, exit),
    }
}

/// A guest whose line ended has often died of something that the driver knows better.
async fn post_mortem(pod: &Pod, vm: &mut dyn Vm, failure: Failure) -> End {
    if failure.0.exit_status.is_none()
        && let Ok(exit) = timeout(POST_MORTEM_PATIENCE, vm.wait()).await
    {
        return End::vm_ended(pod, exit);
    }
    End::failed(&failure)
}

/// Carries out an order; whether it was the last.
async fn carry_out(pod: &Pod, vm: &mut dyn Vm, order: Order) -> bool {
    let (result, done, phase) = match order {
        Order::Kill => return true,
        Order::Pause(done) => (hold(vm, true).await, done, Phase::Paused),
        Order::Unpause(done) => (hold(vm, false).await, done, Phase::Running),
    };
    if result.is_ok() {
        pod.change(|status| status.phase = phase);
    }
    let _ = done.send(result); // A client that left does not care.
    false
}

async fn hold(vm: &mut dyn Vm, held: bool) -> Result<()> {
    let Some(pause) = vm.pause() else {
        return Err(Failure::new(ErrorKind::Unsupported, "this driver cannot pause a VM"));
    };
    if held {
        pause.hold().await?;
    } else {
        pause.release().await?;
    }
    Ok(())
}

/// Everything that happens with the guest, up to the end of its container and its goodbye.
async fn guest_story(
    pod: Arc<Pod>,
    guest: Guest,
    mut events: Events,
    network: Option<hc_usernet::GuestNetwork>,
) -> Result<End> {
    guest.call(Call::SetUp(setup(&pod, network)?)).await?;
    pod.reached("guest is set up");
    guest.call(Call::CreateContainer(Box::new(pod.config.container.clone()))).await?;
    pod.reached("container is made");
    wait_for_order(&pod).await?;
    start_main(&pod, &guest).await?;
    let end = loop {
        match events.next().await {
            Some(Event::ProcessExited { process, exit }) => pod.process_exited(process, exit),
            Some(Event::ContainerExited { container, exit, oom_killed })
                if container == pod.config.container.id =>
            {
                break End::exited(exit, oom_killed);
            }
            Some(Event::ContainerExited { .. }) => {}
            None => return Err(guest.ended().await.into()),
        }
    };
    pod.reached("container has ended");
    pod.output.container_ended();
    drain(&pod).await;
    // What fails here costs the writable layer its last seconds, not the exit code.
    if let Err(error) = guest.call_within(Call::Shutdown, SHUTDOWN_PATIENCE).await {
        tracing::warn!(error = %chain(&error), "guest did not shut down cleanly");
    }
    Ok(end)
}

/// Waits until what the main process wrote has reached the log and the clients' queues.
async fn drain(pod: &Pod) {
    let pumps = std::mem::take(&mut *pod.pumps.lock().await);
    for pump in pumps {
        // The guest ends the streams before it tells of the end; if it lies, it waits for nobody.
        let _ = timeout(POST_MORTEM_PATIENCE, pump).await;
    }
}

/// Waits until the container may start. Where the daemon is killed between making us and saying so,
/// nobody else will.
async fn wait_for_order(pod: &Pod) -> Result<()> {
    let mut start = pod.start.subscribe();
    tokio::select! {
        biased;
        // An error means that the pod is gone, and nobody will look at what is returned.
        _ = start.wait_for(|start| *start) => Ok(()),
        () = parent::gone(pod.config.daemon) => {
            let message = "the daemon was killed before it ordered the container to start";
            let mut failure = Failure::new(ErrorKind::Internal, message);
            failure.0.exit_status = Some(OUR_FAILURE);
            Err(failure)
        }
    }
}

/// Starts the main process, and the tasks that carry its output.
async fn start_main(pod: &Arc<Pod>, guest: &Guest) -> Result<()> {
    let process = &pod.config.container.process;
    let launch = Launch {
        container: pod.config.container.id.clone(),
        main: true,
        program: Program::Exec(process.clone()),
        stdio: Stdio {
            stdin: pod.config.open_stdin,
            stdout: true,
            stderr: process.terminal.is_none(),
        },
    };
    let main = guest.spawn(launch).await?;
    *pod.stdin.lock().await = main.stdin;
    pod.reached("main process runs");
    pod.running.send_replace(Some(Running { guest: guest.clone(), main: main.id }));
    pod.change(|status| {
        status.phase = Phase::Running;
        status.started = Some(Timestamp::now());
    });
    pod.output.started();
    let pump = |source, stream| {
        let pod = Arc::clone(pod);
        tokio::spawn(async move { pod.output.pump(source, stream).await })
    };
    let stdout = main.stdout.map(|stream| pump(Stream::Stdout, stream));
    let stderr = main.stderr.map(|stream| pump(Stream::Stderr, stream));
    pod.pumps.lock().await.extend(stdout.into_iter().chain(stderr));
    Ok(())
}

fn setup(pod: &Pod, network: Option<hc_usernet::GuestNetwork>) -> Result<PodSetup> {
    let config = &pod.config;
    let mut entropy = vec![0; ENTROPY_BYTES];
    rustix::rand::getrandom(&mut entropy[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Failure::io("cannot get random bytes", &errno.into()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut dns_servers = config.dns_servers.clone();
    let mut dns_search = config.dns_search.clone();
    if let Some(network) = &network {
        if dns_servers.is_empty() {
            dns_servers.clone_from(&network.dns_servers);
        }
        if dns_search.is_empty() {
            dns_search.clone_from(&network.dns_search);
        }
    }
    let identity = Identity {
        hostname: config.hostname.clone(),
        unix_nanos: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        entropy,
        network: network.map(|network| NetworkSpec {
            mac: network.mac,
            addresses: network.addresses,
            gateways: network.gateways,
            mtu: network.mtu,
        }),
        dns_servers,
        dns_search,
        dns_options: config.dns_options.clone(),
        hosts: config.hosts.clone(),
    };
    Ok(PodSetup { identity, scratch: Scratch::Disk(SCRATCH_DISK.into()) })
}

impl Pod {
    /// Changes the status for everybody, and on disk.
    pub(crate) fn change(&self, change: impl FnOnce(&mut crate::PodStatus)) {
        self.status.send_modify(change);
        self.record();
    }

    fn record(&self) {
        // Clients that are connected are told anyway; the next daemon would call the pod lost.
        if let Err(error) = self.dir.write_status(&self.status.borrow()) {
            tracing::error!(%error, "status cannot be recorded");
        }
    }
}
