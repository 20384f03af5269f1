// SPDX-License-Identifier: Apache-2.0
//! `hyper-pod SCRATCH`: the process of one pod. The daemon starts it, with a socket for its jobs as
//! its standard input; see `job.rs`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use hc_pod::job::Job;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdin, dup2_stdout};
use tracing_subscriber::EnvFilter;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(scratch), None) = (arguments.next(), arguments.next()) else {
        bail!("usage: hyper-pod SCRATCH (it is started by hyperd, not by hand)");
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
    // Taken from where every child would inherit it.
    let socket = fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    let first = Job::receive(&socket).context("standard input is no socket with jobs")?;
    // No job: the daemon went away before it had one for us.
    let Some(first) = first else { return Ok(()) };
    rustix::io::ioctl_fionbio(&socket, true)?;
    // One thread: the hypervisor's process is tied to the thread that made it.
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    executor.block_on(hc_pod::work(socket.into(), first, &scratch))?;
    Ok(())
}
