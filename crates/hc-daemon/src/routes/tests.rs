// SPDX-License-Identifier: Apache-2.0
use std::collections::BTreeSet;

use serde_json::Value;

/// The routes as `router` has them, read from its source: a route without a description, or the
/// other way round, is a mistake.
fn routes() -> BTreeSet<String> {
    let source = include_str!("../routes.rs");
    let lines = source.lines().filter_map(|line| line.trim().strip_prefix(".route(\""));
    let paths = lines.filter_map(|line| Some(line.split_once('"')?.0.to_owned()));
    paths.filter(|path| path != "/openapi.json").collect()
}

#[test]
fn the_document_describes_exactly_what_is_served() {
    let document: Value = serde_json::from_str(&super::openapi()).unwrap();
    let described: BTreeSet<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(described, routes());
}

#[test]
fn every_answer_has_a_schema_that_the_document_defines() {
    let document: Value = serde_json::from_str(&super::openapi()).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in ["CreateContainer", "Container", "ErrorBody", "ImageDetail", "Info", "StatsSample"]
    {
        assert!(schemas.contains_key(name), "no schema {name}");
    }
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "schema {name} is referred to and not defined");
    }
}
