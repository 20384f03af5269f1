// SPDX-License-Identifier: Apache-2.0
//! KVM's structures as text: their bytes, in hexadecimal digits.
//!
//! The kernel promises never to change them, and this program does not look inside.
#![expect(unsafe_code, reason = "structures as bytes, and back")]

use kvm_bindings::{
    kvm_cpuid_entry2, kvm_debugregs, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_pit_state2,
    kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};

/// A structure that is made of nothing but integers.
///
/// # Safety
///
/// Every bit pattern is a value, and there is no padding between or behind the fields.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: structures of the kernel's interface with integers only, laid out so that 32-bit and
// 64-bit programs agree, which leaves no room for padding. `kvm-bindings` derives the same of them
// with `zerocopy`, where that is asked for.
unsafe impl Plain for kvm_cpuid_entry2 {}
// SAFETY: as above.
unsafe impl Plain for kvm_debugregs {}
// SAFETY: as above; the union in it has one variant of its full size.
unsafe impl Plain for kvm_irqchip {}
// SAFETY: as above.
unsafe impl Plain for kvm_lapic_state {}
// SAFETY: as above.
unsafe impl Plain for kvm_mp_state {}
// SAFETY: as above.
unsafe impl Plain for kvm_pit_state2 {}
// SAFETY: as above.
unsafe impl Plain for kvm_regs {}
// SAFETY: as above.
unsafe impl Plain for kvm_sregs {}
// SAFETY: as above.
unsafe impl Plain for kvm_vcpu_events {}
// SAFETY: as above.
unsafe impl Plain for kvm_xcrs {}

pub(crate) fn serialize<T: Plain, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&hex(bytes(value)))
}

pub(crate) fn deserialize<'de, T: Plain, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    let digits = String::deserialize(from)?;
    let bytes = unhex(&digits).ok_or_else(|| D::Error::custom("not hexadecimal digits"))?;
    value(&bytes).ok_or_else(|| D::Error::custom("a structure of another length"))
}

fn bytes<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: there is no padding, so all bytes of it have a value.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

fn value<T: Plain>(bytes: &[u8]) -> Option<T> {
    // SAFETY: there are as many bytes, and any of them make a value.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |number: u8| char::from(DIGITS[usize::from(number)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

/// The same for what may or may not be there.
pub(crate) mod option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Plain;

    #[derive(Serialize, Deserialize)]
    #[serde(bound = "")]
    struct Whole<T: Plain>(#[serde(with = "super")] T);

    #[expect(clippy::ref_option, reason = "serde passes it so")]
    pub(crate) fn serialize<T: Plain, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Whole).serialize(to)
    }

    pub(crate) fn deserialize<'de, T: Plain, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        Ok(Option::<Whole<T>>::deserialize(from)?.map(|Whole(value)| value))
    }
}

/// The same for lists.
pub(crate) mod list {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Plain, bytes, hex, unhex, value};

    pub(crate) fn serialize<T: Plain, S: Serializer>(
        values: &[T],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&values.iter().map(|value| hex(bytes(value))).collect::<String>())
    }

    pub(crate) fn deserialize<'de, T: Plain, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        let bytes = unhex(&String::deserialize(from)?)
            .ok_or_else(|| D::Error::custom("not hexadecimal digits"))?;
        let values = bytes.chunks(size_of::<T>()).map(value).collect::<Option<_>>();
        values.ok_or_else(|| D::Error::custom("structures of another length"))
    }
}

/// The same for bytes.
pub(crate) mod raw {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{hex, unhex};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        unhex(&String::deserialize(from)?).ok_or_else(|| D::Error::custom("not hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct All {
        #[serde(with = "super")]
        one: kvm_regs,
        #[serde(with = "super::option")]
        maybe: Option<kvm_mp_state>,
        #[serde(with = "super::list")]
        many: Vec<kvm_cpuid_entry2>,
        #[serde(with = "super::raw")]
        bytes: Vec<u8>,
    }

    #[test]
    fn structures_come_back_as_they_were() {
        let all = All {
            one: kvm_regs { rax: 1 << 63 | 0xa5, rflags: 2, ..kvm_regs::default() },
            maybe: Some(kvm_mp_state { mp_state: 3 }),
            many: vec![kvm_cpuid_entry2 { edx: 7, ..kvm_cpuid_entry2::default() }; 3],
            bytes: vec![0, 0x7f, 0xff],
        };
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<All>(&text).unwrap(), all);
    }

    #[test]
    fn what_has_another_length_is_refused() {
        for text in ["\"\"", "\"000000\"", "\"0000000\"", "\"0000000g\"", "\"0000000000\"", "7"] {
            let mut json = serde_json::Deserializer::from_str(text);
            assert!(deserialize::<kvm_mp_state, _>(&mut json).is_err(), "{text}");
        }
        let mut json = serde_json::Deserializer::from_str("\"0300\"");
        assert!(list::deserialize::<kvm_mp_state, _>(&mut json).is_err());
    }
}
