// SPDX-License-Identifier: Apache-2.0
//! `snapshot`: running containers that were copied.

use hc_api::{CreateSnapshot, Snapshot};
use hyper::Method;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::list::created_at;
use super::{Context, each};
use crate::args::{CreateSnapshotArgs, RowsArgs, SnapshotRefsArgs};
use crate::client::Target;
use crate::failure::Result;
use crate::show::{Format, human, print_line};

const FIELDS: [&str; 10] = [
    "CPUs",
    "Container",
    "CreatedAt",
    "CreatedSince",
    "Driver",
    "HeldMicros",
    "Image",
    "Memory",
    "Name",
    "Size",
];
const COLUMNS: [(&str, &str); 6] = [
    ("NAME", "Name"),
    ("CONTAINER", "Container"),
    ("IMAGE", "Image"),
    ("MEMORY", "Memory"),
    ("SIZE", "Size"),
    ("CREATED", "CreatedSince"),
];

pub(crate) async fn create(context: &Context, args: &CreateSnapshotArgs) -> Result<u8> {
    let client = context.client().await?;
    let request = CreateSnapshot { name: args.name.clone() };
    let target = Target::new(&["containers", &args.container, "snapshot"]);
    let taken: Result<Snapshot> = client.post(target, &request).await;
    let taken = taken.map_err(|f| f.context(format_args!("cannot copy {}", args.container)))?;
    print_line(&taken.name)?;
    Ok(0)
}

pub(crate) async fn list(context: &Context, args: &RowsArgs) -> Result<u8> {
    let format = Format::parse(args.format.as_deref(), args.quiet, &FIELDS)?;
    let client = context.client().await?;
    let mut list: Vec<Snapshot> = client.get(Target::new(&["snapshots"])).await?;
    list.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.created));
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    let rows: Vec<_> = list.iter().map(|one| row(one, args.no_trunc, now, &zone)).collect();
    format.print(&rows, &COLUMNS, "Name")?;
    Ok(0)
}

fn row(snapshot: &Snapshot, whole: bool, now: Timestamp, zone: &TimeZone) -> Value {
    // A name is as it was asked for; an id is as long as nobody wants to see.
    let is_id = snapshot.image.starts_with("sha256:");
    let image = &snapshot.image;
    json!({
        "Name": snapshot.name,
        "Container": snapshot.container,
        "Image": if is_id && !whole { human::short_id(image) } else { image },
        "Driver": snapshot.driver,
        "CPUs": snapshot.vcpus,
        "Memory": human::memory(u64::from(snapshot.memory_mib) << 20),
        "Size": human::size(snapshot.size),
        "CreatedAt": created_at(snapshot.created, zone),
        "CreatedSince": human::ago(snapshot.created, now),
        "HeldMicros": snapshot.held_micros,
    })
}

pub(crate) async fn remove(context: &Context, args: &SnapshotRefsArgs) -> Result<u8> {
    let client = context.client().await?;
    each(&args.names, async |name| {
        let removed = client.act(Method::DELETE, Target::new(&["snapshots", name])).await;
        removed.map_err(|f| f.context(format_args!("cannot remove snapshot {name}")))?;
        print_line(name)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_row_is_offered_to_templates() {
        let snapshot = Snapshot {
            name: "warm".into(),
            container: "web".into(),
            image: "busybox".into(),
            driver: "kvm".into(),
            vcpus: 1,
            memory_mib: 128,
            size: 1,
            created: Timestamp::UNIX_EPOCH,
            held_micros: 1,
        };
        let Value::Object(fields) = row(&snapshot, false, Timestamp::now(), &TimeZone::UTC) else {
            unreachable!()
        };
        assert_eq!(fields.keys().map(String::as_str).collect::<Vec<_>>(), FIELDS);
        assert!(COLUMNS.iter().all(|(_, field)| FIELDS.contains(field)));
    }
}
