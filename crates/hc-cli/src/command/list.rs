// SPDX-License-Identifier: Apache-2.0
//! `ps` and `pods`.

use std::collections::BTreeMap;

use hc_api::{ContainerSummary, ListQuery, PodSummary};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::Context;
use crate::args::{ListArgs, RowsArgs};
use crate::client::Target;
use crate::failure::{Failure, Result};
use crate::show::{Format, human};

/// What `--filter` understands.
const FILTERS: [&str; 6] = ["ancestor", "exited", "id", "label", "name", "status"];
/// Characters of a command in the table.
const COMMAND_WIDTH: usize = 20;

const CONTAINER_FIELDS: [&str; 12] = [
    "Command",
    "CreatedAt",
    "ExitCode",
    "ID",
    "Image",
    "Labels",
    "Names",
    "Pod",
    "Ports",
    "RunningFor",
    "State",
    "Status",
];
const CONTAINER_COLUMNS: [(&str, &str); 7] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
];

const POD_FIELDS: [&str; 7] = ["Containers", "CPUs", "Driver", "ID", "Memory", "Name", "State"];
const POD_COLUMNS: [(&str, &str); 7] = [
    ("POD ID", "ID"),
    ("NAME", "Name"),
    ("STATE", "State"),
    ("DRIVER", "Driver"),
    ("CPUS", "CPUs"),
    ("MEMORY", "Memory"),
    ("CONTAINERS", "Containers"),
];

pub(crate) async fn containers(context: &Context, args: &ListArgs) -> Result<u8> {
    let format = Format::parse(args.format.as_deref(), args.quiet, &CONTAINER_FIELDS)?;
    let newest = if args.latest { Some(1) } else { args.last };
    let filters = filters(&args.filter)?;
    // Asking for a status or exit code is asking for those that have it.
    let implied = ["status", "exited"].iter().any(|name| filters.contains_key(*name));
    let query = ListQuery {
        all: args.all || newest.is_some() || implied,
        filters: (!filters.is_empty()).then(|| json!(filters).to_string()),
    };
    let client = context.client().await?;
    let target = Target::new(&["containers"]).query(&query);
    let mut list: Vec<ContainerSummary> = client.get(target).await?;
    list.sort_by_key(|container| std::cmp::Reverse(container.created));
    list.truncate(newest.unwrap_or(usize::MAX));
    let now = Timestamp::now();
    let row = |container| container_row(container, args.no_trunc, now, &TimeZone::system());
    let rows: Vec<_> = list.iter().map(row).collect();
    format.print(&rows, &CONTAINER_COLUMNS, "ID")?;
    Ok(0)
}

fn filters(texts: &[String]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut filters: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for text in texts {
        let known = text.split_once('=').filter(|(name, _)| FILTERS.contains(name));
        let Some((name, value)) = known else {
            return Err(Failure::argument(format!("--filter {text:?} is not understood"))
                .with_hint(format!("write NAME=VALUE with one of {}", FILTERS.join(", "))));
        };
        filters.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    Ok(filters)
}

fn container_row(
    container: &ContainerSummary,
    whole: bool,
    now: Timestamp,
    zone: &TimeZone,
) -> Value {
    let command = container.command.join(" ");
    let command = if whole { command } else { human::shortened(&command, COMMAND_WIDTH) };
    let id = |id: &str| if whole { id.to_owned() } else { human::short_id(id).to_owned() };
    let image = if container.image == container.image_id {
        id(&container.image)
    } else {
        container.image.clone()
    };
    json!({
        "ID": id(&container.id),
        "Pod": id(&container.pod),
        "Image": image,
        "Command": format!("\"{command}\""),
        "CreatedAt": created_at(container.created, zone),
        "RunningFor": human::ago(container.created, now),
        "State": human::state(container.state),
        "Status": human::status(container, now),
        "ExitCode": container.exit_status,
        "Ports": human::ports(&container.ports),
        "Names": container.name,
        "Labels": container
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(","),
    })
}

/// As Docker prints it: `2024-05-01 12:00:00 +0000 UTC`.
pub(super) fn created_at(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

pub(crate) async fn pods(context: &Context, args: &RowsArgs) -> Result<u8> {
    let format = Format::parse(args.format.as_deref(), args.quiet, &POD_FIELDS)?;
    let client = context.client().await?;
    let list: Vec<PodSummary> = client.get(Target::new(&["pods"])).await?;
    let rows: Vec<_> = list.iter().map(|pod| pod_row(pod, args.no_trunc)).collect();
    format.print(&rows, &POD_COLUMNS, "ID")?;
    Ok(0)
}

fn pod_row(pod: &PodSummary, whole: bool) -> Value {
    json!({
        "ID": if whole { pod.id.as_str() } else { human::short_id(&pod.id) },
        "Name": pod.name,
        "State": human::state(pod.state),
        "Driver": pod.driver.as_deref().unwrap_or_default(),
        "CPUs": pod.vcpus,
        "Memory": human::memory(u64::from(pod.memory_mib) << 20),
        "Containers": pod.containers.join(","),
    })
}

#[cfg(test)]
mod tests;
