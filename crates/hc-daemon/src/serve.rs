// SPDX-License-Identifier: Apache-2.0
//! The daemon from its start to its end.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use hc_paths::Paths;
use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, TemplatesMode};
use crate::containers::Containers;
use crate::database::Database;
use crate::host::Host;
use crate::pool::Pool;
use crate::process::Processes;
use crate::ready::Ready;
use crate::routes;
use crate::snapshots::Snapshots;
use crate::state::App;
use crate::supervisor::Supervisor;
use crate::templates::Templates;

/// Serves until a signal asks to end. `ready` is told how the start went.
pub(crate) fn run(ready: Option<&str>) -> Result<()> {
    let mut ready = Ready::take_over(ready)?;
    // One thread serves: what takes long is done by pod processes, or on threads for blocking work.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match start() {
            Ok(started) => {
                ready.tell("");
                serve(started).await
            }
            Err(error) => {
                ready.tell(&format!("{error:#}\n"));
                Err(error)
            }
        }
    });
    // Image work that is under way is dropped as by a kill; the store is made for that.
    runtime.shutdown_background();
    result
}

struct Started {
    listener: UnixListener,
    app: App,
    /// Held for as long as this daemon is the one.
    _lock: File,
}

/// Everything up to the first request. Needs a runtime: pods that run are watched from here on.
fn start() -> Result<Started> {
    let paths = hc_paths::current()?;
    hc_paths::make_private_dir(&paths.runtime_dir)?;
    hc_paths::make_private_dir(&paths.data_dir)?;
    hc_paths::check_socket(&paths.socket())?;
    let lock = lock(&paths)?;
    let config = Config::read(&paths.config_file)?;
    let store = hc_image::Store::open(paths.data_dir.join("images"))?;
    let database = Database::open(&paths.data_dir.join("hyper.db"))?;
    let containers = Containers::load(database, paths.data_dir.clone(), paths.runtime_dir.clone())
        .map_err(|failure| anyhow::anyhow!(failure.0.message))?;
    let programs = programs()?;
    let host = Arc::new(Host::new(&paths.lib_dir, &paths.data_dir, &programs, &config));
    let processes = Processes::new(&programs, &paths.runtime_dir);
    let templates = (config.templates == TemplatesMode::Auto)
        .then(|| Arc::new(Templates::new(&paths.data_dir, processes.clone(), host.rehearsal())));
    let supervisor = Arc::new(Supervisor {
        containers,
        host: Arc::clone(&host),
        processes,
        templates,
        pool: Arc::new(Pool::new(config.pool)),
        snapshots: Snapshots::new(&paths.data_dir),
        usual_size: (config.vcpus(), config.memory_mib()),
        store,
    });
    supervisor.take_up();
    supervisor.snapshots.tidy();
    if let Some(templates) = &supervisor.templates {
        templates.tidy();
    }
    supervisor.keep_pool();
    tokio::spawn(async move { host.probe().await.clone() });
    let listener = listen(&paths)?;
    tracing::info!(socket = %paths.socket().display(), "ready");
    let app = App { supervisor, config: Arc::new(config), paths: Arc::new(paths) };
    Ok(Started { listener, app, _lock: lock })
}

/// Makes sure that no other daemon uses these folders.
fn lock(paths: &Paths) -> Result<File> {
    let path = paths.data_dir.join("hyperd.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            bail!("another hyperd uses {}", paths.data_dir.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the program's own file")?;
    Ok(own.parent().map(PathBuf::from).unwrap_or_default())
}

fn listen(paths: &Paths) -> Result<UnixListener> {
    let socket = paths.socket();
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", socket.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&socket)
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    // The folder is private already; this is for tools that look at the socket alone.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn serve(started: Started) -> Result<()> {
    let Started { listener, app, _lock } = started;
    let socket = app.paths.socket();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        result = axum::serve(listener, routes::router(app)) => result?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending; pods run on");
    let _ = std::fs::remove_file(socket); // A later daemon replaces it anyway.
    Ok(())
}
