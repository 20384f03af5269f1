// SPDX-License-Identifier: Apache-2.0
//! The requests of `clone`, `run --snapshot` and `template create`.
//!
//! A container that goes on from a copy keeps what it was copied with: its program runs already. So
//! of the options of `run`, only those are taken that are about its surroundings; every other is
//! refused by name, and [`settled`] does not compile with an option that it was not told of.

use hc_api::{CloneContainer, CreateTemplate, NetworkMode};

use super::Host;
use super::create::{absolute, checked_name, labels, network, optional_size, publish};
use super::scalar::cpus;
use crate::args::{CloneArgs, CreateFlags, CreateTemplateArgs};
use crate::failure::{Failure, Result};

/// What to do about an option that a snapshot cannot honour.
const HINT: &str = "it goes on as it was copied; what can be chosen is \
    --name, --hostname, --publish, --label and --rm";

/// The copy to make of a running container.
pub(crate) fn clone_container(args: &CloneArgs, host: &Host<'_>) -> Result<CloneContainer> {
    Ok(CloneContainer {
        name: checked_name(args.name.as_deref())?,
        hostname: args.hostname.clone(),
        publish: publish(&args.publish)?,
        labels: labels(&[], &args.label, host)?,
        auto_remove: args.rm,
    })
}

/// The container to make of a snapshot, by what `run` was told.
pub(crate) fn from_snapshot(
    snapshot: &str,
    flags: &CreateFlags,
    auto_remove: bool,
    host: &Host<'_>,
) -> Result<CloneContainer> {
    if snapshot.is_empty() {
        return Err(Failure::argument("no snapshot is named"));
    }
    if let Some((option, reason)) = flags.refused.found {
        return Err(Failure::unsupported(format!("--{option}: {reason}")).with_hint(HINT));
    }
    if let Some(image) = flags.image_and_command.first() {
        return Err(Failure::argument(format!(
            "--snapshot and the image {image:?} are both named"
        ))
        .with_hint("leave the image and its command out: the snapshot has both"));
    }
    let settled = settled(flags);
    if !settled.is_empty() {
        let options = settled.join(", ");
        return Err(Failure::argument(format!("{options}: settled when the snapshot was taken"))
            .with_hint(HINT));
    }
    Ok(CloneContainer {
        name: checked_name(flags.name.as_deref())?,
        hostname: flags.hostname.clone(),
        publish: publish(&flags.publish)?,
        labels: labels(&flags.label_file, &flags.label, host)?,
        auto_remove,
    })
}

/// The options that were given and that a snapshot has settled.
fn settled(flags: &CreateFlags) -> Vec<&'static str> {
    // Every field is named, so that whoever adds an option decides about it here.
    #[rustfmt::skip]
    let CreateFlags {
        image_and_command: _, interactive: _, name: _, hostname: _, publish: _, label: _,
        label_file: _, cidfile: _, quiet: _, refused: _, help: _,
        tty, entrypoint, env, env_file, workdir, user, cpus, memory, pids_limit, read_only,
        cap_add, cap_drop, privileged, security_opt, kernel, driver, network, allow_host, add_host,
        dns, dns_search, dns_option, ulimit, tmpfs, shm_size, stop_signal, stop_timeout, pull,
        platform,
    } = flags;
    let given = [
        ("--tty", *tty),
        ("--entrypoint", entrypoint.is_some()),
        ("--env", !env.is_empty()),
        ("--env-file", !env_file.is_empty()),
        ("--workdir", workdir.is_some()),
        ("--user", user.is_some()),
        ("--cpus", cpus.is_some()),
        ("--memory", memory.is_some()),
        ("--pids-limit", pids_limit.is_some()),
        ("--read-only", *read_only),
        ("--cap-add", !cap_add.is_empty()),
        ("--cap-drop", !cap_drop.is_empty()),
        ("--privileged", *privileged),
        ("--security-opt", !security_opt.is_empty()),
        ("--kernel", kernel.is_some()),
        ("--driver", driver.is_some()),
        ("--network", network.is_some()),
        ("--allow-host", *allow_host),
        ("--add-host", !add_host.is_empty()),
        ("--dns", !dns.is_empty()),
        ("--dns-search", !dns_search.is_empty()),
        ("--dns-option", !dns_option.is_empty()),
        ("--ulimit", !ulimit.is_empty()),
        ("--tmpfs", !tmpfs.is_empty()),
        ("--shm-size", shm_size.is_some()),
        ("--stop-signal", stop_signal.is_some()),
        ("--stop-timeout", stop_timeout.is_some()),
        ("--pull", pull.is_some()),
        ("--platform", platform.is_some()),
    ];
    given.into_iter().filter(|(_, given)| *given).map(|(option, _)| option).collect()
}

/// The template to make.
pub(crate) fn create_template(
    args: &CreateTemplateArgs,
    host: &Host<'_>,
) -> Result<CreateTemplate> {
    Ok(CreateTemplate {
        memory_bytes: optional_size("memory", args.memory.as_deref())?,
        cpu_millis: args.cpus.as_deref().map(cpus).transpose()?,
        driver: args.driver.clone(),
        kernel: args.kernel.as_deref().map(|path| absolute(path, host)).transpose()?,
        no_network: network(args.network.as_deref())? == NetworkMode::None,
    })
}

#[cfg(test)]
mod tests;
