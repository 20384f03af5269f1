// SPDX-License-Identifier: Apache-2.0
//! What each command does.
//!
//! Each returns its exit status, or the one failure that it ends with.

use std::path::PathBuf;

use crate::args::{Cli, Command, SnapshotArgs, SnapshotCommand, TemplateArgs, TemplateCommand};
use crate::client::{Client, launch};
use crate::failure::{FAILED, OURS, Result};
use crate::show;

mod attach;
mod copy;
mod credentials;
mod doctor;
mod image;
mod inspect;
mod lifecycle;
mod list;
mod logs;
mod manual;
mod run;
mod snapshot;
mod system;
mod template;
mod usage;

/// What every command may need.
pub(crate) struct Context {
    socket: Option<PathBuf>,
}

impl Context {
    /// A client of the daemon, which is started where that is ours to do.
    async fn client(&self) -> Result<Client> {
        match &self.socket {
            Some(socket) => launch::connect(socket).await,
            None => launch::connect_or_start(&hc_paths::current()?).await,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(cli: Cli) -> Result<u8> {
    let context = Context { socket: cli.socket };
    match cli.command {
        Command::Run(args) => run::run(&context, *args).await.map_err(|f| f.or_status(OURS)),
        Command::Create(args) => run::create(&context, *args).await.map_err(|f| f.or_status(OURS)),
        Command::Exec(args) => attach::exec(&context, args).await.map_err(|f| f.or_status(OURS)),
        Command::Attach(args) => attach::attach(&context, args).await,
        Command::Start(args) => attach::start(&context, args).await,
        Command::Stop(args) => lifecycle::stop(&context, &args, "stop").await,
        Command::Restart(args) => lifecycle::stop(&context, &args, "restart").await,
        Command::Kill(args) => lifecycle::kill(&context, &args).await,
        Command::Pause(args) => lifecycle::pause(&context, &args).await,
        Command::Unpause(args) => lifecycle::unpause(&context, &args).await,
        Command::Clone(args) => run::clone(&context, &args).await.map_err(|f| f.or_status(OURS)),
        Command::Rm(args) => lifecycle::remove(&context, &args).await,
        Command::Wait(args) => lifecycle::wait(&context, &args).await,
        Command::Logs(args) => logs::logs(&context, &args).await,
        Command::Ps(args) => list::containers(&context, &args).await,
        Command::Pods(args) => list::pods(&context, &args).await,
        Command::Inspect(args) => inspect::inspect(&context, &args).await,
        Command::Info(args) => system::info(&context, &args).await,
        Command::Version(args) => system::version(&context, &args).await,
        Command::Pull(args) => image::pull(&context, &args).await,
        Command::Load(args) => image::load(&context, &args).await,
        Command::Import(args) => image::import(&context, &args).await,
        Command::Images(args) => image::images(&context, &args).await,
        Command::Rmi(args) => image::remove(&context, &args).await,
        Command::Tag(args) => image::tag(&context, &args).await,
        Command::Snapshot(SnapshotArgs { command }) => match command {
            SnapshotCommand::Create(args) => snapshot::create(&context, &args).await,
            SnapshotCommand::Ls(args) => snapshot::list(&context, &args).await,
            SnapshotCommand::Rm(args) => snapshot::remove(&context, &args).await,
        },
        Command::Template(TemplateArgs { command }) => match command {
            TemplateCommand::Ls(args) => template::list(&context, &args).await,
            TemplateCommand::Create(args) => template::create(&context, &args).await,
            TemplateCommand::Rm(args) => template::remove(&context, &args).await,
            TemplateCommand::Prune => template::prune(&context).await,
        },
        Command::Completion(args) => manual::completion(&args),
        Command::Top(args) => usage::top(&context, &args).await,
        Command::Stats(args) => usage::stats(&context, &args).await,
        Command::Cp(args) => copy::copy(&context, &args).await,
        Command::Doctor(args) => doctor::doctor(&context, &args).await,
        Command::Man(args) => manual::man(&args),
    }
}

/// Does the same to each name. What fails is told and does not keep the others from their turn.
async fn each(names: &[String], mut act: impl AsyncFnMut(&str) -> Result<()>) -> Result<u8> {
    let mut status = 0;
    for name in names {
        match act(name).await {
            Ok(()) => {}
            // Nobody reads what is printed: no use going on.
            Err(failure) if failure.is_silent() => return Err(failure),
            Err(failure) => {
                show::print_failure(&failure);
                status = FAILED;
            }
        }
    }
    Ok(status)
}
