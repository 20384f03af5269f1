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
//! A pod that goes on from a copy of another begins where that one's container ran. One that is
//! paused to disk has no VM for a while, and then another.
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
use std::time::Duration;

use hc_api::ErrorKind;
use hc_api::stream::ExitFrame;
use hc_guest::{Events, Guest, Launch, Predecessor, Process, Stdio};
use hc_proto::message::{Call, Event, PodSetup, Program, Scratch};
use hc_spec::{Exit, Signal};
use hc_vmm::Vm;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::config::Copied;
use crate::copies::{blocking, copy, hold, release, suspend};
use crate::failure::{Failure, Result, chain};
use crate::identity::{identity, set_clock};
use crate::log::Source as Stream;
use crate::machine::{Machine, Source, obituary};
use crate::output::News;
use crate::pod::{Order, Pod, Running};
use crate::{OUR_FAILURE, Phase, parent, saved};

/// How long a guest may take to write its disks back and say goodbye.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);
/// How long the driver may take to tell why a VM ended whose line has ended.
const POST_MORTEM_PATIENCE: Duration = Duration::from_secs(2);

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

/// How a pod's life begins.
pub(crate) enum Beginning {
    /// Its container is made and started.
    New(Source),
    /// Its container runs already, in a copy of another pod's guest.
    Copy(saved::Guest, Predecessor),
}

/// A VM whose story is told from here on.
struct Run {
    machine: Machine,
    events: Events,
}

/// What a stretch of life with one VM ended with.
enum Stretch {
    /// The end of the pod.
    End(End),
    /// The VM is gone, and its guest on disk, to be gone on from. Somebody waits to hear of it.
    Suspended(Copied, oneshot::Sender<Result<()>>),
}

/// What an order that was carried out leads to.
enum Carried {
    On,
    Kill,
    Suspended(Copied, oneshot::Sender<Result<()>>),
}

/// Takes the pod through its whole life.
pub(crate) async fn live(pod: Arc<Pod>, mut orders: mpsc::Receiver<Order>, beginning: Beginning) {
    pod.record();
    let end = match begin(&pod, beginning, &mut orders).await {
        Ok(Some(run)) => live_on(&pod, run, &mut orders).await,
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
async fn begin(
    pod: &Arc<Pod>,
    beginning: Beginning,
    orders: &mut mpsc::Receiver<Order>,
) -> Result<Option<Run>> {
    let mut beginning = pin!(async {
        match beginning {
            Beginning::New(source) => {
                let (machine, events) = Machine::start(pod, source).await?;
                Ok(Run { machine, events })
            }
            Beginning::Copy(guest, before) => {
                wait_for_order(pod).await?;
                let (machine, events, main) = Machine::go_on(pod, guest, before).await?;
                let identity = identity(pod, machine.guest_network.clone())?;
                machine.guest.call(Call::Renew(identity)).await?;
                set_clock(&machine.guest).await?;
                main_runs(pod, &machine.guest, main).await;
                Ok(Run { machine, events })
            }
        }
    });
    loop {
        tokio::select! {
            run = &mut beginning => return run.map(Some),
            order = orders.recv() => match order {
                Some(Order::Kill) | None => return Ok(None),
                Some(other) => other.refuse("container is not running yet"),
            },
        }
    }
}

/// From the first VM to the last.
async fn live_on(pod: &Arc<Pod>, mut run: Run, orders: &mut mpsc::Receiver<Order>) -> End {
    loop {
        match stretch(pod, run, orders).await {
            Stretch::End(end) => return end,
            Stretch::Suspended(copied, done) => {
                pod.change(|status| status.phase = Phase::Paused);
                let _ = done.send(Ok(())); // A client that left does not care.
                match resumed(pod, &copied, orders).await {
                    Some(next) => run = next,
                    None => return End::killed(pod),
                }
            }
        }
    }
}

/// The life of a VM, to its end.
async fn stretch(pod: &Arc<Pod>, run: Run, orders: &mut mpsc::Receiver<Order>) -> Stretch {
    let Run { mut machine, events } = run;
    pod.change(|status| status.ports.clone_from(&machine.ports));
    let network = machine.guest_network.clone();
    let scratch = machine.scratch.take();
    let end = {
        let guest = machine.guest.clone();
        let mut story = pin!(guest_story(Arc::clone(pod), guest, events, network, scratch));
        loop {
            tokio::select! {
                end = &mut story => break end.map(Stretch::End),
                order = orders.recv() => {
                    let Some(order) = order else { break Ok(Stretch::End(End::killed(pod))) };
                    match carry_out(pod, machine.vm.as_mut(), order).await {
                        Carried::On => {}
                        Carried::Kill => break Ok(Stretch::End(End::killed(pod))),
                        Carried::Suspended(copied, done) => {
                            break Ok(Stretch::Suspended(copied, done));
                        }
                    }
                }
                exit = machine.vm.wait() => {
                    break Ok(Stretch::End(last_of(pod, story, exit).await));
                }
            }
        }
    };
    let end = match end {
        Ok(end) => end,
        Err(failure) => Stretch::End(post_mortem(pod, machine.vm.as_mut(), failure).await),
    };
    if let Stretch::End(_) = end {
        pod.output.container_ended();
    }
    machine.stop_network();
    if let Err(error) = machine.vm.kill().await {
        tracing::error!(error = %chain(&error), "VM could not be ended");
    }
    pod.reached("VM is gone");
    drain(pod).await;
    end
}

/// Waits until a pod that is paused to disk is to go on, and has a VM again; `None` if it is to end.
async fn resumed(
    pod: &Arc<Pod>,
    copied: &Copied,
    orders: &mut mpsc::Receiver<Order>,
) -> Option<Run> {
    loop {
        match orders.recv().await {
            Some(Order::Unpause(done)) => match resume(pod, copied).await {
                Ok(run) => {
                    let _ = done.send(Ok(())); // A client that left does not care.
                    return Some(run);
                }
                // The guest is on disk still: this can be tried again.
                Err(failure) => drop(done.send(Err(failure))),
            },
            Some(Order::Kill) | None => return None,
            Some(other) => other.refuse("container is paused to disk; unpause it first"),
        }
    }
}

async fn resume(pod: &Arc<Pod>, copied: &Copied) -> Result<Run> {
    let path = pod.dir.paused_guest();
    let file = path.clone();
    let guest = blocking("cannot read the paused guest", move || saved::Guest::read(&file)).await?;
    let before = copied.predecessor().ok_or_else(unreadable)?;
    let (machine, events, main) = Machine::go_on(pod, guest.1, before).await?;
    set_clock(&machine.guest).await?;
    main_runs(pod, &machine.guest, main).await;
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::warn!(%error, "paused guest cannot be removed");
    }
    Ok(Run { machine, events })
}

/// What a record says that was not written by this build.
pub(crate) fn unreadable() -> Failure {
    Failure::new(ErrorKind::Internal, "the copied pod's record makes no sense")
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

async fn carry_out(pod: &Pod, vm: &mut dyn Vm, order: Order) -> Carried {
    match order {
        Order::Kill => return Carried::Kill,
        Order::Pause(done) => {
            let held = hold(vm).await;
            if held.is_ok() {
                pod.change(|status| status.phase = Phase::Paused);
            }
            let _ = done.send(held); // A client that left does not care, here and below.
        }
        Order::Unpause(done) => {
            let released = release(pod, vm).await;
            if released.is_ok() {
                pod.change(|status| status.phase = Phase::Running);
            }
            let _ = done.send(released);
        }
        Order::Copy(to, done) => drop(done.send(copy(pod, vm, to).await)),
        Order::Suspend(done) => match suspend(pod, vm).await {
            Ok(copied) => return Carried::Suspended(copied, done),
            Err(failure) => drop(done.send(Err(failure))),
        },
    }
    Carried::On
}

/// Everything that happens with the guest, up to the end of its container and its goodbye. One with
/// `scratch` is still to be set up with that, and has no container yet.
async fn guest_story(
    pod: Arc<Pod>,
    guest: Guest,
    mut events: Events,
    network: Option<hc_usernet::GuestNetwork>,
    scratch: Option<Scratch>,
) -> Result<End> {
    if let Some(scratch) = scratch {
        begin_container(&pod, &guest, network, scratch).await?;
    }
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
    if pod.config.disposable {
        return Ok(end);
    }
    // What fails here costs the writable layer its last seconds, not the exit code.
    if let Err(error) = guest.call_within(Call::Shutdown, SHUTDOWN_PATIENCE).await {
        tracing::warn!(error = %chain(&error), "guest did not shut down cleanly");
    }
    Ok(end)
}

/// Makes a pod of a guest that knows none, and starts its container when that is ordered.
async fn begin_container(
    pod: &Arc<Pod>,
    guest: &Guest,
    network: Option<hc_usernet::GuestNetwork>,
    scratch: Scratch,
) -> Result<()> {
    let identity = identity(pod, network)?;
    let container = Box::new(pod.config.container.clone());
    // The second goes out before the first is answered, so that the guest need not wait for it.
    let (set_up, made) = tokio::join!(
        async {
            guest.call(Call::SetUp(PodSetup { identity, scratch })).await?;
            pod.reached("guest is set up");
            Ok::<_, Failure>(())
        },
        guest.call(Call::CreateContainer(container)),
    );
    set_up?;
    made?;
    pod.reached("container is made");
    wait_for_order(pod).await?;
    set_clock(guest).await?;
    start_main(pod, guest).await
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
    pod.reached("main process runs");
    main_runs(pod, guest, main).await;
    Ok(())
}

/// Takes note of a main process that runs, and starts the tasks that carry its output.
async fn main_runs(pod: &Arc<Pod>, guest: &Guest, main: Process) {
    let running = Running { guest: guest.clone(), main: main.id, ids: main.ids() };
    *pod.stdin.lock().await = main.stdin;
    pod.running.send_replace(Some(running));
    pod.change(|status| {
        status.phase = Phase::Running;
        status.started.get_or_insert_with(Timestamp::now);
    });
    pod.output.started();
    let pump = |source, stream| {
        let pod = Arc::clone(pod);
        tokio::spawn(async move { pod.output.pump(source, stream).await })
    };
    let stdout = main.stdout.map(|stream| pump(Stream::Stdout, stream));
    let stderr = main.stderr.map(|stream| pump(Stream::Stderr, stream));
    pod.pumps.lock().await.extend(stdout.into_iter().chain(stderr));
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
