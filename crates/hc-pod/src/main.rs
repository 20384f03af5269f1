// SPDX-License-Identifier: Apache-2.0
//! `hyper-pod DATA RUNTIME`: the process of one pod. The daemon starts it; see `run.rs` for what it
//! is given.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use hc_pod::PodDir;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdin, dup2_stdout};
use tracing_subscriber::EnvFilter;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(data), Some(runtime), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        bail!("usage: hyper-pod DATA RUNTIME (it is started by hyperd, not by hand)");
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // A line that a full disk does not take would else be told by a line that panics.
        .log_internal_errors(false)
        .with_env_filter(EnvFilter::try_from_env("HYPER_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    // A session of its own, so that no terminal's signals reach the pod. It fails where the daemon
    // has made one for us already.
    let _ = rustix::process::setsid();
    let (listener, lock) = inherited().context("cannot take over what hyperd passed")?;
    // One thread: the hypervisor's process is tied to the thread that made it.
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    executor.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        hc_pod::run(PodDir::from_paths(data, runtime), listener, lock).await
    })?;
    Ok(())
}

/// Takes the listening socket from standard input and the lock from standard output, and leaves
/// `/dev/null` in their places, so that no child inherits the lock.
fn inherited() -> Result<(UnixListener, File)> {
    let listener = UnixListener::from(fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    let lock = File::from(fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    listener.set_nonblocking(true)?;
    Ok((listener, lock))
}
