// SPDX-License-Identifier: Apache-2.0
//! Handing a request on to a pod process, upgraded connections included.

use std::io;
use std::path::Path;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, Uri};
use hc_api::ErrorKind;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::UnixStream;

use crate::failure::{Failure, Result};

/// Bytes carried at once in each direction of an upgraded connection: a full frame.
const COPY_BUFFER: usize = 64 * 1024 + 8;

/// Opens an HTTP connection to the pod process at `socket`.
///
/// Fails with `InvalidState` where nobody listens: the pod is not running.
pub(crate) async fn connect(socket: &Path) -> Result<SendRequest<Body>> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Failure::new(ErrorKind::InvalidState, "container is not running")
        }
        _ => Failure::host("cannot reach the pod", &error),
    })?;
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a pod broke");
        }
    });
    Ok(sender)
}

/// Hands `request` on as a request for `path` and gives back the pod's answer. Where both sides
/// change to frames, they are joined for as long as the connection lives.
pub(crate) async fn forward(
    socket: &Path,
    path: &str,
    mut request: Request<Body>,
) -> Result<Response<Body>> {
    let mut pod = connect(socket).await?;
    let target = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    *request.uri_mut() = target
        .parse::<Uri>()
        .map_err(|error| Failure::invalid(format!("malformed request: {error}")))?;
    let client = hyper::upgrade::on(&mut request);
    let mut response = pod.send_request(request).await.map_err(|error| broken(&error))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let pod = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            if let Err(error) = join(client, pod).await {
                tracing::debug!(%error, "session broke");
            }
        });
    }
    Ok(response.map(Body::new))
}

async fn join(client: hyper::upgrade::OnUpgrade, pod: hyper::upgrade::OnUpgrade) -> io::Result<()> {
    let mut pod = TokioIo::new(pod.await.map_err(io::Error::other)?);
    let mut client = TokioIo::new(client.await.map_err(io::Error::other)?);
    copy_bidirectional_with_sizes(&mut client, &mut pod, COPY_BUFFER, COPY_BUFFER).await?;
    Ok(())
}

fn broken(error: &hyper::Error) -> Failure {
    Failure::new(ErrorKind::Internal, format!("pod broke off: {}", hc_pod::chain(error)))
}
