// SPDX-License-Identifier: Apache-2.0
//! Containers and pods in the API.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use hc_spec::{CapabilitySet, Exit, HostEntry, WindowSize};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A container to create, with a pod of its own around it.
///
/// What is `None` or empty comes from the image, else from the daemon's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of the user, as on the command line"
)]
pub struct CreateContainer {
    /// A name; one is made up where there is none.
    pub name: Option<String>,
    /// The image, by name or id. It must be in the store.
    pub image: String,
    /// What replaces the image's entrypoint; `Some([])` clears it, and its command with it.
    pub entrypoint: Option<Vec<String>>,
    /// What replaces the image's command, where not empty.
    pub command: Vec<String>,
    /// `NAME=value`, over the image's.
    pub env: Vec<String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// `user[:group]`, by name or number.
    pub user: Option<String>,
    /// The host name; the container's short id where there is none.
    pub hostname: Option<String>,
    /// Labels, over the image's.
    pub labels: BTreeMap<String, String>,
    /// Thousandths of a CPU; the VM gets as many whole CPUs as that needs.
    pub cpu_millis: Option<u32>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Capabilities beyond the default set.
    pub cap_add: Vec<String>,
    /// Capabilities taken from the default set.
    pub cap_drop: Vec<String>,
    /// Every capability and device; the VM is the wall.
    pub privileged: bool,
    /// Whether setuid programs gain nothing.
    pub no_new_privileges: bool,
    /// A guest kernel other than the configured one.
    pub kernel: Option<String>,
    /// A driver other than the one that was chosen for this host.
    pub driver: Option<String>,
    /// How the pod is connected.
    pub network: NetworkMode,
    /// Whether the guest reaches the host's loopback services at its gateway's address.
    pub allow_host: bool,
    /// Host ports that lead into the pod.
    pub publish: Vec<Port>,
    /// Name servers in place of the host's.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// DNS search domains.
    pub dns_search: Vec<String>,
    /// Options for `resolv.conf`.
    pub dns_options: Vec<String>,
    /// Lines for `/etc/hosts`.
    #[schema(value_type = Vec<Object>)]
    pub hosts: Vec<HostEntry>,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Memory file systems.
    pub tmpfs: Vec<TmpfsMount>,
    /// Bytes of `/dev/shm`.
    pub shm_bytes: Option<u64>,
    /// What asks the container to stop.
    pub stop_signal: Option<String>,
    /// How long `stop` waits before it kills, in seconds.
    pub stop_timeout_seconds: Option<u32>,
    /// Whether the main process has a standard input that clients can attach to.
    pub open_stdin: bool,
    /// Whether the main process runs in a terminal.
    pub terminal: bool,
    /// Whether the container is removed when it has ended.
    pub auto_remove: bool,
}

/// How a pod is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// Loopback alone.
    None,
    /// Outbound through the host's own sockets, inbound by published ports.
    #[default]
    User,
}

/// The transport of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A host port that leads to a port of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Port {
    /// The transport.
    pub protocol: Protocol,
    /// The host address to listen on.
    #[schema(value_type = String)]
    pub host_ip: IpAddr,
    /// The host port; 0 for any free one.
    pub host_port: u16,
    /// The port in the pod.
    pub container_port: u16,
}

impl Default for Port {
    fn default() -> Port {
        Port {
            protocol: Protocol::Tcp,
            host_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            host_port: 0,
            container_port: 0,
        }
    }
}

/// A resource limit by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ulimit {
    /// A name of `hc_spec::Rlimit::NAMES`, such as `nofile`.
    pub name: String,
    /// The limit in force; `u64::MAX` for none.
    pub soft: u64,
    /// How far a process may raise it.
    pub hard: u64,
}

/// A memory file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TmpfsMount {
    /// Where; absolute.
    pub path: String,
    /// Mount options, such as `size=64m`; may be empty.
    pub options: String,
}

/// The answer to a creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Created {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The id of the pod around it.
    pub pod: String,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerState {
    /// Never started.
    Created,
    /// Its VM boots, or its process is being started.
    Starting,
    /// Its main process runs.
    Running,
    /// Its VM's CPUs are held.
    Paused,
    /// Its main process ended, or could not be started.
    Exited,
    /// It is being removed.
    Removing,
}

/// A row of the container list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContainerSummary {
    /// The id.
    pub id: String,
    /// The name.
    pub name: String,
    /// The pod's id.
    pub pod: String,
    /// The image as it was asked for.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// The command line, entrypoint included.
    pub command: Vec<String>,
    /// When it was created.
    #[schema(value_type = String, format = "date-time")]
    pub created: Timestamp,
    /// What it is doing.
    pub state: ContainerState,
    /// When it was last started.
    #[schema(value_type = Option<String>, format = "date-time")]
    pub started: Option<Timestamp>,
    /// When it last ended.
    #[schema(value_type = Option<String>, format = "date-time")]
    pub finished: Option<Timestamp>,
    /// The exit status, once ended.
    pub exit_status: Option<u8>,
    /// The published ports, with the numbers in use while it runs.
    pub ports: Vec<Port>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

/// Everything known of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Container {
    /// What the list shows.
    #[serde(flatten)]
    pub summary: ContainerSummary,
    /// How it was asked for.
    pub config: CreateContainer,
    /// The resolved user.
    pub user: String,
    /// The resolved working directory.
    pub workdir: String,
    /// The resolved environment.
    pub env: Vec<String>,
    /// The host name.
    pub hostname: String,
    /// The capabilities, as the kernel's mask.
    #[schema(value_type = u64)]
    pub capabilities: CapabilitySet,
    /// The signal that asks it to stop.
    pub stop_signal: String,
    /// How long `stop` waits before it kills, in seconds.
    pub stop_timeout_seconds: u32,
    /// How its main process ended.
    #[schema(value_type = Option<Object>)]
    pub exit: Option<Exit>,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// Why it could not run, or why its VM ended early; empty when nothing went wrong.
    pub error: String,
    /// Its VM's driver, while it runs or once it ran.
    pub driver: Option<String>,
    /// The kernel file its VM boots.
    pub kernel: Option<String>,
    /// Whole CPUs of its VM.
    pub vcpus: u32,
    /// The VM's memory in MiB.
    pub memory_mib: u32,
    /// The process that owns the VM, while it runs.
    pub pod_pid: Option<u32>,
    /// The pod's folder on the host.
    pub pod_dir: String,
    /// When each step of the last run was done: microseconds since the pod process began.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub timeline: Vec<(String, u64)>,
}

/// A row of the pod list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PodSummary {
    /// The pod's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its containers, by name.
    pub containers: Vec<String>,
    /// What it is doing.
    pub state: ContainerState,
    /// The driver, while it runs or once it ran.
    pub driver: Option<String>,
    /// Whole CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
}

/// Which containers to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    /// Also those that do not run.
    pub all: bool,
    /// A JSON object from filter name (`name`, `id`, `label`, `status`, `ancestor`, `exited`) to
    /// a list of values; values of one filter are alternatives, but labels must all match.
    pub filters: Option<String>,
}

/// How to remove.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct RemoveQuery {
    /// Kills what runs.
    pub force: bool,
}

/// How to stop or restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct RestartOrStopQuery {
    /// Seconds before the kill; the container's own where there is none.
    pub timeout: Option<u32>,
}

/// What to send.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct KillQuery {
    /// A signal by name or number; KILL where there is none.
    pub signal: Option<String>,
}

/// How to attach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct AttachQuery {
    /// Whether this client writes to standard input.
    pub stdin: bool,
    /// The terminal's lines, where the client has one.
    pub rows: Option<u16>,
    /// The terminal's columns.
    pub columns: Option<u16>,
}

impl AttachQuery {
    /// The client's window, where it has one.
    pub fn window(&self) -> Option<WindowSize> {
        Some(WindowSize { rows: self.rows?, columns: self.columns? })
    }
}

/// A further process to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of the user, as on the command line"
)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `NAME=value`, over the container's.
    pub env: Vec<String>,
    /// The working directory; the container's where there is none.
    pub workdir: Option<String>,
    /// The user; the container's where there is none.
    pub user: Option<String>,
    /// Every capability.
    pub privileged: bool,
    /// Whether it runs in a terminal.
    pub terminal: bool,
    /// Whether the client writes to its standard input.
    pub stdin: bool,
    /// Whether to leave it alone once it runs.
    pub detach: bool,
    /// The terminal's lines, where the client has one.
    pub rows: Option<u16>,
    /// The terminal's columns.
    pub columns: Option<u16>,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WaitCondition {
    /// It does not run; met at once by one that has ended or was never started.
    #[default]
    NotRunning,
    /// It is gone.
    Removed,
}

/// What to wait for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct WaitQuery {
    /// The condition.
    #[param(inline)]
    pub condition: WaitCondition,
}

/// How the wait ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitAnswer {
    /// The exit status, as a shell would show it.
    pub exit_status: u8,
    /// Why it is not the program's own, where it is not.
    pub error: String,
}

/// Which part of the logs to send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct LogsQuery {
    /// Goes on as the container writes, until it ends.
    pub follow: bool,
    /// Only the last so many lines.
    pub tail: Option<u64>,
    /// Only what was written at this time or later.
    #[param(value_type = Option<String>)]
    pub since: Option<Timestamp>,
    /// Only what was written before this time.
    #[param(value_type = Option<String>)]
    pub until: Option<Timestamp>,
}

/// A path inside a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveQuery {
    /// The path.
    pub path: String,
    /// Download: follows a symbolic link at the path itself.
    pub follow: bool,
    /// Upload: keeps the owners in the archive instead of giving everything to root.
    pub keep_owner: bool,
    /// Download: only the header that tells what is there.
    pub stat: bool,
}

/// A container's processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Top {
    /// One row a process.
    pub processes: Vec<TopRow>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopRow {
    /// Its number in the guest.
    pub pid: u32,
    /// Its parent's number in the guest.
    pub ppid: u32,
    /// The user's number.
    pub uid: u32,
    /// The state letter, such as `S`.
    pub state: char,
    /// CPU time in milliseconds.
    pub cpu_millis: u64,
    /// When it started.
    #[schema(value_type = String, format = "date-time")]
    pub started: Timestamp,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// The command line.
    pub command: String,
}

/// How to sample.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct StatsQuery {
    /// One sample a second until the client goes or the container ends, instead of one.
    pub stream: bool,
}

/// What a container uses at one moment. CPU, disk and network are totals since it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatsSample {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When the sample was taken.
    #[schema(value_type = String, format = "date-time")]
    pub time: Timestamp,
    /// CPU time in microseconds.
    pub cpu_usec: u64,
    /// Whole CPUs of the VM.
    pub vcpus: u32,
    /// Memory in use, in bytes.
    pub memory_bytes: u64,
    /// The limit, in bytes.
    pub memory_limit_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes read from disks.
    pub block_read_bytes: u64,
    /// Bytes written to disks.
    pub block_write_bytes: u64,
    /// Bytes received.
    pub network_rx_bytes: u64,
    /// Bytes sent.
    pub network_tx_bytes: u64,
}
