// SPDX-License-Identifier: Apache-2.0
//! A client of the distribution API, for pulling only.
//!
//! It asks for manifests and blobs and proves who we are where it is asked to. What arrives is the
//! caller's to check; this module only bounds it.
//!
//! # Invariants
//!
//! - Credentials go to the registry they are for and to the token service it names, over TLS unless
//!   the registry itself is one that may be spoken to in the clear. A redirect to another host
//!   drops them, and no redirect leads from TLS to plain HTTP.
//! - Every body is bounded, and every wait has an end.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt as _;
use http_auth::ChallengeParser;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, HeaderValue, RANGE, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use crate::credentials::Credentials;
use crate::manifest::{ACCEPTED, printable};
use crate::{Digest, Error, PullOptions, Reference, Result};

/// Where the registry that everybody calls `docker.io` really is.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// Redirects of one request; registries use one, to where their blobs are.
const REDIRECTS_MAX: usize = 5;
/// Bytes of an error's body that we look at.
const REFUSAL_MAX: u64 = 16 << 10;
/// Bytes of a token service's answer; real tokens have a few kilobytes.
const TOKEN_MAX: u64 = 256 << 10;

/// A connection to one repository of a registry.
pub(crate) struct Registry {
    http: reqwest::Client,
    name: Reference,
    base: String,
    plain: bool,
    credentials: Credentials,
    patience: Duration,
    /// The Authorization header that the registry took last.
    proof: Mutex<Option<HeaderValue>>,
}

/// A blob on its way.
pub(crate) struct BlobStream {
    pub(crate) response: Response,
    /// Where in the blob it starts.
    pub(crate) offset: u64,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    pub(crate) fn new(name: &Reference, options: &PullOptions) -> Result<Registry> {
        let host = name.registry();
        let plain = is_loopback(host) || options.insecure_registries.iter().any(|i| i == host);
        let scheme = if plain { "http" } else { "https" };
        let address = if host == "docker.io" { DOCKER_HUB } else { host };
        // Another part of the program may have chosen one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("hyper/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            .redirect(reqwest::redirect::Policy::custom(redirect));
        if is_loopback(host) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|source| Error::Transport {
            action: "set up a connection".to_owned(),
            registry: host.to_owned(),
            source,
        })?;
        Ok(Registry {
            http,
            name: name.clone(),
            base: format!("{scheme}://{address}/v2/{}", name.repository()),
            plain,
            credentials: options.credentials.clone(),
            patience: options.patience,
            proof: Mutex::new(None),
        })
    }

    /// The bytes of a manifest or an index, by tag or digest, at most `limit`.
    pub(crate) async fn manifest(&self, version: &str, limit: u64) -> Result<Vec<u8>> {
        let what = format!("manifest {version}");
        let url = format!("{}/manifests/{version}", self.base);
        let accept = HeaderValue::from_str(&ACCEPTED.join(", ")).expect("constants are plain text");
        let work = async {
            let request = |http: &reqwest::Client| http.get(&url).header(ACCEPT, accept.clone());
            let response = self.send(&what, request).await?;
            self.body(response, &what, limit).await
        };
        // A whole manifest in the time that a stalled connection gets.
        match tokio::time::timeout(self.patience, work).await {
            Ok(result) => result,
            Err(_) => Err(self.timed_out(&what)),
        }
    }

    /// Opens a blob, from byte `offset` on if the registry can do that, else from its start.
    pub(crate) async fn blob(&self, digest: &Digest, offset: u64) -> Result<BlobStream> {
        let what = format!("layer {}", digest.short());
        let url = format!("{}/blobs/{digest}", self.base);
        let request = |http: &reqwest::Client| match offset {
            0 => http.get(&url),
            _ => http.get(&url).header(RANGE, format!("bytes={offset}-")),
        };
        let sent = tokio::time::timeout(self.patience, self.send(&what, request)).await;
        let response = sent.map_err(|_| self.timed_out(&what))??;
        let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
        let continues = response.status() == StatusCode::PARTIAL_CONTENT
            && range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")));
        Ok(BlobStream { response, offset: if continues { offset } else { 0 } })
    }

    pub(crate) fn timed_out(&self, what: &str) -> Error {
        Error::TimedOut { registry: self.host(), action: format!("get {what}") }
    }

    pub(crate) fn transport(&self, what: &str, source: reqwest::Error) -> Error {
        if source.is_timeout() {
            return self.timed_out(what);
        }
        // An address may carry a signature that lets anyone fetch what is behind it.
        let source = source.without_url();
        Error::Transport { action: format!("get {what}"), registry: self.host(), source }
    }

    fn host(&self) -> String {
        self.name.registry().to_owned()
    }

    /// Sends a request, proves who we are if asked to, and gives the answer if it is a good one.
    async fn send(
        &self,
        what: &str,
        request: impl Fn(&reqwest::Client) -> reqwest::RequestBuilder,
    ) -> Result<Response> {
        let mut response = self.try_send(what, &request).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(proof) = self.answer_challenge(&response).await?
        {
            *self.proof.lock().expect("no holder panics") = Some(proof);
            response = self.try_send(what, &request).await?;
        }
        let status = response.status();
        if status.is_success() { Ok(response) } else { Err(self.refused(what, response).await) }
    }

    async fn try_send(
        &self,
        what: &str,
        request: &impl Fn(&reqwest::Client) -> reqwest::RequestBuilder,
    ) -> Result<Response> {
        let proof = self.proof.lock().expect("no holder panics").clone();
        let mut builder = request(&self.http);
        if let Some(proof) = proof {
            builder = builder.header(AUTHORIZATION, proof);
        }
        builder.send().await.map_err(|source| self.transport(what, source))
    }

    /// The header that answers a 401, if we have an answer.
    async fn answer_challenge(&self, response: &Response) -> Result<Option<HeaderValue>> {
        let mut basic = false;
        for header in response.headers().get_all(WWW_AUTHENTICATE) {
            let Ok(text) = header.to_str() else { continue };
            for challenge in ChallengeParser::new(text).map_while(std::result::Result::ok) {
                let param = |name: &str| {
                    let found = challenge.params.iter().find(|(k, _)| k.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let Some(realm) = param("realm") else { continue };
                    return self.token(&realm, param("service").as_deref()).await.map(Some);
                }
                basic |= challenge.scheme.eq_ignore_ascii_case("basic");
            }
        }
        Ok(self.basic_header().filter(|_| basic))
    }

    /// Asks the token service for a token that lets us pull from the repository.
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<HeaderValue> {
        let what = "an access token";
        let broken = |reason: &str| {
            Error::malformed(format!("the answer of registry {}", self.host()), reason)
        };
        let mut url = Url::parse(realm).map_err(|_| broken("its token service is no URL"))?;
        if !self.may_ask(&url) {
            return Err(broken("its token service is not behind TLS"));
        }
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", &format!("repository:{}:pull", self.name.repository()));
        }
        let mut request = self.http.get(url);
        if let Some(header) = self.basic_header() {
            request = request.header(AUTHORIZATION, header);
        }
        let response = request.send().await.map_err(|source| self.transport(what, source))?;
        if !response.status().is_success() {
            return Err(self.refused(what, response).await);
        }
        let bytes = self.body(response, what, TOKEN_MAX).await?;
        let token: Token =
            serde_json::from_slice(&bytes).map_err(|_| broken("its token does not parse"))?;
        let token = token
            .token
            .or(token.access_token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| broken("it sent no token"))?;
        // A token is foreign text: what cannot stand in a header is refused, not passed on.
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| broken("its token has forbidden characters"))?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// Whether a login may go to this token service: over TLS to any, because the registry's word
    /// came over TLS; in the clear only to where the registry itself is spoken to in the clear.
    fn may_ask(&self, service: &Url) -> bool {
        let host = service.host_str().unwrap_or_default();
        let own = Url::parse(&self.base).ok();
        let same = own.as_ref().and_then(Url::host_str) == Some(host);
        match service.scheme() {
            "https" => !host.is_empty(),
            "http" => self.plain && (same || is_loopback(host)),
            _ => false,
        }
    }

    fn basic_header(&self) -> Option<HeaderValue> {
        use base64::Engine as _;
        let Credentials::Basic { user, password } = &self.credentials else { return None };
        let pair = format!("{user}:{}", password.reveal());
        let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let mut header = HeaderValue::from_str(&text).expect("base64 is plain text");
        header.set_sensitive(true);
        Some(header)
    }

    async fn refused(&self, what: &str, response: Response) -> Error {
        let status = response.status();
        let body = self.body(response, what, REFUSAL_MAX).await.unwrap_or_default();
        let mut reason = refusal(&body).unwrap_or_else(|| status.to_string());
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            reason.push_str(match &self.credentials {
                Credentials::Anonymous => "; no login for it is known",
                Credentials::Basic { .. } => "; the login for it was not accepted",
                Credentials::Helper { .. } => {
                    "; its login is with a credential helper, which is not used: log in with a \
                     configuration that keeps the login itself"
                }
            });
        }
        let registry = self.host();
        Error::Refused { registry, what: what.to_owned(), status: status.as_u16(), reason }
    }

    async fn body(&self, response: Response, what: &str, limit: u64) -> Result<Vec<u8>> {
        if response.content_length().is_some_and(|len| len > limit) {
            return Err(Error::too_large(what, limit));
        }
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|source| self.transport(what, source))?;
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(Error::too_large(what, limit));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

/// Follows a few redirects, but never from TLS into the clear.
fn redirect(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let was_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > REDIRECTS_MAX {
        attempt.error("too many redirects")
    } else if was_tls && attempt.url().scheme() != "https" {
        attempt.error("redirect from https to http")
    } else {
        attempt.follow()
    }
}

/// Whether the registry is on this host, where nobody can listen in.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The registry's own words: its first error's message, else its code.
fn refusal(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    let reason = refusal.errors.into_iter().next()?;
    let text = if reason.message.is_empty() { reason.code } else { reason.message };
    (!text.is_empty()).then(|| printable(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_is_spoken_to_in_the_clear() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:80", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["docker.io", "localhost.io", "10.0.0.1", "[::2]:5000", "127.0.0.1.nip.io"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn refusals_speak_in_the_registrys_words_without_control_characters() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[2J"}]}"#;
        assert_eq!(refusal(body).as_deref(), Some("no\u{fffd}[2J"));
        assert_eq!(refusal(br#"{"errors":[{"code":"DENIED"}]}"#).as_deref(), Some("DENIED"));
        assert_eq!(refusal(b"<html>"), None);
        assert_eq!(refusal(br#"{"errors":[]}"#), None);
    }
}
