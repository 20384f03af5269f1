// SPDX-License-Identifier: Apache-2.0
//! The control protocol, seen from the machine: JSON objects, one a line, in the words of QMP (the
//! QEMU Machine Protocol), of which this is the part that owners use.
//!
//! | command | what it does |
//! | --- | --- |
//! | `qmp_capabilities` | nothing; its answer says that the machine runs |
//! | `stop`, `cont` | hold every vCPU and device; let them go on |
//!
//! The owner is trusted, so a line may be long; it is read whole.

use serde::Deserialize;
use serde_json::json;

/// What the owner wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// An answer.
    Greet,
    /// The machine held.
    Stop,
    /// The machine running.
    Continue,
}

#[derive(Deserialize)]
struct Line {
    execute: String,
}

/// Reads a line; an error is the answer to it.
pub(crate) fn parse(line: &str) -> Result<Command, String> {
    let Line { execute } = serde_json::from_str(line).map_err(|error| error.to_string())?;
    match execute.as_str() {
        "qmp_capabilities" => Ok(Command::Greet),
        "stop" => Ok(Command::Stop),
        "cont" => Ok(Command::Continue),
        unknown => Err(format!("there is no command {unknown}")),
    }
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
        check("{}", expect![[r#"Err("missing field `execute` at line 1 column 2")"#]]);
    }

    #[test]
    fn answers_are_lines() {
        assert_eq!(answer(Ok(())), "{\"return\":{}}\r\n");
        let refusal = answer(Err("no".to_owned()));
        assert_eq!(refusal, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}\r\n");
    }
}
