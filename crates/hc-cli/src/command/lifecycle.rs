// SPDX-License-Identifier: Apache-2.0
//! `stop`, `restart`, `kill`, `pause`, `unpause`, `rm`, `wait`.

use hc_api::{
    ErrorKind, KillQuery, PauseQuery, RemoveQuery, RestartOrStopQuery, WaitAnswer, WaitQuery,
};
use hc_spec::Signal;
use hyper::Method;

use super::{Context, each};
use crate::args::{KillArgs, PauseArgs, RefsArgs, RestartArgs, RmArgs};
use crate::client::{Client, Target};
use crate::failure::{Failure, Result};
use crate::show::print_line;

/// `stop` and `restart`, which differ in one word.
pub(crate) async fn stop(context: &Context, args: &RestartArgs, verb: &str) -> Result<u8> {
    let client = context.client().await?;
    let query = RestartOrStopQuery { timeout: args.timeout };
    each(&args.refs.containers, async |name| {
        let target = Target::new(&["containers", name, verb]).query(&query);
        act(&client, verb, name, target).await
    })
    .await
}

pub(crate) async fn kill(context: &Context, args: &KillArgs) -> Result<u8> {
    let signal: Signal =
        args.signal.parse().map_err(|e| Failure::argument(format!("--signal: {e}")))?;
    let client = context.client().await?;
    let query = KillQuery { signal: Some(signal.to_string()) };
    each(&args.refs.containers, async |name| {
        let target = Target::new(&["containers", name, "kill"]).query(&query);
        act(&client, "kill", name, target).await
    })
    .await
}

pub(crate) async fn pause(context: &Context, args: &PauseArgs) -> Result<u8> {
    let client = context.client().await?;
    let query = PauseQuery { to_disk: args.to_disk };
    each(&args.refs.containers, async |name| {
        let target = Target::new(&["containers", name, "pause"]).query(&query);
        act(&client, "pause", name, target).await
    })
    .await
}

pub(crate) async fn unpause(context: &Context, args: &RefsArgs) -> Result<u8> {
    let client = context.client().await?;
    each(&args.containers, async |name| {
        act(&client, "unpause", name, Target::new(&["containers", name, "unpause"])).await
    })
    .await
}

pub(crate) async fn remove(context: &Context, args: &RmArgs) -> Result<u8> {
    let client = context.client().await?;
    each(&args.refs.containers, async |name| match delete(&client, name, args.force).await {
        Ok(()) => print_line(name),
        Err(failure) if args.force && failure.kind() == ErrorKind::NotFound => Ok(()),
        Err(failure) => Err(failure.context(format_args!("cannot remove {name}"))),
    })
    .await
}

/// Removes a container.
pub(super) async fn delete(client: &Client, name: &str, force: bool) -> Result<()> {
    let target = Target::new(&["containers", name]).query(&RemoveQuery { force });
    client.act(Method::DELETE, target).await
}

pub(crate) async fn wait(context: &Context, args: &RefsArgs) -> Result<u8> {
    let client = context.client().await?;
    each(&args.containers, async |name| {
        let target = Target::new(&["containers", name, "wait"]).query(&WaitQuery::default());
        let answer: Result<WaitAnswer> = client.post(target, &()).await;
        let answer = answer.map_err(|f| f.context(format_args!("cannot wait for {name}")))?;
        print_line(&answer.exit_status.to_string())
    })
    .await
}

async fn act(client: &Client, verb: &str, name: &str, target: Target) -> Result<()> {
    let done = client.act(Method::POST, target).await;
    done.map_err(|failure| failure.context(format_args!("cannot {verb} {name}")))?;
    print_line(name)
}
