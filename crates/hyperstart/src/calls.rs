// SPDX-License-Identifier: Apache-2.0
//! What the host can ask for, carried out.

use std::collections::btree_map::Entry;
use std::io::Read as _;

use hc_proto::message::{Answer, Call, Identity, PodSetup, ProcessId, Request, Spawn, Stats};
use hc_spec::{ContainerSpec, Id, Signal};

use crate::cgroup::Cgroup;
use crate::container::{Container, Phase, no_container};
use crate::device_rules::DeviceRules;
use crate::error::{Attempt as _, Error, Result};
use crate::helper::Helper;
use crate::init::{Init, kill_deadline};
use crate::process::{Process, Surroundings};
use crate::{list, setup, stage};

/// The most that is read of `/proc/net/dev`.
const NET_DEV_MAX: u64 = 64 * 1024;

impl Init {
    /// Carries out one request. Some are answered later, by what happens then.
    pub(crate) fn answer(&mut self, request: Request) {
        let id = request.id;
        let result = match request.call {
            Call::SetUp(pod) => self.set_up(pod).map(|()| Some(Answer::Done)),
            Call::CreateContainer(spec) => {
                self.create_container(&spec).map(|()| Some(Answer::Done))
            }
            Call::Spawn(spawn) => {
                let streams = [spawn.stdin, spawn.stdout, spawn.stderr];
                let spawned = self.spawn(id, &spawn).map(|()| None);
                if spawned.is_err() {
                    self.give_up_streams(streams.into_iter().flatten());
                }
                spawned
            }
            Call::Signal { container, process, signal } => {
                self.signal(&container, process, signal).map(|()| Some(Answer::Done))
            }
            Call::Resize { process, size } => self
                .process(process)
                .and_then(|process| process.resize(size))
                .map(|()| Some(Answer::Done)),
            Call::Stats { container } => {
                self.stats(&container).map(|stats| Some(Answer::Stats(stats)))
            }
            Call::Processes { container } => self.list(id, &container).map(|()| None),
            Call::Park => self.park().map(|()| Some(Answer::Done)),
            Call::Renew(identity) => self.renew(identity).map(|()| Some(Answer::Done)),
            Call::SetClock { unix_nanos, entropy } => {
                setup::set_clock(unix_nanos, &entropy).map(|()| Some(Answer::Done))
            }
            Call::Shutdown => {
                self.shut_down(id);
                Ok(None)
            }
        };
        match result {
            Ok(Some(answer)) => self.reply(id, Ok(answer)),
            Ok(None) => {}
            Err(error) => self.reply(id, Err(error.into())),
        }
    }

    fn park(&mut self) -> Result<()> {
        if !self.containers.is_empty() || !self.processes.is_empty() {
            return Err(Error::invalid("the pod has containers"));
        }
        self.pod = None;
        if self.next_group.is_none() {
            let cgroup = self.new_group(false)?;
            stage::mount(false, cgroup.path())?;
            self.next_group = Some(cgroup);
        }
        self.kept.park()
    }

    fn set_up(&mut self, pod: PodSetup) -> Result<()> {
        if self.pod.is_some() {
            return Err(Error::invalid("the pod is set up already"));
        }
        self.kept.set_up(&pod)?;
        self.pod = Some(pod);
        Ok(())
    }

    fn renew(&mut self, identity: Identity) -> Result<()> {
        let Some(pod) = &mut self.pod else {
            return Err(Error::invalid("the pod is not set up"));
        };
        self.kept.take_on(&identity)?;
        pod.identity = identity;
        Ok(())
    }

    fn create_container(&mut self, spec: &ContainerSpec) -> Result<()> {
        if self.pod.is_none() {
            return Err(Error::invalid("the pod is not set up"));
        }
        match self.containers.entry(spec.id.clone()) {
            Entry::Occupied(_) => {
                Err(Error::invalid(format!("container {} exists already", spec.id.short())))
            }
            Entry::Vacant(_) => {
                let (cgroup, is_staged) = self.control_group(spec.privileged)?;
                let created = Container::create(spec, cgroup, is_staged);
                if is_staged {
                    // The container has it now, or nobody.
                    stage::unmount_all()?;
                }
                self.containers.insert(spec.id.clone(), created?);
                Ok(())
            }
        }
    }

    /// The control group of a new container, and whether the stage is set for it.
    fn control_group(&mut self, privileged: bool) -> Result<(Cgroup, bool)> {
        match self.next_group.take() {
            Some(cgroup) if !privileged => Ok((cgroup, true)),
            unfit => {
                if let Some(cgroup) = unfit {
                    stage::unmount_all()?;
                    cgroup.remove();
                }
                self.new_group(privileged).map(|cgroup| (cgroup, false))
            }
        }
    }

    fn new_group(&mut self, privileged: bool) -> Result<Cgroup> {
        let cgroup = Cgroup::create(self.groups)?;
        self.groups += 1;
        if !privileged {
            // Loaded once: the kernel's verifier is most of what it costs.
            let rules = match &mut self.device_rules {
                Some(rules) => rules,
                none => none.insert(DeviceRules::load().attempt(|| "load device rules".into())?),
            };
            rules.restrict(&cgroup).attempt(|| "restrict devices".into())?;
        }
        Ok(cgroup)
    }

    fn spawn(&mut self, request: u64, call: &Spawn) -> Result<()> {
        let Some(container) = self.containers.get_mut(&call.container) else {
            return Err(no_container(&call.container));
        };
        if self.processes.contains_key(&call.process) {
            return Err(Error::invalid(format!("process {} exists already", call.process)));
        }
        match (call.main, container.phase) {
            (_, Phase::Ending(..)) => return Err(no_container(&call.container)),
            (true, Phase::Running(_)) => {
                return Err(Error::invalid("the container has its main process already"));
            }
            (true | false, Phase::Created) | (false, Phase::Running(_)) => {}
        }
        let around = Surroundings {
            watch: &self.watch,
            null: &self.null,
            hostname: self.pod.as_ref().map_or("", |pod| pod.identity.hostname.as_str()),
        };
        let process = Process::spawn(request, call, container, &around)?;
        if call.main {
            container.phase = Phase::Running(call.process);
        }
        self.processes.insert(call.process, process);
        self.adopt_streams(call.process);
        Ok(())
    }

    fn signal(&self, container: &Id, process: Option<ProcessId>, signal: Signal) -> Result<()> {
        match process {
            Some(process) => self.process(process)?.signal(signal),
            None => self.container(container)?.cgroup.signal(signal),
        }
    }

    fn stats(&self, container: &Id) -> Result<Stats> {
        let guest_memory = guest_memory();
        let mut stats = self.container(container)?.cgroup.stats(guest_memory);
        let mut text = String::new();
        std::fs::File::open("/proc/net/dev")
            .and_then(|file| file.take(NET_DEV_MAX).read_to_string(&mut text))
            .attempt(|| "read /proc/net/dev".into())?;
        (stats.network_rx_bytes, stats.network_tx_bytes) = network_bytes(&text);
        Ok(stats)
    }

    fn list(&mut self, request: u64, container: &Id) -> Result<()> {
        let pids = self.container(container)?.cgroup.processes();
        let number = (0..=u32::MAX)
            .find(|number| !self.helpers.contains_key(number))
            .ok_or_else(|| Error::system("too many helpers"))?;
        let helper = Helper::fork(number, request, &self.watch, || {
            Ok(Answer::Processes(list::rows(&pids)))
        })?;
        self.helpers.insert(number, helper);
        Ok(())
    }

    fn shut_down(&mut self, request: u64) {
        for container in self.containers.values() {
            // What cannot be killed is left behind when the deadline is over.
            let _ = container.cgroup.kill();
        }
        self.shutdown = Some((request, kill_deadline()));
    }

    fn container(&self, id: &Id) -> Result<&Container> {
        self.containers.get(id).ok_or_else(|| no_container(id))
    }

    fn process(&self, id: ProcessId) -> Result<&Process> {
        self.processes
            .get(&id)
            .filter(|process| process.exit.is_none())
            .ok_or_else(|| Error::not_found(format!("process {id} is not running")))
    }
}

/// The guest's memory in bytes.
fn guest_memory() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}

/// Bytes received and sent by all interfaces but loopback, from the text of `/proc/net/dev`.
fn network_bytes(text: &str) -> (u64, u64) {
    text.lines()
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let mut numbers = counters.split_ascii_whitespace().map(str::parse::<u64>);
            let received = numbers.next()?.ok()?;
            let sent = numbers.nth(7)?.ok()?;
            (name.trim() != "lo").then_some((received, sent))
        })
        .fold((0, 0), |(r, s), (received, sent)| {
            (u64::saturating_add(r, received), u64::saturating_add(s, sent))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_counters_leave_loopback_out() {
        let text = "Inter-|   Receive                    |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes packets\n    \
            lo: 11 1 0 0 0 0 0 0 11 1 0 0 0 0 0 0\n  \
            eth0: 1000 2 0 0 0 0 0 0 300 4 0 0 0 0 0 0\n  \
            eth1:20 2 0 0 0 0 0 0 7 4 0 0 0 0 0 0\n";
        assert_eq!(network_bytes(text), (1020, 307));
        assert_eq!(network_bytes("garbage: x"), (0, 0));
    }
}
