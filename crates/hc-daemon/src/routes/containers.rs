// SPDX-License-Identifier: Apache-2.0
//! Requests about containers, except those that carry streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use futures_util::future::join_all;
use hc_api::{
    Container, ContainerState, ContainerSummary, CreateContainer, Created, KillQuery, ListQuery,
    PodSummary, RemoveQuery, RestartOrStopQuery, StatsQuery, StatsSample, Top, WaitAnswer,
    WaitCondition, WaitQuery,
};
use hc_pod::OUR_FAILURE;
use hc_proto::message::Stats;
use hc_spec::Id;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{Answer, Body, DONE, Done, Query};
use crate::containers::{Entry, View};
use crate::failure::{Failure, Result};
use crate::filters::Filters;
use crate::forward;
use crate::names;
use crate::record::{Identity, ImageFacts, Record};
use crate::state::App;
use crate::supervisor;

/// How often a stream of statistics has a new sample, as in Docker.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// Creates a container and its pod; starts nothing.
#[utoipa::path(post, path = "/containers", request_body = CreateContainer,
    responses((status = 200, body = Created), (status = 404, body = hc_api::ErrorBody)))]
pub(crate) async fn create(
    State(app): State<App>,
    Body(request): Body<CreateContainer>,
) -> Answer<Created> {
    let store = app.supervisor.store.clone();
    let reference = request.image.clone();
    let image = tokio::task::spawn_blocking(move || {
        let image = store.resolve(&reference)?;
        image.config.check_platform()?;
        store.ensure_rootfs(&image, &hc_image::Silent)?;
        Ok::<_, hc_image::Error>(image)
    });
    let image = image.await.map_err(|error| Failure::host("cannot read the image", &error))??;
    if request.driver.is_some() || request.kernel.is_some() {
        let host = &app.supervisor.host;
        let boot = host.boot(request.kernel.as_ref().map(AsRef::as_ref)).await?;
        host.choose(request.driver.as_deref(), boot.transport).await?;
    }
    let name = request.name.clone();
    let facts = ImageFacts {
        id: image.id.to_string(),
        chain_id: image.chain_id.to_string(),
        config: &image.config,
    };
    let entry = add(&app, name.as_deref(), |identity| {
        Record::resolve(identity, request, &facts, &app.config, Timestamp::now())
    })?;
    Ok(Json(Created {
        id: entry.id.to_string(),
        name: entry.name.to_string(),
        pod: entry.record.pod.to_string(),
    }))
}

/// Adds a container with new ids, under a name that is made up where there is none.
pub(super) fn add(
    app: &App,
    name: Option<&str>,
    record: impl FnOnce(&Identity) -> Result<Record>,
) -> Result<Arc<Entry>> {
    let invalid = |error: hc_spec::ParseNameError| Failure::invalid(error.to_string());
    let name = name.map(str::parse).transpose().map_err(invalid)?;
    let identity = Identity { id: Id::from_bytes(random()?), pod: Id::from_bytes(random()?) };
    let words = random::<4>()?;
    app.supervisor.containers.create(
        name,
        |attempt| {
            names::make(words.map(|byte| byte.wrapping_add(attempt.to_le_bytes()[0])), attempt)
        },
        || Ok((identity.id.clone(), record(&identity)?)),
    )
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Failure::host("cannot get random bytes", &error))?;
    Ok(bytes)
}

/// Lists containers, newest first.
#[utoipa::path(get, path = "/containers", params(ListQuery),
    responses((status = 200, body = Vec<ContainerSummary>)))]
pub(crate) async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Answer<Vec<ContainerSummary>> {
    let filters = Filters::parse(query.filters.as_deref())?;
    let all = query.all || filters.select_stopped();
    let entries = app.supervisor.containers.all();
    join_all(entries.iter().map(|entry| supervisor::catch_up(entry))).await;
    let mut rows: Vec<_> = entries
        .iter()
        .filter(|entry| all || entry.is_active())
        .map(|entry| summary(entry))
        .filter(|row| filters.fit(row))
        .collect();
    rows.reverse();
    Ok(Json(rows))
}

/// Tells everything known of a container.
#[utoipa::path(get, path = "/containers/{name}", params(("name", description = "id, start of an id, or name")),
    responses((status = 200, body = Container), (status = 404, body = hc_api::ErrorBody)))]
pub(crate) async fn inspect(State(app): State<App>, Path(name): Path<String>) -> Answer<Container> {
    let entry = app.supervisor.containers.find(&name)?;
    supervisor::catch_up(&entry).await;
    let (record, view) = (&entry.record, entry.view());
    let run = view.run.as_ref();
    Ok(Json(Container {
        summary: summary(&entry),
        config: record.request.clone(),
        user: record.spec.process.user.clone(),
        workdir: record.spec.process.cwd.clone(),
        env: record.spec.process.env.clone(),
        hostname: record.hostname.clone(),
        capabilities: record.spec.capabilities,
        stop_signal: record.spec.stop_signal.to_string(),
        stop_timeout_seconds: record.stop_timeout_seconds,
        exit: run.and_then(|run| run.exit),
        oom_killed: run.is_some_and(|run| run.oom_killed),
        error: run.map(|run| run.error.clone()).unwrap_or_default(),
        driver: run.map(|run| run.driver.clone()),
        kernel: Some(
            record.kernel.as_deref().unwrap_or(app.supervisor.host.kernel()).display().to_string(),
        ),
        vcpus: record.vcpus,
        memory_mib: record.memory_mib,
        pod_pid: run.filter(|_| entry.is_active()).map(|run| run.pid),
        pod_dir: entry.dir.data().display().to_string(),
        timeline: run.map(|run| run.timeline.clone()).unwrap_or_default(),
    }))
}

/// What the list shows of a container.
pub(crate) fn summary(entry: &Entry) -> ContainerSummary {
    let View { state, run, .. } = entry.view();
    let record = &entry.record;
    let live = entry.is_active();
    ContainerSummary {
        id: entry.id.to_string(),
        name: entry.name.to_string(),
        pod: record.pod.to_string(),
        image: record.request.image.clone(),
        image_id: record.image_id.clone(),
        command: record.spec.process.args.clone(),
        created: record.created,
        state,
        started: run.as_ref().and_then(|run| run.started),
        finished: run.as_ref().and_then(|run| run.finished),
        exit_status: run.as_ref().and_then(|run| run.exit_status),
        ports: match &run {
            Some(run) if live => run.ports.clone(),
            _ => record.request.publish.clone(),
        },
        labels: record.labels.clone(),
    }
}

/// Removes a container.
#[utoipa::path(delete, path = "/containers/{name}", params(("name",), RemoveQuery),
    responses((status = 204), (status = 409, body = hc_api::ErrorBody)))]
pub(crate) async fn remove(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<Done> {
    let entry = app.supervisor.containers.find(&name)?;
    app.supervisor.remove(&entry, query.force).await?;
    Ok(DONE)
}

/// Asks a container to stop, then kills it. No error if it does not run.
#[utoipa::path(post, path = "/containers/{name}/stop", params(("name",), RestartOrStopQuery),
    responses((status = 204)))]
pub(crate) async fn stop(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response> {
    let entry = app.supervisor.containers.find(&name)?;
    stop_entry(&entry, request).await
}

async fn stop_entry(entry: &Entry, request: Request) -> Result<Response> {
    entry.steady().await;
    let mut view = entry.watch();
    let answered = forward::forward(&entry.dir.socket(), "/stop", request).await;
    match answered {
        // It does not run, which is what was asked for.
        Err(Failure(error)) if error.kind == hc_api::ErrorKind::InvalidState => {}
        Err(failure) => return Err(failure),
        Ok(response) if !response.status().is_success() => return Ok(response),
        Ok(_) => {}
    }
    wait_stopped(&mut view).await;
    Ok(axum::response::IntoResponse::into_response(DONE))
}

async fn wait_stopped(view: &mut tokio::sync::watch::Receiver<View>) {
    let stopped = |view: &View| {
        view.removed
            || matches!(
                view.state,
                ContainerState::Exited | ContainerState::Created | ContainerState::Removing
            )
    };
    // An error means that the container is gone.
    let _ = view.wait_for(stopped).await;
}

/// Stops a container and starts it again.
#[utoipa::path(post, path = "/containers/{name}/restart", params(("name",), RestartOrStopQuery),
    responses((status = 204)))]
pub(crate) async fn restart(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response> {
    let entry = app.supervisor.containers.find(&name)?;
    if entry.record.request.auto_remove {
        let message = format!("container {} is removed when it ends", entry.name);
        return Err(Failure::new(hc_api::ErrorKind::InvalidState, message)
            .hint("create it without --rm to restart it"));
    }
    // In a task of its own: a client that goes away must not leave it stopped.
    let restarted = tokio::spawn(async move {
        let stopped = stop_entry(&entry, request).await?;
        if !stopped.status().is_success() {
            return Ok(stopped);
        }
        super::sessions::start_detached(&app, &entry).await
    });
    restarted.await.map_err(|error| Failure::host("cannot restart the container", &error))?
}

/// Sends a signal to a container's main process.
#[utoipa::path(post, path = "/containers/{name}/kill", params(("name",), KillQuery),
    responses((status = 204), (status = 409, body = hc_api::ErrorBody)))]
pub(crate) async fn kill(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<KillQuery>,
    request: Request,
) -> Result<Response> {
    let entry = app.supervisor.containers.find(&name)?;
    let signal = query.signal.as_deref().unwrap_or("KILL").parse::<hc_spec::Signal>();
    let signal = signal.map_err(|error| Failure::invalid(error.to_string()))?;
    entry.steady().await;
    if signal == hc_spec::Signal::KILL && entry.is_active() {
        app.supervisor.kill(&entry).await?;
        return Ok(axum::response::IntoResponse::into_response(DONE));
    }
    forward::forward(&entry.dir.socket(), "/kill", request).await
}

/// Holds a container's VM.
#[utoipa::path(post, path = "/containers/{name}/pause", params(("name",), hc_api::PauseQuery), responses((status = 204)))]
pub(crate) async fn pause(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response> {
    let entry = app.supervisor.containers.find(&name)?;
    forward::forward(&entry.dir.socket(), "/pause", request).await
}

/// Lets a container's VM go on.
#[utoipa::path(post, path = "/containers/{name}/unpause", params(("name",)), responses((status = 204)))]
pub(crate) async fn unpause(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response> {
    let entry = app.supervisor.containers.find(&name)?;
    forward::forward(&entry.dir.socket(), "/unpause", request).await
}

/// Waits for the end of a container, or until it is removed.
#[utoipa::path(post, path = "/containers/{name}/wait", params(("name",), WaitQuery),
    responses((status = 200, body = WaitAnswer)))]
pub(crate) async fn wait(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Answer<WaitAnswer> {
    let entry = app.supervisor.containers.find(&name)?;
    let mut view = entry.watch();
    match query.condition {
        WaitCondition::NotRunning => wait_stopped(&mut view).await,
        // An error means that the container is gone.
        WaitCondition::Removed => drop(view.wait_for(|view| view.removed).await),
    }
    let run = entry.view().run;
    Ok(Json(WaitAnswer {
        exit_status: run.as_ref().map_or(0, |run| run.exit_status.unwrap_or(OUR_FAILURE)),
        error: run.map(|run| run.error).unwrap_or_default(),
    }))
}

/// Lists a container's processes.
#[utoipa::path(get, path = "/containers/{name}/top", params(("name",)), responses((status = 200, body = Top)))]
pub(crate) async fn top(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response> {
    let entry = app.supervisor.containers.find(&name)?;
    forward::forward(&entry.dir.socket(), "/top", request).await
}

/// Tells what a container uses: one JSON object, or a line of JSON each second.
#[utoipa::path(get, path = "/containers/{name}/stats", params(("name",), StatsQuery),
    responses((status = 200, body = StatsSample)))]
pub(crate) async fn stats(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<StatsQuery>,
) -> Result<Response> {
    let entry = app.supervisor.containers.find(&name)?;
    let first = sample(&entry).await?;
    let (sender, receiver) = mpsc::channel(1);
    let _ = sender.send(crate::body::json_line(&first)).await; // We hold the receiver.
    if query.stream {
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(STATS_INTERVAL);
            ticks.tick().await; // The first comes at once.
            loop {
                ticks.tick().await;
                let Ok(sample) = sample(&entry).await else { return };
                if sender.send(crate::body::json_line(&sample)).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(Response::new(crate::body::lines(receiver)))
}

async fn sample(entry: &Entry) -> Result<StatsSample> {
    let request = Request::get("/stats").body(axum::body::Body::empty());
    let request = request.map_err(|error| Failure::host("cannot ask the pod", &error))?;
    let response = forward::forward(&entry.dir.socket(), "/stats", request).await?;
    let good = response.status().is_success();
    let bytes = response.into_body().collect().await;
    let bytes = bytes.map_err(|error| Failure::host("pod broke off", &error))?.to_bytes();
    let nonsense = |error: serde_json::Error| Failure::host("pod wrote nonsense", &error);
    if !good {
        return Err(Failure(serde_json::from_slice(&bytes).map_err(nonsense)?));
    }
    let stats: Stats = serde_json::from_slice(&bytes).map_err(nonsense)?;
    Ok(StatsSample {
        id: entry.id.to_string(),
        name: entry.name.to_string(),
        time: Timestamp::now(),
        cpu_usec: stats.cpu_usec,
        vcpus: entry.record.vcpus,
        memory_bytes: stats.memory_bytes,
        memory_limit_bytes: stats.memory_limit_bytes,
        pids: stats.pids,
        block_read_bytes: stats.block_read_bytes,
        block_write_bytes: stats.block_write_bytes,
        network_rx_bytes: stats.network_rx_bytes,
        network_tx_bytes: stats.network_tx_bytes,
    })
}

/// Lists pods.
#[utoipa::path(get, path = "/pods", responses((status = 200, body = Vec<PodSummary>)))]
pub(crate) async fn pods(State(app): State<App>) -> Answer<Vec<PodSummary>> {
    let mut pods: BTreeMap<Timestamp, PodSummary> = BTreeMap::new();
    for entry in app.supervisor.containers.all() {
        let view = entry.view();
        let pod = PodSummary {
            id: entry.record.pod.to_string(),
            name: entry.name.to_string(),
            containers: vec![entry.name.to_string()],
            state: view.state,
            driver: view.run.map(|run| run.driver),
            vcpus: entry.record.vcpus,
            memory_mib: entry.record.memory_mib,
        };
        pods.insert(entry.record.created, pod);
    }
    Ok(Json(pods.into_values().rev().collect()))
}
