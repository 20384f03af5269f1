// SPDX-License-Identifier: Apache-2.0
//! Who we are to a registry, from the file that `docker login` writes.
//!
//! Passwords are never printed: not by `Debug`, not in errors, not in logs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::layout::read_small;
use crate::{Error, Result};

/// Bytes of Docker's configuration; honest ones have a few kilobytes.
const CONFIG_MAX: u64 = 1 << 20;
/// The key under which Docker keeps the credentials of its default registry.
const DEFAULT_KEY: &str = "https://index.docker.io/v1/";

/// Who we are to a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// A user with a password, or with an access token in its place.
    Basic {
        /// The user's name.
        user: String,
        /// What proves it.
        password: Secret,
    },
    /// The user's credentials are with a helper program, which is not run: we stay anonymous and
    /// say so if the registry minds.
    Helper {
        /// The helper, as Docker's configuration has it.
        name: String,
    },
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The part of Docker's `config.json` that is about registries.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DockerConfig {
    auths: BTreeMap<String, Login>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Login {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerConfig")
            .field("registries", &self.auths.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl DockerConfig {
    /// Reads Docker's `config.json`; a missing file is an empty one.
    pub fn read(path: &Path) -> Result<DockerConfig> {
        match read_small(path, CONFIG_MAX)? {
            Some(bytes) => DockerConfig::parse(&bytes, &path.display().to_string()),
            None => Ok(DockerConfig::default()),
        }
    }

    fn parse(bytes: &[u8], what: &str) -> Result<DockerConfig> {
        // The parser's own message could quote a secret, so only the place is told.
        serde_json::from_slice(bytes).map_err(|error| {
            let place = format!("no valid JSON at line {}", error.line());
            Error::malformed(what.to_owned(), place)
        })
    }

    /// The credentials for a registry, such as `docker.io` or `localhost:5000`.
    pub fn credentials(&self, registry: &str) -> Result<Credentials> {
        let keys = if registry == "docker.io" {
            vec![DEFAULT_KEY.to_owned(), registry.to_owned()]
        } else {
            let suffixes = ["", "/", "/v1/", "/v2/"];
            let with = |prefix| suffixes.map(|suffix| format!("{prefix}{registry}{suffix}"));
            ["", "https://", "http://"].into_iter().flat_map(with).collect()
        };
        let login = keys.iter().find_map(|key| self.auths.get(key)).filter(|l| !l.is_empty());
        if let Some(login) = login {
            return login.credentials(registry);
        }
        let helper = keys.iter().find_map(|key| self.cred_helpers.get(key));
        match helper.or(self.creds_store.as_ref()) {
            Some(name) => Ok(Credentials::Helper { name: name.clone() }),
            None => Ok(Credentials::Anonymous),
        }
    }
}

impl Login {
    /// `docker login` leaves an empty entry where a helper has the credentials.
    fn is_empty(&self) -> bool {
        let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        !filled(&self.auth) && !filled(&self.username) && !filled(&self.identitytoken)
    }

    fn credentials(&self, registry: &str) -> Result<Credentials> {
        if self.identitytoken.as_ref().is_some_and(|token| !token.is_empty()) {
            return Err(Error::Unsupported {
                what: format!("the identity token for {registry}"),
                reason: "log in with a user name and an access token instead",
            });
        }
        let basic = |user: &str, password: &str| Credentials::Basic {
            user: user.to_owned(),
            password: Secret::new(password),
        };
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let broken =
                || Error::malformed(format!("the login for {registry}"), "auth does not decode");
            let bytes = STANDARD.decode(auth.trim()).map_err(|_| broken())?;
            let text = String::from_utf8(bytes).map_err(|_| broken())?;
            // Some versions of Docker pad with NUL.
            let (user, password) = text.split_once(':').ok_or_else(broken)?;
            return Ok(basic(user, password.trim_end_matches('\0')));
        }
        Ok(basic(
            self.username.as_deref().unwrap_or_default(),
            self.password.as_deref().unwrap_or_default(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(json: &str, registry: &str) -> Result<Credentials> {
        DockerConfig::parse(json.as_bytes(), "config")?.credentials(registry)
    }

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: user.into(), password: Secret::new(password) }
    }

    #[test]
    fn logins_are_found_under_every_form_of_the_key() {
        // "user:pass:word"
        let auth = r#"{"auth":"dXNlcjpwYXNzOndvcmQ="}"#;
        for (key, registry) in [
            ("quay.io", "quay.io"),
            ("https://quay.io", "quay.io"),
            ("https://quay.io/v1/", "quay.io"),
            ("localhost:5000", "localhost:5000"),
            ("https://index.docker.io/v1/", "docker.io"),
        ] {
            let json = format!(r#"{{"auths":{{"{key}":{auth}}}}}"#);
            assert_eq!(credentials(&json, registry).unwrap(), basic("user", "pass:word"), "{key}");
            assert_eq!(credentials(&json, "other.io").unwrap(), Credentials::Anonymous);
        }
    }

    #[test]
    fn helpers_are_named_and_inline_logins_go_before_them() {
        let json = r#"{"auths":{"a.io":{},"b.io":{"username":"u","password":"p"}},
            "credHelpers":{"a.io":"ecr-login"},"credsStore":"desktop"}"#;
        let helper = |name: &str| Credentials::Helper { name: name.into() };
        assert_eq!(credentials(json, "a.io").unwrap(), helper("ecr-login"));
        assert_eq!(credentials(json, "b.io").unwrap(), basic("u", "p"));
        assert_eq!(credentials(json, "c.io").unwrap(), helper("desktop"));
    }

    #[test]
    fn nothing_prints_a_secret() {
        let json = r#"{"auths":{"a.io":{"auth":"aHVudGVyMg==","identitytoken":""}}}"#;
        let config = DockerConfig::parse(json.as_bytes(), "config").unwrap();
        let error = config.credentials("a.io").unwrap_err();
        let broken = DockerConfig::parse(br#"{"auths":{"a":{"auth":hunter2"#, "c").unwrap_err();
        let printed =
            format!("{config:?} {error:?} {error} {broken:?} {:?}", basic("u", "hunter2"));
        assert!(!printed.contains("hunter2") && !printed.contains("aHVudGVyMg"), "{printed}");
    }

    #[test]
    fn identity_tokens_are_refused_with_a_way_out() {
        let json = r#"{"auths":{"a.io":{"auth":"dTpw","identitytoken":"x"}}}"#;
        assert!(matches!(credentials(json, "a.io"), Err(Error::Unsupported { .. })));
    }
}
