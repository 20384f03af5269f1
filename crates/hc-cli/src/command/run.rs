// SPDX-License-Identifier: Apache-2.0
//! `run`, `create` and `clone`.
//!
//! ```text
//!  resolve -> (pull) -> create -> start and attach -> session -> exit status
//!     |          |         |            |                |
//!     |       aborted   removed      killed,     passed on; the third kills
//!     |                              --rm: gone
//!     +------- what ctrl-C does at each stage -------------
//! ```

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use hc_api::{
    AttachQuery, CloneContainer, Container, CreateContainer, Created, ErrorKind, PullPolicy,
    WaitAnswer, WaitCondition, WaitQuery,
};
use hc_spec::Signal;
use hyper::Method;
use serde::Serialize;

use super::lifecycle::delete;
use super::{Context, image};
use crate::args::{CloneArgs, CreateArgs, CreateFlags, RunArgs};
use crate::client::{Body, Client, Target};
use crate::failure::{CLOSED_PIPE, Failure, OURS, Result};
use crate::resolve::{Host, clone_container, create_container, from_snapshot};
use crate::session::keys::DetachKeys;
use crate::session::signals::Signals;
use crate::session::{End, KILL_DEADLINE, Session, Shown, kill, terminal};
use crate::show::{print_aside, print_failure, print_line};
use crate::timings::Timings;

pub(crate) async fn create(context: &Context, args: CreateArgs) -> Result<u8> {
    let request = create_container(&args.create, args.rm, &Host::real())?;
    let id_file = IdFile::open(args.create.cidfile.as_deref())?;
    let client = context.client().await?;
    let mut signals = Signals::listen()?;
    let created = make(&client, &request, &args.create, &mut signals).await?;
    id_file.write(&created.id)?;
    print_line(&created.id)?;
    Ok(0)
}

pub(crate) async fn run(context: &Context, args: RunArgs) -> Result<u8> {
    let timings = if args.timings { Timings::since_process_start() } else { Timings::off() };
    if args.timings && args.detach {
        return Err(Failure::argument("--timings: what is left running has no end to tell of")
            .with_hint("leave --detach out"));
    }
    let status = run_until_end(context, args, &timings).await?;
    timings.mark("done");
    if let Some(table) = timings.table() {
        print_aside(&table);
    }
    Ok(status)
}

async fn run_until_end(context: &Context, args: RunArgs, timings: &Timings) -> Result<u8> {
    let streams = Streams::choose(&args.attach, args.create.interactive)?;
    let origin = Origin::of(&args, &streams)?;
    let detach_keys = DetachKeys::parse(args.detach_keys.as_deref())?;
    let id_file = IdFile::open(args.create.cidfile.as_deref())?;
    timings.mark("arguments read");
    let client = context.client().await?;
    timings.mark("connected to the daemon");
    let mut signals = Signals::listen()?;
    let created = origin.make(&client, &args.create, &mut signals).await?;
    id_file.write(&created.id)?;
    timings.mark("container created");
    let id = created.id.as_str();
    if args.detach {
        start_detached(&client, id, args.rm, &mut signals).await?;
        print_line(id)?;
        return Ok(0);
    }
    let session = Session {
        client: &client,
        container: id,
        input: streams.input,
        terminal: origin.terminal(&client, id, streams.input).await?,
        shown: streams.shown,
        detach_keys,
        proxy: args.sig_proxy,
        started: false,
        timings,
    };
    start_attached(&session, args.rm, &mut signals).await
}

pub(crate) async fn clone(context: &Context, args: &CloneArgs) -> Result<u8> {
    let request = clone_container(args, &Host::real())?;
    let client = context.client().await?;
    let mut signals = Signals::listen()?;
    let target = Target::new(&["containers", &args.container, "clone"]);
    let created = post_create(&client, target, &request, &mut signals).await?;
    start_detached(&client, &created.id, args.rm, &mut signals).await?;
    print_line(&created.id)?;
    Ok(0)
}

/// What `run` makes its container of.
enum Origin {
    Image(Box<CreateContainer>),
    Snapshot { name: String, request: CloneContainer },
}

impl Origin {
    fn of(args: &RunArgs, streams: &Streams) -> Result<Origin> {
        if let Some(name) = &args.snapshot {
            if args.detach && args.create.interactive {
                return Err(Failure::argument(
                    "--interactive: with --detach, nothing is connected",
                )
                .with_hint("leave one of them out"));
            }
            let request = from_snapshot(name, &args.create, args.rm, &Host::real())?;
            return Ok(Origin::Snapshot { name: name.clone(), request });
        }
        let mut request = create_container(&args.create, args.rm, &Host::real())?;
        request.open_stdin |= streams.input;
        if request.terminal && streams.input && !args.detach {
            require_terminal()?;
        }
        Ok(Origin::Image(Box::new(request)))
    }

    async fn make(
        &self,
        client: &Client,
        flags: &CreateFlags,
        signals: &mut Signals,
    ) -> Result<Created> {
        match self {
            Origin::Image(request) => make(client, request, flags, signals).await,
            Origin::Snapshot { name, request } => {
                let target = Target::new(&["snapshots", name, "containers"]);
                post_create(client, target, request, signals).await
            }
        }
    }

    /// Whether the container's program has a terminal. One that was copied may have none, or no
    /// standard input, where we would connect ours: then nothing is left of it.
    async fn terminal(&self, client: &Client, id: &str, input: bool) -> Result<bool> {
        if let Origin::Image(request) = self {
            return Ok(request.terminal);
        }
        let terminal = async {
            let container: Container = client.get(Target::new(&["containers", id])).await?;
            if input && !container.config.open_stdin {
                return Err(Failure::argument("the copied container has no standard input")
                    .with_hint("leave --interactive out"));
            }
            if input && container.config.terminal {
                require_terminal().map_err(|f| f.with_hint("leave --interactive out"))?;
            }
            Ok(container.config.terminal)
        };
        let terminal = terminal.await;
        if terminal.is_err() {
            clean_up(client, id, true).await;
        }
        terminal
    }
}

/// Which of our streams are connected.
struct Streams {
    input: bool,
    shown: Shown,
}

impl Streams {
    fn choose(named: &[String], interactive: bool) -> Result<Streams> {
        if named.is_empty() {
            return Ok(Streams { input: interactive, shown: Shown::ALL });
        }
        let mut streams = Streams { input: false, shown: Shown { stdout: false, stderr: false } };
        for name in named {
            match name.to_ascii_lowercase().as_str() {
                "stdin" => streams.input = true,
                "stdout" => streams.shown.stdout = true,
                "stderr" => streams.shown.stderr = true,
                _ => {
                    return Err(Failure::argument(format!("--attach {name:?} is no stream"))
                        .with_hint("use stdin, stdout or stderr"));
                }
            }
        }
        Ok(streams)
    }
}

/// A terminal inside needs one outside that is typed at.
pub(super) fn require_terminal() -> Result<()> {
    if terminal::has_input() {
        return Ok(());
    }
    Err(Failure::argument("the input device is not a TTY")
        .with_hint("leave -t out to connect pipes and files"))
}

/// Creates the container, with its image pulled as the policy asks.
async fn make(
    client: &Client,
    request: &CreateContainer,
    flags: &CreateFlags,
    signals: &mut Signals,
) -> Result<Created> {
    let pull = async |signals: &mut Signals| {
        tokio::select! {
            pulled = image::pull_image(client, &request.image, flags.quiet) => pulled.map(|_| ()),
            signal = signals.interruption() => Err(interrupted(signal)),
        }
    };
    let policy = flags.pull.unwrap_or_default();
    if policy == PullPolicy::Always {
        pull(signals).await?;
    }
    let create = Target::new(&["containers"]);
    match post_create(client, create.clone(), request, signals).await {
        Err(failure) if failure.kind() == ErrorKind::NotFound && policy == PullPolicy::Missing => {
            pull(signals).await?;
            post_create(client, create, request, signals).await
        }
        other => other,
    }
}

/// Sends the request. Whether it was carried out cannot be known before its answer, so a signal
/// waits for that, and what was created is removed again.
async fn post_create(
    client: &Client,
    target: Target,
    request: &impl Serialize,
    signals: &mut Signals,
) -> Result<Created> {
    let answer = client.post::<Created>(target, request);
    tokio::pin!(answer);
    let signal = tokio::select! {
        biased;
        signal = signals.interruption() => signal,
        created = &mut answer => return created,
    };
    if let Ok(Ok(created)) = tokio::time::timeout(KILL_DEADLINE, answer).await {
        // The user wants to be gone; a failure here would tell them nothing they could act on.
        let _ = delete(client, &created.id, true).await;
    }
    Err(interrupted(signal))
}

async fn start_detached(
    client: &Client,
    id: &str,
    auto_remove: bool,
    signals: &mut Signals,
) -> Result<()> {
    let target = Target::new(&["containers", id, "start"]);
    let started = order_start(client, id, client.act(Method::POST, target), signals).await;
    if started.is_err() {
        clean_up(client, id, auto_remove).await;
    }
    started
}

/// Sends the order to start. A signal kills what it has started: at once, and once more where the
/// order to kill, which travels on another connection, has overtaken this one.
async fn order_start<T>(
    client: &Client,
    id: &str,
    order: impl Future<Output = Result<T>>,
    signals: &mut Signals,
) -> Result<T> {
    tokio::pin!(order);
    let signal = tokio::select! {
        biased;
        signal = signals.interruption() => signal,
        started = &mut order => return started,
    };
    let kill_it = async {
        kill(client, id, Signal::KILL).await;
        if order.await.is_ok() {
            kill(client, id, Signal::KILL).await;
        }
    };
    // The user wants to be gone; that it takes too long tells them nothing they could act on.
    let _ = tokio::time::timeout(KILL_DEADLINE, kill_it).await;
    Err(interrupted(signal))
}

pub(super) async fn start_attached(
    session: &Session<'_>,
    auto_remove: bool,
    signals: &mut Signals,
) -> Result<u8> {
    let (client, id) = (session.client, session.container);
    let target = Target::new(&["containers", id, "start"]).query(&attach_query(session.input));
    session.timings.mark("start requested");
    let order = client.upgrade(target, Body::empty());
    let connection = match order_start(client, id, order, signals).await {
        Ok(connection) => connection,
        Err(failure) => {
            clean_up(client, id, auto_remove).await;
            return Err(failure);
        }
    };
    // When the daemon is lost, the container is not: its pod runs on, and nothing is cleaned up.
    let end = session.run(connection, signals).await?;
    conclude(session, end, auto_remove, signals).await
}

/// From the end of a session to an exit status; nothing that should be gone is left.
async fn conclude(
    session: &Session<'_>,
    end: End,
    auto_remove: bool,
    signals: &mut Signals,
) -> Result<u8> {
    let (client, id) = (session.client, session.container);
    match &end {
        End::Exited(_) if auto_remove => tokio::select! {
            () = gone(client, id) => {}
            _ = signals.interruption() => {}
        },
        // What SIGPIPE does to a program that writes to nobody.
        End::OutputClosed if session.proxy => {
            kill(client, id, Signal::KILL).await;
            clean_up(client, id, auto_remove).await;
        }
        End::Failed(_) => clean_up(client, id, auto_remove).await,
        End::Signal(_) if session.proxy => clean_up(client, id, auto_remove).await,
        End::Exited(_) | End::OutputClosed | End::Signal(_) | End::Detached => {}
    }
    exit_status(end)
}

/// The exit status that the end of a session means.
pub(super) fn exit_status(end: End) -> Result<u8> {
    match end {
        End::Exited(exit) => {
            if !exit.error.is_empty() {
                print_failure(&Failure::new(ErrorKind::Internal, exit.error));
            }
            Ok(exit.status)
        }
        End::Failed(body) => Err(Failure::from(body).or_status(OURS)),
        End::Detached => Ok(0),
        End::OutputClosed => Err(Failure::silent(CLOSED_PIPE)),
        End::Signal(signal) => Err(interrupted(signal)),
    }
}

/// Waits until the daemon has removed the container.
async fn gone(client: &Client, id: &str) {
    let query = WaitQuery { condition: WaitCondition::Removed };
    let target = Target::new(&["containers", id, "wait"]).query(&query);
    // An error means that it is gone already, or that the daemon is; both end the wait.
    let _ = client.post::<WaitAnswer>(target, &()).await;
}

/// Removes a container that should not stay, whatever it does. It may be gone already.
async fn clean_up(client: &Client, id: &str, auto_remove: bool) {
    if auto_remove {
        let _ = tokio::time::timeout(KILL_DEADLINE, delete(client, id, true)).await;
    }
}

/// How we attach.
pub(super) fn attach_query(stdin: bool) -> AttachQuery {
    let size = terminal::window_size();
    AttachQuery { stdin, rows: size.map(|s| s.rows), columns: size.map(|s| s.columns) }
}

/// Ends as a program that a signal ended, without a word: the user knows.
pub(super) fn interrupted(signal: Signal) -> Failure {
    Failure::silent(signal.number().saturating_add(128))
}

/// The file that gets the container's id. It must not exist, so that no two containers share one.
struct IdFile(Option<std::fs::File>);

impl IdFile {
    fn open(path: Option<&Path>) -> Result<IdFile> {
        let open = |path: &Path| {
            OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| {
                Failure::system(format_args!("cannot create --cidfile {}", path.display()), error)
            })
        };
        Ok(IdFile(path.map(open).transpose()?))
    }

    fn write(self, id: &str) -> Result<()> {
        let Some(mut file) = self.0 else { return Ok(()) };
        file.write_all(id.as_bytes()).map_err(|e| Failure::system("cannot write --cidfile", e))
    }
}
