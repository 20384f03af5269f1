// SPDX-License-Identifier: Apache-2.0
//! The control protocol, seen from the machine: JSON objects, one a line, in the words of QMP (the
//! QEMU Machine Protocol), of which this is the part that owners use.
//!
//! | command | what it does |
//! | --- | --- |
//! | `qmp_capabilities` | nothing; its answer says that the machine runs |
//! | `stop`, `cont` | hold every vCPU and device; let them go on |
//! | `getfd` | keeps the descriptor that comes along under a name |
//! | `save` | write the guest to two files, and leave it held: since the event `STOP`, if it ran; QEMU has no such command |
//! | `replace` | put another file behind a disk; QEMU has no such command either |
//!
//! The owner is trusted, so a line may be long; it is read whole.

mod stream;

use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) use self::stream::Lines;
use crate::saved::Access;

/// What the owner wants. Files have the names that they were kept under, which are then free again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// An answer.
    Greet,
    /// The machine held.
    Stop,
    /// The machine running.
    Continue,
    /// A descriptor kept.
    Keep(Keep),
    /// The guest saved.
    Save(Save),
    /// A disk with another file.
    Replace(Replace),
}

/// Under which name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Keep {
    #[serde(rename = "fdname")]
    pub(crate) name: String,
}

/// Where the guest is saved.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Save {
    /// As long as the guest's memory, and all holes.
    pub(crate) memory: String,
    /// Empty.
    pub(crate) state: String,
}

/// Which disk gets which file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replace {
    pub(crate) disk: String,
    pub(crate) file: String,
    /// As it was.
    pub(crate) access: Access,
}

#[derive(Deserialize)]
struct Line {
    execute: String,
    #[serde(default)]
    arguments: Value,
}

/// Reads a line; an error is the answer to it.
pub(crate) fn parse(line: &str) -> Result<Command, String> {
    let Line { execute, arguments } =
        serde_json::from_str(line).map_err(|error| error.to_string())?;
    let command = match execute.as_str() {
        "qmp_capabilities" => Ok(Command::Greet),
        "stop" => Ok(Command::Stop),
        "cont" => Ok(Command::Continue),
        "getfd" => serde_json::from_value(arguments).map(Command::Keep),
        "save" => serde_json::from_value(arguments).map(Command::Save),
        "replace" => serde_json::from_value(arguments).map(Command::Replace),
        unknown => return Err(format!("there is no command {unknown}")),
    };
    command.map_err(|error| format!("{execute}: {error}"))
}

/// The answer to a command, as a line.
pub(crate) fn answer(result: Result<(), String>) -> String {
    line(&match result {
        Ok(()) => json!({ "return": {} }),
        Err(desc) => json!({ "error": { "class": "GenericError", "desc": desc } }),
    })
}

/// The news that the guest has reset, as a line.
pub(crate) fn shutdown() -> String {
    line(&json!({ "event": "SHUTDOWN", "data": { "guest": true, "reason": "guest-reset" } }))
}

/// The news that the guest stands still though nobody asked for that alone, as a line.
pub(crate) fn stopped() -> String {
    line(&json!({ "event": "STOP" }))
}

fn line(value: &serde_json::Value) -> String {
    format!("{value}\r\n")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(line: &str, expected: Expect) {
        expected.assert_eq(&format!("{:?}", parse(line)));
    }

    #[test]
    fn commands_are_qmp() {
        check(r#"{"execute":"qmp_capabilities"}"#, expect!["Ok(Greet)"]);
        check(r#"{"execute":"stop"}"#, expect!["Ok(Stop)"]);
        check(r#"{"execute":"cont"}"#, expect!["Ok(Continue)"]);
        check(r#"{"execute":"quit"}"#, expect![[r#"Err("there is no command quit")"#]]);
        check(
            r#"{"execute":"getfd","arguments":{"fdname":"a"}}"#,
            expect![[r#"Ok(Keep(Keep { name: "a" }))"#]],
        );
        check(
            r#"{"execute":"save","arguments":{"memory":"a","state":"b"}}"#,
            expect![[r#"Ok(Save(Save { memory: "a", state: "b" }))"#]],
        );
        check(
            r#"{"execute":"save"}"#,
            expect![[r#"Err("save: invalid type: null, expected struct Save")"#]],
        );
        check(
            r#"{"execute":"replace","arguments":{"disk":"root","file":"a","access":{"read_only":true,"durable":false}}}"#,
            expect![[
                r#"Ok(Replace(Replace { disk: "root", file: "a", access: Access { read_only: true, durable: false } }))"#
            ]],
        );
        check("{}", expect![[r#"Err("missing field `execute` at line 1 column 2")"#]]);
    }

    #[test]
    fn answers_are_lines() {
        assert_eq!(answer(Ok(())), "{\"return\":{}}\r\n");
        let refusal = answer(Err("no".to_owned()));
        assert_eq!(refusal, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}\r\n");
    }
}
