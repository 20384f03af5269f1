// SPDX-License-Identifier: Apache-2.0
//! `info` and `version`.

use std::fmt::Write as _;

use hc_api::{DriverReport, Info, KvmReport, Version};
use serde::Serialize;
use serde_json::{Value, json};

use super::Context;
use crate::args::FormatArgs;
use crate::client::Target;
use crate::failure::{Failure, Result};
use crate::show::{Template, human, print, print_line};

pub(crate) async fn info(context: &Context, args: &FormatArgs) -> Result<u8> {
    let info: Info = context.client().await?.get(Target::new(&["info"])).await?;
    if let Some(format) = &args.format {
        formatted(format, &info)?;
    } else {
        print(&info_text(&info))?;
    }
    Ok(0)
}

fn info_text(info: &Info) -> String {
    let lines = [
        ("Version", info.version.clone()),
        ("Containers", format!("{} ({} running)", info.containers, info.running)),
        ("Images", info.images.to_string()),
        ("KVM", kvm_text(&info.kvm)),
        ("Driver", format!("{} ({})", info.driver, info.driver_reason)),
        ("Guest kernel", info.kernel.clone()),
        ("Data", info.data_dir.clone()),
        ("Sockets", info.runtime_dir.clone()),
        (
            "Host",
            format!(
                "{} CPUs, {}, Linux {}",
                info.host_cpus,
                human::memory(info.host_memory_bytes),
                info.host_kernel
            ),
        ),
        ("Rootless", if info.root { "no" } else { "yes" }.to_owned()),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{:<14}{value}", format!("{name}:"));
    }
    text.push_str("Drivers:\n");
    for driver in &info.drivers {
        let mark = if driver.usable { "usable" } else { "not usable" };
        let _ = writeln!(text, "  {}: {mark}: {}", driver.name, driver_text(driver, &info.kvm));
        if let Some(hint) = driver_hint(driver, &info.kvm) {
            let _ = writeln!(text, "    hint: {hint}");
        }
    }
    text
}

fn kvm_text(kvm: &KvmReport) -> String {
    match &kvm.hint {
        Some(hint) => format!("{}\n{:<14}hint: {hint}", kvm.finding, ""),
        None => kvm.finding.clone(),
    }
}

/// What was found about a driver, without what has been said about KVM.
pub(super) fn driver_text(driver: &DriverReport, kvm: &KvmReport) -> String {
    match &driver.program {
        Some(program) => format!("{} ({program})", driver.finding),
        None if driver.finding == kvm.finding => "it needs KVM".to_owned(),
        None => driver.finding.clone(),
    }
}

/// What to do about a driver, beside what helps KVM.
pub(super) fn driver_hint<'a>(driver: &'a DriverReport, kvm: &KvmReport) -> Option<&'a str> {
    driver.hint.as_deref().filter(|hint| kvm.hint.as_deref() != Some(hint))
}

/// The client's version is known even where no daemon answers.
pub(crate) async fn version(context: &Context, args: &FormatArgs) -> Result<u8> {
    let answer: Result<Version> =
        async { context.client().await?.get(Target::new(&["version"])).await }.await;
    let client = env!("CARGO_PKG_VERSION");
    let api = hc_api::PREFIX.trim_start_matches('/');
    let (server, failure) = match answer {
        Ok(server) => (Some(server), None),
        Err(failure) => (None, Some(failure)),
    };
    if let Some(format) = &args.format {
        formatted(format, &json!({"client": {"version": client, "api": api}, "server": server}))?;
    } else {
        let mut text = format!("Client:\n  Version: {client}\n  API:     {api}\n");
        if let Some(Version { version, api, pid }) = server {
            let _ =
                writeln!(text, "Server:\n  Version: {version}\n  API:     {api}\n  PID:     {pid}");
        }
        print(&text)?;
    }
    failure.map_or(Ok(0), Err)
}

/// `json`, or a template over the JSON fields.
fn formatted(format: &str, value: &impl Serialize) -> Result<()> {
    let value: Value = serde_json::to_value(value)
        .map_err(|error| Failure::system("cannot show the answer", error))?;
    if format == "json" {
        return print_line(&value.to_string());
    }
    print_line(&Template::parse(format)?.render(&value)?)
}
