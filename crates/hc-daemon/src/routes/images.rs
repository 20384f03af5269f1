// SPDX-License-Identifier: Apache-2.0
//! Requests about images.
//!
//! Pull, load and import answer at once with lines of progress; the last line says how it went. A
//! client that goes away stops the work, which then leaves nothing.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::{Buf as _, Bytes};
use hc_api::{
    ImageDetail, ImageProgress, ImageRef, ImageSummary, ImportQuery, PullRequest, RemovedImage,
    TagRequest,
};
use hc_image::{
    Credentials, Event, ImportOptions, LoadedImage, Progress, PullOptions, PullPolicy, Reference,
    RemoveOptions, Secret, Stage, Store,
};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Answer, Body as JsonBody, DONE, Done, Query};
use crate::body::{json_line, lines};
use crate::failure::{Failure, Result};
use crate::state::App;

/// Lines of progress on their way to a client; what it has no room for is left out.
const QUEUE: usize = 16;
/// Pieces of an archive on their way from a client to the store.
const UPLOAD_QUEUE: usize = 16;

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ByName {
    /// The image, by name, id or start of an id.
    name: String,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Removal {
    /// The image, by name, id or start of an id.
    name: String,
    /// Also where containers use it or it has several names.
    #[serde(default)]
    force: bool,
}

/// Lists images, newest first.
#[utoipa::path(get, path = "/images", responses((status = 200, body = Vec<ImageSummary>)))]
pub(crate) async fn list(State(app): State<App>) -> Answer<Vec<ImageSummary>> {
    let images = blocking(&app, Store::list).await?;
    Ok(Json(images.iter().map(summary).collect()))
}

fn summary(image: &hc_image::ImageSummary) -> ImageSummary {
    ImageSummary {
        id: image.id.to_string(),
        names: image.names.iter().map(ToString::to_string).collect(),
        created: image.created.as_deref().and_then(|text| text.parse().ok()),
        size_bytes: image.size,
        rootfs_bytes: image.rootfs_size,
    }
}

/// Tells everything known of an image.
#[utoipa::path(get, path = "/images/inspect", params(ByName),
    responses((status = 200, body = ImageDetail), (status = 404, body = hc_api::ErrorBody)))]
pub(crate) async fn inspect(
    State(app): State<App>,
    Query(query): Query<ByName>,
) -> Answer<ImageDetail> {
    let (image, rootfs_bytes) = blocking(&app, move |store| {
        let image = store.resolve(&query.name)?;
        let row = store.list()?.into_iter().find(|row| row.id == image.id);
        Ok((image, row.and_then(|row| row.rootfs_size)))
    })
    .await?;
    let config = &image.config;
    Ok(Json(ImageDetail {
        summary: ImageSummary {
            id: image.id.to_string(),
            names: image.names.iter().map(ToString::to_string).collect(),
            created: config.created.as_deref().and_then(|text| text.parse().ok()),
            size_bytes: image.size,
            rootfs_bytes,
        },
        manifest: image.manifest.to_string(),
        chain_id: image.chain_id.to_string(),
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        layers: image.layers.iter().map(|layer| layer.digest.to_string()).collect(),
        entrypoint: config.entrypoint.clone(),
        command: config.cmd.clone(),
        env: config.env.clone(),
        workdir: config.working_dir.clone().unwrap_or_default(),
        user: config.user.clone().unwrap_or_default(),
        exposed_ports: config.exposed_ports.clone(),
        volumes: config.volumes.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone().unwrap_or_default(),
    }))
}

/// Fetches an image from its registry.
#[utoipa::path(post, path = "/images/pull", request_body = PullRequest,
    responses((status = 200, description = "lines of ImageProgress")))]
pub(crate) async fn pull(
    State(app): State<App>,
    JsonBody(request): JsonBody<PullRequest>,
) -> Result<Response> {
    let reference: Reference = parse_reference(&request.reference)?;
    let options = PullOptions {
        policy: PullPolicy::Always,
        credentials: credentials(request.authorization.as_deref())?,
        insecure_registries: app.config.insecure_registries.clone(),
        ..PullOptions::default()
    };
    let store = app.supervisor.store.clone();
    Ok(report(|progress| async move {
        let cancelled = Arc::clone(&progress);
        tokio::select! {
            pulled = store.pull(&reference, &options, progress) => Ok(vec![pulled?]),
            () = cancelled.closed() => Err(hc_image::Error::Cancelled.into()),
        }
    }))
}

fn credentials(authorization: Option<&str>) -> Result<Credentials> {
    use base64::Engine as _;
    let Some(text) = authorization else {
        return Ok(Credentials::Anonymous);
    };
    // The reason is left out of the message: it could quote the secret.
    let malformed = || Failure::invalid("malformed credentials: want base64 of user:password");
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| malformed())?;
    let pair = String::from_utf8(bytes).map_err(|_| malformed())?;
    let (user, password) = pair.split_once(':').ok_or_else(malformed)?;
    Ok(Credentials::Basic { user: user.to_owned(), password: Secret::new(password) })
}

/// Loads the images of an archive: docker-archive or OCI, plain, gzip or Zstandard.
#[utoipa::path(post, path = "/images/load",
    responses((status = 200, description = "lines of ImageProgress")))]
pub(crate) async fn load(State(app): State<App>, request: Request) -> Response {
    let store = app.supervisor.store.clone();
    let upload = Upload::new(request.into_body());
    report(|progress| work(move || store.load(upload, &*progress)))
}

/// Makes an image of a root file system's tar.
#[utoipa::path(post, path = "/images/import", params(ImportQuery),
    responses((status = 200, description = "lines of ImageProgress")))]
pub(crate) async fn import(
    State(app): State<App>,
    Query(query): Query<ImportQuery>,
    request: Request,
) -> Result<Response> {
    let options = import_options(&query)?;
    let store = app.supervisor.store.clone();
    let upload = Upload::new(request.into_body());
    Ok(report(|progress| work(move || Ok(vec![store.import(upload, &options, &*progress)?]))))
}

/// The configuration of an import, in the words of an OCI image.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
struct ImportConfig {
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    working_dir: Option<String>,
    user: Option<String>,
    labels: std::collections::BTreeMap<String, String>,
    exposed_ports: std::collections::BTreeMap<String, serde_json::Value>,
    stop_signal: Option<String>,
}

fn import_options(query: &ImportQuery) -> Result<ImportOptions> {
    let name = query.name.as_deref().map(parse_reference).transpose()?;
    let config: ImportConfig = match &query.config {
        Some(text) => serde_json::from_str(text)
            .map_err(|error| Failure::invalid(format!("malformed configuration: {error}")))?,
        None => ImportConfig::default(),
    };
    Ok(ImportOptions {
        name,
        cmd: config.cmd,
        entrypoint: config.entrypoint,
        env: config.env,
        working_dir: config.working_dir,
        user: config.user,
        labels: config.labels,
        exposed_ports: config.exposed_ports.into_keys().collect(),
        stop_signal: config.stop_signal,
        created: Some(jiff::Timestamp::now().to_string()),
    })
}

/// Gives an image another name.
#[utoipa::path(post, path = "/images/tag", request_body = TagRequest, responses((status = 204)))]
pub(crate) async fn tag(
    State(app): State<App>,
    JsonBody(request): JsonBody<TagRequest>,
) -> Result<Done> {
    let target = parse_reference(&request.target)?;
    blocking(&app, move |store| store.tag(&request.source, &target)).await?;
    Ok(DONE)
}

/// Removes a name, and the image with its last one.
#[utoipa::path(delete, path = "/images", params(Removal),
    responses((status = 200, body = RemovedImage), (status = 409, body = hc_api::ErrorBody)))]
pub(crate) async fn remove(
    State(app): State<App>,
    Query(query): Query<Removal>,
) -> Answer<RemovedImage> {
    let used = app.supervisor.containers.all();
    let in_use: HashSet<_> =
        used.iter().filter_map(|entry| entry.record.chain_id.parse().ok()).collect();
    let options = RemoveOptions { force: query.force, in_use };
    let removed = blocking(&app, move |store| store.remove(&query.name, &options)).await?;
    Ok(Json(RemovedImage {
        untagged: removed.untagged.iter().map(ToString::to_string).collect(),
        deleted: removed.deleted.iter().map(ToString::to_string).collect(),
    }))
}

fn parse_reference(text: &str) -> Result<Reference> {
    text.parse().map_err(|error: hc_image::Error| error.into())
}

/// Runs a call into the store on a thread for blocking work.
async fn blocking<T: Send + 'static>(
    app: &App,
    call: impl FnOnce(&Store) -> hc_image::Result<T> + Send + 'static,
) -> Result<T> {
    let store = app.supervisor.store.clone();
    work(move || call(&store)).await
}

async fn work<T: Send + 'static>(
    call: impl FnOnce() -> hc_image::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(call).await;
    Ok(done.map_err(|error| Failure::host("image work broke off", &error))??)
}

/// Answers with the progress of `operation`, and at last with how it went.
fn report<F>(operation: impl FnOnce(Arc<Lines>) -> F) -> Response
where
    F: Future<Output = Result<Vec<LoadedImage>>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(QUEUE);
    let operation = operation(Arc::new(Lines(sender.clone())));
    tokio::spawn(async move {
        let last = match operation.await {
            Ok(images) => ImageProgress::Done { images: images.iter().map(image_ref).collect() },
            Err(Failure(error)) => ImageProgress::Failed(error),
        };
        let _ = sender.send(json_line(&last)).await; // The client may have gone.
    });
    Response::new(lines(receiver))
}

fn image_ref(loaded: &LoadedImage) -> ImageRef {
    ImageRef {
        id: loaded.image.id.to_string(),
        names: loaded.names.iter().map(ToString::to_string).collect(),
    }
}

/// Progress as lines to a client.
struct Lines(mpsc::Sender<Bytes>);

impl Lines {
    async fn closed(&self) {
        self.0.closed().await;
    }
}

impl Progress for Lines {
    fn report(&self, event: Event<'_>) {
        let what = match event.stage {
            Stage::Resolve => "asking for",
            Stage::Download => "downloading",
            Stage::Read => "reading",
            Stage::Present => "already here:",
            Stage::Build => "building root file system of",
            Stage::Done => "done:",
        };
        let step = ImageProgress::Step {
            what: format!("{what} {}", event.item),
            done_bytes: event.done,
            total_bytes: event.total,
        };
        // A client that is slow to read progress sees less of it.
        let _ = self.0.try_send(json_line(&step));
    }

    fn is_cancelled(&self) -> bool {
        self.0.is_closed()
    }
}

/// A request's body as the store reads it, on another thread.
struct Upload {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Upload {
    fn new(mut body: Body) -> Upload {
        let (sender, pieces) = mpsc::channel(UPLOAD_QUEUE);
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                match frame.map(hyper::body::Frame::into_data) {
                    // What nobody wants any more is read all the same: a connection that is closed
                    // with bytes unread takes the answer away that is on its way to the client.
                    Ok(Ok(data)) => drop(sender.send(Ok(data)).await),
                    Ok(Err(_)) => {} // Trailers mean nothing here.
                    Err(error) => return drop(sender.send(Err(io::Error::other(error))).await),
                }
            }
        });
        Upload { pieces, piece: Bytes::new() }
    }
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
