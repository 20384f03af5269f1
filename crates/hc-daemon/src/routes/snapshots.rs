// SPDX-License-Identifier: Apache-2.0
//! Requests about snapshots, and containers that go on from one.

use axum::Json;
use axum::extract::{Path, State};
use hc_api::{CloneContainer, CreateSnapshot, Created, Snapshot};
use hc_spec::Name;
use jiff::Timestamp;

use super::containers::add;
use super::{Answer, Body, DONE, Done};
use crate::failure::{Failure, Result};
use crate::snapshots::{self, Meta, Origin};
use crate::state::App;

/// Copies a running container, memory and disks and all.
#[utoipa::path(post, path = "/containers/{name}/snapshot", params(("name",)),
    request_body = CreateSnapshot, responses((status = 200, body = Snapshot)))]
pub(crate) async fn create(
    State(app): State<App>,
    Path(container): Path<String>,
    Body(request): Body<CreateSnapshot>,
) -> Answer<Snapshot> {
    let entry = app.supervisor.containers.find(&container)?;
    let name: Name = request
        .name
        .parse()
        .map_err(|error: hc_spec::ParseNameError| Failure::invalid(error.to_string()))?;
    app.supervisor.snapshots.create(&entry, &name).await?;
    let made = app.supervisor.snapshots.list().into_iter().find(|(own, ..)| own == name.as_str());
    let (name, meta, size) = made.ok_or_else(|| Failure::not_found("snapshot", name.as_str()))?;
    Ok(Json(row(name, &meta, size)))
}

/// Lists snapshots, newest first.
#[utoipa::path(get, path = "/snapshots", responses((status = 200, body = Vec<Snapshot>)))]
pub(crate) async fn list(State(app): State<App>) -> Answer<Vec<Snapshot>> {
    let all = app.supervisor.snapshots.list().into_iter();
    Ok(Json(all.map(|(name, meta, size)| row(name, &meta, size)).collect()))
}

/// Removes a snapshot.
#[utoipa::path(delete, path = "/snapshots/{name}", params(("name",)), responses((status = 204)))]
pub(crate) async fn remove(State(app): State<App>, Path(name): Path<String>) -> Result<Done> {
    app.supervisor.snapshots.remove(&name)?;
    Ok(DONE)
}

/// Creates a container that goes on from a snapshot; starts nothing.
#[utoipa::path(post, path = "/snapshots/{name}/containers", params(("name",)),
    request_body = CloneContainer, responses((status = 200, body = Created)))]
pub(crate) async fn instantiate(
    State(app): State<App>,
    Path(name): Path<String>,
    Body(request): Body<CloneContainer>,
) -> Answer<Created> {
    let meta = app.supervisor.snapshots.find(&name)?;
    let wanted = request.name.clone();
    let entry = add(&app, wanted.as_deref(), |identity| {
        let now = Timestamp::now();
        meta.record.copy(identity, request, &meta.driver, Origin::Snapshot(name), now)
    })?;
    Ok(Json(created(&entry)))
}

/// Creates a container that goes on where another is now; starts nothing.
#[utoipa::path(post, path = "/containers/{name}/clone", params(("name",)),
    request_body = CloneContainer, responses((status = 200, body = Created)))]
pub(crate) async fn clone(
    State(app): State<App>,
    Path(container): Path<String>,
    Body(request): Body<CloneContainer>,
) -> Answer<Created> {
    let original = app.supervisor.containers.find(&container)?;
    let driver = original.view().run.map(|run| run.driver).unwrap_or_default();
    let wanted = request.name.clone();
    let entry = add(&app, wanted.as_deref(), |identity| {
        original.record.copy(identity, request, &driver, Origin::Own, Timestamp::now())
    })?;
    let work = entry.work.lock().await;
    // With the rights that a pod's folder has.
    entry.dir.create().map_err(|error| Failure::host("cannot make the pod's folder", &error))?;
    let taken = snapshots::take(&original, &snapshots::own(&entry)).await;
    drop(work);
    if let Err(failure) = taken {
        app.supervisor.remove(&entry, true).await?;
        return Err(failure);
    }
    Ok(Json(created(&entry)))
}

fn created(entry: &crate::containers::Entry) -> Created {
    Created {
        id: entry.id.to_string(),
        name: entry.name.to_string(),
        pod: entry.record.pod.to_string(),
    }
}

fn row(name: String, meta: &Meta, size: u64) -> Snapshot {
    Snapshot {
        name,
        container: meta.container.clone(),
        image: meta.record.request.image.clone(),
        driver: meta.driver.clone(),
        vcpus: meta.record.vcpus,
        memory_mib: meta.record.memory_mib,
        size,
        created: meta.created,
        held_micros: meta.held_micros,
    }
}
