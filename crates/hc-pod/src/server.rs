// SPDX-License-Identifier: Apache-2.0
//! The pod process's HTTP server, on a unix socket that only the daemon's user can open.
//!
//! The requests are the daemon's own for one container, without its name: the daemon forwards them
//! as they are. Two are ours alone: `GET /status` is the present [`PodStatus`](crate::PodStatus),
//! and `GET /watch` is a line of JSON for each from now on, until the pod is over.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hc_api::{
    ArchiveQuery, AttachQuery, ErrorKind, ExecRequest, KillQuery, PATH_STAT_HEADER, PauseQuery,
    RestartOrStopQuery, Top, TopRow, UPGRADE,
};
use hc_spec::Signal;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE as UPGRADE_HEADER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::failure::{Failure, Result};
use crate::pod::Pod;
use crate::{Phase, archive, session};

/// Between two attempts to accept a client where the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// The longest JSON body of a request.
const MAX_BODY: usize = 1 << 20;

type Body = BoxBody<Bytes, io::Error>;

/// Serves `listener` until the pod is over and the last client has what it was promised.
pub(crate) async fn serve(pod: Arc<Pod>, listener: UnixListener) {
    let mut connections = JoinSet::new();
    let mut over = std::pin::pin!(pod.wait_exited());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(Arc::clone(&pod), stream))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = &mut over => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(pod: Arc<Pod>, stream: UnixStream) {
    // Sessions outlive the request that began them; the connection is over when they are.
    let (session, mut sessions) = mpsc::channel::<Infallible>(1);
    let service = {
        let pod = Arc::clone(&pod);
        service_fn(move |request| {
            let (pod, session) = (Arc::clone(&pod), session.clone());
            async move { Ok::<_, Infallible>(answer(pod, request, session).await) }
        })
    };
    converse(&pod, stream, service).await;
    // No value is ever sent: this waits until the last sender is dropped.
    let _ = sessions.recv().await;
}

/// Answers a connection's requests, until the client has no more or the pod is over.
async fn converse<S, F>(pod: &Pod, stream: UnixStream, service: S)
where
    S: hyper::service::Service<
            Request<Incoming>,
            Response = Response<Body>,
            Error = Infallible,
            Future = F,
        >,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let http = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut http = std::pin::pin!(http);
    tokio::select! {
        result = &mut http => {
            if let Err(error) = result {
                tracing::debug!(%error, "client's connection broke");
            }
        }
        () = pod.wait_exited() => {
            http.as_mut().graceful_shutdown();
            let _ = http.await; // What breaks now is the client's.
        }
    }
}

type SessionGuard = mpsc::Sender<Infallible>;

async fn answer(pod: Arc<Pod>, request: Request<Incoming>, guard: SessionGuard) -> Response<Body> {
    match route(pod, request, guard).await {
        Ok(response) => response,
        Err(Failure(body)) => {
            let status = StatusCode::from_u16(body.kind.http_status());
            let mut response = json(&body);
            *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            response
        }
    }
}

async fn route(
    pod: Arc<Pod>,
    request: Request<Incoming>,
    guard: SessionGuard,
) -> Result<Response<Body>> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/status") => Ok(json(&*pod.watch().borrow())),
        (&Method::GET, "/watch") => Ok(watch(&pod)),
        (&Method::POST, "/start") => start(pod, request, guard).await,
        (&Method::POST, "/attach") => attach(pod, request, guard),
        (&Method::POST, "/exec") => exec(pod, request, guard).await,
        (&Method::POST, "/stop") => {
            let query: RestartOrStopQuery = query(&request)?;
            let seconds = query.timeout.unwrap_or(pod.config.stop_timeout_seconds);
            // In a task of its own: a stop that has begun ends in a kill, also without its client.
            let stop = async move { pod.stop(Duration::from_secs(seconds.into())).await };
            let stopped = tokio::spawn(stop).await;
            stopped.map_err(|_| Failure::new(ErrorKind::Internal, "stop broke off"))?.map(done)
        }
        (&Method::POST, "/kill") => {
            let query: KillQuery = query(&request)?;
            let signal = match query.signal {
                None => Signal::KILL,
                Some(text) => text.parse().map_err(|error: hc_spec::ParseSignalError| {
                    Failure::new(ErrorKind::InvalidArgument, error.to_string())
                })?,
            };
            pod.kill(signal).await.map(done)
        }
        (&Method::POST, "/pause") => {
            let PauseQuery { to_disk } = query(&request)?;
            pod.pause(to_disk).await.map(done)
        }
        (&Method::POST, "/copy") => {
            let to = query(&request)?;
            // In a task of its own: a copy that has begun is finished, or it would be in the way.
            let copied = tokio::spawn(async move { pod.copy(to).await }).await;
            let broke = |_| Failure::new(ErrorKind::Internal, "copying broke off");
            Ok(json(&copied.map_err(broke)??))
        }
        (&Method::POST, "/unpause") => pod.unpause().await.map(done),
        (&Method::GET, "/top") => top(&pod).await,
        (&Method::GET, "/stats") => Ok(json(&pod.stats().await?)),
        (&Method::GET, "/archive") => download(pod, query(&request)?).await,
        (&Method::PUT, "/archive") => {
            let query: ArchiveQuery = query(&request)?;
            archive::unpack(&pod, &query, request.into_body()).await.map(done)
        }
        _ => Err(Failure::new(ErrorKind::NotFound, format!("no such request: {path}"))),
    }
}

async fn start(
    pod: Arc<Pod>,
    request: Request<Incoming>,
    guard: SessionGuard,
) -> Result<Response<Body>> {
    if wants_upgrade(&request) {
        let starter = Arc::clone(&pod);
        let response = attach(pod, request, guard)?;
        starter.let_start();
        return Ok(response);
    }
    pod.let_start();
    pod.wait_started().await.map(done)
}

fn attach(
    pod: Arc<Pod>,
    request: Request<Incoming>,
    guard: SessionGuard,
) -> Result<Response<Body>> {
    let query: AttachQuery = query(&request)?;
    let news = pod.output.subscribe();
    upgrade(request, guard, move |io| session::attach(pod, io, news, query))
}

async fn exec(
    pod: Arc<Pod>,
    mut request: Request<Incoming>,
    guard: SessionGuard,
) -> Result<Response<Body>> {
    let body = Limited::new(request.body_mut(), MAX_BODY).collect().await.map_err(|error| {
        Failure::new(ErrorKind::InvalidArgument, format!("cannot read the request: {error}"))
    })?;
    let exec: ExecRequest = serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        Failure::new(ErrorKind::InvalidArgument, format!("malformed request: {error}"))
    })?;
    if exec.command.is_empty() {
        return Err(Failure::new(ErrorKind::InvalidArgument, "no command is named"));
    }
    if !exec.detach {
        check_upgrade(&request)?;
    }
    let process = pod.spawn(session::exec_launch(&pod, &exec)).await?;
    if exec.detach {
        tokio::spawn(async move { pod.wait_process(process.id).await });
        return Ok(done(()));
    }
    upgrade(request, guard, move |io| session::exec(pod, io, process))
}

fn wants_upgrade<B>(request: &Request<B>) -> bool {
    request.headers().get(UPGRADE_HEADER).is_some_and(|value| value == UPGRADE)
}

fn check_upgrade<B>(request: &Request<B>) -> Result<()> {
    if wants_upgrade(request) {
        return Ok(());
    }
    let message = format!("this request needs the header `Upgrade: {UPGRADE}`");
    Err(Failure::new(ErrorKind::InvalidArgument, message))
}

/// Answers that the connection changes to frames, and lets `session` have it then.
fn upgrade<F>(
    mut request: Request<Incoming>,
    guard: SessionGuard,
    session: impl FnOnce(TokioIo<hyper::upgrade::Upgraded>) -> F + Send + 'static,
) -> Result<Response<Body>>
where
    F: Future<Output = ()> + Send + 'static,
{
    check_upgrade(&request)?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(io) => session(TokioIo::new(io)).await,
            Err(error) => tracing::debug!(%error, "client left before its session"),
        }
        drop(guard);
    });
    let mut response = done(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE_HEADER, HeaderValue::from_static(UPGRADE));
    Ok(response)
}

/// A line for the present status and for each that follows.
fn watch(pod: &Arc<Pod>) -> Response<Body> {
    let mut status = pod.watch();
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let (line, over) = {
                let status = status.borrow_and_update();
                (json_line(&*status), status.phase == Phase::Exited)
            };
            if sender.send(Ok(line)).await.is_err() || over || status.changed().await.is_err() {
                return;
            }
        }
    });
    Response::new(stream(receiver))
}

async fn top(pod: &Pod) -> Result<Response<Body>> {
    let rows = pod.processes().await?.into_iter().map(|row| TopRow {
        pid: row.pid,
        ppid: row.ppid,
        uid: row.uid,
        state: if row.state.is_ascii_graphic() { row.state } else { '?' },
        cpu_millis: row.cpu_millis,
        started: Timestamp::from_second(i64::try_from(row.started_unix).unwrap_or(0))
            .unwrap_or_default(),
        rss_bytes: row.rss_bytes,
        command: row.command.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
    });
    Ok(json(&Top { processes: rows.collect() }))
}

async fn download(pod: Arc<Pod>, query: ArchiveQuery) -> Result<Response<Body>> {
    let stat = archive::stat(&pod, &query.path).await?;
    let mut response =
        if query.stat { done(()) } else { Response::new(stream(archive::pack(pod, query).await?)) };
    // The guest wrote it: a value that no header can hold is left out.
    if let Ok(value) = HeaderValue::from_str(stat.trim()) {
        response.headers_mut().insert(PATH_STAT_HEADER, value);
    }
    Ok(response)
}

fn query<T: serde::de::DeserializeOwned, B>(request: &Request<B>) -> Result<T> {
    serde_urlencoded::from_str(request.uri().query().unwrap_or_default()).map_err(|error| {
        Failure::new(ErrorKind::InvalidArgument, format!("malformed query: {error}"))
    })
}

fn done((): ()) -> Response<Body> {
    Response::new(Full::default().map_err(|never| match never {}).boxed())
}

fn json<T: Serialize>(value: &T) -> Response<Body> {
    // Our types hold nothing that JSON cannot.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    Response::new(Full::from(bytes).map_err(|never| match never {}).boxed())
}

fn json_line<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

/// A body that is sent as it comes.
fn stream(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Body {
    Channel(receiver).boxed()
}

struct Channel(mpsc::Receiver<io::Result<Bytes>>);

impl hyper::body::Body for Channel {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
