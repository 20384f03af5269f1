// SPDX-License-Identifier: Apache-2.0
//! `--filter` of the container list, as Docker has it.

use std::collections::BTreeMap;

use hc_api::{ContainerState, ContainerSummary};

use crate::failure::{Failure, Result};

/// The filters that there are.
const NAMES: [&str; 6] = ["ancestor", "exited", "id", "label", "name", "status"];

/// Which containers to show.
#[derive(Debug, Default)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads a JSON object from filter name to values.
    pub(crate) fn parse(text: Option<&str>) -> Result<Filters> {
        let Some(text) = text else {
            return Ok(Filters::default());
        };
        let filters: BTreeMap<String, Vec<String>> = serde_json::from_str(text)
            .map_err(|error| Failure::invalid(format!("malformed filters: {error}")))?;
        for (name, values) in &filters {
            if !NAMES.contains(&name.as_str()) {
                let known = NAMES.join(", ");
                return Err(Failure::invalid(format!(
                    "unknown filter {name:?}: use one of {known}"
                )));
            }
            for value in values {
                check(name, value)?;
            }
        }
        Ok(Filters(filters))
    }

    /// Whether the filters themselves ask for containers that do not run.
    pub(crate) fn select_stopped(&self) -> bool {
        self.0.contains_key("status") || self.0.contains_key("exited")
    }

    /// Whether `row` is to be shown. Values of one filter are alternatives; labels must all be there.
    pub(crate) fn fit(&self, row: &ContainerSummary) -> bool {
        self.0.iter().all(|(name, values)| {
            if name == "label" {
                values.iter().all(|value| fits(row, name, value))
            } else {
                values.iter().any(|value| fits(row, name, value))
            }
        })
    }
}

fn check(name: &str, value: &str) -> Result<()> {
    match name {
        "status" if state(value).is_none() => Err(Failure::invalid(format!(
            "unknown status {value:?}: use created, starting, running, paused, exited or removing"
        ))),
        "exited" if value.parse::<u8>().is_err() => {
            Err(Failure::invalid(format!("exited={value}: not an exit status")))
        }
        _ => Ok(()),
    }
}

fn state(text: &str) -> Option<ContainerState> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}

fn fits(row: &ContainerSummary, name: &str, value: &str) -> bool {
    match name {
        "name" => row.name.contains(value),
        "id" => row.id.starts_with(value),
        "status" => state(value) == Some(row.state),
        "exited" => {
            row.state == ContainerState::Exited
                && value.parse().is_ok_and(|status: u8| row.exit_status == Some(status))
        }
        "ancestor" => {
            let hex = row.image_id.rsplit(':').next().unwrap_or_default();
            row.image == value
                || row.image_id == value
                || (value.len() >= 4 && hex.starts_with(value))
        }
        "label" => match value.split_once('=') {
            Some((key, wanted)) => row.labels.get(key).is_some_and(|value| value == wanted),
            None => row.labels.contains_key(value),
        },
        // `parse` let nothing else through.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn row() -> ContainerSummary {
        ContainerSummary {
            id: "abc".repeat(21) + "d",
            name: "web-1".into(),
            pod: String::new(),
            image: "debian:12".into(),
            image_id: "sha256:1234567890".into(),
            command: Vec::new(),
            created: Timestamp::UNIX_EPOCH,
            state: ContainerState::Exited,
            started: None,
            finished: None,
            exit_status: Some(3),
            ports: Vec::new(),
            labels: [("tier".into(), "front".into())].into(),
        }
    }

    #[track_caller]
    fn check(filters: &str, expected: bool) {
        assert_eq!(Filters::parse(Some(filters)).unwrap().fit(&row()), expected, "{filters}");
    }

    #[test]
    fn values_are_alternatives_and_filters_add_up() {
        check("{}", true);
        check(r#"{"name":["web"]}"#, true);
        check(r#"{"name":["db","web"]}"#, true);
        check(r#"{"name":["db"]}"#, false);
        check(r#"{"id":["abcabc"],"status":["exited"],"exited":["3"]}"#, true);
        check(r#"{"status":["running","exited"]}"#, true);
        check(r#"{"exited":["0"]}"#, false);
        check(r#"{"label":["tier"]}"#, true);
        check(r#"{"label":["tier=front","other"]}"#, false);
        check(r#"{"ancestor":["debian:12"]}"#, true);
        check(r#"{"ancestor":["12345"]}"#, true);
    }

    #[test]
    fn what_cannot_match_anything_is_refused() {
        for bad in [r#"{"colour":["red"]}"#, r#"{"status":["asleep"]}"#, r#"{"exited":["x"]}"#, "x"]
        {
            assert!(Filters::parse(Some(bad)).is_err(), "{bad}");
        }
    }
}
