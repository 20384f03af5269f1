// SPDX-License-Identifier: Apache-2.0
//! Arguments of the commands about copied guests: templates, snapshots and clones.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::container::RowsArgs;

/// Manage templates: booted guests that containers start from
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct TemplateArgs {
    #[command(subcommand)]
    pub(crate) command: TemplateCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// List templates
    #[command(visible_alias = "list")]
    Ls(RowsArgs),
    Create(CreateTemplateArgs),
    /// Remove templates
    Rm(TemplateRefsArgs),
    /// Remove the templates that nothing uses
    Prune,
}

/// Boot a guest and copy it, for containers of one shape, and print the template's id
#[derive(Debug, Args)]
#[command(after_help = "Example, for containers that are run with -m 512m:
  hyper template create -m 512m")]
pub(crate) struct CreateTemplateArgs {
    /// For containers with so much memory, such as 512m
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// For containers with so many CPUs, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<String>,
    /// Use this hypervisor driver
    #[arg(long)]
    pub(crate) driver: Option<String>,
    /// Boot this kernel
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// For containers that are connected to nothing (`none`) or to the outside (`user`)
    #[arg(long, visible_alias = "net", value_name = "MODE")]
    pub(crate) network: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Templates, by id.
#[derive(Debug, Args)]
pub(crate) struct TemplateRefsArgs {
    /// Templates, by id or the beginning of one
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
}

/// Manage snapshots: running containers that were copied, memory and disks and all
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    pub(crate) command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    Create(CreateSnapshotArgs),
    /// List snapshots
    #[command(visible_alias = "list")]
    Ls(RowsArgs),
    /// Remove snapshots
    Rm(SnapshotRefsArgs),
}

/// Copy a running container, which runs on, and print the snapshot's name
#[derive(Debug, Args)]
#[command(after_help = "Example, a copy and a container that goes on from it:
  hyper snapshot create web warm
  hyper run -d --snapshot warm")]
pub(crate) struct CreateSnapshotArgs {
    /// The container, by name or id
    pub(crate) container: String,
    /// The snapshot's name, which no other has
    pub(crate) name: String,
}

/// Snapshots, by name.
#[derive(Debug, Args)]
pub(crate) struct SnapshotRefsArgs {
    /// Snapshots, by name
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// Copy a running container, let the copy go on in a VM of its own, and print its id
///
/// The copy runs in the background: its program goes on where the copied one was, and has no
/// terminal of anybody's.
#[derive(Debug, Args)]
#[command(after_help = "Example, a second web server with what the first has in memory:
  hyper clone --name web2 -p 8081:80 web")]
pub(crate) struct CloneArgs {
    /// The container to copy, by name or id
    pub(crate) container: String,
    /// Give the copy a name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Set its host name
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// Lead a port of this host into it: `[IP:][HOST:]PORT[/PROTOCOL]`, also ranges
    #[arg(short, long, value_name = "PORT")]
    pub(crate) publish: Vec<String>,
    /// Set a label, over those that it is copied with
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Remove it when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
}
