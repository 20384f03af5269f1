// SPDX-License-Identifier: Apache-2.0
//! Files into and out of a container, as tar archives packed and unpacked by the guest.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hc_api::{ArchiveQuery, ErrorKind};
use hc_guest::{Launch, Process, Stdio, StreamReader};
use hc_proto::message::Program;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use crate::failure::{Failure, Result};
use crate::pod::Pod;

/// The longest answer of the guest's that is no archive: a stat or an error.
const MAX_TEXT: usize = 16 * 1024;
/// Pieces of an archive on their way to a client.
const QUEUE: usize = 4;

/// Tells what is at a path, as JSON of a `PathStat`; fails with `NotFound` where nothing is.
pub(crate) async fn stat(pod: &Pod, path: &str) -> Result<String> {
    let mut process = spawn(pod, Program::Stat { path: path.to_owned() }, false).await?;
    let (stdout, _) = tokio::join!(text(process.stdout.take()), text(process.stderr.take()));
    match pod.wait_process(process.id).await.status() {
        0 => Ok(stdout),
        _ => Err(Failure::new(
            ErrorKind::NotFound,
            format!("no such file or directory in the container: {path}"),
        )),
    }
}

/// Packs what is at a path. The receiver gets the archive's bytes, or an error in place of its end.
pub(crate) async fn pack(
    pod: Arc<Pod>,
    query: ArchiveQuery,
) -> Result<mpsc::Receiver<io::Result<Bytes>>> {
    let program = Program::Pack { path: query.path, follow: query.follow };
    let Process { id, stdout, stderr, .. } = spawn(&pod, program, false).await?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let copy = async {
            let Some(mut stdout) = stdout else { return };
            while let Ok(Some(chunk)) = stdout.next_chunk().await {
                if sender.send(Ok(chunk.into())).await.is_err() {
                    return; // The client has gone; dropping the stream ends the packer.
                }
            }
        };
        let ((), reason) = tokio::join!(copy, text(stderr));
        if pod.wait_process(id).await.status() != 0 {
            let _ = sender.send(Err(io::Error::other(reason))).await; // The client may have gone.
        }
    });
    Ok(receiver)
}

/// Unpacks a request's body into the directory at a path.
pub(crate) async fn unpack(pod: &Pod, query: &ArchiveQuery, body: Incoming) -> Result<()> {
    let program = Program::Unpack { path: query.path.clone(), keep_owner: query.keep_owner };
    let Process { id, stdin, stdout, stderr } = spawn(pod, program, true).await?;
    let feed = async {
        let Some(mut stdin) = stdin else { return Ok(()) };
        let mut body = body;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ())?;
            if let Ok(bytes) = frame.into_data()
                && stdin.write_all(&bytes).await.is_err()
            {
                break; // The unpacker ended; it says why.
            }
        }
        Ok::<(), ()>(())
    };
    let (sent, _, reason) = tokio::join!(feed, text(stdout), text(stderr));
    let status = pod.wait_process(id).await.status();
    if sent.is_err() {
        return Err(Failure::new(ErrorKind::InvalidArgument, "the archive was cut off"));
    }
    match status {
        0 => Ok(()),
        _ => Err(Failure::new(
            ErrorKind::InvalidArgument,
            format!("cannot unpack into {}: {}", query.path, reason.trim()),
        )),
    }
}

async fn spawn(pod: &Pod, program: Program, stdin: bool) -> Result<Process> {
    let launch = Launch {
        container: pod.config.container.id.clone(),
        main: false,
        program,
        stdio: Stdio { stdin, stdout: true, stderr: true },
    };
    pod.spawn(launch).await
}

/// All that comes from a stream, as far as it is bounded and printable.
async fn text(stream: Option<StreamReader>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        while let Ok(Some(chunk)) = stream.next_chunk().await {
            let room = MAX_TEXT - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
