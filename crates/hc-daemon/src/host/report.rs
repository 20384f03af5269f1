// SPDX-License-Identifier: Apache-2.0
//! What was found about KVM and the drivers, as the API tells it.

use hc_api::{DriverReport, KvmReport, KvmState};
use hc_kvm_probe::{Places, Probe, Speed};
use hc_pod::config::{DriverConfig, TransportConfig};

use super::choice::Findings;

/// What became of a guest under KVM.
pub(crate) fn kvm(probe: &Probe) -> KvmReport {
    let state = match probe {
        Probe::Usable(_) => KvmState::Usable,
        Probe::Shadowed(_) => KvmState::NoNestedPaging,
        Probe::Emulated(_) => KvmState::Emulated,
        Probe::NoPermission => KvmState::NoPermission,
        Probe::Absent => KvmState::Absent,
        Probe::Busy => KvmState::Busy,
        Probe::Broken(_) => KvmState::Broken,
    };
    let speed = probe.speed();
    // The rest is not measured where kernels are emulated.
    let native = speed.filter(|_| state != KvmState::Emulated);
    let rate = |speed: Option<Speed>, rate: fn(Speed) -> u64| speed.map(rate);
    KvmReport {
        device: Places::default().device.display().to_string(),
        state,
        usable: probe.is_usable(),
        finding: probe.to_string(),
        hint: probe.hint().map(str::to_owned),
        loops_per_second: rate(speed, |speed| speed.loops_per_second),
        page_table_changes_per_second: rate(native, |speed| speed.switches_per_second),
        exits_per_second: rate(native, |speed| speed.exits_per_second),
    }
}

/// What was found about every driver, best first.
pub(crate) fn drivers(findings: &Findings) -> Vec<DriverReport> {
    DriverConfig::ALL.map(|driver| report(findings, driver)).to_vec()
}

fn report(findings: &Findings, driver: DriverConfig) -> DriverReport {
    let what = match driver {
        DriverConfig::Kvm => "built in, on the processor",
        DriverConfig::QemuKvm => "QEMU, on the processor",
        DriverConfig::QemuTcg => "QEMU, which translates guests: runs anywhere, slowly",
    };
    let name = driver.name().to_owned();
    match findings.hypervisor(driver) {
        Ok(hypervisor) => DriverReport {
            name,
            usable: true,
            finding: what.into(),
            program: Some(hypervisor.program.display().to_string()),
            transports: hypervisor.transports.iter().map(|each| transport(*each)).collect(),
            hint: None,
        },
        Err(obstacle) => DriverReport {
            name,
            usable: false,
            finding: obstacle.reason,
            program: None,
            transports: Vec::new(),
            hint: obstacle.hint,
        },
    }
}

fn transport(transport: TransportConfig) -> String {
    match transport {
        TransportConfig::Mmio => "mmio".into(),
        TransportConfig::Pci => "pci".into(),
    }
}
