// SPDX-License-Identifier: Apache-2.0
//! How a pod fares: the record that the pod process writes and the daemon reads.
//!
//! ```text
//! starting --> running <--> paused
//!     |           |           |
//!     +-----------+-----------+--> exited (final for this run)
//! ```
//!
//! The last record outlives the process. A record that says other than `exited` while nobody holds
//! the pod's lock means that the process was killed; [`PodStatus::lost`] says so.

use hc_api::Port;
use hc_spec::Exit;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The status that clients get for a container whose end is our fault or the host's.
pub const OUR_FAILURE: u8 = 125;

/// One run of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStatus {
    /// Where it is in its life.
    pub phase: Phase,
    /// The pod process.
    pub pid: u32,
    /// The driver's name.
    pub driver: String,
    /// The published ports with the numbers in use.
    pub ports: Vec<Port>,
    /// When the container's main process was started.
    pub started: Option<Timestamp>,
    /// When the pod ended.
    pub finished: Option<Timestamp>,
    /// How the container's main process ended, where it did.
    pub exit: Option<Exit>,
    /// The status as `run` shows it, once ended.
    pub exit_status: Option<u8>,
    /// Whether the kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
    /// What went wrong, in one line; empty when nothing did.
    pub error: String,
    /// What a person can do about it; may be empty.
    #[serde(default)]
    pub hint: String,
    /// When each step of the life was done: microseconds since the pod process began.
    #[serde(default)]
    pub timeline: Vec<(String, u64)>,
}

/// Where a run of a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The VM boots, or waits for the order to start the container.
    Starting,
    /// The container's main process runs.
    Running,
    /// The VM's CPUs are held.
    Paused,
    /// It is over; the VM is gone.
    Exited,
}

impl PodStatus {
    /// A pod whose process has just begun.
    pub fn starting(pid: u32, driver: &str) -> PodStatus {
        PodStatus {
            phase: Phase::Starting,
            pid,
            driver: driver.to_owned(),
            ports: Vec::new(),
            started: None,
            finished: None,
            exit: None,
            exit_status: None,
            oom_killed: false,
            error: String::new(),
            hint: String::new(),
            timeline: Vec::new(),
        }
    }

    /// What to make of the record when the process is gone and did not say how it ended.
    #[must_use]
    pub fn lost(mut self, now: Timestamp) -> PodStatus {
        if self.phase != Phase::Exited {
            self.phase = Phase::Exited;
            self.finished = Some(now);
            self.exit_status = Some(OUR_FAILURE);
            self.error = "the pod's process was killed, and its VM with it".into();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_without_an_end_becomes_our_failure_and_an_end_is_kept() {
        let status = PodStatus::starting(7, "qemu (tcg)").lost(Timestamp::UNIX_EPOCH);
        assert_eq!(status.exit_status, Some(OUR_FAILURE));
        assert_eq!(status.phase, Phase::Exited);
        assert!(!status.error.is_empty());

        let ended = PodStatus { exit_status: Some(3), error: String::new(), ..status };
        assert_eq!(ended.clone().lost(Timestamp::now()), ended);
    }

    /// Every version of the record that was ever written must load.
    #[test]
    fn the_first_record_loads() {
        let text = r#"{"phase":"exited","pid":12,"driver":"qemu (tcg)","ports":[
            {"protocol":"tcp","host_ip":"127.0.0.1","host_port":8080,"container_port":80}],
            "started":"2026-01-02T03:04:05Z","finished":"2026-01-02T03:04:06.5Z",
            "exit":{"code":3},"exit_status":3,"oom_killed":false,"error":""}"#;
        let status: PodStatus = serde_json::from_str(text).unwrap();
        assert_eq!(status.exit, Some(Exit::Code(3)));
        assert_eq!(status.ports[0].host_port, 8080);
    }
}
