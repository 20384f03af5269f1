// SPDX-License-Identifier: Apache-2.0
//! Starts the daemon when nobody answers on its socket.
//!
//! Many clients may find the socket dead at once. Whoever gets the lock starts the daemon; the
//! others wait for the lock, and then find the socket alive. The daemon inherits the writing end of
//! a pipe: one newline, or the end of the pipe, says that it listens; a line of text says why not.
#![expect(unsafe_code, reason = "setsid between fork and exec")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hc_api::ErrorKind;
use hc_paths::Paths;
use rustix::fs::{FlockOperation, flock};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use super::{Client, unreachable};
use crate::failure::{Failure, Result};

/// How long the daemon may take to listen. It opens a database and looks for its pods, which takes
/// well under a second; ten are for a machine that has just been booted.
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest reason that a failing daemon can give.
const MAX_REASON: usize = 4096;
/// What the daemon is called.
const PROGRAM: &str = "hyperd";

/// A client of the daemon at `socket`, which others keep running.
pub(crate) async fn connect(socket: &Path) -> Result<Client> {
    hc_paths::check_socket(socket)?;
    match UnixStream::connect(socket).await {
        Ok(stream) => Ok(Client::new(socket, stream)),
        Err(error) => Err(unreachable(socket, &error).with_hint(
            "is it running? without --socket and HYPER_SOCKET, it is started as needed",
        )),
    }
}

/// A client of this user's daemon, which is started if it does not run.
pub(crate) async fn connect_or_start(paths: &Paths) -> Result<Client> {
    let socket = paths.socket();
    hc_paths::check_socket(&socket)?;
    // Before the first connection: in /tmp, a socket may be anybody's.
    hc_paths::make_private_dir(&paths.runtime_dir)?;
    if let Some(stream) = answers(&socket).await? {
        return Ok(Client::new(&socket, stream));
    }
    let lock_path = paths.start_lock();
    let lock = private().open(&lock_path).map_err(|e| cannot("open", &lock_path, e))?;
    // Nothing else goes on in this process yet, and ctrl-C still ends it.
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| cannot("lock", &lock_path, e))?;
    let stream = match answers(&socket).await? {
        Some(stream) => stream,
        None => start(paths).await?,
    };
    Ok(Client::new(&socket, stream))
}

/// A connection to whoever listens on the socket.
async fn answers(socket: &Path) -> Result<Option<UnixStream>> {
    match UnixStream::connect(socket).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(unreachable(socket, &error)),
    }
}

async fn start(paths: &Paths) -> Result<UnixStream> {
    let program = find();
    let log_path = paths.daemon_log();
    let mut log = private().open(&log_path).map_err(|e| cannot("open", &log_path, e))?;
    let log_start = log.seek(SeekFrom::End(0)).map_err(|e| cannot("read", &log_path, e))?;
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Failure::system("cannot make a pipe", error))?;
    let child = spawn(&program, &log, writer).map_err(|error| {
        Failure::system(format_args!("cannot start the daemon {}", program.display()), error)
            .with_hint("hyperd belongs beside hyper, or on PATH")
    })?;
    let started = match wait_until_ready(child, reader).await {
        Ok(()) => answers(&paths.socket())
            .await?
            .ok_or_else(|| Failure::new(ErrorKind::Internal, "it does not listen")),
        Err(failure) => Err(failure),
    };
    started.map_err(|failure| {
        let words = last_words(&mut log, log_start);
        let hint = if words.is_empty() { format!("see {}", log_path.display()) } else { words };
        failure.context("cannot start the daemon").with_hint(hint)
    })
}

/// How files of this user alone are opened: made where missing, and never cut short.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true).mode(0o600);
    options
}

/// The daemon beside our own program, else wherever `PATH` has it.
fn find() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(PROGRAM));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM))
}

fn spawn(program: &Path, log: &File, ready: OwnedFd) -> io::Result<Child> {
    // The daemon inherits this one; no other process is started meanwhile.
    rustix::io::fcntl_setfd(&ready, rustix::io::FdFlags::empty())?;
    let mut command = Command::new(program);
    command
        .arg("--ready-fd")
        .arg(ready.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .current_dir("/");
    // SAFETY: setsid is async-signal-safe, allocates nothing and touches no lock.
    unsafe {
        command.pre_exec(|| {
            // A session of its own: neither ctrl-C nor the end of this terminal reaches it.
            rustix::process::setsid()?;
            Ok(())
        });
    }
    command.spawn()
}

async fn wait_until_ready(mut child: Child, reader: OwnedFd) -> Result<()> {
    let read = async {
        let mut reader = pipe::Receiver::from_owned_fd(reader)?;
        let mut reason = Vec::new();
        while reason.len() < MAX_REASON {
            let mut bytes = [0; 512];
            let length = reader.read(&mut bytes).await?;
            reason.extend_from_slice(&bytes[..length]);
            if length == 0 || reason.len() == 1 {
                break;
            }
        }
        io::Result::Ok(reason)
    };
    let reason = match tokio::time::timeout(DEADLINE, read).await {
        Ok(Ok(reason)) => reason,
        Ok(Err(error)) => return Err(Failure::system("cannot hear from it", error)),
        Err(_) => {
            let message = format!("it was not ready within {} s", DEADLINE.as_secs());
            return Err(Failure::new(ErrorKind::Timeout, message));
        }
    };
    if reason.len() > 1 {
        return Err(Failure::new(ErrorKind::Internal, String::from_utf8_lossy(&reason).trim()));
    }
    match child.try_wait() {
        Ok(Some(status)) => {
            Err(Failure::new(ErrorKind::Internal, format!("it ended at once: {status}")))
        }
        _ => Ok(()),
    }
}

/// The last line that the daemon wrote since `start`.
fn last_words(log: &mut File, start: u64) -> String {
    let mut text = Vec::new();
    let _ = log.seek(SeekFrom::Start(start));
    let _ = log.take(64 * 1024).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}

fn cannot(what: &str, path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::system(format_args!("cannot {what} {}", path.display()), error)
}
