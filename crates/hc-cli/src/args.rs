// SPDX-License-Identifier: Apache-2.0
//! The one definition of the command line, from which help, completions and man pages are made.
//!
//! Names and short forms are Docker's. Nothing here looks at what a value means; `resolve` does.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

mod container;
mod image;
mod refused;
mod template;

pub(crate) use container::{
    AttachArgs, CopyArgs, CreateArgs, CreateFlags, ExecArgs, KillArgs, ListArgs, LogsArgs,
    PauseArgs, RefsArgs, RestartArgs, RmArgs, RowsArgs, RunArgs, StartArgs, StatsArgs, TopArgs,
};
pub(crate) use image::{ImagesArgs, ImportArgs, LoadArgs, PullArgs, RmiArgs, TagArgs};
pub(crate) use refused::RefusedFlags;
pub(crate) use template::{
    CloneArgs, CreateSnapshotArgs, CreateTemplateArgs, SnapshotArgs, SnapshotCommand,
    SnapshotRefsArgs, TemplateArgs, TemplateCommand, TemplateRefsArgs,
};

/// Runs container images, each in a virtual machine of its own.
#[derive(Debug, Parser)]
#[command(name = "hyper", bin_name = "hyper", version, max_term_width = 100)]
#[command(subcommand_required = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Socket of a daemon that is kept running by others; without it, one is started as needed.
    #[arg(long, global = true, value_name = "PATH", env = hc_paths::env::SOCKET)]
    #[arg(hide_env_values = true, help_heading = "Global options")]
    pub(crate) socket: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<RunArgs>),
    Create(Box<CreateArgs>),
    Start(StartArgs),
    /// Ask containers to stop, and kill those that do not
    Stop(RestartArgs),
    /// Stop containers and start them again
    Restart(RestartArgs),
    Kill(KillArgs),
    Pause(PauseArgs),
    /// Let paused containers go on
    Unpause(RefsArgs),
    Clone(CloneArgs),
    Rm(RmArgs),
    Exec(ExecArgs),
    Attach(AttachArgs),
    Logs(LogsArgs),
    /// Wait until containers have ended, and print their exit codes
    Wait(RefsArgs),
    #[command(visible_aliases = ["list", "ls"])]
    Ps(ListArgs),
    /// List pods: VMs with their containers
    Pods(RowsArgs),
    Inspect(InspectArgs),
    Top(TopArgs),
    Stats(StatsArgs),
    Cp(CopyArgs),
    /// Show what the daemon has, and what this host can do
    Info(FormatArgs),
    /// Show the versions of this program and of the daemon
    Version(FormatArgs),
    Doctor(DoctorArgs),
    Pull(PullArgs),
    Load(LoadArgs),
    Import(ImportArgs),
    Images(ImagesArgs),
    Rmi(RmiArgs),
    Tag(TagArgs),
    Snapshot(SnapshotArgs),
    Template(TemplateArgs),
    Completion(CompletionArgs),
    Man(ManArgs),
}

/// Show everything about containers or images, as JSON
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Containers or images, by name or id
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// What to print: `json`, or a template such as '{{.Name}}'
    #[arg(short, long)]
    pub(crate) format: Option<String>,
    /// Look only for a `container` or an `image`
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<InspectKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InspectKind {
    Container,
    Image,
}

/// How to print one answer.
#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// What to print: `json`, or a template such as '{{.Driver}}'
    #[arg(short, long)]
    pub(crate) format: Option<String>,
}

/// Check this host, and say what to fix
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print `json` instead of lines for people
    #[arg(short, long, value_parser = ["json"])]
    pub(crate) format: Option<String>,
}

/// Print a script that completes commands and options in a shell
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Write the manual: man pages into a folder, or one reference in Markdown
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct ManArgs {
    /// Where to put the man pages
    #[arg(required_unless_present = "markdown")]
    pub(crate) folder: Option<PathBuf>,
    /// Print Markdown instead
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "folder")]
    pub(crate) markdown: bool,
}

#[cfg(test)]
mod tests;
