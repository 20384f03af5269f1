// SPDX-License-Identifier: Apache-2.0
//! Arguments of the commands about containers and pods.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use hc_api::PullPolicy;

use super::RefusedFlags;

/// Run an image in a new container, in a VM of its own
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
#[command(override_usage = "hyper run [OPTIONS] IMAGE [COMMAND] [ARG...]
       hyper run [OPTIONS] --snapshot NAME")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the user's")]
// What `create` needs, `run` does without where there is a snapshot.
#[command(mut_arg("image_and_command", |arg| {
    arg.required(false).required_unless_present("snapshot")
}))]
pub(crate) struct RunArgs {
    /// Leave it running, and print its id
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Remove it when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// Connect only these of `stdin`, `stdout` and `stderr`
    #[arg(short, long, value_name = "STREAM", conflicts_with = "detach")]
    pub(crate) attach: Vec<String>,
    /// The keys that leave the container running, instead of ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<String>,
    /// Pass signals on to the container
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) sig_proxy: bool,
    /// Go on from this snapshot, in place of an image
    #[arg(long, value_name = "NAME")]
    pub(crate) snapshot: Option<String>,
    /// Show at the end where the time went
    #[arg(long)]
    pub(crate) timings: bool,
    #[command(flatten)]
    pub(crate) create: CreateFlags,
}

/// Make a container without starting it, and print its id
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
#[command(override_usage = "hyper create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub(crate) struct CreateArgs {
    /// Remove it when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    #[command(flatten)]
    pub(crate) create: CreateFlags,
}

/// What `run` and `create` share: everything about the container itself.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the user's")]
pub(crate) struct CreateFlags {
    /// The image, then the command to run in place of the image's own
    #[arg(required = true, value_name = "IMAGE", num_args = 1.., trailing_var_arg = true)]
    pub(crate) image_and_command: Vec<String>,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Run it in a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Give it a name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Run this in place of the image's entrypoint; '' for none
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true)]
    pub(crate) entrypoint: Option<String>,
    /// Set a variable; without a value, as it is here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Set the variables in a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Start in this folder
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Set the host name
    #[arg(short = 'h', long)]
    pub(crate) hostname: Option<String>,
    /// Use at most so many CPUs, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<String>,
    /// Use at most so much memory, such as 512m
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Allow at most so many processes and threads; -1 for any number
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Set a label
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Set the labels in a file
    #[arg(long, value_name = "FILE")]
    pub(crate) label_file: Vec<PathBuf>,
    /// Let nothing write to its root file system
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_drop: Vec<String>,
    /// Allow everything inside the VM
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Set `no-new-privileges`, so that setuid programs gain nothing
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
    /// Boot this kernel
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Use this hypervisor driver: `kvm`, `qemu-kvm`, `qemu-tcg`, or `qemu` for either of these
    #[arg(long)]
    pub(crate) driver: Option<String>,
    /// Connect it to nothing (`none`) or to the outside (`user`)
    #[arg(long, visible_alias = "net", value_name = "MODE")]
    pub(crate) network: Option<String>,
    /// Let it reach services on this host's loopback, at its gateway's address
    #[arg(long)]
    pub(crate) allow_host: bool,
    /// Lead a port of this host into it: `[IP:][HOST:]PORT[/PROTOCOL]`, also ranges
    #[arg(short, long, value_name = "PORT")]
    pub(crate) publish: Vec<String>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,
    /// Use this name server
    #[arg(long, value_name = "IP")]
    pub(crate) dns: Vec<String>,
    /// Look names up in this domain
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Set an option of resolv.conf
    #[arg(long, value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
    /// Set a resource limit, such as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
    /// Mount a memory file system
    #[arg(long, value_name = "DIR[:OPTIONS]")]
    pub(crate) tmpfs: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<String>,
    /// The signal that asks it to stop
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Seconds that `stop` waits before it kills
    #[arg(long, value_name = "SECONDS")]
    pub(crate) stop_timeout: Option<u32>,
    /// When to ask the registry
    #[arg(long, value_name = "WHEN", value_parser = pull_policy)]
    #[arg(help = "When to ask the registry: always, missing (if not said otherwise) or never")]
    pub(crate) pull: Option<PullPolicy>,
    /// Write its id into this new file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The platform; only this host's can run
    #[arg(long)]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) refused: RefusedFlags,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub(crate) help: Option<bool>,
}

fn pull_policy(text: &str) -> Result<PullPolicy, String> {
    match text {
        "always" => Ok(PullPolicy::Always),
        "missing" => Ok(PullPolicy::Missing),
        "never" => Ok(PullPolicy::Never),
        _ => Err("use always, missing or never".to_owned()),
    }
}

/// Containers, by name or id.
#[derive(Debug, Args)]
pub(crate) struct RefsArgs {
    /// Containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// Start containers that were made or have ended
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) refs: RefsArgs,
    /// Connect to its output, and pass signals on
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Connect also to its standard input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// The keys that leave the container running, instead of ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<String>,
}

/// Containers, and how long they may take to stop.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    pub(crate) refs: RefsArgs,
    /// Seconds before the kill
    #[arg(short = 't', long, visible_alias = "time", value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,
}

/// Send a signal to containers
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    #[command(flatten)]
    pub(crate) refs: RefsArgs,
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL")]
    pub(crate) signal: String,
}

/// Hold the CPUs of containers' VMs
///
/// With --to-disk, the memory of each VM goes to disk and is free until `unpause`. Commands that run
/// in the container by `exec` then lose their clients: they are cut off, and get no more input.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    pub(crate) refs: RefsArgs,
    /// Put their memory on disk, which frees it; cuts off the clients of `exec`
    #[arg(long)]
    pub(crate) to_disk: bool,
}

/// Remove containers
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    pub(crate) refs: RefsArgs,
    /// Kill those that run; it is no error if one does not exist
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Not needed: a container's own storage always goes with it
    #[arg(short = 'v', long, hide = true)]
    pub(crate) volumes: bool,
}

/// Run another program in a running container
#[derive(Debug, Args)]
#[command(override_usage = "hyper exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the user's")]
pub(crate) struct ExecArgs {
    /// The container, then the command
    #[arg(required = true, value_name = "CONTAINER", num_args = 1.., trailing_var_arg = true)]
    pub(crate) container_and_command: Vec<String>,
    /// Leave it running in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Run it in a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set a variable; without a value, as it is here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Set the variables in a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Start in this folder
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Give it every capability
    #[arg(long)]
    pub(crate) privileged: bool,
    /// The keys that leave the program running, instead of ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<String>,
}

/// Connect to a running container's input and output
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The container, by name or id
    pub(crate) container: String,
    /// Do not connect standard input
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// The keys that leave the container running, instead of ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<String>,
    /// Pass signals on to the container
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) sig_proxy: bool,
}

/// Show what a container wrote
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The container, by name or id
    pub(crate) container: String,
    /// Go on as it writes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only so many last lines, or `all`
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    pub(crate) tail: String,
    /// Only what was written since: a time, or how long ago, such as 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only what was written before: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Show when each line was written
    #[arg(short, long)]
    pub(crate) timestamps: bool,
}

/// List containers
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the user's")]
pub(crate) struct ListArgs {
    /// Also those that do not run
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print ids alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The last so many, running or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub(crate) last: Option<usize>,
    /// The last one, running or not
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Shorten nothing
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only those with this name, id, label, status, ancestor or exited
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) filter: Vec<String>,
    /// What to print: `table`, `json`, or a template such as '{{.ID}}'
    #[arg(long)]
    pub(crate) format: Option<String>,
}

/// How a list is printed of which every row is shown.
#[derive(Debug, Args)]
pub(crate) struct RowsArgs {
    /// Print ids or names alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Shorten nothing
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// What to print: `table`, `json`, or a template such as '{{.Memory}}'
    #[arg(long)]
    pub(crate) format: Option<String>,
}

/// Show a container's processes
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// The container, by name or id
    pub(crate) container: String,
}

/// Show what containers use
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Containers, by name or id; without any, all that run
    #[arg(value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
    /// Print one sample
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Print ids in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// What to print: `table`, `json`, or a template such as '{{.`CPUPerc`}}'
    #[arg(long)]
    pub(crate) format: Option<String>,
}

/// Copy files between a container and this host
///
/// One of the two is CONTAINER:PATH. A folder whose path ends in `/.` is copied without itself.
/// `-` is a tar archive on standard input or output.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// What to copy: CONTAINER:PATH, PATH, or `-`
    #[arg(value_name = "FROM", allow_hyphen_values = true)]
    pub(crate) from: String,
    /// Where to: CONTAINER:PATH, PATH, or `-`
    #[arg(value_name = "TO", allow_hyphen_values = true)]
    pub(crate) to: String,
    /// Keep owners and all mode bits
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Follow a symbolic link that FROM itself is
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Print no summary
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
