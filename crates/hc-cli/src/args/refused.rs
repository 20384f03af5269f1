// SPDX-License-Identifier: Apache-2.0
//! Options that Docker has and we do not: known by name, so that the answer is a reason and not
//! "unexpected argument", and so that none is ever ignored in silence.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// An option that is refused.
struct Refused {
    long: &'static str,
    short: Option<char>,
    takes_value: bool,
    /// Why, as a whole sentence without its full stop.
    reason: &'static str,
}

const VOLUMES: &str = "volumes are not supported yet";
const DEVICES: &str = "host devices are not supported yet";
const NETWORKS: &str = "networks other than none and user are not supported yet";
const HEALTH: &str = "health checks are not supported yet";
const LOGS: &str = "output is always kept by the pod, log drivers are not supported";
const SHARED: &str = "a pod's VM is its own boundary, so host namespaces cannot be chosen";
const CPU: &str = "only --cpus limits the processor";
const MEMORY: &str = "only --memory limits memory";
const BLOCK: &str = "limits on disks are not supported yet";

const fn value(long: &'static str, reason: &'static str) -> Refused {
    Refused { long, short: None, takes_value: true, reason }
}

const fn short(long: &'static str, short: char, reason: &'static str) -> Refused {
    Refused { long, short: Some(short), takes_value: true, reason }
}

const fn switch(long: &'static str, short: Option<char>, reason: &'static str) -> Refused {
    Refused { long, short, takes_value: false, reason }
}

const REFUSED: &[Refused] = &[
    short("volume", 'v', VOLUMES),
    value("mount", VOLUMES),
    value("volumes-from", VOLUMES),
    value("volume-driver", VOLUMES),
    value("storage-opt", "storage options are not supported"),
    value("restart", "restart policies are not supported yet"),
    value("gpus", DEVICES),
    value("device", DEVICES),
    value("device-cgroup-rule", DEVICES),
    value("network-alias", NETWORKS),
    value("net-alias", NETWORKS),
    value("ip", NETWORKS),
    value("ip6", NETWORKS),
    value("link", NETWORKS),
    value("link-local-ip", NETWORKS),
    value("mac-address", NETWORKS),
    value("expose", "every port of a pod is open to itself alone; use --publish"),
    switch("publish-all", Some('P'), "name each port with --publish"),
    value("domainname", "domain names are not supported; use --hostname"),
    value("ipc", SHARED),
    value("pid", SHARED),
    value("uts", SHARED),
    value("userns", SHARED),
    value("cgroupns", SHARED),
    value("cgroup-parent", SHARED),
    value("isolation", SHARED),
    value("runtime", "there is no choice of runtime; use --driver for the hypervisor"),
    switch("init", None, "every pod has an init that reaps; leave the option out"),
    value("log-driver", LOGS),
    value("log-opt", LOGS),
    value("health-cmd", HEALTH),
    value("health-interval", HEALTH),
    value("health-retries", HEALTH),
    value("health-start-interval", HEALTH),
    value("health-start-period", HEALTH),
    value("health-timeout", HEALTH),
    switch("no-healthcheck", None, HEALTH),
    value("memory-swap", MEMORY),
    value("memory-reservation", MEMORY),
    value("memory-swappiness", MEMORY),
    value("kernel-memory", MEMORY),
    switch("oom-kill-disable", None, MEMORY),
    value("oom-score-adj", MEMORY),
    short("cpu-shares", 'c', CPU),
    value("cpu-count", CPU),
    value("cpu-percent", CPU),
    value("cpu-period", CPU),
    value("cpu-quota", CPU),
    value("cpu-rt-period", CPU),
    value("cpu-rt-runtime", CPU),
    value("cpuset-cpus", CPU),
    value("cpuset-mems", CPU),
    value("blkio-weight", BLOCK),
    value("blkio-weight-device", BLOCK),
    value("device-read-bps", BLOCK),
    value("device-read-iops", BLOCK),
    value("device-write-bps", BLOCK),
    value("device-write-iops", BLOCK),
    value("io-maxbandwidth", BLOCK),
    value("io-maxiops", BLOCK),
    value("sysctl", "kernel parameters are not supported yet"),
    value("group-add", "further groups are not supported yet; the image's own are set"),
    value("annotation", "annotations are not supported; use --label"),
    switch("disable-content-trust", None, "image signatures are not supported yet"),
    switch("use-api-socket", None, "the daemon's socket cannot be given to a container"),
];

/// The first option found that is refused.
#[derive(Debug, Default)]
pub(crate) struct RefusedFlags {
    /// Its name and the reason.
    pub(crate) found: Option<(&'static str, &'static str)>,
}

impl FromArgMatches for RefusedFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<RefusedFlags, clap::Error> {
        let given = |refused: &&Refused| {
            matches.value_source(refused.long) == Some(clap::parser::ValueSource::CommandLine)
        };
        let found = REFUSED.iter().find(given).map(|refused| (refused.long, refused.reason));
        Ok(RefusedFlags { found })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = RefusedFlags::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for RefusedFlags {
    fn augment_args(command: Command) -> Command {
        command.args(REFUSED.iter().map(|refused| {
            let arg = Arg::new(refused.long).long(refused.long).hide(true);
            let arg = refused.short.into_iter().fold(arg, Arg::short);
            if refused.takes_value {
                arg.action(ArgAction::Append).allow_hyphen_values(true)
            } else {
                arg.action(ArgAction::SetTrue)
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        RefusedFlags::augment_args(command)
    }
}
