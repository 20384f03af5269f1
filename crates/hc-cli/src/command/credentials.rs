// SPDX-License-Identifier: Apache-2.0
//! Registry credentials from this user's `~/.docker/config.json`.
//!
//! They go to the daemon in a request body and are never on a command line or in an environment.
//! What a helper program keeps is not asked for.

use std::io;
use std::path::PathBuf;

use hc_paths::env::{DOCKER_CONFIG, HOME};
use serde_json::Value;

use crate::failure::{Failure, Result};

/// The registry of names that name none.
const DOCKER_HUB: &str = "docker.io";
/// What that registry is called in configuration files, for historical reasons.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Base64 of `user:password` for the image's registry, where there is one.
pub(super) fn for_image(reference: &str) -> Result<Option<String>> {
    let Some(path) = config_path() else { return Ok(None) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(Failure::system(format_args!("cannot read {}", path.display()), error));
        }
    };
    find(&text, registry(reference)).map_err(|error| {
        Failure::system(format_args!("cannot understand {}", path.display()), error)
    })
}

fn config_path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set(DOCKER_CONFIG).or_else(|| set(HOME).map(|home| home.join(".docker")));
    folder.map(|folder| folder.join("config.json"))
}

/// The registry in an image's name: its first part, if that looks like a host.
fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DOCKER_HUB,
    }
}

fn find(text: &str, registry: &str) -> serde_json::Result<Option<String>> {
    let config: Value = serde_json::from_str(text)?;
    let Some(entries) = config["auths"].as_object() else { return Ok(None) };
    let matches = |key: &str| {
        let host = key.trim_start_matches("https://").trim_start_matches("http://");
        let host = host.split('/').next().unwrap_or_default();
        host == registry
            || registry == DOCKER_HUB && (key == DOCKER_HUB_KEY || host == "registry-1.docker.io")
    };
    let entry = entries.iter().find(|(key, _)| matches(key)).map(|(_, entry)| entry);
    let auth = entry.and_then(|entry| entry["auth"].as_str());
    Ok(auth.filter(|auth| !auth.is_empty()).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_the_first_part_if_it_looks_like_a_host() {
        assert_eq!(registry("busybox"), "docker.io");
        assert_eq!(registry("user/app:1"), "docker.io");
        assert_eq!(registry("localhost/app"), "localhost");
        assert_eq!(registry("r.example:5000/a/b@sha256:00"), "r.example:5000");
    }

    #[test]
    fn credentials_are_found_under_every_spelling() {
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHVi"},
            "https://r.example:5000/v2/": {"auth": "cg=="},
            "plain.example": {"auth": "cA=="},
            "helper.example": {}
        }, "credsStore": "x"}"#;
        let found = |registry| find(text, registry).unwrap();
        assert_eq!(found("docker.io").as_deref(), Some("aHVi"));
        assert_eq!(found("r.example:5000").as_deref(), Some("cg=="));
        assert_eq!(found("plain.example").as_deref(), Some("cA=="));
        assert_eq!(found("helper.example"), None);
        assert_eq!(found("other.example"), None);
        assert_eq!(find("{}", "docker.io").unwrap(), None);
        assert!(find("{", "docker.io").is_err());
    }
}
