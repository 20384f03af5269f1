// SPDX-License-Identifier: Apache-2.0
//! Sessions: a client's connection joined to a process, in the frames of [`hc_api::stream`].
//!
//! # Invariants
//!
//! - Both directions run at once, so a client may write all its input before it reads any output,
//!   or the other way round.
//! - The client hears [`Frame::Exit`] or [`Frame::Error`] last, or the connection broke.
//! - A client that goes away ends its session and nothing else, except that the main process's
//!   standard input ends with a client that wrote to it without a terminal.

use std::sync::Arc;

use hc_api::stream::{Decoder, ExitFrame, Frame};
use hc_api::{AttachQuery, ExecRequest};
use hc_guest::{Launch, StreamReader, StreamWriter};
use hc_proto::message::ProcessId;
use hc_spec::WindowSize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::log::Source;
use crate::output::{News, Subscription};
use crate::pod::Pod;

/// Bytes read from a client at once: a full frame.
const CHUNK: usize = hc_api::stream::MAX_BODY + hc_api::stream::HEADER;
/// Pieces of output on their way to a client: enough that reading and writing overlap.
const QUEUE: usize = 4;

/// Joins a client to the main process until it ends or the client goes.
pub(crate) async fn attach<S>(pod: Arc<Pod>, io: S, mut news: Subscription, query: AttachQuery)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, mut write) = tokio::io::split(io);
    if let Some(size) = query.window() {
        pod.resize(size).await;
    }
    let output = async {
        let mut buffer = Vec::new();
        while let Some(piece) = news.next().await {
            buffer.clear();
            encode(&piece, &mut buffer);
            if write.write_all(&buffer).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await; // The client may have gone already.
    };
    let terminal = pod.config.container.process.terminal.is_some();
    let input = attached_input(&pod, read, &query, terminal);
    tokio::select! {
        () = output => {}
        () = input => {}
    }
}

fn encode(news: &News, buffer: &mut Vec<u8>) {
    match news {
        News::Started => Frame::Started.encode(buffer),
        News::Output(Source::Stdout, bytes) => Frame::encode_stdout(bytes, buffer),
        News::Output(Source::Stderr, bytes) => Frame::encode_stderr(bytes, buffer),
        News::Exit(exit) => Frame::Exit(exit.clone()).encode(buffer),
        News::Failed(error) => Frame::Error(error.clone()).encode(buffer),
    }
}

/// Carries what a client sends to the main process, until the client goes.
async fn attached_input<R>(pod: &Pod, read: R, query: &AttachQuery, terminal: bool)
where
    R: AsyncRead + Unpin,
{
    let mut frames = Frames::new(read);
    let mut window = query.window();
    let mut running = pod.running.subscribe();
    loop {
        let frame = tokio::select! {
            frame = frames.next() => frame,
            // A window that was told before the process had a terminal counts once it has.
            Ok(()) = running.changed() => {
                if let Some(size) = window {
                    pod.resize(size).await;
                }
                continue;
            }
        };
        match frame {
            Some(Frame::Stdin(bytes)) if query.stdin => write_main(pod, &bytes).await,
            Some(Frame::StdinEnd) if query.stdin => end_main(pod).await,
            Some(Frame::Resize(size)) => {
                window = Some(size);
                pod.resize(size).await;
            }
            Some(_) => {}
            None => break,
        }
    }
    if query.stdin && !terminal {
        end_main(pod).await;
    }
}

/// Ends the main process's standard input, once it has one.
async fn end_main(pod: &Pod) {
    if pod.wait_reachable().await {
        drop(pod.stdin.lock().await.take());
    }
}

/// Writes to the main process's standard input, waiting for the process to run first.
async fn write_main(pod: &Pod, bytes: &[u8]) {
    if !pod.wait_reachable().await {
        return;
    }
    let mut stdin = pod.stdin.lock().await;
    if let Some(writer) = stdin.as_mut()
        && writer.write_all(bytes).await.is_err()
    {
        // The process closed its standard input; what comes for it is thrown away, as by a pipe
        // whose writer ignores SIGPIPE.
        *stdin = None;
    }
}

/// Joins a client to a further process.
pub(crate) async fn exec<S>(pod: Arc<Pod>, io: S, process: hc_guest::Process)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, mut write) = tokio::io::split(io);
    let hc_guest::Process { id, stdin, stdout, stderr } = process;
    let (sender, mut receiver) = mpsc::channel::<News>(QUEUE);
    // It is asked for whether or not the client stays, so that it is not kept for ever.
    let ended = tokio::spawn({
        let pod = Arc::clone(&pod);
        async move { pod.wait_process(id).await }
    });
    let end = {
        let stderr_sender = sender.clone();
        async move {
            tokio::join!(
                forward(Source::Stdout, stdout, &sender),
                forward(Source::Stderr, stderr, &stderr_sender),
            );
            // It can only fail with the whole process.
            let Ok(exit) = ended.await else { return };
            let frame = ExitFrame::of(exit.status());
            let _ = sender.send(News::Exit(frame)).await; // The client may have gone.
        }
    };
    let output = async {
        let mut buffer = Vec::new();
        Frame::Started.encode(&mut buffer);
        if write.write_all(&buffer).await.is_err() {
            return;
        }
        while let Some(piece) = receiver.recv().await {
            buffer.clear();
            encode(&piece, &mut buffer);
            if write.write_all(&buffer).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await; // The client may have gone already.
    };
    let served = async { tokio::join!(end, output) };
    tokio::select! {
        _ = served => {}
        () = exec_input(&pod, read, id, stdin) => {}
    }
}

async fn forward(source: Source, stream: Option<StreamReader>, sender: &mpsc::Sender<News>) {
    let Some(mut stream) = stream else { return };
    while let Ok(Some(chunk)) = stream.next_chunk().await {
        if sender.send(News::Output(source, chunk.into())).await.is_err() {
            return;
        }
    }
}

async fn exec_input<R>(pod: &Pod, read: R, id: ProcessId, mut stdin: Option<StreamWriter>)
where
    R: AsyncRead + Unpin,
{
    let mut frames = Frames::new(read);
    loop {
        match frames.next().await {
            Some(Frame::Stdin(bytes)) => {
                if let Some(writer) = &mut stdin
                    && writer.write_all(&bytes).await.is_err()
                {
                    stdin = None; // The process closed it.
                }
            }
            Some(Frame::StdinEnd) => stdin = None,
            Some(Frame::Resize(size)) => pod.resize_process(id, size).await,
            Some(_) => {}
            None => return,
        }
    }
}

/// The launch of a further process as a client asked for it.
pub(crate) fn exec_launch(pod: &Pod, request: &ExecRequest) -> Launch {
    use hc_guest::Stdio;
    use hc_proto::message::Program;
    use hc_spec::{CapabilitySet, ProcessSpec};

    let container = &pod.config.container;
    let main = &container.process;
    let window = match (request.rows, request.columns) {
        (Some(rows), Some(columns)) => WindowSize { rows, columns },
        _ => WindowSize::default(),
    };
    let capabilities = if request.privileged { CapabilitySet::ALL } else { container.capabilities };
    let process = ProcessSpec {
        args: request.command.clone(),
        env: merge_env(&main.env, &request.env),
        cwd: request.workdir.clone().unwrap_or_else(|| main.cwd.clone()),
        user: request.user.clone().unwrap_or_else(|| main.user.clone()),
        terminal: request.terminal.then_some(window),
        capabilities,
        no_new_privileges: main.no_new_privileges && !request.privileged,
        rlimits: main.rlimits.clone(),
    };
    let attached = !request.detach;
    Launch {
        container: container.id.clone(),
        main: false,
        program: Program::Exec(process),
        stdio: Stdio {
            stdin: attached && request.stdin,
            stdout: attached,
            stderr: attached && !request.terminal,
        },
    }
}

/// `over` laid over `base`, where both are `NAME=value`.
pub fn merge_env(base: &[String], over: &[String]) -> Vec<String> {
    let name = |pair: &str| pair.split_once('=').map_or(pair, |(name, _)| name).to_owned();
    let mut merged: Vec<String> = Vec::with_capacity(base.len() + over.len());
    for pair in base.iter().chain(over) {
        match merged.iter_mut().find(|known| name(known) == name(pair)) {
            Some(known) => known.clone_from(pair),
            None => merged.push(pair.clone()),
        }
    }
    merged
}

/// A client's frames, one by one.
struct Frames<R> {
    read: R,
    decoder: Decoder,
    chunk: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    fn new(read: R) -> Frames<R> {
        Frames { read, decoder: Decoder::default(), chunk: Vec::new() }
    }

    /// The next frame; `None` once the client has gone or does not speak frames.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "client broke the framing");
                    return None;
                }
            }
            // Most sessions never send a byte: the buffer is made when the first one comes.
            self.chunk.resize(CHUNK, 0);
            match self.read.read(&mut self.chunk).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.decoder.feed(&self.chunk[..count]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_set_twice_keeps_its_place_and_takes_the_last_value() {
        let own = |pairs: &[&str]| pairs.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            merge_env(&own(&["A=1", "B=2"]), &own(&["C=3", "A=4=5", "B="])),
            own(&["A=4=5", "B=", "C=3"])
        );
    }
}
