// SPDX-License-Identifier: Apache-2.0
//! A pod as its clients see it: what it is doing, and what can be asked of it.
//!
//! One task, `life.rs`, owns the VM and takes the pod through its states. Everybody else holds a
//! [`Pod`], watches the status and sends orders.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hc_api::ErrorKind;
use hc_api::stream::Step;
use hc_guest::{Guest, Launch, ProcessIds, StreamWriter};
use hc_proto::message::{Answer, Call, ProcessId, ProcessRow, Stats};
use hc_spec::{Exit, Signal, WindowSize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::{Phase, PodConfig, PodDir, PodStatus, Taken};

/// How long a container may take to vanish after SIGKILL before its VM is ended instead.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// Ends of processes that nobody has asked for yet. Each is asked for right after its start, so
/// more than a few come only from a guest that makes them up.
const MAX_UNTAKEN_EXITS: usize = 4096;

/// A pod, shared by its life and its clients.
pub(crate) struct Pod {
    /// What it is.
    pub(crate) config: PodConfig,
    /// Its folders.
    pub(crate) dir: PodDir,
    /// The main process's output.
    pub(crate) output: Output,
    /// The main process's standard input, while it is open.
    pub(crate) stdin: tokio::sync::Mutex<Option<StreamWriter>>,
    pub(crate) status: watch::Sender<PodStatus>,
    pub(crate) start: watch::Sender<bool>,
    pub(crate) running: watch::Sender<Option<Running>>,
    pub(crate) orders: mpsc::Sender<Order>,
    /// The tasks that carry the main process's output.
    pub(crate) pumps: tokio::sync::Mutex<Vec<tokio::task::JoinHandle<()>>>,
    exits: Mutex<HashMap<ProcessId, ExitSlot>>,
    birth: Instant,
}

/// The guest once its main process runs.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) guest: Guest,
    pub(crate) main: ProcessId,
    /// The main process's streams, by their numbers.
    pub(crate) ids: ProcessIds,
}

/// What only the owner of the VM can do.
pub(crate) enum Order {
    /// Hold the VM's CPUs.
    Pause(oneshot::Sender<Result<()>>),
    /// Let them go on.
    Unpause(oneshot::Sender<Result<()>>),
    /// Write the guest to disk, and end the VM until it is let go on.
    Suspend(oneshot::Sender<Result<()>>),
    /// Copy the guest and the scratch disk to these files.
    Copy(CopyTo, oneshot::Sender<Result<Taken>>),
    /// End the VM without asking the guest.
    Kill,
}

impl Order {
    /// Tells whoever gave the order that it does not fit now.
    pub(crate) fn refuse(self, reason: &str) {
        let failure = || Failure::new(ErrorKind::InvalidState, reason);
        // A client that left does not care.
        match self {
            Order::Pause(done) | Order::Unpause(done) | Order::Suspend(done) => {
                drop(done.send(Err(failure())));
            }
            Order::Copy(_, done) => drop(done.send(Err(failure()))),
            Order::Kill => {}
        }
    }
}

/// Where a copy of a pod goes.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CopyTo {
    /// The guest's file.
    pub(crate) guest: PathBuf,
    /// The scratch disk's.
    pub(crate) scratch: PathBuf,
}

/// Where the end of an exec'd process and the client that waits for it meet.
enum ExitSlot {
    Awaited(oneshot::Sender<Exit>),
    Ended(Exit),
}

impl Pod {
    /// A pod that has not begun, and the orders that its life will take.
    pub(crate) fn new(
        config: PodConfig,
        dir: PodDir,
        output: Output,
    ) -> (Pod, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(8);
        let status = PodStatus::starting(std::process::id(), config.vm.driver.name());
        let pod = Pod {
            config,
            dir,
            output,
            stdin: tokio::sync::Mutex::new(None),
            status: watch::Sender::new(status),
            start: watch::Sender::new(false),
            running: watch::Sender::new(None),
            orders,
            pumps: tokio::sync::Mutex::default(),
            exits: Mutex::default(),
            birth: Instant::now(),
        };
        (pod, receiver)
    }

    /// Takes note that a step of the life is done.
    pub(crate) fn reached(&self, step: &str) {
        let micros = u64::try_from(self.birth.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.status.send_modify(|status| status.timeline.push((step.to_owned(), micros)));
    }

    /// Those steps, by the time of day.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let birth = SystemTime::now().checked_sub(self.birth.elapsed());
        let birth = birth.and_then(|birth| birth.duration_since(UNIX_EPOCH).ok());
        let birth = birth.map_or(0, |birth| u64::try_from(birth.as_micros()).unwrap_or(0));
        let steps = self.status.borrow();
        let step = |(what, micros): &(String, u64)| Step {
            what: what.clone(),
            unix_micros: birth.saturating_add(*micros),
        };
        steps.timeline.iter().map(step).collect()
    }

    /// How the pod fares, now and from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<PodStatus> {
        self.status.subscribe()
    }

    /// Lets the container start as soon as the guest is ready. No error if it was let already.
    pub(crate) fn let_start(&self) {
        self.start.send_replace(true);
    }

    /// Waits until the main process runs, or the pod is over; fails if it never ran.
    pub(crate) async fn wait_started(&self) -> Result<()> {
        let mut status = self.watch();
        let status = status
            .wait_for(|status| status.started.is_some() || status.phase == Phase::Exited)
            .await
            .map_err(|_| ended())?;
        if status.started.is_some() {
            return Ok(());
        }
        let mut failure = Failure::new(ErrorKind::Internal, status.error.clone());
        failure.0.exit_status = status.exit_status;
        failure.0.hint = Some(status.hint.clone()).filter(|hint| !hint.is_empty());
        Err(failure)
    }

    /// Waits until the main process runs and has a VM, which one that is paused to disk has not;
    /// whether it ever will.
    pub(crate) async fn wait_reachable(&self) -> bool {
        if self.wait_started().await.is_err() {
            return false;
        }
        let mut running = self.running.subscribe();
        tokio::select! {
            running = running.wait_for(Option::is_some) => running.is_ok(),
            () = self.wait_exited() => false,
        }
    }

    /// Waits until the VM is gone.
    pub(crate) async fn wait_exited(&self) {
        // An error means that the sender is gone, and with it the pod.
        let _ = self.watch().wait_for(|status| status.phase == Phase::Exited).await;
    }

    /// Asks the main process to end, and ends the container if it has not within `patience`.
    /// No error if it has ended already.
    pub(crate) async fn stop(&self, patience: Duration) -> Result<()> {
        self.unpause_if_paused().await?;
        let Some(running) = self.running() else {
            return self.kill_vm().await;
        };
        let signal = self.config.container.stop_signal;
        // Where the guest no longer answers, what follows ends it.
        let _ = self.signal_process(&running, Some(running.main), signal).await;
        if timeout(patience, self.wait_exited()).await.is_ok() {
            return Ok(());
        }
        self.kill_all(&running).await
    }

    /// Sends a signal to the main process; SIGKILL ends the whole container.
    pub(crate) async fn kill(&self, signal: Signal) -> Result<()> {
        if signal == Signal::KILL {
            self.unpause_if_paused().await?;
            return match self.running() {
                Some(running) => self.kill_all(&running).await,
                None => self.kill_vm().await,
            };
        }
        let running = self.running().ok_or_else(not_running)?;
        if self.status.borrow().phase == Phase::Paused {
            return Err(Failure::new(ErrorKind::InvalidState, "container is paused"));
        }
        self.signal_process(&running, Some(running.main), signal).await
    }

    async fn kill_all(&self, running: &Running) -> Result<()> {
        let killed = timeout(KILL_PATIENCE, async {
            self.signal_process(running, None, Signal::KILL).await?;
            self.wait_exited().await;
            Ok::<_, Failure>(())
        });
        match killed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => self.kill_vm().await,
        }
    }

    async fn kill_vm(&self) -> Result<()> {
        // An error means that life is over, which is what was asked for.
        let _ = self.orders.send(Order::Kill).await;
        self.wait_exited().await;
        Ok(())
    }

    async fn signal_process(
        &self,
        running: &Running,
        process: Option<ProcessId>,
        signal: Signal,
    ) -> Result<()> {
        let container = self.config.container.id.clone();
        running.guest.call(Call::Signal { container, process, signal }).await?;
        Ok(())
    }

    /// Holds the VM's CPUs, or writes its memory to disk and ends it.
    pub(crate) async fn pause(&self, to_disk: bool) -> Result<()> {
        match self.status.borrow().phase {
            Phase::Running => {}
            Phase::Paused => {
                return Err(Failure::new(ErrorKind::InvalidState, "container is already paused"));
            }
            Phase::Starting | Phase::Exited => return Err(not_running()),
        }
        if to_disk {
            return self.order(Order::Suspend).await;
        }
        self.order(Order::Pause).await
    }

    /// Copies the guest and its scratch disk; it goes on meanwhile.
    pub(crate) async fn copy(&self, to: CopyTo) -> Result<Taken> {
        if self.status.borrow().started.is_none() {
            return Err(not_running());
        }
        self.order(|done| Order::Copy(to, done)).await
    }

    /// Lets the VM's CPUs go on.
    pub(crate) async fn unpause(&self) -> Result<()> {
        if self.status.borrow().phase != Phase::Paused {
            return Err(Failure::new(ErrorKind::InvalidState, "container is not paused"));
        }
        self.order(Order::Unpause).await
    }

    async fn unpause_if_paused(&self) -> Result<()> {
        if self.status.borrow().phase == Phase::Paused {
            self.order(Order::Unpause).await?;
        }
        Ok(())
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<Result<T>>) -> Order) -> Result<T> {
        let (done, is_done) = oneshot::channel();
        self.orders.send(order(done)).await.map_err(|_| ended())?;
        is_done.await.map_err(|_| ended())?
    }

    /// What the container uses.
    pub(crate) async fn stats(&self) -> Result<Stats> {
        let container = self.config.container.id.clone();
        match self.answering()?.guest.call(Call::Stats { container }).await? {
            Answer::Stats(stats) => Ok(stats),
            _ => Err(misfit()),
        }
    }

    /// The container's processes.
    pub(crate) async fn processes(&self) -> Result<Vec<ProcessRow>> {
        let container = self.config.container.id.clone();
        match self.answering()?.guest.call(Call::Processes { container }).await? {
            Answer::Processes(rows) => Ok(rows),
            _ => Err(misfit()),
        }
    }

    /// Changes the window of the main process's terminal. Nothing happens where there is none.
    pub(crate) async fn resize(&self, size: WindowSize) {
        if let Some(running) = self.running() {
            self.resize_process(running.main, size).await;
        }
    }

    /// Changes the window of a process's terminal. A process that has ended has none.
    pub(crate) async fn resize_process(&self, process: ProcessId, size: WindowSize) {
        if let Some(running) = self.running() {
            // A window of a process that just ended matters to nobody.
            let _ = running.guest.call(Call::Resize { process, size }).await;
        }
    }

    /// Runs a further process in the container.
    pub(crate) async fn spawn(&self, launch: Launch) -> Result<hc_guest::Process> {
        Ok(self.answering()?.guest.spawn(launch).await?)
    }

    /// Waits for the end of a process that was spawned; killed with the container where that ends
    /// first.
    pub(crate) async fn wait_process(&self, process: ProcessId) -> Exit {
        let receiver = {
            let mut exits = self.exits();
            if let Some(ExitSlot::Ended(exit)) = exits.remove(&process) {
                return exit;
            }
            let (sender, receiver) = oneshot::channel();
            exits.insert(process, ExitSlot::Awaited(sender));
            receiver
        };
        tokio::select! {
            biased; // Its own end counts where it came with the container's.
            Ok(exit) = receiver => exit,
            () = self.wait_exited() => Exit::Signal(Signal::KILL.number()),
        }
    }

    /// Takes note of the end of a spawned process.
    pub(crate) fn process_exited(&self, process: ProcessId, exit: Exit) {
        let mut exits = self.exits();
        match exits.remove(&process) {
            // Where the client has gone there is nobody to tell.
            Some(ExitSlot::Awaited(sender)) => drop(sender.send(exit)),
            Some(ExitSlot::Ended(_)) | None if exits.len() < MAX_UNTAKEN_EXITS => {
                exits.insert(process, ExitSlot::Ended(exit));
            }
            // Made up. Not worth a line each: the guest would write the host's log.
            Some(ExitSlot::Ended(_)) | None => {}
        }
    }

    fn exits(&self) -> std::sync::MutexGuard<'_, HashMap<ProcessId, ExitSlot>> {
        self.exits.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn running(&self) -> Option<Running> {
        self.running.borrow().clone()
    }

    /// The guest of a container that runs and is not paused.
    pub(crate) fn answering(&self) -> Result<Running> {
        if self.status.borrow().phase == Phase::Paused {
            return Err(Failure::new(
                ErrorKind::InvalidState,
                "container is paused; unpause it first",
            ));
        }
        self.running().ok_or_else(not_running)
    }
}

fn not_running() -> Failure {
    Failure::new(ErrorKind::InvalidState, "container is not running")
}

fn ended() -> Failure {
    Failure::new(ErrorKind::InvalidState, "pod has ended")
}

fn misfit() -> Failure {
    Failure::new(ErrorKind::Internal, "guest gave an answer that does not fit the question")
}
