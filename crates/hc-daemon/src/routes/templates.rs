// SPDX-License-Identifier: Apache-2.0
//! Requests about templates.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use hc_api::{CreateContainer, CreateTemplate, ErrorKind, PrunedTemplates, Template};
use hc_pod::job::Shape;

use super::{Answer, Body, DONE, Done};
use crate::failure::{Failure, Result};
use crate::record;
use crate::state::App;
use crate::supervisor::nobodys;
use crate::templates::{Key, Listed, Templates};

/// Lists templates.
#[utoipa::path(get, path = "/templates", responses((status = 200, body = Vec<Template>)))]
pub(crate) async fn list(State(app): State<App>) -> Answer<Vec<Template>> {
    let Ok(templates) = templates(&app) else { return Ok(Json(Vec::new())) };
    let rows = templates.list().into_iter().map(|listed| row(&app, listed));
    Ok(Json(rows.collect()))
}

/// Makes the template for pods of a shape; answers once it is there.
#[utoipa::path(post, path = "/templates", request_body = CreateTemplate,
    responses((status = 200, body = Template)))]
pub(crate) async fn create(
    State(app): State<App>,
    Body(request): Body<CreateTemplate>,
) -> Answer<Template> {
    templates(&app)?;
    let supervisor = &app.supervisor;
    let (vcpus, memory_mib) = record::size(
        &CreateContainer {
            memory_bytes: request.memory_bytes,
            cpu_millis: request.cpu_millis,
            ..CreateContainer::default()
        },
        &app.config,
    )?;
    let boot = supervisor.host.boot(request.kernel.as_ref().map(AsRef::as_ref)).await?;
    let choice = supervisor.host.choose(request.driver.as_deref(), boot.transport).await?;
    let driver = choice.driver.name();
    let vm = supervisor.vm_config(choice.driver, boot, vcpus, memory_mib);
    let shape = nobodys(Shape { vm, network: !request.no_network });
    let Some((templates, key)) = supervisor.template_key(&shape).await else {
        let message = format!("driver {driver} cannot copy guests");
        return Err(Failure::new(ErrorKind::Unsupported, message));
    };
    if templates.get(&key).await.is_none() {
        templates.make(&key, &shape).await?;
    }
    let made = templates.list().into_iter().find(|listed| listed.label.key == key.to_string());
    let made = made.ok_or_else(|| Failure::new(ErrorKind::Internal, "the template is gone"))?;
    Ok(Json(row(&app, made)))
}

/// Removes a template. Pods that went on from it are not concerned.
#[utoipa::path(delete, path = "/templates/{id}", responses((status = 204)))]
pub(crate) async fn remove(State(app): State<App>, Path(id): Path<String>) -> Result<Done> {
    let templates = templates(&app)?;
    let listed = templates.list();
    let mut fitting = listed.iter().filter(|listed| listed.label.key.starts_with(&id));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) if !id.is_empty() => templates.remove(&Key::of_label(&one.label.key)),
        (Some(_), Some(_)) if !id.is_empty() => {
            return Err(Failure::invalid(format!("id {id} is not unique: give more digits")));
        }
        _ => return Err(Failure::not_found("template", &id)),
    }
    Ok(DONE)
}

/// Removes every template that no VM of the pool waits for.
#[utoipa::path(post, path = "/templates/prune", responses((status = 200, body = PrunedTemplates)))]
pub(crate) async fn prune(State(app): State<App>) -> Answer<PrunedTemplates> {
    let templates = templates(&app)?;
    let mut pruned = PrunedTemplates::default();
    for Listed { label, size } in templates.list() {
        let key = Key::of_label(&label.key);
        if app.supervisor.pool.count(&key) == 0 {
            templates.remove(&key);
            pruned.removed.push(label.key);
            pruned.size += size;
        }
    }
    Ok(Json(pruned))
}

fn templates(app: &App) -> Result<&Arc<Templates>> {
    app.supervisor.templates.as_ref().ok_or_else(|| {
        Failure::new(ErrorKind::Unsupported, "templates are switched off")
            .hint("set templates to \"auto\" in the configuration, and restart hyperd")
    })
}

fn row(app: &App, Listed { label, size }: Listed) -> Template {
    let waiting = app.supervisor.pool.count(&Key::of_label(&label.key));
    let vm = label.shape.vm;
    Template {
        id: label.key,
        driver: vm.driver.name().to_owned(),
        kernel: vm.kernel.display().to_string(),
        vcpus: vm.vcpus,
        memory_mib: vm.memory_mib,
        network: label.shape.network,
        size,
        created: label.created,
        waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
    }
}
