// SPDX-License-Identifier: Apache-2.0
//! The handle of one VM that is a child process.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hc_vmm::{Disk, Error, Exit, Pause, Replace, Result, Snapshot, Vm};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;

use crate::control::Command;
use crate::process::{Launch, User};
use crate::remote::{Remote, ended};
use crate::streams::Streams;
use crate::supervisor::{Ends, Request, Supervisor};

/// News of a hypervisor's progress that nobody has looked at; it tells a handful a copy.
const UNSEEN_PROGRESS: usize = 64;

/// How long a killed process may take to go: the kernel has its memory to free, and its I/O to end.
const KILL_DEADLINE: Duration = Duration::from_secs(30);

/// The process to be.
pub struct Plan {
    /// The program.
    pub program: PathBuf,
    /// Its arguments. Everybody on the host can read them.
    pub arguments: Vec<String>,
    /// What it inherits, under the same numbers.
    pub inherited: Vec<OwnedFd>,
    /// Whom it runs as, if not as its parent.
    pub user: Option<User>,
    /// Asked when the program ended before it answered for the first time: a better error than that,
    /// if there is one.
    pub explain: Option<Explain>,
}

/// How a hypervisor is told to do what not every one can.
#[async_trait]
pub trait Dialect: Send + Sync {
    /// What is still to be done for the guest to run, once the process answers.
    async fn begin(&self, remote: &Remote) -> Result<()>;

    /// What [`Snapshot::take`] is to do.
    async fn take(&self, remote: &Remote, memory: &File, state: &File) -> Result<Instant>;

    /// What [`Replace::replace`] is to do.
    async fn replace(&self, remote: &Remote, disk: Disk) -> Result<()>;
}

/// Finds out why a program cannot start, at leisure.
pub type Explain = Box<dyn Fn() -> BoxFuture<Option<Error>> + Send + Sync>;

/// A future of any kind.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("program", &self.program).finish_non_exhaustive()
    }
}

impl fmt::Debug for ChildVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildVm").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One VM in a process of its own. The variants of `State` are its life.
pub struct ChildVm {
    name: String,
    dialect: Option<Arc<dyn Dialect>>,
    state: State,
    exit: watch::Receiver<Option<Exit>>,
    channel: Option<UnixStream>,
    network: Option<UnixStream>,
    console: Option<UnixStream>,
}

#[derive(Debug)]
enum State {
    /// No process yet.
    Created(Box<Created>),
    /// There is, or was, a process, and a task that knows which of both.
    Started { process_id: u32, requests: mpsc::Sender<Request>, remote: Remote },
    /// Killed before it was started.
    Spent,
}

#[derive(Debug)]
struct Created {
    plan: Plan,
    control: UnixStream,
    console: UnixStream,
    console_copy: UnixStream,
    exit: watch::Sender<Option<Exit>>,
}

impl ChildVm {
    /// A VM of which nothing runs yet.
    #[must_use]
    pub fn new(name: String, plan: Plan, streams: Streams) -> ChildVm {
        let (exit, exit_seen) = watch::channel(None);
        let Streams { control, channel, console, console_copy, console_reader, network } = streams;
        ChildVm {
            name,
            dialect: None,
            state: State::Created(Box::new(Created { plan, control, console, console_copy, exit })),
            exit: exit_seen,
            channel: Some(channel),
            network,
            console: Some(console_reader),
        }
    }

    /// The same VM, which can be copied and whose disks can be changed.
    #[must_use]
    pub fn with_dialect(mut self, dialect: Arc<dyn Dialect>) -> ChildVm {
        self.dialect = Some(dialect);
        self
    }

    fn remote(&self, call: &'static str) -> Result<Remote> {
        match &self.state {
            State::Started { remote, .. } => Ok(remote.clone()),
            State::Created(_) | State::Spent => Err(self.wrong_state(call)),
        }
    }

    fn dialect(&self, call: &'static str) -> Result<(Arc<dyn Dialect>, Remote)> {
        let remote = self.remote(call)?;
        let dialect = self.dialect.clone().ok_or_else(|| self.wrong_state(call))?;
        Ok((dialect, remote))
    }

    fn wrong_state(&self, call: &'static str) -> Error {
        let state = match (&self.state, self.exit.borrow().is_some()) {
            (_, true) => "ended",
            (State::Created(_) | State::Spent, false) => "not started",
            (State::Started { .. }, false) => "running",
        };
        Error::State { vm: self.name.clone(), call, state }
    }
}

impl Created {
    /// Starts the process and the task that owns it.
    fn launch(self, name: String) -> io::Result<State> {
        let Created { plan, control, console, console_copy, exit } = self;
        let exit_seen = exit.subscribe();
        let (stderr, stderr_of_child) = UnixStream::pair()?;
        stderr.set_nonblocking(true)?;
        let ends = Ends {
            control: control.try_into()?,
            console: console.try_into()?,
            console_copy,
            stderr: stderr.try_into()?,
        };
        let Plan { program, arguments, inherited, user, explain: _ } = plan;
        let stderr = stderr_of_child.into();
        let launch = Launch { program: &program, arguments: &arguments, inherited, stderr, user };
        let child = launch.spawn()?;
        let process_id = child.id().expect("a child that nobody has waited for has an id");
        let (requests, requests_seen) = mpsc::channel(1);
        let (progress, _) = broadcast::channel(UNSEEN_PROGRESS);
        let remote = Remote::new(name, requests.downgrade(), progress.clone(), exit_seen);
        tokio::spawn(Supervisor::new(child, ends, requests_seen, progress).run(exit));
        Ok(State::Started { process_id, requests, remote })
    }
}

#[async_trait]
impl Vm for ChildVm {
    async fn start(&mut self) -> Result<()> {
        const DURING: &str = "start";
        if !matches!(self.state, State::Created(_)) {
            return Err(self.wrong_state(DURING));
        }
        let State::Created(mut created) = std::mem::replace(&mut self.state, State::Spent) else {
            unreachable!("it was created a moment ago");
        };
        let (path, explain) = (created.plan.program.clone(), created.plan.explain.take());
        let launched = created.launch(self.name.clone());
        self.state = launched.map_err(|source| Error::Spawn { path, source })?;
        let remote = self.remote(DURING)?;
        // The guest boots while we wait: this is to learn of a program that refuses its machine.
        let greeted = async {
            remote.command(DURING, Command::new("qmp_capabilities")).await?;
            match &self.dialect {
                Some(dialect) => dialect.begin(&remote).await,
                None => Ok(()),
            }
        };
        match (greeted.await, explain) {
            (Err(error @ Error::Ended { .. }), Some(explain)) => {
                Err(explain().await.unwrap_or(error))
            }
            (result, _) => result,
        }
    }

    async fn kill(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Spent) {
            State::Created(created) => {
                created.exit.send_replace(Some(Exit::Killed));
                return Ok(());
            }
            State::Spent => return Ok(()),
            started @ State::Started { .. } => self.state = started,
        }
        let State::Started { requests, .. } = &self.state else { return Ok(()) };
        // Fails if the task has gone, because the process has.
        let _ = requests.send(Request::Kill).await;
        match timeout(KILL_DEADLINE, ended(&self.exit)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Unresponsive {
                vm: self.name.clone(),
                request: "kill",
                waited: KILL_DEADLINE,
            }),
        }
    }

    async fn wait(&mut self) -> Result<Exit> {
        Ok(ended(&self.exit).await)
    }

    fn channel(&mut self) -> Option<UnixStream> {
        self.channel.take()
    }

    fn network(&mut self) -> Option<UnixStream> {
        self.network.take()
    }

    fn console(&mut self) -> Option<UnixStream> {
        self.console.take()
    }

    fn process_id(&self) -> Option<u32> {
        match &self.state {
            State::Started { process_id, .. } if self.exit.borrow().is_none() => Some(*process_id),
            State::Started { .. } | State::Created(_) | State::Spent => None,
        }
    }

    fn pause(&mut self) -> Option<&mut dyn Pause> {
        Some(self)
    }

    fn snapshot(&mut self) -> Option<&mut dyn Snapshot> {
        self.dialect.is_some().then_some(self as _)
    }

    fn replace(&mut self) -> Option<&mut dyn Replace> {
        self.dialect.is_some().then_some(self as _)
    }
}

#[async_trait]
impl Pause for ChildVm {
    async fn hold(&mut self) -> Result<()> {
        self.remote("hold")?.command("hold", Command::new("stop")).await
    }

    async fn release(&mut self) -> Result<()> {
        self.remote("release")?.command("release", Command::new("cont")).await
    }
}

#[async_trait]
impl Snapshot for ChildVm {
    async fn take(&mut self, memory: &File, state: &File) -> Result<Instant> {
        let (dialect, remote) = self.dialect("copy")?;
        dialect.take(&remote, memory, state).await
    }
}

#[async_trait]
impl Replace for ChildVm {
    async fn replace(&mut self, disk: Disk) -> Result<()> {
        let (dialect, remote) = self.dialect("change a disk of")?;
        dialect.replace(&remote, disk).await
    }
}
