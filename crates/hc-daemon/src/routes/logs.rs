// SPDX-License-Identifier: Apache-2.0
//! A container's logs, also of one that has ended, also as they grow.
//!
//! They are read from the pod's folder, so neither a pod process nor one particular daemon need be
//! alive for them.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use hc_api::LogsQuery;
use hc_api::stream::Frame;
use hc_pod::log::{Entry as LogEntry, LogReader, Source, count_lines};
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::Query;
use crate::containers::Entry;
use crate::failure::{Failure, Result};
use crate::state::App;

/// Bytes of frames that are sent as one piece.
const PIECE: usize = 64 * 1024;
/// Pieces on their way to a client; a slow one holds up its own reader and nobody else.
const QUEUE: usize = 2;

/// Sends what a container wrote, as frames: a time before each piece of output.
#[utoipa::path(get, path = "/containers/{name}/logs", params(("name",), LogsQuery),
    responses((status = 200, content_type = "application/octet-stream")))]
pub(crate) async fn logs(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response> {
    let entry = app.supervisor.containers.find(&name)?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        if let Err(error) = send(&entry, &query, &sender).await {
            tracing::warn!(id = %entry.id, %error, "logs cannot be read");
            let mut bytes = Vec::new();
            Frame::Error(Failure::host("cannot read the logs", &error).0).encode(&mut bytes);
            let _ = sender.send(bytes.into()).await; // The client may have gone.
        }
    });
    Ok(Response::new(crate::body::lines(receiver)))
}

/// Sends everything there is, then goes on with what comes where the client follows.
async fn send(
    entry: &Arc<Entry>,
    query: &LogsQuery,
    sender: &mpsc::Sender<Bytes>,
) -> std::io::Result<()> {
    let dir = entry.dir.logs();
    let mut view = entry.watch();
    // Watched before it is read, so that nothing falls between.
    let changes = if query.follow { Some(Changes::of(&dir)?) } else { None };
    let mut selection = Selection::new(query, dir.clone()).await?;
    let mut reader = LogReader::open(&dir);
    loop {
        let over = !entry.is_active();
        view.mark_unchanged();
        let Some(back) = send_present(reader, selection, sender).await? else {
            return Ok(());
        };
        (reader, selection) = back;
        match &changes {
            Some(changes) if !over => tokio::select! {
                told = changes.wait() => told?,
                // An error means that the container is gone.
                _ = view.changed() => {}
                () = sender.closed() => return Ok(()),
            },
            // Nothing is followed, or all was read after the end.
            _ => return Ok(()),
        }
    }
}

/// Sends what the log holds now; gives the reader back unless the client has gone.
async fn send_present(
    mut reader: LogReader,
    mut selection: Selection,
    sender: &mpsc::Sender<Bytes>,
) -> std::io::Result<Option<(LogReader, Selection)>> {
    loop {
        // Reading blocks, and a log may be large.
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::new();
            while piece.len() < PIECE {
                match reader.next_entry()? {
                    Some(entry) => selection.encode(&entry, &mut piece),
                    None => return Ok::<_, std::io::Error>((reader, selection, piece, true)),
                }
            }
            Ok((reader, selection, piece, false))
        });
        let (reader_back, selection_back, piece, end) =
            read.await.map_err(std::io::Error::other)??;
        (reader, selection) = (reader_back, selection_back);
        if !piece.is_empty() && sender.send(piece.into()).await.is_err() {
            return Ok(None);
        }
        if end {
            return Ok(Some((reader, selection)));
        }
    }
}

/// Which part of the log is sent.
struct Selection {
    query: LogsQuery,
    /// Lines that are still to be passed over.
    skip: u64,
    stdout: Line,
    stderr: Line,
}

/// What becomes of the line that a stream is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    /// There is none: the last one has ended.
    #[default]
    None,
    /// It is passed over.
    Passed,
    /// It is sent.
    Sent,
}

impl Selection {
    async fn new(query: &LogsQuery, dir: PathBuf) -> std::io::Result<Selection> {
        let skip = match query.tail {
            None => 0,
            Some(tail) => {
                let lines = tokio::task::spawn_blocking(move || count_lines(&dir)).await;
                lines.map_err(std::io::Error::other)??.saturating_sub(tail)
            }
        };
        Ok(Selection::after(query.clone(), skip))
    }

    fn after(query: LogsQuery, skip: u64) -> Selection {
        Selection { query, skip, stdout: Line::None, stderr: Line::None }
    }

    fn encode(&mut self, entry: &LogEntry, out: &mut Vec<u8>) {
        let bytes = self.pass_over(entry.source, &entry.bytes);
        let early = self.query.since.is_some_and(|since| entry.time < since);
        let late = self.query.until.is_some_and(|until| entry.time >= until);
        if bytes.is_empty() || early || late {
            return;
        }
        let nanos = i64::try_from(entry.time.as_nanosecond()).unwrap_or(i64::MAX);
        Frame::Time(nanos).encode(out);
        match entry.source {
            Source::Stdout => Frame::encode_stdout(bytes, out),
            Source::Stderr => Frame::encode_stderr(bytes, out),
        }
    }

    /// What is left of `bytes` when the lines to be passed over are taken off.
    fn pass_over<'a>(&mut self, source: Source, mut bytes: &'a [u8]) -> &'a [u8] {
        let line = match source {
            Source::Stdout => &mut self.stdout,
            Source::Stderr => &mut self.stderr,
        };
        while !bytes.is_empty() {
            if *line == Line::None {
                *line = if self.skip > 0 { Line::Passed } else { Line::Sent };
                self.skip = self.skip.saturating_sub(1);
            }
            if *line == Line::Sent {
                // Nothing is to be passed over any more.
                if bytes.ends_with(b"\n") {
                    *line = Line::None;
                }
                return bytes;
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                return &[];
            };
            bytes = &bytes[end + 1..];
            *line = Line::None;
        }
        bytes
    }
}

/// Tells when files in a folder grow or come.
struct Changes(AsyncFd<std::os::fd::OwnedFd>);

impl Changes {
    fn of(dir: &std::path::Path) -> std::io::Result<Changes> {
        use inotify::{CreateFlags, WatchFlags};
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        match inotify::add_watch(&fd, dir, WatchFlags::MODIFY | WatchFlags::CREATE) {
            // A container that was never started has no folder; its state changes when it is.
            Ok(_) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        #[expect(deprecated, reason = "an OwnedFd, which this is, keeps what `register` asks for")]
        Ok(Changes(AsyncFd::new(fd)?))
    }

    async fn wait(&self) -> std::io::Result<()> {
        let mut guard = self.0.readable().await?;
        let mut events = [0; 4096];
        // Only that something changed matters; what is left unread wakes us again.
        while matches!(rustix::io::read(self.0.get_ref(), &mut events), Ok(count) if count > 0) {}
        guard.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_streams_are_passed_over_whole() {
        let pieces = [
            (Source::Stdout, "1\n2 begins"),
            (Source::Stderr, "3\n"),
            (Source::Stdout, ", 2 ends\n4\n"),
            (Source::Stderr, "5"),
        ];
        let left = |skip| {
            let mut selection = Selection::after(LogsQuery::default(), skip);
            let pass = |(source, text): &(Source, &'static str)| {
                String::from_utf8(selection.pass_over(*source, text.as_bytes()).to_vec()).unwrap()
            };
            pieces.iter().map(pass).collect::<Vec<_>>()
        };
        assert_eq!(left(0), pieces.map(|(_, text)| text));
        assert_eq!(left(1), ["2 begins", "3\n", ", 2 ends\n4\n", "5"]);
        assert_eq!(left(2), ["", "3\n", "4\n", "5"]);
        assert_eq!(left(3), ["", "", "4\n", "5"]);
        assert_eq!(left(4), ["", "", "", "5"]);
        assert_eq!(left(5), ["", "", "", ""]);
    }
}
