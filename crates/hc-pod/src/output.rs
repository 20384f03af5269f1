// SPDX-License-Identifier: Apache-2.0
//! What the main process writes, on its way to the log and to attached clients.
//!
//! ```text
//! guest stream --pump--> log on disk
//!                   +--> client queue --> connection
//!                   +--> client queue --> connection
//! ```
//!
//! # Invariants
//!
//! - Nothing is lost and memory is bounded: a client that does not read holds up the pump, the pump
//!   the guest, and the guest the process.
//! - A client that goes away holds up nobody.
//! - Once the container has ended, what is left of its output goes to the queues at once, so that a
//!   slow client holds up the end of the VM no longer. That is at most one window of each stream.
//! - A log that cannot be written, as on a full disk, loses lines and not the container; the loss
//!   is told once in the pod's own log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hc_api::ErrorBody;
use hc_api::stream::ExitFrame;
use hc_guest::StreamReader;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};

use crate::log::{LogWriter, Source};

/// Bytes that a client may leave unread before the pump waits for it: enough to keep a pipe of
/// 64 KiB busy on both sides.
const CLIENT_QUEUE: usize = 512 * 1024;

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The main process runs.
    Started,
    /// It wrote this.
    Output(Source, Bytes),
    /// It ended.
    Exit(ExitFrame),
    /// It could not be started.
    Failed(ErrorBody),
}

/// The main process's output.
#[derive(Debug)]
pub(crate) struct Output {
    log: Mutex<LogWriter>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clients: Vec<Client>,
    next_client: u64,
    ending: bool,
    log_failed: bool,
    started: bool,
    last: Option<News>,
}

#[derive(Clone, Debug)]
struct Client {
    number: u64,
    queue: mpsc::UnboundedSender<News>,
    room: Arc<Semaphore>,
}

/// An attached client's end of its queue. Dropping it detaches.
#[derive(Debug)]
pub(crate) struct Subscription {
    queue: mpsc::UnboundedReceiver<News>,
    room: Arc<Semaphore>,
}

impl Output {
    /// Output that goes to `log` and to nobody yet.
    pub(crate) fn new(log: LogWriter) -> Output {
        Output { log: Mutex::new(log), state: Mutex::default() }
    }

    /// Attaches a client. It is told of what comes from now on, and at once of an end that was.
    pub(crate) fn subscribe(&self) -> Subscription {
        let (sender, queue) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(CLIENT_QUEUE));
        let mut state = self.state();
        if state.started {
            let _ = sender.send(News::Started); // We hold the receiver.
        }
        if let Some(last) = &state.last {
            let _ = sender.send(last.clone()); // We hold the receiver.
        } else {
            let number = state.next_client;
            state.next_client += 1;
            state.clients.push(Client { number, queue: sender, room: Arc::clone(&room) });
        }
        Subscription { queue, room }
    }

    /// Tells every client that the main process runs.
    pub(crate) fn started(&self) {
        let mut state = self.state();
        state.started = true;
        for client in &state.clients {
            let _ = client.queue.send(News::Started); // A client that left misses it.
        }
    }

    /// Copies everything from `stream` to the log and the clients, until it ends.
    pub(crate) async fn pump(&self, source: Source, mut stream: StreamReader) {
        loop {
            match stream.next_chunk().await {
                Ok(Some(chunk)) => self.write(source, Bytes::from(chunk)).await,
                Ok(None) => return,
                Err(error) => return tracing::debug!(?source, %error, "output ended early"),
            }
        }
    }

    async fn write(&self, source: Source, bytes: Bytes) {
        self.append(source, &bytes);
        let (clients, ending) = {
            let state = self.state();
            (state.clients.clone(), state.ending)
        };
        for client in clients {
            if !ending {
                client.make_room(bytes.len()).await;
            }
            if client.queue.send(News::Output(source, bytes.clone())).is_err() {
                self.state().clients.retain(|other| other.number != client.number);
            }
        }
    }

    fn append(&self, source: Source, bytes: &[u8]) {
        let result = lock(&self.log).append(source, Timestamp::now(), bytes);
        let mut state = self.state();
        match result {
            Ok(()) => state.log_failed = false,
            Err(error) if !state.log_failed => {
                state.log_failed = true;
                tracing::warn!(%error, "container's log cannot be written; lines are lost");
            }
            Err(_) => {}
        }
    }

    /// Lets what is left of the output pass every slow client.
    pub(crate) fn container_ended(&self) {
        let mut state = self.state();
        state.ending = true;
        for client in &state.clients {
            client.room.close();
        }
    }

    /// Tells every client, also those to come, the last thing there is to tell.
    pub(crate) fn finish(&self, last: News) {
        let mut state = self.state();
        for client in state.clients.drain(..) {
            let _ = client.queue.send(last.clone()); // A client that left misses it.
        }
        state.last = Some(last);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Client {
    /// Waits until the client has room for `length` more bytes, has gone, or need not be waited
    /// for.
    async fn make_room(&self, length: usize) {
        let length = u32::try_from(length.min(CLIENT_QUEUE)).unwrap_or(u32::MAX);
        tokio::select! {
            permit = self.room.acquire_many(length) => {
                // An error means that the semaphore was closed: the container has ended.
                if let Ok(permit) = permit {
                    permit.forget();
                }
            }
            () = self.queue.closed() => {}
        }
    }
}

impl Subscription {
    /// The next piece of news, in order; after the last there is none.
    pub(crate) async fn next(&mut self) -> Option<News> {
        let news = self.queue.recv().await;
        if let Some(News::Output(_, bytes)) = &news {
            self.room.add_permits(bytes.len().min(CLIENT_QUEUE));
        }
        news
    }
}

/// Locks data that a panic elsewhere cannot have left half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{LogLimits, LogReader};

    fn fixture() -> (tempfile::TempDir, Arc<Output>) {
        let dir = tempfile::tempdir().unwrap();
        let log = LogWriter::open(dir.path(), LogLimits::default()).unwrap();
        (dir, Arc::new(Output::new(log)))
    }

    fn chunk() -> Bytes {
        Bytes::from(vec![b'x'; CLIENT_QUEUE / 2])
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_holds_up_the_writer_until_the_container_ends() {
        let (_dir, output) = fixture();
        let mut client = output.subscribe();
        for _ in 0..2 {
            output.write(Source::Stdout, chunk()).await;
        }
        let mut third = tokio::spawn({
            let output = Arc::clone(&output);
            async move { output.write(Source::Stdout, chunk()).await }
        });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());

        client.next().await.unwrap();
        (&mut third).await.unwrap();

        let fourth = tokio::spawn({
            let output = Arc::clone(&output);
            async move { output.write(Source::Stdout, chunk()).await }
        });
        tokio::task::yield_now().await;
        assert!(!fourth.is_finished());
        output.container_ended();
        fourth.await.unwrap();

        output.finish(News::Exit(ExitFrame::of(3)));
        let mut outputs = 0;
        let last = loop {
            match client.next().await.unwrap() {
                News::Output(..) => outputs += 1,
                other => break other,
            }
        };
        assert_eq!(outputs, 3);
        assert_eq!(last, News::Exit(ExitFrame::of(3)));
        assert_eq!(client.next().await, None);
    }

    #[tokio::test]
    async fn a_client_that_left_holds_up_nobody_and_the_log_has_everything() {
        let (dir, output) = fixture();
        drop(output.subscribe());
        for _ in 0..8 {
            output.write(Source::Stderr, chunk()).await;
        }
        let mut reader = LogReader::open(dir.path());
        let mut bytes = 0;
        while let Some(entry) = reader.next_entry().unwrap() {
            assert_eq!(entry.source, Source::Stderr);
            bytes += entry.bytes.len();
        }
        assert_eq!(bytes, 4 * CLIENT_QUEUE);
    }

    #[tokio::test]
    async fn a_client_that_comes_late_is_told_of_the_end() {
        let (_dir, output) = fixture();
        output.started();
        let end = News::Exit(ExitFrame::of(0));
        output.finish(end.clone());
        let mut client = output.subscribe();
        assert_eq!(client.next().await, Some(News::Started));
        assert_eq!(client.next().await, Some(end));
        assert_eq!(client.next().await, None);
    }
}
