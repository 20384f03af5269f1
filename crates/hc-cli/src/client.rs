// SPDX-License-Identifier: Apache-2.0
//! Requests to the daemon: HTTP/1.1 on its unix socket.
//!
//! Every request has a connection of its own. Connecting to a unix socket costs some microseconds,
//! and nothing that is slow or broken off can then hold up anything else. The first has the one by
//! which it was seen that the daemon is there.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hc_api::{ErrorBody, ErrorKind, PREFIX, UPGRADE};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE as UPGRADE_HEADER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::failure::{Failure, Result};

pub(crate) mod body;
pub(crate) mod launch;
mod lines;

pub(crate) use body::{Body, upload};
pub(crate) use lines::Lines;

/// The longest answer that is read whole, in bytes. Lists of thousands of containers fit well.
const MAX_ANSWER: usize = 64 << 20;

/// Where the daemon is.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    /// A connection that nothing has been sent on.
    unused: Arc<Mutex<Option<UnixStream>>>,
}

/// A connection that has become a stream of frames.
pub(crate) struct Upgraded {
    /// The connection.
    pub(crate) stream: UnixStream,
    /// What had been read of it already.
    pub(crate) early: Bytes,
}

/// A path with its query, safely encoded.
#[derive(Clone)]
pub(crate) struct Target(String);

impl Target {
    /// The path of `parts`, each of which may hold any characters.
    pub(crate) fn new(parts: &[&str]) -> Target {
        let mut path = PREFIX.to_owned();
        for part in parts {
            path.push('/');
            encode_segment(part, &mut path);
        }
        Target(path)
    }

    /// Adds a query from the fields of an API type.
    pub(crate) fn query(mut self, query: &impl Serialize) -> Target {
        // Query types are flat structs of strings, numbers and times.
        let text = serde_urlencoded::to_string(query).expect("query types are flat");
        if !text.is_empty() {
            self.0.push('?');
            self.0.push_str(&text);
        }
        self
    }
}

impl Client {
    /// A client of the daemon at `socket`, which answers on this connection.
    pub(crate) fn new(socket: &Path, connection: UnixStream) -> Client {
        Client { socket: socket.to_owned(), unused: Arc::new(Mutex::new(Some(connection))) }
    }

    /// Asks for a JSON document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, target: Target) -> Result<T> {
        read_json(self.send(Method::GET, target, Body::empty()).await?).await
    }

    /// Sends a JSON document and gets one.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        target: Target,
        body: &impl Serialize,
    ) -> Result<T> {
        read_json(self.send(Method::POST, target, Body::json(body)).await?).await
    }

    /// Removes something, and gets what came of it as JSON.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, target: Target) -> Result<T> {
        read_json(self.send(Method::DELETE, target, Body::empty()).await?).await
    }

    /// Sends a request whose answer says no more than that it went well.
    pub(crate) async fn act(&self, method: Method, target: Target) -> Result<()> {
        self.send(method, target, Body::empty()).await?;
        Ok(())
    }

    /// Sends a request and gives its answer, once that is known to be a success.
    pub(crate) async fn send(
        &self,
        method: Method,
        target: Target,
        body: Body,
    ) -> Result<Response<Incoming>> {
        let request = request(method, &target).header(CONTENT_TYPE, body.content_type());
        let response = self.exchange(request.body(body)).await?;
        succeeded(response).await
    }

    /// Sends a request that turns the connection into a stream of frames.
    pub(crate) async fn upgrade(&self, target: Target, body: Body) -> Result<Upgraded> {
        let request = request(Method::POST, &target)
            .header(CONTENT_TYPE, body.content_type())
            .header(CONNECTION, "upgrade")
            .header(UPGRADE_HEADER, UPGRADE);
        let response = succeeded(self.exchange(request.body(body)).await?).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(odd_answer("the daemon did not switch to streaming"));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(lost)?;
        let parts = upgraded
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| odd_answer("the connection is not the one that was opened"))?;
        Ok(Upgraded { stream: parts.io.into_inner(), early: parts.read_buf })
    }

    async fn exchange(
        &self,
        request: Result<Request<Body>, hyper::http::Error>,
    ) -> Result<Response<Incoming>> {
        let request = request.map_err(|error| Failure::system("cannot form the request", error))?;
        let stream = self.connection().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(lost)
    }

    async fn connection(&self) -> Result<UnixStream> {
        let unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner).take();
        match unused {
            Some(stream) => Ok(stream),
            None => {
                UnixStream::connect(&self.socket).await.map_err(|e| unreachable(&self.socket, &e))
            }
        }
    }
}

fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    Failure::system(format_args!("cannot reach the daemon at {}", socket.display()), error)
}

fn request(method: Method, target: &Target) -> hyper::http::request::Builder {
    Request::builder().method(method).uri(&target.0).header(HOST, "hyperd")
}

async fn succeeded(response: Response<Incoming>) -> Result<Response<Incoming>> {
    let status = response.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let bytes = read_all(response).await?;
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => Err(body.into()),
        Err(_) => Err(odd_answer(&format!("the daemon answered with status {status}"))),
    }
}

async fn read_json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T> {
    let bytes = read_all(response).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::system("cannot understand the daemon's answer", error))
}

async fn read_all(response: Response<Incoming>) -> Result<Bytes> {
    let limited = http_body_util::Limited::new(response.into_body(), MAX_ANSWER);
    let collected = limited.collect().await;
    Ok(collected.map_err(|error| Failure::system("lost the daemon's answer", error))?.to_bytes())
}

fn odd_answer(message: &str) -> Failure {
    Failure::new(ErrorKind::Internal, message)
        .with_hint("the daemon may be of another version; compare: hyper version")
}

fn lost(error: hyper::Error) -> Failure {
    let mut message = error.to_string();
    if let Some(cause) = std::error::Error::source(&error) {
        message = format!("{message}: {cause}");
    }
    Failure::system("lost the connection to the daemon", message)
}

/// Writes what a path segment may not hold as `%XX`.
fn encode_segment(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // A String takes everything.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        let target = Target::new(&["containers", "../images?x=#%", "start"]);
        assert_eq!(target.0, "/v1/containers/..%2Fimages%3Fx%3D%23%25/start");
        let query = hc_api::AttachQuery { stdin: true, rows: Some(3), columns: None };
        assert_eq!(Target::new(&["x"]).query(&query).0, "/v1/x?stdin=true&rows=3");
    }
}
