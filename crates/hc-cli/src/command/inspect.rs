// SPDX-License-Identifier: Apache-2.0
//! `inspect`.

use hc_api::ErrorKind;
use serde::Serialize;
use serde_json::Value;

use super::Context;
use crate::args::{InspectArgs, InspectKind};
use crate::client::{Client, Target};
use crate::failure::{FAILED, Failure, Result};
use crate::show::{Template, print, print_failure};

/// Which image to inspect.
#[derive(Serialize)]
struct NameQuery<'a> {
    name: &'a str,
}

pub(crate) async fn inspect(context: &Context, args: &InspectArgs) -> Result<u8> {
    let template = match args.format.as_deref() {
        None | Some("json" | "") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let client = context.client().await?;
    let mut found = Vec::new();
    let mut status = 0;
    for name in &args.names {
        match look_up(&client, name, args.kind).await {
            Ok(value) => found.push(value),
            Err(failure) => {
                print_failure(&failure);
                status = FAILED;
            }
        }
    }
    match template {
        None => {
            // A Value cannot fail to be written.
            let text = serde_json::to_string_pretty(&found).expect("it is JSON already");
            print(&format!("{text}\n"))?;
        }
        Some(template) => {
            for value in &found {
                print(&format!("{}\n", template.render(value)?))?;
            }
        }
    }
    Ok(status)
}

async fn look_up(client: &Client, name: &str, kind: Option<InspectKind>) -> Result<Value> {
    if kind != Some(InspectKind::Image) {
        match client.get(Target::new(&["containers", name])).await {
            Err(failure) if failure.kind() == ErrorKind::NotFound && kind.is_none() => {}
            answer => return answer,
        }
    }
    let target = Target::new(&["images", "inspect"]).query(&NameQuery { name });
    let missing = || {
        let what = if kind.is_none() { "container or image" } else { "image" };
        Failure::new(ErrorKind::NotFound, format!("no such {what}: {name}"))
    };
    match client.get(target).await {
        Err(failure) if failure.kind() == ErrorKind::NotFound => Err(missing()),
        answer => answer,
    }
}
