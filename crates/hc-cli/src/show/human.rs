// SPDX-License-Identifier: Apache-2.0
//! Times and sizes in the words that Docker uses.

use hc_api::{ContainerState, ContainerSummary, Port, Protocol};
use jiff::Timestamp;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
const MONTH: u64 = 30 * DAY;
const YEAR: u64 = 365 * DAY;
/// Digits of an id in tables.
const SHORT_ID: usize = 12;

/// How long something took, or has been going on.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        MINUTE..120 => "About a minute".to_owned(),
        120..HOUR => format!("{} minutes", seconds / MINUTE),
        _ => match (seconds + HOUR / 2) / HOUR {
            1 => "About an hour".to_owned(),
            hours @ 2..48 => format!("{hours} hours"),
            _ if seconds < 2 * WEEK => format!("{} days", seconds / DAY),
            _ if seconds < 2 * MONTH => format!("{} weeks", seconds / WEEK),
            _ if seconds < 2 * YEAR => format!("{} months", seconds / MONTH),
            _ => format!("{} years", seconds / YEAR),
        },
    }
}

/// Seconds from `then` to `now`; clocks that disagree make none.
fn since(then: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(then).as_secs()).unwrap_or(0)
}

/// How long ago that was.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", duration(since(then, now)))
}

/// Bytes in powers of 1000, with three digits that count.
pub(crate) fn size(bytes: u64) -> String {
    scaled(bytes, 1000, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Bytes in powers of 1024, with four digits that count.
pub(crate) fn memory(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// Integer arithmetic, so that a value never shows as `1000kB` by rounding.
fn scaled(bytes: u64, base: u64, units: &[&str]) -> String {
    let mut divisor = 1_u128;
    let mut unit = 0;
    let bytes = u128::from(bytes);
    let base = u128::from(base);
    // Rounded to three digits, 999.6 is 1000.
    while unit + 1 < units.len() && bytes * 2 >= divisor * (2 * base - u128::from(base == 1000)) {
        divisor *= base;
        unit += 1;
    }
    let whole = bytes / divisor;
    let decimals = match whole {
        0..10 => 2,
        10..100 => 1,
        _ => 0,
    };
    let scale = 10_u128.pow(decimals);
    let rounded = (bytes * scale * 2 + divisor) / (divisor * 2);
    let (whole, part) = (rounded / scale, rounded % scale);
    let digits = usize::try_from(decimals).unwrap_or(0);
    let fraction = format!("{part:0digits$}");
    let fraction = fraction.trim_end_matches('0');
    if decimals == 0 || fraction.is_empty() {
        format!("{whole}{}", units[unit])
    } else {
        format!("{whole}.{fraction}{}", units[unit])
    }
}

/// What a container is doing, in words.
pub(crate) fn status(container: &ContainerSummary, now: Timestamp) -> String {
    let up = container.started.map_or(0, |started| since(started, now));
    match container.state {
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Starting => "Starting".to_owned(),
        ContainerState::Running => format!("Up {}", duration(up)),
        ContainerState::Paused => format!("Up {} (Paused)", duration(up)),
        ContainerState::Exited => {
            let status = container.exit_status.unwrap_or_default();
            let when = container.finished.map(|finished| ago(finished, now)).unwrap_or_default();
            format!("Exited ({status}) {when}").trim_end().to_owned()
        }
        ContainerState::Removing => "Removal in progress".to_owned(),
    }
}

/// The word for a state, as in `--filter status=`.
pub(crate) fn state(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Starting => "starting",
        ContainerState::Running => "running",
        ContainerState::Paused => "paused",
        ContainerState::Exited => "exited",
        ContainerState::Removing => "removing",
    }
}

/// Published ports, such as `0.0.0.0:8080->80/tcp`.
pub(crate) fn ports(ports: &[Port]) -> String {
    let one = |port: &Port| {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let host = std::net::SocketAddr::new(port.host_ip, port.host_port);
        format!("{host}->{}/{protocol}", port.container_port)
    };
    ports.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// An id without its algorithm, cut to what tells it apart.
pub(crate) fn short_id(id: &str) -> &str {
    let bare = id.strip_prefix("sha256:").unwrap_or(id);
    bare.get(..SHORT_ID).unwrap_or(bare)
}

/// At most so many characters, with an ellipsis where something is missing.
pub(crate) fn shortened(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_as_docker_tells_them() {
        for (seconds, expected) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (59 * 60, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
        ] {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (7_800_000, "7.8MB"),
            (1_234_567_890, "1.23GB"),
            (142_400_000, "142MB"),
            (999_499, "999kB"),
            (999_600, "1MB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
        assert_eq!(memory(512 << 20), "512MiB");
        assert_eq!(memory(1023), "1023B");
        assert_eq!(memory(3 << 19), "1.5MiB");
    }

    #[test]
    fn ids_and_texts_are_shortened_on_character_boundaries() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("short"), "short");
        assert_eq!(shortened("ääää", 4), "ääää");
        assert_eq!(shortened("äääää", 4), "äää…");
    }

    #[test]
    fn ports_show_where_they_lead() {
        let port = |host_ip: &str, protocol| Port {
            protocol,
            host_ip: host_ip.parse().unwrap(),
            host_port: 8080,
            container_port: 80,
        };
        assert_eq!(
            ports(&[port("0.0.0.0", Protocol::Tcp), port("::1", Protocol::Udp)]),
            "0.0.0.0:8080->80/tcp, [::1]:8080->80/udp"
        );
    }
}
