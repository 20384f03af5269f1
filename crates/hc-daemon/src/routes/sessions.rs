// SPDX-License-Identifier: Apache-2.0
//! Requests that carry streams: they are the pod process's own, handed on.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::Method;
use axum::response::Response;
use hc_api::{ArchiveQuery, AttachQuery, ExecRequest};

use crate::containers::Entry;
use crate::failure::{Failure, Result};
use crate::forward::forward;
use crate::state::App;
use std::sync::Arc;

/// Starts a container: upgraded, the client is attached before the first byte; plain, the answer
/// comes once the main process runs. No error if it runs already.
#[utoipa::path(post, path = "/containers/{name}/start", params(("name",), AttachQuery),
    responses((status = 101, description = "frames from now on"), (status = 204)))]
pub(crate) async fn start(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response> {
    let entry = app.supervisor.containers.find(&name)?;
    // In a task of its own: a client that goes away must not leave a pod without its order to start.
    let started = tokio::spawn(async move {
        app.supervisor.start(&entry).await?;
        forward(&entry.dir.socket(), "/start", request).await
    });
    started.await.map_err(|error| Failure::host("cannot start the container", &error))?
}

/// Starts a container and answers once its main process runs.
pub(crate) async fn start_detached(app: &App, entry: &Arc<Entry>) -> Result<Response> {
    app.supervisor.start(entry).await?;
    let request = Request::builder().method(Method::POST).uri("/start").body(Body::empty());
    let request = request.map_err(|error| Failure::host("cannot ask the pod", &error))?;
    forward(&entry.dir.socket(), "/start", request).await
}

/// Attaches to a container's main process.
#[utoipa::path(post, path = "/containers/{name}/attach", params(("name",), AttachQuery),
    responses((status = 101, description = "frames from now on")))]
pub(crate) async fn attach(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response> {
    let entry = app.supervisor.containers.find(&name)?;
    forward(&entry.dir.socket(), "/attach", request).await
}

/// Runs a further process in a container.
#[utoipa::path(post, path = "/containers/{name}/exec", params(("name",)), request_body = ExecRequest,
    responses((status = 101, description = "frames from now on"), (status = 200, description = "it runs, detached")))]
pub(crate) async fn exec(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response> {
    let entry = app.supervisor.containers.find(&name)?;
    forward(&entry.dir.socket(), "/exec", request).await
}

/// Downloads a file or directory of a container as a tar archive.
#[utoipa::path(get, path = "/containers/{name}/archive", params(("name",), ArchiveQuery),
    responses((status = 200, content_type = "application/x-tar"), (status = 404, body = hc_api::ErrorBody)))]
pub(crate) async fn download(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response> {
    let entry = app.supervisor.containers.find(&name)?;
    forward(&entry.dir.socket(), "/archive", request).await
}

/// Unpacks a tar archive into a directory of a container.
#[utoipa::path(put, path = "/containers/{name}/archive", params(("name",), ArchiveQuery),
    responses((status = 200), (status = 400, body = hc_api::ErrorBody)))]
pub(crate) async fn upload(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response> {
    let entry = app.supervisor.containers.find(&name)?;
    forward(&entry.dir.socket(), "/archive", request).await
}
