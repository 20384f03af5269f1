// SPDX-License-Identifier: Apache-2.0
//! What host and guest say to each other: the bodies of control frames, as JSON.
//!
//! The host asks ([`Request`]), the guest answers each request once ([`Reply`]) and tells what
//! happens by itself ([`Event`]). Bytes of processes travel in streams beside these messages; the
//! host numbers the streams and names them in [`Call::Spawn`].
//!
//! # Invariants
//!
//! - Replies may come in another order than their requests; `id` pairs them.
//! - [`Event::ProcessExited`] of a process follows the reply to its [`Call::Spawn`], and its
//!   streams carry everything that the process itself wrote before they end.
//! - When a container's main process ends, the guest kills the rest of its tree and sends
//!   [`Event::ContainerExited`] when no process of it is left.

use core::net::IpAddr;

use hc_spec::{ContainerSpec, Exit, HostEntry, Id, NetworkSpec, ProcessSpec, Signal, WindowSize};
use serde::{Deserialize, Serialize};

/// A process as the host numbers it, once for the life of a pod; 0 is never used.
pub type ProcessId = u32;
/// A stream as the host numbers it, once for the life of a pod; 0 is never used.
pub type StreamId = u32;

/// The host asks for something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Pairs the [`Reply`] with this request.
    pub id: u64,
    /// What is asked.
    pub call: Call,
}

/// What the host can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Gives the guest its identity, network and scratch space. The first call of a pod, made once
    /// unless the guest is parked, and the same for a guest that booted and for the copy of one that was parked.
    SetUp(PodSetup),
    /// Makes a container's root and control group; runs nothing yet.
    CreateContainer(Box<ContainerSpec>),
    /// Runs a process in a container. Answered once it runs, or with the reason why it cannot.
    Spawn(Box<Spawn>),
    /// Sends a signal to one process, or to the whole container where `process` is `None`.
    Signal {
        /// The container.
        container: Id,
        /// The process, or `None` for every process of the container.
        process: Option<ProcessId>,
        /// The signal.
        signal: Signal,
    },
    /// Changes the window of a process's terminal.
    Resize {
        /// The process.
        process: ProcessId,
        /// The new size.
        size: WindowSize,
    },
    /// Asks what a container uses; answered with [`Answer::Stats`].
    Stats {
        /// The container.
        container: Id,
    },
    /// Asks for a container's processes; answered with [`Answer::Processes`].
    Processes {
        /// The container.
        container: Id,
    },
    /// Gets the guest ready to be copied, or to be given other disks: unmounts every image, so that
    /// it reads what is behind its disk by then, and makes the scratch disk read-only, as clean and
    /// empty as it came, so that it can go on with a copy of it ([`Scratch::Parked`]) or with
    /// another. Refused while there are containers.
    Park,
    /// Gives a pod that was copied while it ran another identity. Names and addresses change under
    /// its processes: open connections die, and what a process has read stays as it was.
    Renew(Identity),
    /// Sets the clock of a guest that stood still, and stirs its randomness.
    SetClock {
        /// The time of day: nanoseconds since 1970-01-01 UTC.
        unix_nanos: u64,
        /// Random bytes for the guest's entropy pool.
        entropy: Vec<u8>,
    },
    /// Ends every container, writes everything back to the disks, unmounts them and answers; the
    /// guest then powers off.
    Shutdown,
}

/// What a guest needs to become a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSetup {
    /// What makes it this pod and no other.
    #[serde(flatten)]
    pub identity: Identity,
    /// Where the writable layers live.
    pub scratch: Scratch,
}

/// What tells a pod from its copies, and a guest that was copied from the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The host name that all containers share.
    pub hostname: String,
    /// The time of day: nanoseconds since 1970-01-01 UTC.
    pub unix_nanos: u64,
    /// Random bytes for the guest's entropy pool.
    pub entropy: Vec<u8>,
    /// The network, or `None` for loopback alone.
    pub network: Option<NetworkSpec>,
    /// Name servers for `/etc/resolv.conf`.
    pub dns_servers: Vec<IpAddr>,
    /// Search domains for `/etc/resolv.conf`.
    pub dns_search: Vec<String>,
    /// Options for `/etc/resolv.conf`.
    pub dns_options: Vec<String>,
    /// Lines for `/etc/hosts` besides loopback and the pod's own name.
    pub hosts: Vec<HostEntry>,
}

/// The storage behind containers' writable layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scratch {
    /// The guest's memory; gone with the VM.
    Memory,
    /// The disk of this serial, which holds an ext4 file system. The guest grows the file system
    /// to the size of the disk.
    Disk(String),
    /// The disk that a parked guest has kept mounted, with every byte as it was then.
    Parked,
}

/// A process to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// The container it runs in.
    pub container: Id,
    /// Its number from now on.
    pub process: ProcessId,
    /// Whether the container ends with it. Each container has one such process.
    pub main: bool,
    /// What it runs.
    pub program: Program,
    /// Where its standard input comes from; `None` gives it `/dev/null`.
    pub stdin: Option<StreamId>,
    /// Where its standard output, or its whole terminal, goes; `None` throws it away.
    pub stdout: Option<StreamId>,
    /// Where its standard error goes; `None` throws it away. Always `None` with a terminal.
    pub stderr: Option<StreamId>,
}

/// What a process runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// A program of the container.
    Exec(ProcessSpec),
    /// The guest's own packer: writes the file or directory at `path` to standard output as a tar
    /// archive with one top entry that bears the last name of `path`. It exits with 1 and says why
    /// on standard error when it cannot.
    Pack {
        /// A path in the container.
        path: String,
        /// Whether a symbolic link at `path` itself is followed.
        follow: bool,
    },
    /// The guest's own unpacker: reads a tar archive from standard input into the directory `path`,
    /// which exists. It exits with 1 and says why on standard error when it cannot.
    Unpack {
        /// A path in the container.
        path: String,
        /// Whether owners are kept as in the archive; else everything belongs to root.
        keep_owner: bool,
    },
    /// Tells what is at `path`: writes one [`PathStat`] as JSON to standard output, or exits with 1
    /// when nothing is there.
    Stat {
        /// A path in the container.
        path: String,
    },
}

/// What is found at a path in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    /// The last name of the path.
    pub name: String,
    /// Bytes of a file.
    pub size: u64,
    /// `st_mode` as in `stat(2)`, type and permissions.
    pub mode: u32,
    /// Where a symbolic link leads, resolved inside the container, and whether a directory is there.
    pub link_to_directory: bool,
}

/// The guest's answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's id.
    pub id: u64,
    /// What came of it.
    pub result: Result<Answer, Failure>,
}

/// What the guest answers when a call went well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Done; there is nothing more to say.
    Done,
    /// The answer to [`Call::Stats`].
    Stats(Stats),
    /// The answer to [`Call::Processes`].
    Processes(Vec<ProcessRow>),
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure, for programs.
    pub kind: FailureKind,
    /// What failed, on what and why, for people: one line.
    pub message: String,
}

/// The kinds of failure that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The program does not exist in the container: exit status 127.
    ProgramNotFound,
    /// The program exists and cannot be executed: exit status 126.
    ProgramNotExecutable,
    /// The user or group is not in the image.
    UserNotFound,
    /// The container or process named is not there, or has ended.
    NotFound,
    /// The call does not fit the state, or its data is unusable.
    Invalid,
    /// The guest's kernel refused.
    System,
}

/// What a container uses, from its control group and the pod's interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// CPU time used, in microseconds.
    pub cpu_usec: u64,
    /// Memory in use, in bytes, page cache that can be dropped left out.
    pub memory_bytes: u64,
    /// The memory limit in bytes: the container's, or all the guest has.
    pub memory_limit_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes read from disks.
    pub block_read_bytes: u64,
    /// Bytes written to disks.
    pub block_write_bytes: u64,
    /// Bytes received by the pod.
    pub network_rx_bytes: u64,
    /// Bytes sent by the pod.
    pub network_tx_bytes: u64,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: u64,
}

/// One process of a container, as `ps` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// Its number in the guest.
    pub pid: u32,
    /// Its parent's number in the guest.
    pub ppid: u32,
    /// The user, by number.
    pub uid: u32,
    /// The state letter of `proc(5)`, such as `S`.
    pub state: char,
    /// CPU time in milliseconds.
    pub cpu_millis: u64,
    /// When it started: seconds since 1970-01-01 UTC.
    pub started_unix: u64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// The command line with spaces between arguments, cut to 4,096 bytes.
    pub command: String,
}

/// What the guest tells by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A process ended. Not sent for a container's main process, whose end is the container's.
    ProcessExited {
        /// The process.
        process: ProcessId,
        /// How it ended.
        exit: Exit,
    },
    /// A container's main process ended and no process of the container is left.
    ContainerExited {
        /// The container.
        container: Id,
        /// How its main process ended.
        exit: Exit,
        /// Whether the kernel killed a process of it for want of memory.
        oom_killed: bool,
    },
}

/// A control message from the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromGuest {
    /// The answer to a request.
    Reply(Reply),
    /// News.
    Event(Event),
}
