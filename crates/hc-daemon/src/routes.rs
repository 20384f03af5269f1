// SPDX-License-Identifier: Apache-2.0
//! The HTTP API: one function a request, each with its entry in the OpenAPI document.
//!
//! The document at `/openapi.json` is made from the same functions that serve the requests.

mod containers;
mod images;
mod logs;
mod sessions;
mod snapshots;
mod system;
mod templates;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::routing::{any, delete, get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use utoipa::OpenApi;

use crate::failure::Failure;
use crate::state::App;

/// The API's description.
#[derive(OpenApi)]
#[openapi(
    info(title = "hyperd", description = "Containers in virtual machines of their own."),
    servers((url = "/v1")),
    paths(
        system::version, system::info,
        containers::create, containers::list, containers::inspect, containers::remove,
        containers::stop, containers::restart, containers::kill, containers::pause,
        containers::unpause, containers::wait, containers::top, containers::stats,
        containers::pods,
        sessions::start, sessions::attach, sessions::exec, sessions::download, sessions::upload,
        logs::logs,
        images::list, images::inspect, images::pull, images::load, images::import, images::tag,
        images::remove,
        snapshots::create, snapshots::list, snapshots::remove, snapshots::instantiate,
        snapshots::clone,
        templates::list, templates::create, templates::remove, templates::prune,
    ),
    components(schemas(hc_api::ErrorBody, hc_api::ImageProgress))
)]
struct Document;

/// The document as JSON text.
pub(crate) fn openapi() -> String {
    Document::openapi().to_pretty_json().unwrap_or_default()
}

/// Every request that is served.
pub(crate) fn router(app: App) -> Router {
    let api = Router::new()
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/pods", get(containers::pods))
        .route("/containers", get(containers::list).post(containers::create))
        .route("/containers/{name}", get(containers::inspect).delete(containers::remove))
        .route("/containers/{name}/start", post(sessions::start))
        .route("/containers/{name}/attach", post(sessions::attach))
        .route("/containers/{name}/exec", post(sessions::exec))
        .route("/containers/{name}/archive", get(sessions::download).put(sessions::upload))
        .route("/containers/{name}/stop", post(containers::stop))
        .route("/containers/{name}/restart", post(containers::restart))
        .route("/containers/{name}/kill", post(containers::kill))
        .route("/containers/{name}/pause", post(containers::pause))
        .route("/containers/{name}/unpause", post(containers::unpause))
        .route("/containers/{name}/wait", post(containers::wait))
        .route("/containers/{name}/logs", get(logs::logs))
        .route("/containers/{name}/top", get(containers::top))
        .route("/containers/{name}/stats", get(containers::stats))
        .route("/images", get(images::list).merge(delete(images::remove)))
        .route("/images/inspect", get(images::inspect))
        .route("/images/pull", post(images::pull))
        .route("/images/load", post(images::load))
        .route("/images/import", post(images::import))
        .route("/images/tag", post(images::tag))
        .route("/containers/{name}/snapshot", post(snapshots::create))
        .route("/containers/{name}/clone", post(snapshots::clone))
        .route("/snapshots", get(snapshots::list))
        .route("/snapshots/{name}", delete(snapshots::remove))
        .route("/snapshots/{name}/containers", post(snapshots::instantiate))
        .route("/templates", get(templates::list).post(templates::create))
        .route("/templates/prune", post(templates::prune))
        .route("/templates/{id}", delete(templates::remove));
    Router::new()
        .nest(hc_api::PREFIX, api)
        .route("/openapi.json", get(|| async { openapi_response() }))
        .fallback(any(unknown))
        .with_state(app)
}

fn openapi_response() -> ([(axum::http::HeaderName, &'static str); 1], String) {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], openapi())
}

async fn unknown(request: Request) -> Failure {
    Failure::not_found("request", &format!("{} {}", request.method(), request.uri().path()))
}

/// A query string; what does not fit is an error of ours, in our words.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query<T>, Failure> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|query| Query(query.0))
            .map_err(|error| Failure::invalid(format!("malformed query: {error}")))
    }
}

/// A JSON body; what does not fit is an error of ours, in our words.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> axum::extract::FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Failure> {
        let bytes = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|error| Failure::invalid(format!("cannot read the request: {error}")))?;
        serde_json::from_slice(&bytes)
            .map(Body)
            .map_err(|error| Failure::invalid(format!("malformed request: {error}")))
    }
}

/// An answer without a body.
pub(crate) type Done = axum::http::StatusCode;
/// What [`Done`] answers are.
pub(crate) const DONE: Done = axum::http::StatusCode::NO_CONTENT;
/// The JSON answer of a handler.
pub(crate) type Answer<T> = crate::failure::Result<Json<T>>;

#[cfg(test)]
mod tests;
