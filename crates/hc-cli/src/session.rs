// SPDX-License-Identifier: Apache-2.0
//! One attached process: this program's standard streams on one side, frames on the other.
//!
//! Four things go on at once and none may hold up another: frames from the daemon are written out,
//! input is read and sent, signals are passed on, and the window's size is kept up to date. Reading
//! and writing standard streams blocks, so each has a thread; everything else is one task.
//!
//! ```text
//!   stdin --thread--> channel --\                    /--> channel --thread--> stdout, stderr
//!                                socket <-> daemon -<
//!   SIGWINCH, Resize frames ----/                    \--> Started, Exit, Error
//! ```
//!
//! # Invariants
//!
//! - The terminal is raw only while the process runs, and is put back on every way out.
//! - Without a terminal, no byte of input or output is looked at.

use std::cell::Cell;
use std::time::Duration;

use hc_api::stream::{Decoder, ExitFrame, Frame};
use hc_api::{ErrorBody, ErrorKind, KillQuery};
use hc_spec::Signal;
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use crate::client::{Client, Target, Upgraded};
use crate::failure::{Failure, Result};
use crate::timings::Timings;

mod input;
pub(crate) mod keys;
mod output;
pub(crate) mod signals;
pub(crate) mod terminal;

use input::Input;
pub(crate) use output::{Closed, Output, Shown};
use signals::{Event, Signals};

/// Bytes read from the socket at once: some whole frames.
const READ_SIZE: usize = 256 * 1024;
/// How long a container may take to be gone once it was killed. The daemon gives up well before.
pub(crate) const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// So many requests to end, and the container is killed.
const PATIENCE: u32 = 3;

/// What to connect, and how.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a session")]
pub(crate) struct Session<'a> {
    pub(crate) client: &'a Client,
    /// Where signals go.
    pub(crate) container: &'a str,
    /// Whether standard input is sent.
    pub(crate) input: bool,
    /// Whether the process runs in a terminal, and our own must be made raw.
    pub(crate) terminal: bool,
    /// Which outputs are shown.
    pub(crate) shown: Shown,
    /// What leaves the process alone.
    pub(crate) detach_keys: keys::DetachKeys,
    /// Whether signals are passed on; else they end the session.
    pub(crate) proxy: bool,
    /// Whether the process runs already; else it does once the daemon says so.
    pub(crate) started: bool,
    /// Where the first output and the end are noted.
    pub(crate) timings: &'a Timings,
}

/// How a session came to its end.
#[derive(Debug)]
pub(crate) enum End {
    /// The process ended.
    Exited(ExitFrame),
    /// It could not be served.
    Failed(ErrorBody),
    /// The detach keys were pressed.
    Detached,
    /// Nobody reads our standard output any more.
    OutputClosed,
    /// This signal ended the session, or the process before it ran.
    Signal(Signal),
}

/// What the parts of a session share; they run in one task.
struct Shared {
    started: Cell<bool>,
    /// The signal that made us kill the process before it ran.
    cut: Cell<Option<Signal>>,
}

impl Session<'_> {
    /// Runs until the process ends or one of our sides does.
    pub(crate) async fn run(&self, connection: Upgraded, signals: &mut Signals) -> Result<End> {
        let (reader, mut writer) = connection.stream.into_split();
        let shared = Shared { started: Cell::new(self.started), cut: Cell::new(None) };
        let (input_sender, input) = mpsc::channel(input::QUEUE);
        let (resize_sender, resizes) = mpsc::channel(1);
        let ended = tokio::select! {
            end = self.receive(reader, &connection.early, &shared, input_sender) => end,
            () = send(&mut writer, input, resizes) => Ok(End::Detached),
            end = self.pass_signals(signals, &shared, resize_sender) => Ok(end),
        };
        match (shared.cut.get(), ended) {
            (Some(signal), Ok(_)) => Ok(End::Signal(signal)),
            (_, ended) => ended,
        }
    }

    /// Shows what comes until the end. Whatever that is, all that came before it is written out.
    async fn receive(
        &self,
        reader: OwnedReadHalf,
        early: &[u8],
        shared: &Shared,
        input: mpsc::Sender<Input>,
    ) -> Result<End> {
        let mut output = Output::new(self.shown);
        // Put back when this function is left, once the last output is out: that is for a raw
        // terminal as well.
        let mut raw = None;
        let received = self.receive_into(&mut output, &mut raw, reader, early, shared, input);
        let end = match received.await {
            Ok(Some(end)) => Ok(end),
            Ok(None) => return Ok(End::OutputClosed),
            Err(failure) => Err(failure),
        };
        match output.finish().await {
            Ok(()) => end,
            Err(Closed) => Ok(End::OutputClosed),
        }
    }

    /// `None` where the output is closed.
    async fn receive_into(
        &self,
        output: &mut Output,
        raw: &mut Option<terminal::Raw>,
        mut reader: OwnedReadHalf,
        early: &[u8],
        shared: &Shared,
        input: mpsc::Sender<Input>,
    ) -> Result<Option<End>> {
        let mut input = Some(input);
        let mut decoder = Decoder::default();
        decoder.feed(early);
        let mut buffer = vec![0; READ_SIZE];
        loop {
            while let Some(frame) = decoder.next_frame().map_err(garbled)? {
                if matches!(frame, Frame::Started | Frame::Stdout(_) | Frame::Stderr(_)) {
                    shared.started.set(true);
                }
                match self.show(frame, output).await {
                    Ok(None) => {}
                    Ok(Some(end)) => return Ok(Some(end)),
                    Err(Closed) => return Ok(None),
                }
            }
            if shared.started.get()
                && let Some(sender) = input.take()
            {
                *raw = self.begin_input(sender)?;
            }
            if output.flush().await.is_err() {
                return Ok(None);
            }
            match reader.read(&mut buffer).await {
                Ok(0) => return Err(broken_off(self.container, "the daemon closed it")),
                Ok(length) => decoder.feed(&buffer[..length]),
                Err(error) => return Err(broken_off(self.container, &error.to_string())),
            }
        }
    }

    async fn show(&self, frame: Frame, output: &mut Output) -> Result<Option<End>, Closed> {
        match frame {
            Frame::Stdout(bytes) => {
                self.timings.mark_output();
                output.stdout(bytes).await?;
            }
            Frame::Stderr(bytes) => {
                self.timings.mark_output();
                output.stderr(bytes).await?;
            }
            Frame::Exit(exit) => {
                self.timings.mark("exit received");
                self.timings.add_pod(&exit.timeline);
                return Ok(Some(End::Exited(exit)));
            }
            Frame::Error(body) => return Ok(Some(End::Failed(body))),
            // What goes the other way, and what only logs have, tells us nothing.
            Frame::Started
            | Frame::Time(_)
            | Frame::Stdin(_)
            | Frame::StdinEnd
            | Frame::Resize(_) => {}
        }
        Ok(None)
    }

    /// Starts to read input, in raw mode where there is a terminal to type at.
    fn begin_input(&self, sender: mpsc::Sender<Input>) -> Result<Option<terminal::Raw>> {
        if !self.input {
            return Ok(None);
        }
        let raw = if self.terminal { terminal::Raw::enter()? } else { None };
        input::read(self.terminal.then(|| self.detach_keys.clone()), sender);
        Ok(raw)
    }

    async fn pass_signals(
        &self,
        signals: &mut Signals,
        shared: &Shared,
        resizes: mpsc::Sender<()>,
    ) -> End {
        let mut asked = 0;
        loop {
            let signal = match signals.next().await {
                Event::WindowChanged => {
                    if self.terminal {
                        // Where the news of another waits still, the size is yet to be asked for.
                        let _ = resizes.try_send(());
                    }
                    continue;
                }
                Event::Signal(signal) => signal,
            };
            if !self.proxy {
                return End::Signal(signal);
            }
            asked += u32::from(matches!(signal, Signal::INT | Signal::TERM));
            if !shared.started.get() || asked >= PATIENCE {
                shared.cut.set(Some(signal));
                // The end that comes of it is received meanwhile.
                let _ = tokio::time::timeout(KILL_DEADLINE, async {
                    kill(self.client, self.container, Signal::KILL).await;
                    std::future::pending::<()>().await;
                })
                .await;
                return End::Signal(signal);
            }
            kill(self.client, self.container, signal).await;
            if self.terminal && signal == Signal::HUP {
                return End::Signal(signal);
            }
        }
    }
}

/// Sends a signal to a container; one that has ended meanwhile needs none.
pub(crate) async fn kill(client: &Client, container: &str, signal: Signal) {
    let query = KillQuery { signal: Some(signal.to_string()) };
    let target = Target::new(&["containers", container, "kill"]).query(&query);
    // Its own end tells the user more than an error about the signal could.
    let _ = client.act(Method::POST, target).await;
}

/// Sends input and window sizes until the detach keys come. Never returns otherwise: that a peer
/// takes no more input does not end a session.
async fn send(
    writer: &mut OwnedWriteHalf,
    mut input: mpsc::Receiver<Input>,
    mut resizes: mpsc::Receiver<()>,
) {
    loop {
        let mut bytes = Vec::new();
        tokio::select! {
            Some(()) = resizes.recv() => {
                if let Some(size) = terminal::window_size() {
                    Frame::Resize(size).encode(&mut bytes);
                }
            }
            Some(next) = input.recv() => match next {
                Input::Frames(frames) => bytes = frames,
                Input::Detach => return,
            },
            else => std::future::pending().await,
        }
        if writer.write_all(&bytes).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn garbled(error: hc_api::stream::FrameError) -> Failure {
    Failure::system("cannot understand the daemon", error)
}

fn broken_off(container: &str, why: &str) -> Failure {
    Failure::new(ErrorKind::Internal, format!("lost the connection to {container}: {why}"))
        .with_hint(format!("it may still run; try: hyper attach {container}"))
}
