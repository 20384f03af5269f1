// SPDX-License-Identifier: Apache-2.0
//! Pod processes as the daemon starts them: without a pod at first, and told by jobs what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hc_pod::job::{self, Job, Outcome};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::failure::{Failure, Result};

/// How long a VM may take to boot and be copied, or to go on from a copy, before we give it up: more
/// than its process gives it.
const OUTCOME_PATIENCE: Duration = Duration::from_mins(3);

/// Where pod processes come from.
#[derive(Clone, Debug)]
pub(crate) struct Processes {
    program: PathBuf,
    /// A folder for VMs that are no pod's yet.
    scratch: PathBuf,
}

/// A process that has no pod. It ends, and its VM with it, when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    jobs: UnixStream,
}

impl Processes {
    /// `programs` is the folder of our own programs.
    pub(crate) fn new(programs: &Path, runtime_dir: &Path) -> Processes {
        Processes { program: programs.join("hyper-pod"), scratch: runtime_dir.join("vms") }
    }

    /// Starts one.
    pub(crate) fn start(&self) -> Result<Process> {
        let failed = |error: io::Error| {
            Failure::host(&format!("cannot run {}", self.program.display()), &error)
        };
        hc_paths::make_private_dir(&self.scratch)
            .map_err(|error| Failure::host("cannot make the folder of VMs", &error))?;
        let (jobs, theirs) = job::socket().map_err(failed)?;
        let jobs = UnixStream::from_std(jobs).map_err(failed)?;
        let mut child = tokio::process::Command::new(&self.program)
            .arg(&self.scratch)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .current_dir("/")
            .spawn()
            .map_err(failed)?;
        // The daemon is its parent and has to take its exit status; what it means is in the record.
        tokio::spawn(async move { child.wait().await });
        Ok(Process { jobs })
    }
}

impl Process {
    /// Gives it a job.
    pub(crate) fn give(&self, job: &Job) -> io::Result<()> {
        job.send(&self.jobs)
    }

    /// Whether it still waits for a job: one that ends has hung up.
    pub(crate) fn lives(&self) -> bool {
        let told = self.jobs.try_io(Interest::READABLE, || Outcome::receive(&self.jobs));
        told.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits for the outcome of a job that is not a pod.
    pub(crate) async fn outcome(&self) -> Result<(), String> {
        let told = self.jobs.async_io(Interest::READABLE, || Outcome::receive(&self.jobs));
        match tokio::time::timeout(OUTCOME_PATIENCE, told).await {
            Ok(Ok(Outcome::Ready)) => Ok(()),
            Ok(Ok(Outcome::Failed(reason))) => Err(reason),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {OUTCOME_PATIENCE:?}")),
        }
    }
}
