// SPDX-License-Identifier: Apache-2.0
//! A guest that answers: calls, processes, news.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hc_proto::message::{
    Answer, Call, Event, Failure, ProcessId, Program, Request, Spawn, StreamId,
};
use hc_proto::{Direction, SendError, SessionId};
use hc_spec::Id;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Result};
use crate::shared::{Handle, State};
use crate::stream::{StreamReader, StreamWriter};

/// How long a call may take. None of them waits for anything but the guest's kernel, which may be
/// emulated, on a host that starts twenty guests at once.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest text of the guest's that goes into an error: a line or two.
const MAX_FAILURE_LEN: usize = 1024;

/// A connection to a guest. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Guest {
    handle: Arc<Handle>,
    session: SessionId,
    last_process: Arc<AtomicU32>,
}

/// What the guest tells by itself, in order.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
}

/// A process to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The container it runs in.
    pub container: Id,
    /// Whether the container ends with it.
    pub main: bool,
    /// What it runs.
    pub program: Program,
    /// Which of its streams to connect.
    pub stdio: Stdio,
}

/// Which standard streams of a process reach the host. The others lead to `/dev/null`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stdio {
    /// Standard input.
    pub stdin: bool,
    /// Standard output; all output of a process with a terminal.
    pub stdout: bool,
    /// Standard error. A process with a terminal has none.
    pub stderr: bool,
}

/// A process that runs, and the streams asked for.
#[derive(Debug)]
pub struct Process {
    /// Its number, for signals, and for the event of its end.
    pub id: ProcessId,
    /// Its standard input.
    pub stdin: Option<StreamWriter>,
    /// Its standard output, or all output of its terminal.
    pub stdout: Option<StreamReader>,
    /// Its standard error.
    pub stderr: Option<StreamReader>,
}

impl Guest {
    /// A guest that was met. Processes are numbered from behind `last_process`.
    pub(crate) fn new(handle: Arc<Handle>, session: SessionId, last_process: ProcessId) -> Guest {
        Guest { handle, session, last_process: Arc::new(AtomicU32::new(last_process)) }
    }

    /// The session, by which another host may [adopt](Guest::adopt) the guest or a copy of it.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The highest number that a process was given so far.
    pub fn last_process(&self) -> ProcessId {
        self.last_process.load(Ordering::Relaxed)
    }

    /// How many bytes of a stream of output have been read, from its beginning; `None` if it has been
    /// read to its end.
    pub fn position(&self, stream: StreamId) -> Option<u64> {
        self.handle.shared().lock().mux.position(stream)
    }

    /// Asks the guest for something and waits for the answer, as long as any call may take.
    pub async fn call(&self, call: Call) -> Result<Answer> {
        self.call_within(call, CALL_TIMEOUT).await
    }

    /// Asks the guest for something and waits for the answer, at most for `limit`.
    ///
    /// Dropping the future gives up waiting; the guest may still do what was asked.
    pub async fn call_within(&self, call: Call, limit: Duration) -> Result<Answer> {
        let name = name_of(&call);
        let deadline = Instant::now() + limit;
        let late = |_| Error::Timeout { call: name, waited: limit };
        let sent = timeout_at(deadline, self.send_call(name, call)).await.map_err(late)?;
        let mut pending = sent?;
        match timeout_at(deadline, &mut pending.answer).await.map_err(late)? {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failure { kind, message })) => {
                Err(Error::Refused { call: name, failure: kind, message: printable(&message) })
            }
            Err(_) => Err(self.ended().await),
        }
    }

    /// Starts a process and connects its streams. Returns once it runs.
    pub async fn spawn(&self, launch: Launch) -> Result<Process> {
        let Launch { container, main, program, stdio } = launch;
        let id = self.last_process.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        // Whatever fails below, dropping these gives the streams up.
        let stdin = self.open_writer(stdio.stdin).await?;
        let stdout = self.open_reader(stdio.stdout).await?;
        let stderr = self.open_reader(stdio.stderr).await?;
        let spawn = Spawn {
            container,
            process: id,
            main,
            program,
            stdin: stdin.as_ref().map(StreamWriter::id),
            stdout: stdout.as_ref().map(StreamReader::id),
            stderr: stderr.as_ref().map(StreamReader::id),
        };
        if let Err(error) = self.call(Call::Spawn(Box::new(spawn))).await {
            if let Some(stdin) = stdin {
                stdin.abort();
            }
            return Err(error);
        }
        Ok(Process { id, stdin, stdout, stderr })
    }

    /// Waits for the end of the connection and says why it came.
    pub async fn ended(&self) -> Error {
        loop {
            let change = self.handle.shared().over.notified();
            tokio::pin!(change);
            change.as_mut().enable();
            if let Some(error) = &self.handle.shared().lock().ended {
                return error.clone();
            }
            change.await;
        }
    }

    async fn open_writer(&self, wanted: bool) -> Result<Option<StreamWriter>> {
        if !wanted {
            return Ok(None);
        }
        let id = self.open(Direction::ToGuest).await?;
        Ok(Some(StreamWriter::new(Arc::clone(&self.handle), id)))
    }

    async fn open_reader(&self, wanted: bool) -> Result<Option<StreamReader>> {
        if !wanted {
            return Ok(None);
        }
        let id = self.open(Direction::ToHost).await?;
        Ok(Some(StreamReader::new(Arc::clone(&self.handle), id)))
    }

    async fn open(&self, direction: Direction) -> Result<StreamId> {
        self.when_room("open a stream", |state| state.mux.open(direction)).await
    }

    /// Queues a call and registers for its answer.
    async fn send_call(&self, name: &'static str, call: Call) -> Result<PendingCall> {
        let id = self.handle.shared().lock().next_call();
        let request = Request { id, call };
        self.when_room(name, |state| {
            state.mux.send_control(&request)?;
            let (answer, receiver) = oneshot::channel();
            state.calls.insert(id, answer);
            Ok(PendingCall { handle: Arc::clone(&self.handle), id, answer: receiver })
        })
        .await
    }

    /// Does something that goes over the control lane, as soon as the lane has room.
    async fn when_room<T>(
        &self,
        call: &'static str,
        mut action: impl FnMut(&mut State) -> Result<T, SendError>,
    ) -> Result<T> {
        loop {
            let room = self.handle.shared().room.notified();
            {
                let mut state = self.handle.shared().lock();
                if let Some(error) = &state.ended {
                    return Err(error.clone());
                }
                let outcome = action(&mut state);
                if !matches!(outcome, Err(SendError::Full)) {
                    state.wake_if_output();
                    self.handle.shared().room.notify_one();
                    return outcome.map_err(|source| Error::Send { call, source });
                }
            }
            room.await;
        }
    }
}

impl Events {
    pub(crate) fn new(receiver: mpsc::Receiver<Event>) -> Events {
        Events { receiver }
    }

    /// The next event; `None` once the connection has ended and everything is taken.
    pub async fn next(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }
}

/// A call whose answer has not come; forgotten when dropped.
struct PendingCall {
    handle: Arc<Handle>,
    id: u64,
    answer: oneshot::Receiver<Result<Answer, Failure>>,
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.handle.shared().lock().calls.remove(&self.id);
    }
}

/// What a call does, for messages such as "guest cannot run the program".
fn name_of(call: &Call) -> &'static str {
    match call {
        Call::SetUp(_) => "set up the pod",
        Call::CreateContainer(_) => "create the container",
        Call::Spawn(_) => "run the program",
        Call::Signal { .. } => "send the signal",
        Call::Resize { .. } => "resize the terminal",
        Call::Stats { .. } => "read statistics",
        Call::Processes { .. } => "list processes",
        Call::Park => "get ready to be copied",
        Call::Renew(_) => "take another identity",
        Call::SetClock { .. } => "set its clock",
        Call::Shutdown => "shut down",
    }
}

/// The guest's words as they may stand on a terminal: short, and without control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_FAILURE_LEN).collect()
}
