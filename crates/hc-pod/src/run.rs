// SPDX-License-Identifier: Apache-2.0
//! A pod process from its start to its end: it does the jobs that come over a socket, the last of
//! which is a pod.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::stdio::dup2_stderr;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use crate::config::CONFIG_VERSION;
use crate::failure::chain;
use crate::job::{Job, Outcome};
use crate::life::{self, Beginning, unreadable};
use crate::log::{LogLimits, LogWriter};
use crate::machine::{self, Source, Waiting};
use crate::output::Output;
use crate::pod::Pod;
use crate::{PodDir, server};

/// Does the jobs that come over `socket`, which is non-blocking. `scratch` is a folder for
/// VMs that are no pod's yet.
pub async fn work(
    socket: std::os::unix::net::UnixStream,
    first: Job,
    scratch: &Path,
) -> io::Result<()> {
    let mut waiting = None;
    let mut next = Some(first);
    let socket = UnixStream::from_std(socket)?;
    while let Some(job) = next {
        match job {
            Job::Pod { dirs, listener, lock, log, guest } => {
                let source = match (waiting.take(), guest) {
                    (Some(vm), _) => Source::Waiting(vm),
                    (None, Some(guest)) => Source::Template(guest),
                    (None, None) => Source::Kernel,
                };
                // Nobody is told any more.
                drop(socket);
                dup2_stderr(log)?;
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener)?;
                return pod(PodDir::from_paths(dirs.data, dirs.runtime), listener, lock, source)
                    .await;
            }
            Job::Warm(new, guest) => match Waiting::make(&new, guest, scratch).await {
                Ok(vm) => waiting = Some(vm),
                Err(error) => return tell(&socket, &Outcome::Failed(error.to_string())),
            },
            Job::Template(new, guest) => {
                match machine::make_template(&new, &guest, scratch).await {
                    Ok(()) => {}
                    Err(error) => return tell(&socket, &Outcome::Failed(error.to_string())),
                }
            }
        }
        tell(&socket, &Outcome::Ready)?;
        next = receive(&socket, &mut waiting).await?;
    }
    Ok(())
}

/// Tells the daemon what came of a job. One that went away meanwhile has no more jobs either.
fn tell(socket: &UnixStream, outcome: &Outcome) -> io::Result<()> {
    match outcome.send(socket) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        told => told,
    }
}

/// Waits for the next job; `None` if the daemon goes away, or the VM that waits for it.
async fn receive(socket: &UnixStream, waiting: &mut Option<Waiting>) -> io::Result<Option<Job>> {
    let vm_ended = async {
        match waiting {
            Some(waiting) => waiting.booted.vm.wait().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        job = socket.async_io(Interest::READABLE, || Job::receive(socket)) => job,
        exit = vm_ended => {
            let error = machine::obituary(exit);
            tracing::warn!(error = %chain(&error), "a VM has ended that waited for a pod");
            Ok(None)
        }
    }
}

/// Lives the life of the pod in `dir`, serving `listener` meanwhile.
///
/// `lock` is dropped when the pod is over; clients that are slow to take the last output are
/// still served afterwards.
async fn pod(
    dir: PodDir,
    listener: UnixListener,
    lock: std::fs::File,
    source: Source,
) -> io::Result<()> {
    let config = dir.read_config()?;
    if config.version != CONFIG_VERSION {
        let text = format!("the pod's record is of version {}; restart hyperd", config.version);
        return Err(io::Error::other(text));
    }
    let beginning = match (&config.copied, source) {
        (None, source) => Beginning::New(source),
        (Some(copied), Source::Template(guest)) => {
            let before = copied.predecessor().ok_or_else(|| io::Error::other(unreadable()))?;
            Beginning::Copy(guest, before)
        }
        (Some(_), Source::Kernel | Source::Waiting(_)) => {
            return Err(io::Error::other("a copied pod came without its guest"));
        }
    };
    let log = LogWriter::open(&dir.logs(), LogLimits::default())?;
    let (pod, orders) = Pod::new(config, dir, Output::new(log));
    let pod = Arc::new(pod);
    let server = tokio::spawn(server::serve(Arc::clone(&pod), listener));
    life::live(Arc::clone(&pod), orders, beginning).await;
    if let Err(error) = pod.dir.remove_runtime() {
        tracing::warn!(%error, "runtime folder cannot be removed");
    }
    drop(lock);
    // It ends by itself: the pod is over.
    let _ = server.await;
    Ok(())
}
