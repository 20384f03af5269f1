// SPDX-License-Identifier: Apache-2.0
//! Which driver runs a pod, and why: a pure function of what was found.
//!
//! A driver that somebody named is used or refused, never replaced. Where nobody named one, the
//! first of [`DriverConfig::ALL`] is used that nothing stands in the way of, and the reason says
//! what stood in the way of those before it.

use std::path::PathBuf;

use hc_api::ErrorKind;
use hc_kvm_probe::Probe;
use hc_pod::config::{DriverConfig, TransportConfig};
use serde::Deserialize;

use crate::failure::{Failure, Result};

/// The name that stands for whichever QEMU driver works.
const QEMU: &str = "qemu";

/// What somebody asks for, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Wanted {
    /// This driver.
    One(DriverConfig),
    /// QEMU, with the host's virtualisation where that works.
    Qemu,
}

impl Wanted {
    fn name(self) -> &'static str {
        match self {
            Wanted::One(driver) => driver.name(),
            Wanted::Qemu => QEMU,
        }
    }

    /// The drivers that will do, best first.
    fn candidates(wanted: Option<Wanted>) -> impl Iterator<Item = DriverConfig> {
        DriverConfig::ALL.into_iter().filter(move |driver| match wanted {
            None => true,
            Some(Wanted::One(wanted)) => *driver == wanted,
            Some(Wanted::Qemu) => driver.name().starts_with(QEMU),
        })
    }
}

/// Nothing is called that.
#[derive(Debug, thiserror::Error)]
#[error("unknown driver {name:?}: use one of {}", names())]
pub(crate) struct UnknownDriver {
    name: String,
}

fn names() -> String {
    let mut names = DriverConfig::ALL.map(DriverConfig::name).to_vec();
    names.push(QEMU);
    names.join(", ")
}

impl TryFrom<String> for Wanted {
    type Error = UnknownDriver;

    fn try_from(name: String) -> Result<Wanted, UnknownDriver> {
        if name == QEMU {
            return Ok(Wanted::Qemu);
        }
        let driver = DriverConfig::ALL.into_iter().find(|driver| driver.name() == name);
        driver.map(Wanted::One).ok_or(UnknownDriver { name })
    }
}

impl From<UnknownDriver> for Failure {
    fn from(error: UnknownDriver) -> Failure {
        Failure::invalid(error.to_string())
    }
}

/// The driver for a pod, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) driver: DriverConfig,
    pub(crate) reason: String,
}

/// What the choice rests on.
#[derive(Clone, Debug)]
pub(crate) struct Findings {
    /// What became of a guest under KVM.
    pub(crate) kvm: Probe,
    /// Our own hypervisor, if it is installed.
    pub(crate) built_in: Result<Hypervisor, Obstacle>,
    /// Whether a hypervisor that runs as another user than we do may open KVM's device. Ours needs
    /// not to: it is handed an open one.
    pub(crate) others_may_open: Result<(), Obstacle>,
    /// QEMU, if it is installed.
    pub(crate) qemu: Result<Hypervisor, Obstacle>,
}

/// A hypervisor that is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hypervisor {
    pub(crate) program: PathBuf,
    /// How the kernels that it boots may find their devices.
    pub(crate) transports: Vec<TransportConfig>,
}

/// What stands in the way of a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// One sentence.
    pub(crate) reason: String,
    /// What could be done about it.
    pub(crate) hint: Option<String>,
}

impl Findings {
    /// The driver's hypervisor, or why it can run no pod here.
    pub(crate) fn hypervisor(&self, driver: DriverConfig) -> Result<&Hypervisor, Obstacle> {
        let (installed, needs_kvm) = match driver {
            DriverConfig::Kvm => (&self.built_in, true),
            DriverConfig::QemuKvm => (&self.qemu, true),
            DriverConfig::QemuTcg => (&self.qemu, false),
        };
        if needs_kvm && !self.kvm.is_usable() {
            let hint = self.kvm.hint().map(str::to_owned);
            return Err(Obstacle { reason: self.kvm.to_string(), hint });
        }
        if driver == DriverConfig::QemuKvm {
            self.others_may_open.clone()?;
        }
        installed.as_ref().map_err(Clone::clone)
    }

    /// What stands in the way of running a pod whose kernel finds its devices like this.
    fn obstacle(&self, driver: DriverConfig, transport: TransportConfig) -> Option<Obstacle> {
        match self.hypervisor(driver) {
            Err(obstacle) => Some(obstacle),
            Ok(hypervisor) if hypervisor.transports.contains(&transport) => None,
            Ok(_) => Some(match transport {
                TransportConfig::Mmio => Obstacle {
                    reason: "it has no virtio-mmio, by which the kernel finds its devices".into(),
                    hint: Some("use a kernel with PCI, or another driver".into()),
                },
                TransportConfig::Pci => Obstacle {
                    reason: "it has no PCI bus, on which the kernel finds its devices".into(),
                    hint: Some("use a kernel with virtio-mmio built in, or another driver".into()),
                },
            }),
        }
    }

    /// The driver for a pod for which `wanted` was asked, by the user or by the configuration.
    pub(crate) fn choose(
        &self,
        wanted: Option<Wanted>,
        transport: TransportConfig,
    ) -> Result<Choice> {
        let mut passed = Vec::new();
        for driver in Wanted::candidates(wanted) {
            match self.obstacle(driver, transport) {
                Some(obstacle) => passed.push((driver, obstacle)),
                None if matches!(wanted, Some(Wanted::One(_))) => {
                    return Ok(Choice { driver, reason: "it was asked for".into() });
                }
                None => return Ok(Choice { driver, reason: self.reason(driver, &passed) }),
            }
        }
        let message = match (wanted, &passed[..]) {
            (Some(wanted), [(_, obstacle)]) => {
                format!("driver {} cannot be used here: {}", wanted.name(), obstacle.reason)
            }
            (Some(wanted), _) => {
                format!("driver {} cannot be used here: {}", wanted.name(), self.reasons(&passed))
            }
            (None, _) => format!("no driver can run this pod here: {}", self.reasons(&passed)),
        };
        let failure = Failure::new(ErrorKind::Unsupported, message);
        // The last driver is the one that asks least of a host.
        let hint = passed.pop().and_then(|(_, obstacle)| obstacle.hint);
        Err(match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        })
    }

    /// Why it is this driver, and none of those that were `passed` over.
    fn reason(&self, driver: DriverConfig, passed: &[(DriverConfig, Obstacle)]) -> String {
        let reasons = self.reasons(passed);
        match driver {
            DriverConfig::QemuTcg if passed.is_empty() => "it needs nothing of the host".into(),
            DriverConfig::QemuTcg => format!("{reasons}, so guests are translated by QEMU"),
            DriverConfig::Kvm | DriverConfig::QemuKvm if passed.is_empty() => self.kvm.to_string(),
            DriverConfig::Kvm | DriverConfig::QemuKvm => format!("{}; {reasons}", self.kvm),
        }
    }

    /// What stood in the way, each thing once: what holds for KVM as a whole, and all else with the
    /// drivers that it holds for.
    fn reasons(&self, passed: &[(DriverConfig, Obstacle)]) -> String {
        let mut reasons: Vec<(Vec<&str>, &str)> = Vec::new();
        for (driver, Obstacle { reason, .. }) in passed {
            match reasons.iter_mut().find(|(_, known)| known == reason) {
                Some((drivers, _)) => drivers.push(driver.name()),
                None => reasons.push((vec![driver.name()], reason)),
            }
        }
        let kvm = self.kvm.to_string();
        let sentence = |(drivers, reason): (Vec<&str>, &str)| {
            if reason == kvm {
                kvm.clone()
            } else {
                format!("not by {}: {reason}", drivers.join(" or "))
            }
        };
        reasons.into_iter().map(sentence).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests;
