// SPDX-License-Identifier: Apache-2.0
//! The request that `run` and `create` send.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hc_api::{CreateContainer, NetworkMode, Port};
use hc_spec::{CapabilitySet, Name, Signal};

use super::scalar::{cpus, host_entry, name_server, security_option, size, tmpfs, ulimit};
use super::{Host, files, port};
use crate::args::CreateFlags;
use crate::failure::{Failure, Result};

/// What to create. The image's own configuration is the daemon's to merge.
pub(crate) fn create_container(
    flags: &CreateFlags,
    auto_remove: bool,
    host: &Host<'_>,
) -> Result<CreateContainer> {
    if let Some((option, reason)) = flags.refused.found {
        return Err(Failure::unsupported(format!("--{option}: {reason}")));
    }
    if let Some(platform) = &flags.platform {
        host_platform_only(platform)?;
    }
    if let Some(signal) = &flags.stop_signal {
        signal.parse::<Signal>().map_err(|error| Failure::argument(error.to_string()))?;
    }
    // For the error alone: the daemon resolves them together with its defaults.
    CapabilitySet::resolve(&flags.cap_add, &flags.cap_drop, false)
        .map_err(|error| Failure::argument(error.to_string()))?;
    let (image, command) = match flags.image_and_command.split_first() {
        Some((image, command)) if !image.is_empty() => (image.clone(), command.to_vec()),
        _ => return Err(Failure::argument("no image is named")),
    };
    Ok(CreateContainer {
        name: checked_name(flags.name.as_deref())?,
        image,
        entrypoint: flags.entrypoint.clone().map(entrypoint),
        command,
        env: environment(&flags.env, &flags.env_file, host)?,
        workdir: flags.workdir.clone(),
        user: flags.user.clone(),
        hostname: flags.hostname.clone(),
        labels: labels(&flags.label_file, &flags.label, host)?,
        cpu_millis: flags.cpus.as_deref().map(cpus).transpose()?,
        memory_bytes: optional_size("memory", flags.memory.as_deref())?,
        pids: pids(flags.pids_limit)?,
        read_only: flags.read_only,
        cap_add: flags.cap_add.clone(),
        cap_drop: flags.cap_drop.clone(),
        privileged: flags.privileged,
        // The last one counts.
        no_new_privileges: collect(&flags.security_opt, security_option)?
            .last()
            .is_some_and(|on| *on),
        kernel: flags.kernel.as_deref().map(|path| absolute(path, host)).transpose()?,
        driver: flags.driver.clone(),
        network: network(flags.network.as_deref())?,
        allow_host: flags.allow_host,
        publish: publish(&flags.publish)?,
        dns: collect(&flags.dns, name_server)?,
        dns_search: flags.dns_search.clone(),
        dns_options: flags.dns_option.clone(),
        hosts: collect(&flags.add_host, host_entry)?,
        ulimits: collect(&flags.ulimit, ulimit)?,
        tmpfs: collect(&flags.tmpfs, tmpfs)?,
        shm_bytes: optional_size("shm-size", flags.shm_size.as_deref())?,
        stop_signal: flags.stop_signal.clone(),
        stop_timeout_seconds: flags.stop_timeout,
        open_stdin: flags.interactive,
        terminal: flags.tty,
        auto_remove,
    })
}

/// Variables from files, then from options, which win. A name alone takes the value it has here,
/// and is left out where it has none.
pub(crate) fn environment(
    options: &[String],
    paths: &[PathBuf],
    host: &Host<'_>,
) -> Result<Vec<String>> {
    let mut entries = Vec::new();
    for path in paths {
        entries.extend(files::entries(host, path)?);
    }
    for option in options {
        if option.is_empty() || option.starts_with('=') {
            return Err(Failure::argument(format!("--env {option:?} has no name")));
        }
        entries.push(option.clone());
    }
    Ok(entries
        .into_iter()
        .filter_map(|entry| {
            if entry.contains('=') {
                return Some(entry);
            }
            (host.env)(&entry).map(|value| format!("{entry}={value}"))
        })
        .collect())
}

/// Refuses an image for another kind of machine.
pub(crate) fn host_platform_only(platform: &str) -> Result<()> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    if platform == format!("linux/{architecture}") {
        return Ok(());
    }
    Err(Failure::unsupported(format!("--platform {platform}: other machines are not emulated"))
        .with_hint(format!("this host runs linux/{architecture}")))
}

fn collect<T>(texts: &[String], parse: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    texts.iter().map(|text| parse(text)).collect()
}

/// A name that a container can have.
pub(super) fn checked_name(name: Option<&str>) -> Result<Option<String>> {
    let Some(name) = name else { return Ok(None) };
    name.parse::<Name>().map_err(|error| Failure::argument(error.to_string()))?;
    Ok(Some(name.to_owned()))
}

/// The ports that all `--publish` mean.
pub(super) fn publish(texts: &[String]) -> Result<Vec<Port>> {
    Ok(collect(texts, port::publish)?.into_iter().flatten().collect())
}

pub(super) fn optional_size(option: &str, text: Option<&str>) -> Result<Option<u64>> {
    text.map(|text| size(option, text)).transpose()
}

fn entrypoint(program: String) -> Vec<String> {
    if program.is_empty() { Vec::new() } else { vec![program] }
}

/// Labels from files, then from options, which win.
pub(super) fn labels(
    paths: &[PathBuf],
    options: &[String],
    host: &Host<'_>,
) -> Result<BTreeMap<String, String>> {
    let mut entries = Vec::new();
    for path in paths {
        entries.extend(files::entries(host, path)?);
    }
    entries.extend(options.iter().cloned());
    entries
        .into_iter()
        .map(|entry| match entry.split_once('=').unwrap_or((&entry, "")) {
            ("", _) => Err(Failure::argument(format!("--label {entry:?} has no name"))),
            (name, value) => Ok((name.to_owned(), value.to_owned())),
        })
        .collect()
}

fn pids(limit: Option<i64>) -> Result<Option<u32>> {
    match limit {
        // Docker's ways to say "any number".
        None | Some(-1 | 0) => Ok(None),
        Some(limit) => u32::try_from(limit).map(Some).map_err(|_| {
            Failure::argument(format!("--pids-limit {limit} is no number of processes"))
        }),
    }
}

pub(super) fn network(mode: Option<&str>) -> Result<NetworkMode> {
    match mode {
        None | Some("user" | "default") => Ok(NetworkMode::User),
        Some("none") => Ok(NetworkMode::None),
        Some(other) => Err(Failure::unsupported(format!(
            "--network {other}: such networks are not supported yet"
        ))
        .with_hint("use user, which reaches out and takes published ports, or none")),
    }
}

pub(super) fn absolute(path: &Path, host: &Host<'_>) -> Result<String> {
    let path = host.folder.join(path);
    path.into_os_string()
        .into_string()
        .map_err(|path| Failure::argument(format!("path {} is not UTF-8", path.display())))
}

#[cfg(test)]
mod tests;
