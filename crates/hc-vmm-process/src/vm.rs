// SPDX-License-Identifier: Apache-2.0
//! The handle of one VM that is a child process.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use hc_vmm::{Error, Exit, Pause, Result, Vm};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::process::{Launch, User};
use crate::streams::Streams;
use crate::supervisor::{Ends, Request, Supervisor};

/// How long a hypervisor may take to answer. It does so within milliseconds, unless it has to wait
/// for disk requests under way, or the host is as busy as when it starts many VMs at once.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

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

/// Finds out why a program cannot start, at leisure.
pub type Explain = Box<dyn Fn() -> BoxFuture<Option<Error>> + Send + Sync>;

/// A future of any kind.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("program", &self.program).finish_non_exhaustive()
    }
}

/// One VM in a process of its own. The variants of `State` are its life.
#[derive(Debug)]
pub struct ChildVm {
    name: String,
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
    Started { process_id: u32, requests: mpsc::Sender<Request> },
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
            state: State::Created(Box::new(Created { plan, control, console, console_copy, exit })),
            exit: exit_seen,
            channel: Some(channel),
            network,
            console: Some(console_reader),
        }
    }

    /// Sends a command and waits for the answer.
    async fn command(&self, name: &'static str, what: &'static str) -> Result<()> {
        let State::Started { requests, .. } = &self.state else {
            return Err(self.wrong_state(what));
        };
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            // Both fail if the task has gone, because the process has.
            requests.send(Request::Command(name, reply)).await.ok()?;
            answer.await.ok()
        };
        match timeout(ANSWER_DEADLINE, exchange).await {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(reason))) => {
                Err(Error::Refused { vm: self.name.clone(), request: what, reason })
            }
            Ok(None) => Err(self.ended_during(what).await),
            Err(_) => Err(Error::Unresponsive {
                vm: self.name.clone(),
                request: what,
                waited: ANSWER_DEADLINE,
            }),
        }
    }

    async fn ended_during(&self, during: &'static str) -> Error {
        let vm = self.name.clone();
        match ended(&self.exit).await {
            Exit::Crashed { status, last_words } => {
                Error::Ended { vm, during, last_words: format!("{status}: {last_words}") }
            }
            Exit::Stopped | Exit::Killed => Error::State { vm, call: during, state: "ended" },
        }
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
    fn launch(self) -> io::Result<State> {
        let Created { plan, control, console, console_copy, exit } = self;
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
        tokio::spawn(Supervisor::new(child, ends, requests_seen).run(exit));
        Ok(State::Started { process_id, requests })
    }
}

/// Waits for the exit, which somebody always publishes.
async fn ended(exit: &watch::Receiver<Option<Exit>>) -> Exit {
    let mut exit = exit.clone();
    match exit.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(exit)) => exit.clone(),
        // The task went without a word: its runtime is shutting down, and took the process along.
        Ok(None) | Err(_) => Exit::Killed,
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
        self.state = created.launch().map_err(|source| Error::Spawn { path, source })?;
        // The guest boots while we wait: this is to learn of a program that refuses its machine.
        match (self.command("qmp_capabilities", DURING).await, explain) {
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
}

#[async_trait]
impl Pause for ChildVm {
    async fn hold(&mut self) -> Result<()> {
        self.command("stop", "hold").await
    }

    async fn release(&mut self) -> Result<()> {
        self.command("cont", "release").await
    }
}
