// SPDX-License-Identifier: Apache-2.0
//! Requests about the daemon and its host.

use axum::Json;
use axum::extract::State;
use hc_api::{ContainerState, Info, Version};

use super::Answer;
use crate::state::App;

/// Who answers.
#[utoipa::path(get, path = "/version", responses((status = 200, body = Version)))]
pub(crate) async fn version() -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").into(),
        api: hc_api::PREFIX.trim_start_matches('/').into(),
        pid: std::process::id(),
    })
}

/// What the daemon has and what its host can do.
#[utoipa::path(get, path = "/info", responses((status = 200, body = Info)))]
pub(crate) async fn info(State(app): State<App>) -> Answer<Info> {
    let host = &app.supervisor.host;
    let (kvm, drivers, choice) = host.report().await;
    let (driver, driver_reason) = match choice {
        Ok(choice) => (choice.driver.name().to_owned(), choice.reason),
        Err(crate::failure::Failure(error)) => ("none".to_owned(), error.message),
    };
    let all = app.supervisor.containers.all();
    let running = all.iter().filter(|entry| entry.view().state == ContainerState::Running);
    let store = app.supervisor.store.clone();
    let images = tokio::task::spawn_blocking(move || store.list()).await;
    let images = images.map_err(|error| crate::failure::Failure::host("cannot list", &error))??;
    let system = rustix::system::sysinfo();
    Ok(Json(Info {
        version: env!("CARGO_PKG_VERSION").into(),
        containers: all.len() as u64,
        running: running.count() as u64,
        images: images.len() as u64,
        data_dir: app.paths.data_dir.display().to_string(),
        runtime_dir: app.paths.runtime_dir.display().to_string(),
        kernel: host.kernel().display().to_string(),
        kvm,
        driver,
        driver_reason,
        drivers,
        host_cpus: std::thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        host_memory_bytes: system.totalram * u64::from(system.mem_unit),
        host_kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        root: rustix::process::geteuid().is_root(),
    }))
}
