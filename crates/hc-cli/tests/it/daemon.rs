// SPDX-License-Identifier: Apache-2.0
//! A daemon that a test plays.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hc_api::stream::{Decoder, ExitFrame, Frame};
use hc_api::{Created, ErrorBody, ErrorKind, UPGRADE, WaitAnswer};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, UPGRADE as UPGRADE_HEADER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

/// The id that every container of the daemon has.
pub(crate) const ID: &str = "c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff";

type Play = dyn Fn(Conversation) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;
pub(crate) type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// The daemon; ends when dropped.
pub(crate) struct Daemon {
    state: Arc<State>,
    folder: tempfile::TempDir,
    _stop: watch::Sender<()>,
}

/// What the daemon knows, and how it behaves.
pub(crate) struct State {
    /// Every request: method, path with query, body.
    requests: Mutex<Vec<(String, String)>>,
    /// Answers that a test has set, by method and path with query.
    answers: Mutex<HashMap<String, (StatusCode, Bytes)>>,
    /// The program in the container.
    play: Mutex<Arc<Play>>,
    signals: mpsc::UnboundedSender<String>,
    signal_receiver: tokio::sync::Mutex<mpsc::UnboundedReceiver<String>>,
    removed: watch::Sender<bool>,
    /// Requests that begin with this wait; none where it is empty.
    held: watch::Sender<&'static str>,
    /// How often somebody connected.
    connections: AtomicUsize,
    /// Requests that were broken off while they were held.
    abandoned: Mutex<Vec<String>>,
}

impl State {
    /// Waits for a signal to the container.
    pub(crate) async fn next_signal(&self) -> String {
        self.signal_receiver.lock().await.recv().await.unwrap()
    }
}

impl Daemon {
    /// A daemon whose containers run `play`.
    pub(crate) fn new<F>(play: impl Fn(Conversation) -> F + Send + Sync + 'static) -> Daemon
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let folder = tempfile::tempdir().unwrap();
        let (signals, signal_receiver) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            requests: Mutex::default(),
            answers: Mutex::default(),
            play: Mutex::new(Arc::new(move |conversation| Box::pin(play(conversation)))),
            signals,
            signal_receiver: tokio::sync::Mutex::new(signal_receiver),
            removed: watch::channel(false).0,
            held: watch::channel("").0,
            connections: AtomicUsize::new(0),
            abandoned: Mutex::default(),
        });
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join("sock")).unwrap();
        let (stop, stopped) = watch::channel(());
        let served = state.clone();
        std::thread::spawn(move || serve(listener, &served, stopped));
        Daemon { state, folder, _stop: stop }
    }

    /// A daemon whose containers end at once, well.
    pub(crate) fn idle() -> Daemon {
        Daemon::new(async |mut conversation: Conversation| {
            conversation.send(Frame::Started).await;
            conversation.exit(0).await;
        })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sets the answer to one request.
    pub(crate) fn answer(&self, request: &str, status: u16, body: &(impl Serialize + ?Sized)) {
        self.answer_bytes(request, status, serde_json::to_vec(body).unwrap());
    }

    pub(crate) fn answer_bytes(&self, request: &str, status: u16, body: impl Into<Bytes>) {
        let answer = (StatusCode::from_u16(status).unwrap(), body.into());
        self.state.answers.lock().unwrap().insert(request.to_owned(), answer);
    }

    /// Lets an error be the answer.
    pub(crate) fn refuse(&self, request: &str, error: &ErrorBody) {
        self.answer(request, error.kind.http_status(), error);
    }

    /// Lets requests that begin like this wait.
    pub(crate) fn hold(&self, request: &'static str) {
        self.state.held.send_replace(request);
    }

    pub(crate) fn release(&self) {
        self.state.held.send_replace("");
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().iter().map(|(line, _)| line.clone()).collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Whether somebody asked for this.
    pub(crate) fn was_asked(&self, request: &str) -> bool {
        self.requests().iter().any(|line| line == request)
    }

    pub(crate) fn was_abandoned(&self, request: &str) -> bool {
        self.state.abandoned.lock().unwrap().iter().any(|line| line == request)
    }

    /// The body of the first request like this.
    pub(crate) fn body(&self, request: &str) -> String {
        let requests = self.state.requests.lock().unwrap();
        requests.iter().find(|(line, _)| line == request).map(|(_, body)| body.clone()).unwrap()
    }
}

fn serve(
    listener: std::os::unix::net::UnixListener,
    state: &Arc<State>,
    mut stop: watch::Receiver<()>,
) {
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = UnixListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted.unwrap(),
                _ = stop.changed() => return,
            };
            let state = state.clone();
            state.connections.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let service = hyper::service::service_fn(|request| {
                    let state = state.clone();
                    async move { Ok::<_, Infallible>(respond(&state, request).await) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
}

/// Notes a request whose client went away before the answer.
struct Abandoned<'a> {
    state: &'a State,
    line: Option<String>,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            self.state.abandoned.lock().unwrap().push(line);
        }
    }
}

async fn respond(state: &Arc<State>, mut request: Request<Incoming>) -> Answer {
    let line = format!("{} {}", request.method(), request.uri());
    let upgrade = request.headers().get(UPGRADE_HEADER).is_some_and(|value| value == UPGRADE);
    let upgraded = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&body).into_owned();
    state.requests.lock().unwrap().push((line.clone(), text));
    let mut guard = Abandoned { state, line: Some(line.clone()) };
    let free = |prefix: &str| prefix.is_empty() || !line.starts_with(prefix);
    let _ = state.held.subscribe().wait_for(|held| free(held)).await;
    guard.line = None;
    if let Some((status, body)) = state.answers.lock().unwrap().get(&line) {
        return whole(*status, body.clone());
    }
    let path = head.uri.path().trim_start_matches("/v1/").to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    match (&head.method, path.split('/').collect::<Vec<_>>().as_slice()) {
        (_, ["containers", _, "start" | "attach" | "exec"]) if upgrade => {
            let play = state.play.lock().unwrap().clone();
            let state = state.clone();
            tokio::spawn(async move {
                let stream = TokioIo::new(upgraded.await.unwrap());
                play(Conversation { stream, state, decoder: Decoder::default() }).await;
            });
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(CONNECTION, "upgrade")
                .header(UPGRADE_HEADER, UPGRADE)
                .body(BoxBody::default())
                .unwrap()
        }
        (
            &Method::POST,
            ["containers"] | ["containers", _, "clone"] | ["snapshots", _, "containers"],
        ) => json(&Created { id: ID.into(), name: "web".into(), pod: "b0b".into() }),
        (&Method::POST, ["containers", _, "kill"]) => {
            let _ = state.signals.send(query.trim_start_matches("signal=").to_owned());
            whole(StatusCode::NO_CONTENT, Bytes::new())
        }
        (&Method::DELETE, ["containers", _]) => {
            state.removed.send_replace(true);
            whole(StatusCode::NO_CONTENT, Bytes::new())
        }
        (&Method::POST, ["containers", _, "wait"]) => {
            if query == "condition=removed" {
                let _ = state.removed.subscribe().wait_for(|removed| *removed).await;
            }
            json(&WaitAnswer { exit_status: 7, error: String::new() })
        }
        (&Method::POST, ["containers", ..] | ["images", "tag"]) => {
            whole(StatusCode::NO_CONTENT, Bytes::new())
        }
        _ => {
            let error = ErrorBody::new(ErrorKind::NotFound, format!("nothing at {line}"));
            let bytes = serde_json::to_vec(&error).unwrap();
            whole(StatusCode::NOT_FOUND, bytes.into())
        }
    }
}

fn json(value: &impl Serialize) -> Answer {
    whole(StatusCode::OK, serde_json::to_vec(value).unwrap().into())
}

/// An answer, with what a download of archives says about its path.
fn whole(status: StatusCode, body: Bytes) -> Answer {
    const FOLDER: &str = r#"{"name":"d","size":0,"mode":16877,"link_to_directory":false}"#;
    let body = Full::new(body).map_err(|never| match never {}).boxed();
    Response::builder().status(status).header("hyper-path-stat", FOLDER).body(body).unwrap()
}

/// An attached process, from the side of the daemon.
pub(crate) struct Conversation {
    stream: TokioIo<hyper::upgrade::Upgraded>,
    pub(crate) state: Arc<State>,
    decoder: Decoder,
}

impl Conversation {
    pub(crate) async fn send(&mut self, frame: Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        // The program may be gone; the test sees what it left.
        let _ = self.stream.write_all(&bytes).await;
    }

    pub(crate) async fn exit(&mut self, status: u8) {
        self.send(Frame::Exit(ExitFrame::of(status))).await;
        let _ = self.stream.shutdown().await;
    }

    /// The next frame, or `None` when the client has gone.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let mut buffer = vec![0; 64 * 1024];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.decoder.feed(&buffer[..length]),
            }
        }
    }

    /// Collects input until it ends.
    pub(crate) async fn all_input(&mut self) -> Vec<u8> {
        let mut input = Vec::new();
        loop {
            match self.next().await {
                Some(Frame::Stdin(bytes)) => input.extend(bytes),
                Some(Frame::StdinEnd) | None => return input,
                Some(_) => {}
            }
        }
    }

    /// Waits for a signal to the container.
    pub(crate) async fn signal(&mut self) -> String {
        self.state.next_signal().await
    }

    /// The daemon removes the container.
    pub(crate) fn remove(&self) {
        self.state.removed.send_replace(true);
    }

    /// Waits until the client asks to wait for the removal.
    pub(crate) async fn asked(&mut self, request: &str) {
        let was_asked = || {
            let requests = self.state.requests.lock().unwrap();
            requests.iter().any(|(line, _)| line == request)
        };
        while !was_asked() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
