// SPDX-License-Identifier: Apache-2.0
//! `exec`, `attach` and `start`.

use hc_api::{Container, ContainerState, ErrorKind, ExecRequest};
use hyper::Method;

use super::run::{attach_query, exit_status, interrupted, require_terminal, start_attached};
use super::{Context, each};
use crate::args::{AttachArgs, ExecArgs, StartArgs};
use crate::client::{Body, Client, Target};
use crate::failure::{Failure, Result};
use crate::resolve::{Host, environment};
use crate::session::keys::DetachKeys;
use crate::session::signals::Signals;
use crate::session::{Session, Shown, terminal};
use crate::show::print_line;
use crate::timings::Timings;

pub(crate) async fn exec(context: &Context, args: ExecArgs) -> Result<u8> {
    let Some((container, command)) =
        args.container_and_command.split_first().filter(|(_, command)| !command.is_empty())
    else {
        return Err(Failure::argument("no command is named").with_hint("see: hyper exec --help"));
    };
    if args.tty && args.interactive && !args.detach {
        require_terminal()?;
    }
    let size = terminal::window_size().filter(|_| args.tty);
    let request = ExecRequest {
        command: command.to_vec(),
        env: environment(&args.env, &args.env_file, &Host::real())?,
        workdir: args.workdir,
        user: args.user,
        privileged: args.privileged,
        terminal: args.tty,
        stdin: args.interactive && !args.detach,
        detach: args.detach,
        rows: size.map(|size| size.rows),
        columns: size.map(|size| size.columns),
    };
    let detach_keys = DetachKeys::parse(args.detach_keys.as_deref())?;
    let client = context.client().await?;
    let target = Target::new(&["containers", container, "exec"]);
    if request.detach {
        client.send(Method::POST, target, Body::json(&request)).await?;
        return Ok(0);
    }
    let mut signals = Signals::listen()?;
    let session = Session {
        client: &client,
        container,
        input: request.stdin,
        terminal: request.terminal,
        shown: Shown::ALL,
        detach_keys,
        // A signal is for the container's main process; this one goes with its connection.
        proxy: false,
        started: true,
        timings: &Timings::off(),
    };
    let connection = tokio::select! {
        connection = client.upgrade(target, Body::json(&request)) => connection?,
        signal = signals.interruption() => return Err(interrupted(signal)),
    };
    exit_status(session.run(connection, &mut signals).await?)
}

pub(crate) async fn attach(context: &Context, args: AttachArgs) -> Result<u8> {
    let detach_keys = DetachKeys::parse(args.detach_keys.as_deref())?;
    let client = context.client().await?;
    let container = inspect(&client, &args.container).await?;
    match container.summary.state {
        ContainerState::Running | ContainerState::Starting => {}
        ContainerState::Paused => {
            return Err(not_attachable(&args.container, "it is paused")
                .with_hint(format!("first: hyper unpause {}", args.container)));
        }
        _ => {
            return Err(not_attachable(&args.container, "it does not run")
                .with_hint(format!("first: hyper start {}", args.container)));
        }
    }
    let input = container.config.open_stdin && !args.no_stdin;
    if container.config.terminal && input {
        require_terminal()?;
    }
    let mut signals = Signals::listen()?;
    let session = Session {
        client: &client,
        container: &args.container,
        input,
        terminal: container.config.terminal,
        shown: Shown::ALL,
        detach_keys,
        proxy: args.sig_proxy,
        started: true,
        timings: &Timings::off(),
    };
    let target =
        Target::new(&["containers", &args.container, "attach"]).query(&attach_query(input));
    let connection = client.upgrade(target, Body::empty()).await?;
    exit_status(session.run(connection, &mut signals).await?)
}

pub(crate) async fn start(context: &Context, args: StartArgs) -> Result<u8> {
    let client = context.client().await?;
    if !args.attach && !args.interactive {
        return each(&args.refs.containers, async |name| {
            let started =
                client.act(Method::POST, Target::new(&["containers", name, "start"])).await;
            started.map_err(|failure| failure.context(format_args!("cannot start {name}")))?;
            print_line(name)
        })
        .await;
    }
    let [name] = args.refs.containers.as_slice() else {
        return Err(Failure::argument("only one container can be started and attached to"));
    };
    let detach_keys = DetachKeys::parse(args.detach_keys.as_deref())?;
    let container = inspect(&client, name).await?;
    let input = container.config.open_stdin && args.interactive;
    if container.config.terminal && input {
        require_terminal()?;
    }
    let mut signals = Signals::listen()?;
    let session = Session {
        client: &client,
        container: name,
        input,
        terminal: container.config.terminal,
        shown: Shown::ALL,
        detach_keys,
        proxy: true,
        started: false,
        timings: &Timings::off(),
    };
    start_attached(&session, container.config.auto_remove, &mut signals).await
}

async fn inspect(client: &Client, name: &str) -> Result<Container> {
    client.get(Target::new(&["containers", name])).await
}

fn not_attachable(name: &str, why: &str) -> Failure {
    Failure::new(ErrorKind::InvalidState, format!("cannot attach to {name}: {why}"))
}
