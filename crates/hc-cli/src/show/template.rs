// SPDX-License-Identifier: Apache-2.0
//! `--format`: tables, JSON, and the part of Go's templates that people use on command lines.
//!
//! Understood are `{{.Field}}`, `{{.Field.Inner}}`, `{{json .}}` and `{{json .Field}}`, with or
//! without blanks. Anything else is refused rather than printed wrongly.

use serde_json::Value;

use super::{Table, print};
use crate::failure::{Failure, Result};

/// How a list is printed.
#[derive(Debug, PartialEq)]
pub(crate) enum Format {
    /// The command's own table.
    Table,
    /// Ids alone.
    Quiet,
    /// One JSON object a line.
    Json,
    /// A line for each by a template.
    Template(Template),
    /// A table by a template, with a heading.
    TableOf(Template),
}

impl Format {
    /// Reads `--format` and `--quiet`; `fields` are those that a row has.
    pub(crate) fn parse(text: Option<&str>, quiet: bool, fields: &[&str]) -> Result<Format> {
        let format = match text {
            _ if quiet && matches!(text, None | Some("table")) => Format::Quiet,
            None | Some("table" | "") => Format::Table,
            Some("json") => Format::Json,
            Some(text) => match text.strip_prefix("table ") {
                Some(rest) => Format::TableOf(Template::parse(rest.trim_start())?),
                None => Format::Template(Template::parse(text)?),
            },
        };
        if let Format::Template(template) | Format::TableOf(template) = &format {
            template.check(fields)?;
        }
        Ok(format)
    }

    /// Prints rows that are JSON objects with the command's fields.
    pub(crate) fn print(&self, rows: &[Value], columns: &[(&str, &str)], id: &str) -> Result<()> {
        let mut out = String::new();
        match self {
            Format::Table => {
                let headings: Vec<_> = columns.iter().map(|(heading, _)| *heading).collect();
                let mut table = Table::new(&headings);
                for row in rows {
                    table.row(columns.iter().map(|(_, field)| text(&row[*field])));
                }
                out = table.render();
            }
            Format::Quiet => rows.iter().for_each(|row| line(&mut out, &text(&row[id]))),
            Format::Json => rows.iter().for_each(|row| line(&mut out, &row.to_string())),
            Format::Template(template) => {
                for row in rows {
                    line(&mut out, &template.render(row)?);
                }
            }
            Format::TableOf(template) => {
                let mut table = Table::bare();
                let cells = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
                table.row(cells(&template.heading(columns)));
                for row in rows {
                    table.row(cells(&template.render(row)?));
                }
                out = table.render();
            }
        }
        print(&out)
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// Text with fields in it.
#[derive(Debug, PartialEq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Template> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            if !before.is_empty() {
                parts.push(Part::Text(unescaped(before)));
            }
            let (action, after) =
                after.split_once("}}").ok_or_else(|| refused(text, "a {{ is not closed"))?;
            parts
                .push(field(action).ok_or_else(|| {
                    refused(text, &format!("{{{{{action}}}}} is not understood"))
                })?);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(unescaped(rest)));
        }
        Ok(Template(parts))
    }

    /// Refuses fields that rows do not have.
    fn check(&self, fields: &[&str]) -> Result<()> {
        for part in &self.0 {
            if let Part::Field { path, .. } = part
                && let Some(first) = path.first()
                && !fields.iter().any(|field| plain(field) == plain(first))
            {
                return Err(unknown_field(first, fields.iter().copied()));
            }
        }
        Ok(())
    }

    /// The text for one row.
    pub(crate) fn render(&self, row: &Value) -> Result<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field { path, json } => {
                    let value = path.iter().try_fold(row, |value, name| member(value, name))?;
                    out.push_str(&if *json { value.to_string() } else { text(value) });
                }
            }
        }
        Ok(out)
    }

    /// What stands over the columns: their heading in the command's own table, else their name.
    fn heading(&self, columns: &[(&str, &str)]) -> String {
        let heading = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field { path, .. } => {
                let name = path.last().map(String::as_str).unwrap_or_default();
                let column = columns.iter().find(|(_, field)| plain(field) == plain(name));
                column.map_or_else(|| name.to_uppercase(), |(heading, _)| (*heading).to_owned())
            }
        };
        self.0.iter().map(heading).collect()
    }
}

fn field(action: &str) -> Option<Part> {
    let action = action.trim_matches(['-', ' ']);
    let (json, path) = match action.strip_prefix("json ") {
        Some(rest) => (true, rest.trim()),
        None => (false, action),
    };
    let path = path.strip_prefix('.')?;
    if path.is_empty() {
        return Some(Part::Field { path: Vec::new(), json });
    }
    let name = |name: &str| {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        (!name.is_empty() && name.chars().all(valid)).then(|| name.to_owned())
    };
    Some(Part::Field { path: path.split('.').map(name).collect::<Option<_>>()?, json })
}

/// Shells hand `\t` and `\n` over as they are typed.
fn unescaped(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// Finds a field whether it is spelled as in JSON or as in Go.
fn member<'a>(value: &'a Value, name: &str) -> Result<&'a Value> {
    let Value::Object(fields) = value else {
        return Err(unknown_field(name, std::iter::empty()));
    };
    fields
        .iter()
        .find(|(key, _)| plain(key) == plain(name))
        .map(|(_, value)| value)
        .ok_or_else(|| unknown_field(name, fields.keys().map(String::as_str)))
}

fn plain(name: &str) -> String {
    name.replace('_', "").to_ascii_lowercase()
}

/// A value as people read it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<no value>".to_owned(),
        other => other.to_string(),
    }
}

fn refused(template: &str, why: &str) -> Failure {
    Failure::argument(format!("--format {template:?}: {why}"))
        .with_hint("use json, or fields such as {{.ID}} and {{json .Labels}}")
}

fn unknown_field<'a>(name: &str, fields: impl Iterator<Item = &'a str>) -> Failure {
    let failure = Failure::argument(format!("--format: there is no field {name:?} here"));
    let fields: Vec<_> = fields.map(|field| format!(".{field}")).collect();
    if fields.is_empty() {
        failure
    } else {
        failure.with_hint(format!("fields: {}", fields.join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(template: &str, expected: Expect) {
        let row = json!({
            "ID": "abc",
            "exit_status": 3,
            "labels": {"a": "b"},
            "inner": {"deep": [1, 2]},
            "none": null,
        });
        let text = match Template::parse(template).and_then(|template| template.render(&row)) {
            Ok(text) => format!("{text:?}"),
            Err(failure) => {
                let mut out = Vec::new();
                failure.print(&mut out, false);
                String::from_utf8(out).unwrap().trim_end().to_owned()
            }
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn fields_text_and_json_are_understood() {
        check("{{.ID}}", expect![[r#""abc""#]]);
        check("{{ .Id }}\\t{{.ExitStatus}}!", expect![[r#""abc\t3!""#]]);
        check("{{json .Labels}} {{.inner.deep}}", expect![[r#""{\"a\":\"b\"} [1,2]""#]]);
        check("{{.None}}", expect![[r#""<no value>""#]]);
        check("plain", expect![[r#""plain""#]]);
    }

    #[test]
    fn anything_else_is_refused() {
        check(
            "{{.Nope}}",
            expect![[r#"
            error: --format: there is no field "Nope" here
            hint: fields: .ID .exit_status .inner .labels .none"#]],
        );
        check(
            "{{range .X}}",
            expect![[r#"
            error: --format "{{range .X}}": {{range .X}} is not understood
            hint: use json, or fields such as {{.ID}} and {{json .Labels}}"#]],
        );
        check(
            "{{.ID",
            expect![[r#"
            error: --format "{{.ID": a {{ is not closed
            hint: use json, or fields such as {{.ID}} and {{json .Labels}}"#]],
        );
        check("{{.ID.Inner}}", expect![[r#"error: --format: there is no field "Inner" here"#]]);
    }

    #[test]
    fn a_list_checks_its_fields_even_without_rows() {
        let parse = |text, quiet| Format::parse(Some(text), quiet, &["ID", "Names"]);
        assert!(parse("{{.Names}}", false).is_ok());
        assert!(parse("table {{.ID}}\\t{{.Size}}", false).is_err());
        assert_eq!(parse("table", true).unwrap(), Format::Quiet);
        assert_eq!(parse("json", false).unwrap(), Format::Json);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[{}.a-z json\\\\-]{0,30}") {
            let _ = Template::parse(&text);
        }
    }
}
