// SPDX-License-Identifier: Apache-2.0
//! How a host meets its guest: with a session of its own, or with that of a host before.
//!
//! A guest that was copied while a pod ran in it has the session of the host that it was copied
//! from. [`Guest::adopt`] goes on with it, so that the streams of what runs there reach the new
//! host. Any number of copies may be adopted so, each by a host of its own.

use std::sync::Arc;
use std::time::Duration;

use hc_proto::message::{ProcessId, StreamId};
use hc_proto::{HostMux, Line, Nonce, SessionId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::guest::{Events, Guest, Process};
use crate::pump::Pump;
use crate::shared::{Handle, MAX_UNTAKEN_EVENTS, Shared};
use crate::stream::{StreamReader, StreamWriter};

/// What must be known of a host to go on with its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// Its [session](Guest::session).
    pub session: SessionId,
    /// The [last process](Guest::last_process) that it numbered.
    pub last_process: ProcessId,
    /// The [process](Process::ids) whose streams are wanted; those of all others are given up.
    pub process: ProcessIds,
    /// How far its standard output [was read](Guest::position), which does not come again.
    pub stdout_read: u64,
    /// The same of its standard error.
    pub stderr_read: u64,
}

/// The numbers of a process and of the streams that it was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessIds {
    /// The process itself.
    pub process: ProcessId,
    /// Its standard input.
    pub stdin: Option<StreamId>,
    /// Its standard output, or all output of its terminal.
    pub stdout: Option<StreamId>,
    /// Its standard error.
    pub stderr: Option<StreamId>,
}

impl Guest {
    /// Meets the guest at the other end of `line`, which nobody used before, and starts a session.
    ///
    /// The guest may be booting still: what is written waits for it, up to `deadline`. The task
    /// that drives the line runs on the current runtime until the last handle is dropped.
    pub async fn connect<S>(line: S, deadline: Duration) -> Result<(Guest, Events)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let session = SessionId(random()?);
        let meeting = Meeting::new(HostMux::new(session), Line::Fresh, 0)?;
        let handle = Arc::clone(&meeting.handle);
        let events = meeting.hold(line, deadline).await?;
        Ok((Guest::new(handle, session, 0), events))
    }

    /// Meets a guest that has the session of another host, and goes on with it.
    ///
    /// The process comes with those of its streams that have not ended, from where its former host
    /// had read them; what that host had asked for is answered to
    /// nobody, and events may be about processes that it alone knew.
    pub async fn adopt<S>(
        line: S,
        before: Predecessor,
        deadline: Duration,
    ) -> Result<(Guest, Events, Process)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Predecessor { session, last_process, process, stdout_read, stderr_read } = before;
        // Away from the numbers of calls whose answers are under way. Nobody need know them.
        let last_call = u64::try_from(random()? >> 96).unwrap_or_default() << 32;
        // The host before may have been gone in the middle of a frame.
        let meeting = Meeting::new(HostMux::adopt(session), Line::Used, last_call)?;
        let handle = Arc::clone(&meeting.handle);
        // Ready before the guest tells of its streams: what is not claimed then is given up.
        let writer = |id| StreamWriter::new(Arc::clone(&handle), id);
        let reader = |id| StreamReader::new(Arc::clone(&handle), id);
        let stdin = process.stdin.map(writer);
        let (mut stdout, mut stderr) = (process.stdout.map(reader), process.stderr.map(reader));
        let events = meeting.hold(line, deadline).await?;
        for (stream, read) in [(&mut stdout, stdout_read), (&mut stderr, stderr_read)] {
            if let Some(stream) = stream {
                stream.skip_to(read);
            }
        }
        let process = Process {
            id: process.process,
            stdin: stdin.filter(StreamWriter::is_open),
            stdout: stdout.filter(StreamReader::is_open),
            stderr: stderr.filter(StreamReader::is_open),
        };
        Ok((Guest::new(handle, session, last_process), events, process))
    }
}

impl Process {
    /// The numbers by which another host finds this process and its streams.
    pub fn ids(&self) -> ProcessIds {
        ProcessIds {
            process: self.id,
            stdin: self.stdin.as_ref().map(StreamWriter::id),
            stdout: self.stdout.as_ref().map(StreamReader::id),
            stderr: self.stderr.as_ref().map(StreamReader::id),
        }
    }
}

/// A session that is to begin on a line.
struct Meeting {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    events: Events,
    is_ready: oneshot::Receiver<()>,
}

impl Meeting {
    /// Calls are numbered from behind `last_call`.
    fn new(mut mux: HostMux, line: Line, last_call: u64) -> Result<Meeting> {
        mux.attach(Nonce(random()?), line);
        let (events, receiver) = mpsc::channel(MAX_UNTAKEN_EVENTS);
        let (ready, is_ready) = oneshot::channel();
        let shared = Arc::new(Shared::new(mux, last_call, events, ready));
        let handle = Handle::new(Arc::clone(&shared));
        Ok(Meeting { shared, handle, events: Events::new(receiver), is_ready })
    }

    /// Says hello and waits for the guest.
    async fn hold<S>(self, line: S, deadline: Duration) -> Result<Events>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Meeting { shared, handle, events, is_ready } = self;
        tokio::spawn(Pump::new(shared, line));
        match timeout(deadline, is_ready).await {
            Err(_) => Err(Error::Silent { waited: deadline }),
            Ok(Err(_)) => Err(handle.shared().lock().ended.clone().unwrap_or(Error::Closed)),
            Ok(Ok(())) => Ok(events),
        }
    }
}

/// Random bits from the kernel.
fn random() -> Result<u128> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Error::Line { source: Arc::new(errno.into()) })?;
    Ok(u128::from_ne_bytes(bytes))
}
