// SPDX-License-Identifier: Apache-2.0
//! A guest that was held and written down: all of it but its memory, as the bytes of a file.
//!
//! ```text
//! | magic | version | length | checksum | JSON ...                         |
//! | 8     | 24      | 8      | 8        | as many bytes as the length says |
//! ```
//!
//! It is of one version of this program and of one shape of machine; others are refused. Each part
//! of the machine knows what it has to remember: `cpu/saved.rs`, `chips.rs`, `virtio/saved.rs`,
//! `devices/serial.rs`. What wrote the file is trusted, but the file may be damaged or cut short, so
//! it is read to its end and checked before anything is made of it.

pub(crate) mod plain;

use serde::{Deserialize, Serialize};

use crate::chips;
use crate::config::{Disk, Machine};
use crate::cpu;
use crate::devices::SavedSerial;
use crate::error::{Error, Result};
use crate::virtio::SavedSlot;

const MAGIC: &[u8; 8] = b"HYPERVMS";
/// Raised with each change of what is written.
const FORMAT: u32 = 1;
const VERSION_LEN: usize = 24;
const HEADER_LEN: usize = MAGIC.len() + VERSION_LEN + 8 + 8;
/// A machine of 254 vCPUs has some 5 MiB.
pub(crate) const MAX_LEN: usize = 16 << 20;

/// All of a machine but its memory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) shape: Shape,
    pub(crate) processor: cpu::Processor,
    pub(crate) vcpus: Vec<cpu::Saved>,
    pub(crate) chips: chips::Saved,
    pub(crate) serial: SavedSerial,
    pub(crate) slots: Vec<SavedSlot>,
}

/// What a machine has to have in common with the one that was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shape {
    vcpus: u32,
    memory_mib: u32,
    disks: Vec<Access>,
    card: bool,
    shares: usize,
}

/// What a guest may do with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Access {
    pub(crate) read_only: bool,
    pub(crate) durable: bool,
}

impl Access {
    pub(crate) fn of(disk: &Disk) -> Access {
        Access { read_only: disk.read_only, durable: disk.durable }
    }
}

impl Shape {
    pub(crate) fn of(machine: &Machine) -> Shape {
        Shape {
            vcpus: machine.vcpus,
            memory_mib: machine.memory_mib,
            disks: machine.disks.iter().map(Access::of).collect(),
            card: machine.card.is_some(),
            shares: machine.shares.len(),
        }
    }

    /// Refuses what cannot be saved.
    pub(crate) fn can_be_saved(&self) -> Result<()> {
        if self.shares > 0 {
            let reason = "a guest with shared folders cannot be saved or go on from a copy";
            return Err(Error::Senseless(reason.to_owned()));
        }
        Ok(())
    }

    /// Refuses to go on as a machine of another shape.
    fn fits(&self, machine: &Shape) -> Result<()> {
        let differences = [
            ("processors", self.vcpus != machine.vcpus),
            ("memory", self.memory_mib != machine.memory_mib),
            ("disks", self.disks != machine.disks),
            ("network card", self.card != machine.card),
            ("shared folders", self.shares != machine.shares),
        ];
        match differences.iter().find(|(_, differs)| *differs) {
            None => Ok(()),
            Some((what, _)) => Err(Error::Saved(format!("it was saved with other {what}"))),
        }
    }
}

impl State {
    /// The bytes of a file.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let body = serde_json::to_vec(self)
            .map_err(|error| Error::Saved(format!("it cannot be written: {error}")))?;
        let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
        bytes.extend(MAGIC);
        bytes.extend(version());
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(checksum(&body).to_le_bytes());
        bytes.extend(body);
        if bytes.len() > MAX_LEN {
            return Err(Error::Saved(format!(
                "it has {} bytes, and may have {MAX_LEN}",
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    /// Reads the bytes of a file, which is to be a machine of this shape.
    pub(crate) fn decode(bytes: &[u8], shape: &Shape) -> Result<State> {
        let damaged = |what: &str| Error::Saved(format!("its file {what}"));
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("is none, or is damaged"))?;
        let cut = || damaged("is cut short");
        let (saved_by, rest) = rest.split_first_chunk::<VERSION_LEN>().ok_or_else(cut)?;
        if *saved_by != version() {
            let name = |bytes: &[u8]| bytes.trim_ascii_end().escape_ascii().to_string();
            let (theirs, ours) = (name(saved_by), name(&version()));
            return Err(Error::Saved(format!("version {theirs} saved it, and this is {ours}")));
        }
        let (len, rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let (sum, body) = rest.split_first_chunk().ok_or_else(cut)?;
        if body.len() as u64 != u64::from_le_bytes(*len) {
            return Err(cut());
        }
        if checksum(body) != u64::from_le_bytes(*sum) {
            return Err(damaged("is damaged"));
        }
        let state: State = serde_json::from_slice(body)
            .map_err(|error| damaged(&format!("makes no sense: {error}")))?;
        state.shape.fits(shape)?;
        if u32::try_from(state.vcpus.len()) != Ok(shape.vcpus) {
            return Err(damaged("makes no sense: its processors do not add up"));
        }
        Ok(state)
    }
}

/// The version of this program and of what it writes, filled up with spaces.
fn version() -> [u8; VERSION_LEN] {
    let mut padded = [b' '; VERSION_LEN];
    let text = format!("{}/{FORMAT}", env!("CARGO_PKG_VERSION"));
    for (byte, value) in padded.iter_mut().zip(text.bytes()) {
        *byte = value;
    }
    padded
}

/// Tells a damaged file (FNV-1a). It is no defence against somebody who wants to change one.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
