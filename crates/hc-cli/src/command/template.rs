// SPDX-License-Identifier: Apache-2.0
//! `template`: booted guests that containers start from.

use hc_api::{PrunedTemplates, Template};
use hyper::Method;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::list::created_at;
use super::{Context, each};
use crate::args::{CreateTemplateArgs, RowsArgs, TemplateRefsArgs};
use crate::client::Target;
use crate::failure::Result;
use crate::resolve::{Host, create_template};
use crate::show::progress::Waiting;
use crate::show::{Format, human, print_line};

const FIELDS: [&str; 10] = [
    "CPUs",
    "CreatedAt",
    "CreatedSince",
    "Driver",
    "ID",
    "Kernel",
    "Memory",
    "Network",
    "Size",
    "Waiting",
];
const COLUMNS: [(&str, &str); 8] = [
    ("ID", "ID"),
    ("DRIVER", "Driver"),
    ("CPUS", "CPUs"),
    ("MEMORY", "Memory"),
    ("NETWORK", "Network"),
    ("SIZE", "Size"),
    ("CREATED", "CreatedSince"),
    ("WAITING", "Waiting"),
];

pub(crate) async fn list(context: &Context, args: &RowsArgs) -> Result<u8> {
    let format = Format::parse(args.format.as_deref(), args.quiet, &FIELDS)?;
    let client = context.client().await?;
    let mut list: Vec<Template> = client.get(Target::new(&["templates"])).await?;
    list.sort_by_key(|template| std::cmp::Reverse(template.created));
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    let rows: Vec<_> = list.iter().map(|one| row(one, args.no_trunc, now, &zone)).collect();
    format.print(&rows, &COLUMNS, "ID")?;
    Ok(0)
}

fn row(template: &Template, whole: bool, now: Timestamp, zone: &TimeZone) -> Value {
    json!({
        "ID": if whole { template.id.as_str() } else { human::short_id(&template.id) },
        "Driver": template.driver,
        "Kernel": template.kernel,
        "CPUs": template.vcpus,
        "Memory": human::memory(u64::from(template.memory_mib) << 20),
        "Network": if template.network { "user" } else { "none" },
        "Size": human::size(template.size),
        "CreatedAt": created_at(template.created, zone),
        "CreatedSince": human::ago(template.created, now),
        "Waiting": template.waiting,
    })
}

pub(crate) async fn create(context: &Context, args: &CreateTemplateArgs) -> Result<u8> {
    let request = create_template(args, &Host::real())?;
    let client = context.client().await?;
    let waiting = Waiting::new("booting a guest", args.quiet);
    let created: Result<Template> = client.post(Target::new(&["templates"]), &request).await;
    drop(waiting);
    print_line(&created?.id)?;
    Ok(0)
}

pub(crate) async fn remove(context: &Context, args: &TemplateRefsArgs) -> Result<u8> {
    let client = context.client().await?;
    each(&args.ids, async |id| {
        let removed = client.act(Method::DELETE, Target::new(&["templates", id])).await;
        removed.map_err(|f| f.context(format_args!("cannot remove template {id}")))?;
        print_line(id)
    })
    .await
}

pub(crate) async fn prune(context: &Context) -> Result<u8> {
    let client = context.client().await?;
    let target = Target::new(&["templates", "prune"]);
    let pruned: PrunedTemplates = client.post(target, &()).await?;
    for id in &pruned.removed {
        print_line(&format!("Deleted: {id}"))?;
    }
    print_line(&format!("Total reclaimed space: {}", human::size(pruned.size)))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_row_is_offered_to_templates() {
        let template = Template {
            id: "a1".repeat(32),
            driver: "kvm".into(),
            kernel: "/k".into(),
            vcpus: 1,
            memory_mib: 128,
            network: true,
            size: 1,
            created: Timestamp::UNIX_EPOCH,
            waiting: 0,
        };
        let Value::Object(fields) = row(&template, false, Timestamp::now(), &TimeZone::UTC) else {
            unreachable!()
        };
        assert_eq!(fields.keys().map(String::as_str).collect::<Vec<_>>(), FIELDS);
        assert!(COLUMNS.iter().all(|(_, field)| FIELDS.contains(field)));
    }
}
