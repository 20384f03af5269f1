// SPDX-License-Identifier: Apache-2.0
//! Sizes, CPU shares, limits and other single values.

use std::net::IpAddr;

use hc_api::{TmpfsMount, Ulimit};
use hc_spec::{HostEntry, Rlimit};

use crate::failure::{Failure, Result};

/// Bytes: a number, maybe with a fraction, and `b`, `k`, `m`, `g`, `t` or `p`, maybe with `b` or
/// `ib` behind; all count in 1024s, as Docker has it.
pub(super) fn size(option: &str, text: &str) -> Result<u64> {
    let wrong = || {
        Failure::argument(format!("--{option} {text:?} is no size"))
            .with_hint("write it as 512m or 2g, or in bytes")
    };
    let lower = text.to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let unit = unit.trim_start();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(unit) {
        "" if unit == "ib" => return Err(wrong()),
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    fixed_point(number, 1024_u64.pow(power)).ok_or_else(wrong)
}

/// Thousandths of a CPU.
pub(super) fn cpus(text: &str) -> Result<u32> {
    let millis = fixed_point(text, 1000).and_then(|millis| u32::try_from(millis).ok());
    millis.filter(|millis| *millis > 0).ok_or_else(|| {
        Failure::argument(format!("--cpus {text:?} is no number of CPUs"))
            .with_hint("write it as 2 or 0.5")
    })
}

/// A decimal number times `scale`, rounded down, without the surprises of floating point.
fn fixed_point(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Nine digits are finer than anything that is asked for.
    let fraction = &fraction[..fraction.len().min(9)];
    let tens = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = u64::try_from(part * u128::from(scale) / tens).ok()?;
    whole.checked_mul(scale)?.checked_add(part)
}

/// `NAME=SOFT[:HARD]`; -1 is no limit.
pub(super) fn ulimit(text: &str) -> Result<Ulimit> {
    let wrong = |why: &str| Failure::argument(format!("--ulimit {text:?}: {why}"));
    let (name, limits) = text.split_once('=').ok_or_else(|| wrong("write NAME=SOFT[:HARD]"))?;
    if !Rlimit::NAMES.iter().any(|(known, _)| *known == name) {
        let names: Vec<_> = Rlimit::NAMES.iter().map(|(name, _)| *name).collect();
        return Err(wrong("no such limit").with_hint(format!("use one of {}", names.join(", "))));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let limit = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => text.parse().map_err(|_| wrong("limits are numbers, or -1 for none")),
    };
    let (soft, hard) = (limit(soft)?, limit(hard)?);
    if soft > hard {
        return Err(wrong("the soft limit is above the hard one"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// `DIR[:OPTIONS]`.
pub(super) fn tmpfs(text: &str) -> Result<TmpfsMount> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    if !path.starts_with('/') {
        return Err(Failure::argument(format!("--tmpfs {text:?}: the folder must be absolute")));
    }
    Ok(TmpfsMount { path: path.to_owned(), options: options.to_owned() })
}

/// `HOST:IP` or `HOST=IP`; an IPv6 address may stand in brackets.
pub(super) fn host_entry(text: &str) -> Result<HostEntry> {
    let wrong = |why: &str| Failure::argument(format!("--add-host {text:?}: {why}"));
    let (name, address) =
        text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
    if name.is_empty() || address.is_empty() {
        return Err(wrong("write HOST:IP"));
    }
    if address == "host-gateway" {
        return Err(Failure::unsupported("--add-host: host-gateway is not supported yet")
            .with_hint("with --allow-host, the host is at the gateway's address"));
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let address = bare.parse().map_err(|_| wrong("that is no IP address"))?;
    Ok(HostEntry { address, name: name.to_owned() })
}

/// A name server.
pub(super) fn name_server(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Failure::argument(format!("--dns {text:?} is no IP address")))
}

/// Whether `--security-opt` asks for no new privileges.
pub(super) fn security_option(text: &str) -> Result<bool> {
    match text.split_once(['=', ':']).unwrap_or((text, "true")) {
        ("no-new-privileges", "true") => Ok(true),
        ("no-new-privileges", "false") => Ok(false),
        ("seccomp", _) => {
            Err(Failure::unsupported("--security-opt: seccomp profiles are not used")
                .with_hint("the VM is the boundary; leave the option out"))
        }
        _ => Err(Failure::unsupported(format!("--security-opt {text:?} is not supported"))
            .with_hint("only no-new-privileges is")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: std::fmt::Debug>(result: Result<T>) -> String {
        match result {
            Ok(value) => format!("{value:?}"),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (input, bytes) in [
            ("1", 1),
            ("1b", 1),
            ("2k", 2048),
            ("2KB", 2048),
            ("2KiB", 2048),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("0.5m", 1 << 19),
            (".5k", 512),
            ("1t", 1 << 40),
            ("8191p", 8191 << 50),
        ] {
            assert_eq!(size("memory", input).unwrap(), bytes, "{input}");
        }
        for wrong in ["", "m", "-1", "1x", "1mm", "1ib", "1.2.3", "1e9", "99999999p", "1 2"] {
            assert!(size("memory", wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn cpus_have_three_decimals() {
        assert_eq!(cpus("2").unwrap(), 2000);
        assert_eq!(cpus("0.1").unwrap(), 100);
        assert_eq!(cpus("1.2345").unwrap(), 1234);
        for wrong in ["0", "0.0001", "", ".", "-1", "x", "99999999999"] {
            assert!(cpus(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn ulimits_have_a_known_name_and_one_or_two_limits() {
        let nofile = |soft, hard| Ulimit { name: "nofile".into(), soft, hard };
        assert_eq!(ulimit("nofile=10").unwrap(), nofile(10, 10));
        assert_eq!(ulimit("nofile=10:20").unwrap(), nofile(10, 20));
        assert_eq!(ulimit("nofile=10:-1").unwrap(), nofile(10, u64::MAX));
        assert_eq!(text(ulimit("fish=1")), "--ulimit \"fish=1\": no such limit");
        for wrong in ["nofile", "nofile=", "nofile=x", "nofile=2:1", "nofile=-1:5"] {
            assert!(ulimit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn host_entries_take_both_separators_and_brackets() {
        for good in ["a:1.2.3.4", "a=1.2.3.4"] {
            assert_eq!(host_entry(good).unwrap().address, IpAddr::from([1, 2, 3, 4]));
        }
        for good in ["a:::1", "a=::1", "a:[::1]", "a=[::1]"] {
            assert_eq!(host_entry(good).unwrap().address, "::1".parse::<IpAddr>().unwrap());
        }
        for wrong in ["a", "a:", ":1.2.3.4", "a:b", "a:host-gateway"] {
            assert!(host_entry(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn security_options_other_than_no_new_privileges_are_refused() {
        assert!(security_option("no-new-privileges").unwrap());
        assert!(security_option("no-new-privileges=true").unwrap());
        assert!(!security_option("no-new-privileges:false").unwrap());
        for wrong in ["seccomp=unconfined", "label=disable", "no-new-privileges=x", ""] {
            assert!(security_option(wrong).is_err(), "{wrong}");
        }
    }
}
