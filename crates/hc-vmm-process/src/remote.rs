// SPDX-License-Identifier: Apache-2.0
//! Talking to a hypervisor that runs: commands, answers, and news of its progress.
//!
//! # Invariants
//!
//! - It does not keep the VM alive: once its owner has let go of it, every command fails.

use std::fmt;
use std::time::Duration;

use hc_vmm::{Error, Exit, Result};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::control::Command;
use crate::supervisor::Request;

/// How long a hypervisor may take to answer. It does so within milliseconds, unless it has to wait
/// for disk requests under way, or the host is as busy as when it starts many VMs at once.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A handle to the control socket of a VM's process.
#[derive(Clone)]
pub struct Remote {
    name: String,
    requests: mpsc::WeakSender<Request>,
    progress: broadcast::Sender<String>,
    exit: watch::Receiver<Option<Exit>>,
}

/// What a hypervisor tells of its progress from some moment on.
pub struct Progress {
    news: broadcast::Receiver<String>,
    remote: Remote,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("remote", &self.remote).finish_non_exhaustive()
    }
}

impl Remote {
    pub(crate) fn new(
        name: String,
        requests: mpsc::WeakSender<Request>,
        progress: broadcast::Sender<String>,
        exit: watch::Receiver<Option<Exit>>,
    ) -> Remote {
        Remote { name, requests, progress, exit }
    }

    /// The VM's name, for errors.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a command and waits for the answer. `what` says to people what was asked.
    pub async fn command(&self, what: &'static str, command: Command) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            // All fail if the process, or its owner, has gone.
            self.requests.upgrade()?.send(Request::Command(command, reply)).await.ok()?;
            answer.await.ok()
        };
        match timeout(ANSWER_DEADLINE, exchange).await {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(reason))) => Err(self.refused(what, reason)),
            Ok(None) => Err(self.ended_during(what).await),
            Err(_) => Err(self.unresponsive(what)),
        }
    }

    /// Listens from now on.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { news: self.progress.subscribe(), remote: self.clone() }
    }

    /// The error of a hypervisor that will not.
    #[must_use]
    pub fn refused(&self, what: &'static str, reason: impl Into<String>) -> Error {
        Error::Refused { vm: self.name.clone(), request: what, reason: reason.into() }
    }

    fn unresponsive(&self, what: &'static str) -> Error {
        Error::Unresponsive { vm: self.name.clone(), request: what, waited: ANSWER_DEADLINE }
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
}

impl Progress {
    /// Whose progress it is.
    #[must_use]
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Waits for one of the words that end what was begun, and says which it was. A hypervisor that
    /// says nothing for long, or ends, is an error.
    pub async fn until(&mut self, what: &'static str, last: &[&str]) -> Result<String> {
        loop {
            let news = tokio::select! {
                news = self.news.recv() => news,
                _ = ended(&self.remote.exit) => {
                    return Err(self.remote.ended_during(what).await);
                }
                () = tokio::time::sleep(ANSWER_DEADLINE) => {
                    return Err(self.remote.unresponsive(what));
                }
            };
            match news {
                Ok(word) if last.contains(&word.as_str()) => return Ok(word),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err(self.remote.ended_during(what).await),
            }
        }
    }
}

/// Waits for the exit, which somebody always publishes.
pub(crate) async fn ended(exit: &watch::Receiver<Option<Exit>>) -> Exit {
    let mut exit = exit.clone();
    match exit.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(exit)) => exit.clone(),
        // The task went without a word: its runtime is shutting down, and took the process along.
        Ok(None) | Err(_) => Exit::Killed,
    }
}
