// SPDX-License-Identifier: Apache-2.0
//! `import --change`: instructions of a Dockerfile that set an image's configuration.

use serde_json::{Map, Value, json};

use crate::failure::{Failure, Result};

const KNOWN: &str = "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER and WORKDIR";

/// The configuration that the instructions make, as the OCI image specification spells it; `None`
/// where there are none.
pub(crate) fn image_config(changes: &[String]) -> Result<Option<Value>> {
    let mut config = Map::new();
    for change in changes {
        apply(change.trim(), &mut config)
            .map_err(|failure| failure.context(format_args!("--change {change:?}")))?;
    }
    Ok((!config.is_empty()).then_some(Value::Object(config)))
}

fn apply(change: &str, config: &mut Map<String, Value>) -> Result<()> {
    let (word, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    let rest = rest.trim();
    let instruction = word.to_ascii_uppercase();
    if rest.is_empty() && !instruction.is_empty() {
        return Err(Failure::argument(format!("{instruction} needs a value")));
    }
    match instruction.as_str() {
        "CMD" => config.insert("Cmd".into(), command(rest)?),
        "ENTRYPOINT" => config.insert("Entrypoint".into(), command(rest)?),
        "WORKDIR" => config.insert("WorkingDir".into(), json!(rest)),
        "USER" => config.insert("User".into(), json!(rest)),
        "STOPSIGNAL" => config.insert("StopSignal".into(), json!(rest)),
        "ENV" => {
            for (name, value) in pairs(rest)? {
                set_variable(config, &name, &value);
            }
            None
        }
        "LABEL" => {
            insert_all(config, "Labels", pairs(rest)?.into_iter().map(|(k, v)| (k, json!(v))))
        }
        "EXPOSE" => insert_all(config, "ExposedPorts", ports(rest)?),
        _ => {
            return Err(Failure::unsupported(format!(
                "instruction {instruction:?} is not supported"
            ))
            .with_hint(format!("use {KNOWN}")));
        }
    };
    Ok(())
}

/// A JSON list of strings is taken as it is; anything else is for a shell.
fn command(text: &str) -> Result<Value> {
    if let Ok(words) = serde_json::from_str::<Vec<String>>(text) {
        return Ok(json!(words));
    }
    if text.starts_with('[') && text.ends_with(']') {
        return Err(Failure::argument("that is no JSON list of strings")
            .with_hint(r#"write it as ["program", "argument"], with double quotes"#));
    }
    Ok(json!(["/bin/sh", "-c", text]))
}

fn insert_all(
    config: &mut Map<String, Value>,
    key: &str,
    entries: impl IntoIterator<Item = (String, Value)>,
) -> Option<Value> {
    let object = config.entry(key).or_insert_with(|| json!({}));
    if let Value::Object(object) = object {
        object.extend(entries);
    }
    None
}

/// Replaces a variable that has been set already, as a second `ENV` does.
fn set_variable(config: &mut Map<String, Value>, name: &str, value: &str) {
    let list = config.entry("Env").or_insert_with(|| json!([]));
    if let Value::Array(list) = list {
        list.retain(|entry| {
            entry.as_str().and_then(|entry| entry.split_once('=')).is_none_or(|(n, _)| n != name)
        });
        list.push(json!(format!("{name}={value}")));
    }
}

fn ports(text: &str) -> Result<Vec<(String, Value)>> {
    text.split_whitespace()
        .map(|port| {
            let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            let protocol = protocol.to_ascii_lowercase();
            let known = matches!(protocol.as_str(), "tcp" | "udp" | "sctp");
            if number.parse::<u16>().is_err() || !known {
                return Err(Failure::argument(format!("{port:?} is no port")));
            }
            Ok((format!("{number}/{protocol}"), json!({})))
        })
        .collect()
}

/// `NAME=VALUE...` with quotes, or the old form `NAME VALUE`.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| Failure::argument("write NAME=VALUE"))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words(text)?
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Failure::argument(format!("{word:?} is no NAME=VALUE"))),
        })
        .collect()
}

/// Splits at white space that is neither quoted nor escaped.
fn words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut in_word = false;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                in_word = true;
            }
            (None | Some('"'), '\\') => {
                word.extend(characters.next());
                in_word = true;
            }
            (None, c) if c.is_whitespace() => {
                if std::mem::take(&mut in_word) {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => {
                word.push(c);
                in_word = true;
            }
        }
    }
    if quote.is_some() {
        return Err(Failure::argument("a quote is not closed"));
    }
    if in_word {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(changes: &[&str], expected: Expect) {
        let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
        let text = match image_config(&changes) {
            Ok(config) => config.map_or("none".to_owned(), |config| config.to_string()),
            Err(failure) => format!("error: {failure}"),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn instructions_become_the_images_configuration() {
        check(&[], expect!["none"]);
        check(
            &[r#"CMD ["sh", "-l"]"#, "entrypoint top -b"],
            expect![[r#"{"Cmd":["sh","-l"],"Entrypoint":["/bin/sh","-c","top -b"]}"#]],
        );
        check(
            &["ENV A=1 B='x y' C=\"q\\\"z\" D=a\\ b", "ENV A=2", "ENV E some words"],
            expect![[r#"{"Env":["B=x y","C=q\"z","D=a b","A=2","E=some words"]}"#]],
        );
        check(
            &["LABEL a=b c=\"d e\"", "EXPOSE 80 53/UDP", "USER 1:2", "WORKDIR /x"],
            expect![[
                r#"{"ExposedPorts":{"53/udp":{},"80/tcp":{}},"Labels":{"a":"b","c":"d e"},"User":"1:2","WorkingDir":"/x"}"#
            ]],
        );
        check(&["STOPSIGNAL SIGINT"], expect![[r#"{"StopSignal":"SIGINT"}"#]]);
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        check(
            &["VOLUME /x"],
            expect![[r#"error: --change "VOLUME /x": instruction "VOLUME" is not supported"#]],
        );
        check(&["CMD"], expect![[r#"error: --change "CMD": CMD needs a value"#]]);
        check(
            &["CMD ['sh']"],
            expect![[r#"error: --change "CMD ['sh']": that is no JSON list of strings"#]],
        );
        check(&["ENV A"], expect![[r#"error: --change "ENV A": write NAME=VALUE"#]]);
        check(&["ENV A=\"b"], expect![[r#"error: --change "ENV A=\"b": a quote is not closed"#]]);
        check(&["EXPOSE http"], expect![[r#"error: --change "EXPOSE http": "http" is no port"#]]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(CMD|ENV|LABEL|EXPOSE) .{0,40}") {
            let _ = image_config(&[text]);
        }
    }
}
