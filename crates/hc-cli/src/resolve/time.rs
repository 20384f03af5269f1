// SPDX-License-Identifier: Apache-2.0
//! Points in time and numbers of lines, as `logs` takes them.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::failure::{Failure, Result};

/// A time: RFC 3339, a date with or without a time of day in `zone`, seconds since 1970 with or
/// without a fraction, or how long before `now`, as Go writes durations (`1h30m`, `10s`).
pub(crate) fn since(
    option: &str,
    text: &str,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<Timestamp> {
    parse(text, now, zone).ok_or_else(|| {
        Failure::argument(format!("--{option} {text:?} is no time"))
            .with_hint("write it as 10m, 2024-05-01T10:00:00Z, 2024-05-01 or seconds since 1970")
    })
}

/// The number of last lines; `None` for all.
pub(crate) fn tail(text: &str) -> Result<Option<u64>> {
    match text {
        "all" => Ok(None),
        // Docker shows everything for any negative number.
        _ if text.starts_with('-') && text[1..].parse::<u64>().is_ok() => Ok(None),
        _ => text.parse().map(Some).map_err(|_| {
            Failure::argument(format!("--tail {text:?} is no number of lines"))
                .with_hint("write a number, or all")
        }),
    }
}

fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    if let Some(seconds) = unix_seconds(text) {
        return Some(seconds);
    }
    if let Some(ago) = go_duration(text) {
        return now.checked_sub(ago).ok();
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let civil = match text.parse::<Date>() {
        Ok(date) if !text.contains(['T', ':']) => date.to_datetime(jiff::civil::Time::midnight()),
        _ => text.parse::<DateTime>().ok()?,
    };
    zone.to_timestamp(civil).ok()
}

fn unix_seconds(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(whole.parse().ok()?, nanos).ok()
}

/// A sum of decimal numbers with units, such as `1h2m3.5s`.
fn go_duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text;
    let mut total = SignedDuration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let nanos: i128 = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.len() > 9 || fraction.contains('.') {
            return None;
        }
        let mut part = nanos.checked_mul(format!("0{whole}").parse().ok()?)?;
        if !fraction.is_empty() {
            let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
            part += nanos * fraction.parse::<i128>().ok()? / scale;
        }
        total = total.checked_add(SignedDuration::from_nanos(i64::try_from(part).ok()?))?;
        rest = tail;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: Option<&str>) {
        let now = "2024-05-01T12:00:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let actual = parse(input, now, &zone).map(|time| time.to_string());
        assert_eq!(actual.as_deref(), expected, "{input}");
    }

    #[test]
    fn times_are_absolute_or_ago() {
        check("2024-04-30T01:02:03Z", Some("2024-04-30T01:02:03Z"));
        check("2024-04-30T01:02:03.5+01:00", Some("2024-04-30T00:02:03.5Z"));
        check("2024-04-30T01:02:03", Some("2024-04-29T23:02:03Z"));
        check("2024-04-30T01:02", Some("2024-04-29T23:02:00Z"));
        check("2024-04-30", Some("2024-04-29T22:00:00Z"));
        check("10m", Some("2024-05-01T11:50:00Z"));
        check("1h30m", Some("2024-05-01T10:30:00Z"));
        check("1.5s", Some("2024-05-01T11:59:58.5Z"));
        check("250ms", Some("2024-05-01T11:59:59.75Z"));
        check("1714564800", Some("2024-05-01T12:00:00Z"));
        check("1714564800.25", Some("2024-05-01T12:00:00.25Z"));
        check("0", Some("1970-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in ["", "x", "m", "1x", ".", "1.2.3s", "-5m", "2024-13-01", "1e3s"] {
            check(wrong, None);
        }
        check("99999999999999999999h", None);
    }

    #[test]
    fn tail_is_a_number_or_all() {
        assert_eq!(tail("all").unwrap(), None);
        assert_eq!(tail("-1").unwrap(), None);
        assert_eq!(tail("0").unwrap(), Some(0));
        assert_eq!(tail("15").unwrap(), Some(15));
        assert!(tail("x").is_err());
        assert!(tail("-x").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9.:TZhms+\\-]{0,30}") {
            check_total(&text);
        }
    }

    fn check_total(text: &str) {
        let _ = parse(text, Timestamp::UNIX_EPOCH, &TimeZone::UTC);
        let _ = tail(text);
    }
}
