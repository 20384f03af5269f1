// SPDX-License-Identifier: Apache-2.0
//! A pod process from its start to its end.
//!
//! The daemon starts it with the listening socket as its standard input and the pod's lock, already
//! taken, as its standard output: a client can connect, and another daemon sees that the pod lives,
//! before the process has run one instruction. Its standard error is the pod's own log.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tokio::net::UnixListener;

use crate::config::CONFIG_VERSION;
use crate::log::{LogLimits, LogWriter};
use crate::output::Output;
use crate::pod::Pod;
use crate::{PodDir, life, server};

/// Lives the life of the pod in `dir`, serving `listener` meanwhile.
///
/// `lock` is dropped when the pod is over; clients that are slow to take the last output are
/// still served afterwards.
pub async fn run(dir: PodDir, listener: UnixListener, lock: File) -> io::Result<()> {
    let config = dir.read_config()?;
    if config.version != CONFIG_VERSION {
        let text = format!("the pod's record is of version {}; restart hyperd", config.version);
        return Err(io::Error::other(text));
    }
    let log = LogWriter::open(&dir.logs(), LogLimits::default())?;
    let (pod, orders) = Pod::new(config, dir, Output::new(log));
    let pod = Arc::new(pod);
    let server = tokio::spawn(server::serve(Arc::clone(&pod), listener));
    life::live(Arc::clone(&pod), orders).await;
    if let Err(error) = pod.dir.remove_runtime() {
        tracing::warn!(%error, "runtime folder cannot be removed");
    }
    drop(lock);
    // It ends by itself: the pod is over.
    let _ = server.await;
    Ok(())
}
