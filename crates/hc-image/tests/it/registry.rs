// SPDX-License-Identifier: Apache-2.0
//! Pulls from a real registry, and from one that misbehaves.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hc_image::{
    Credentials, Digest, Error, Event, Kind, LoadedImage, Progress, PullOptions, PullPolicy,
    Reference, Secret, Silent, Stage,
};
use serde_json::json;

use crate::docker_registry::DockerRegistry;
use crate::server::{Answer, Request, Server, Then};
use crate::support::*;

fn pull_with(
    test: &TestStore,
    name: &str,
    options: &PullOptions,
    progress: Arc<dyn Progress>,
) -> Result<LoadedImage, Error> {
    let name: Reference = name.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test.store.pull(&name, options, progress))
}

fn pull(test: &TestStore, name: &str) -> Result<LoadedImage, Error> {
    pull_with(test, name, &PullOptions::default(), Arc::new(Silent))
}

fn image() -> OciImage {
    let plain = [layer("a", "one"), layer("b", "two"), layer("c", &"three".repeat(9000))];
    OciImage::new(&plain, &plain.each_ref().map(|layer| gzip(layer)))
}

/// Remembers how often each stage was reported.
#[derive(Default)]
struct Stages(Mutex<Vec<(Stage, String)>>);

impl Progress for Stages {
    fn report(&self, event: Event<'_>) {
        self.0.lock().unwrap().push((event.stage, event.item.to_owned()));
    }
}

impl Stages {
    fn count(&self, stage: Stage) -> usize {
        self.0.lock().unwrap().iter().filter(|(s, _)| *s == stage).count()
    }
}

/// A docker-archive on disk for other programs to push.
fn archive_file(dir: &Path) -> (DockerArchive, String) {
    let archive = DockerArchive::new("app:v1", &[layer("a", "one"), layer("b", "two")]);
    let path = dir.join("archive.tar");
    fs::write(&path, archive.bytes()).unwrap();
    let source = format!("docker-archive:{}", path.display());
    (archive, source)
}

#[test]
fn a_real_registry_gives_by_tag_and_by_digest_and_only_once() {
    let (Some(skopeo), Some(registry)) = (program("skopeo"), DockerRegistry::start(false)) else {
        return;
    };
    let test = TestStore::new();
    let (archive, source) = archive_file(test.dir.path());
    let name = registry.push(&skopeo, &source, "team/app:v1", None);

    let loaded = pull(&test, &name).unwrap();
    assert_eq!(loaded.image.id, archive.id());
    assert_eq!(loaded.names[0].to_string(), name);
    assert_eq!(loaded.image.config.cmd, ["/bin/sh"]);
    assert!(test.store.rootfs_path(&loaded.image.chain_id).exists());

    // Again, by digest: nothing is transferred, and the digest is a name.
    let by_digest = format!("{}/team/app@{}", registry.address, loaded.image.manifest);
    let stages = Arc::new(Stages::default());
    let again = pull_with(&test, &by_digest, &PullOptions::default(), stages.clone()).unwrap();
    assert_eq!(again.image.manifest, loaded.image.manifest);
    assert_eq!((stages.count(Stage::Download), stages.count(Stage::Present)), (0, 3));
    assert_eq!(test.store.resolve(&by_digest).unwrap().id, archive.id());

    let error = pull(&test, &format!("{}/team/app:none", registry.address)).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

#[test]
fn a_registry_with_logins_takes_the_right_one_only() {
    let (Some(skopeo), Some(registry)) = (program("skopeo"), DockerRegistry::start(true)) else {
        return;
    };
    let test = TestStore::new();
    let (archive, source) = archive_file(test.dir.path());
    let name = registry.push(&skopeo, &source, "app:v1", Some("user:secret"));
    let with = |credentials| {
        let options = PullOptions { credentials, ..PullOptions::default() };
        pull_with(&test, &name, &options, Arc::new(Silent))
    };
    let login = |password: &str| Credentials::Basic {
        user: "user".to_owned(),
        password: Secret::new(password),
    };
    let error = with(Credentials::Anonymous).unwrap_err().to_string();
    assert!(error.contains("authentication required; no login for it is known"), "{error}");
    let error = with(login("hunter2")).unwrap_err().to_string();
    assert!(error.contains("the login for it was not accepted"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    let helper = Credentials::Helper { name: "pass".to_owned() };
    let error = with(helper).unwrap_err().to_string();
    assert!(error.contains("credential helper"), "{error}");
    test.assert_empty();
    assert_eq!(with(login("secret")).unwrap().image.id, archive.id());
}

#[test]
fn the_policy_decides_who_is_asked() {
    let server = serve(image());
    let name = format!("{}/app:v1", server.address);
    let test = TestStore::new();
    let with = |policy| {
        let options = PullOptions { policy, ..PullOptions::default() };
        pull_with(&test, &name, &options, Arc::new(Silent))
    };
    assert_eq!(with(PullPolicy::Never).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(server.count("/manifests/v1"), 0);
    with(PullPolicy::Missing).unwrap();
    with(PullPolicy::Missing).unwrap();
    with(PullPolicy::Never).unwrap();
    assert_eq!(server.count("/manifests/v1"), 1);
    with(PullPolicy::Always).unwrap();
    assert_eq!(server.count("/manifests/v1"), 2);
}

/// The answer of an honest registry.
fn honest(image: &OciImage, request: &Request) -> Answer {
    let last = request.path.rsplit('/').next().unwrap();
    let content = image.blobs.iter().chain([&image.manifest]);
    let found = content.into_iter().find(|blob| Digest::of(blob).to_string() == last);
    match (last, found) {
        ("v1", _) => Answer::ok(&image.manifest),
        (_, Some(blob)) => Answer::ok(blob),
        _ => Answer::not_found(),
    }
}

fn serve(image: OciImage) -> Server {
    Server::start(move |request| honest(&image, request))
}

/// A registry that is honest but for the requests that `lie` answers; the error and the server.
fn refuse(
    image: OciImage,
    lie: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
) -> (String, Kind, Server) {
    let server = Server::start(move |r| lie(r).unwrap_or_else(|| honest(&image, r)));
    let test = TestStore::new();
    let options = PullOptions { patience: Duration::from_millis(700), ..PullOptions::default() };
    let name = format!("{}/app:v1", server.address);
    let error = pull_with(&test, &name, &options, Arc::new(Silent)).unwrap_err();
    test.assert_empty();
    (error.to_string(), error.kind(), server)
}

#[test]
fn content_that_is_not_what_was_promised() {
    let blob = image().blobs[1].clone();
    let path = format!("/blobs/{}", Digest::of(&blob));
    let mut wrong = blob.clone();
    wrong[20] ^= 1;
    let at = path.clone();
    let (error, kind, _) =
        refuse(image(), move |r| r.path.ends_with(&at).then(|| Answer::ok(&wrong)));
    assert!(error.contains("has digest"), "{error}");
    assert_eq!(kind, Kind::InvalidArgument);

    let at = path.clone();
    let longer = [blob.clone(), b"more".to_vec()].concat();
    let (error, ..) = refuse(image(), move |r| r.path.ends_with(&at).then(|| Answer::ok(&longer)));
    assert!(error.contains("is over the limit of"), "{error}");

    // Always cut short, so that taking it up again does not help.
    let shorter = blob[..blob.len() - 1].to_vec();
    let (error, _, server) = refuse(image(), {
        let at = path.clone();
        move |r| r.path.ends_with(&at).then(|| Answer::ok(&shorter[..0]))
    });
    assert!(error.contains("it ends after 0 of"), "{error}");
    assert_eq!(server.count(&path), 4);
}

#[test]
fn manifests_that_no_honest_registry_sends() {
    let manifest = |body: Vec<u8>| {
        move |r: &Request| r.path.ends_with("/manifests/v1").then(|| Answer::ok(&body))
    };
    let (error, kind, _) = refuse(image(), manifest(vec![b' '; 5 << 20]));
    assert_eq!(error, "manifest v1 is over the limit of 4194304");
    assert_eq!(kind, Kind::Exhausted);
    // The same without saying so beforehand.
    let (error, ..) = refuse(image(), |r| {
        let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        let bytes = [head, vec![b' '; 5 << 20]].concat();
        r.path.ends_with("/manifests/v1").then_some(Answer { bytes, then: Then::Close })
    });
    assert_eq!(error, "manifest v1 is over the limit of 4194304");

    let schema1 = br#"{"schemaVersion":1,"name":"app","tag":"v1","fsLayers":[],"history":[]}"#;
    let (error, kind, _) = refuse(image(), manifest(schema1.to_vec()));
    assert!(error.contains("manifest schema 1 is not supported"), "{error}");
    assert_eq!(kind, Kind::Unsupported);

    let mut arm = descriptor(MANIFEST_TYPE, b"x");
    arm["platform"] = json!({"os": "linux", "architecture": "arm64"});
    let (error, ..) = refuse(image(), manifest(index(&[arm])));
    assert!(error.contains("linux/arm64"), "{error}");

    let (error, ..) = refuse(image(), manifest(b"<html>login here</html>".to_vec()));
    assert_eq!(error, "manifest is not usable");
}

#[test]
fn an_index_leads_to_our_platform_and_its_digest_holds() {
    let image = image();
    let mut ours = image.descriptor();
    ours["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let multi = index(&[ours]);
    let digest = Digest::of(&multi);
    let server = Server::start(move |r| match r.path.rsplit('/').next().unwrap() {
        "multi" => Answer::ok(&multi),
        last if last == digest.to_string() => Answer::ok(&multi),
        last if last == Digest::of(b"other").to_string() => Answer::ok(&multi),
        _ => honest(&image, r),
    });
    let test = TestStore::new();
    let by_tag = pull(&test, &format!("{}/app:multi", server.address)).unwrap();
    let name = format!("{}/app@{digest}", server.address);
    let by_digest = pull(&test, &name).unwrap();
    assert_eq!(by_tag.image.id, by_digest.image.id);
    assert_eq!(test.store.resolve(&name).unwrap().names.len(), 2);
    let wrong = format!("{}/app@{}", server.address, Digest::of(b"other"));
    assert!(matches!(pull(&test, &wrong), Err(Error::WrongDigest { .. })));
}

#[test]
fn servers_that_keep_us_waiting() {
    let path = format!("/blobs/{}", Digest::of(&image().blobs[2]));
    let blob = image().blobs[2].clone();
    for suffix in ["/manifests/v1".to_owned(), path.clone()] {
        let (error, kind, _) = refuse(image(), move |r| {
            let silent = Answer { bytes: Vec::new(), then: Then::Hang };
            r.path.ends_with(&suffix).then_some(silent)
        });
        assert!(error.contains("did not answer in time"), "{error}");
        assert_eq!(kind, Kind::Timeout);
    }
    let (error, kind, _) = refuse(image(), move |r| {
        r.path.ends_with(&path).then(|| Answer::ok(&blob).cut(5, Then::Hang))
    });
    assert!(error.contains("did not answer in time"), "{error}");
    assert_eq!(kind, Kind::Timeout);
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke() {
    for ranges in [true, false] {
        let image = image();
        let id = image.id;
        let blob = image.blobs[2].clone();
        let path = format!("/blobs/{}", Digest::of(&blob));
        let server = Server::start({
            let path = path.clone();
            move |r| {
                let from = r.range.as_deref().and_then(|range| {
                    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
                });
                match from {
                    _ if !r.path.ends_with(&path) => honest(&image, r),
                    None => Answer::ok(&blob).cut(blob.len() / 2, Then::Close),
                    Some(from) if ranges => {
                        let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
                        let headers = [("Content-Range", range.as_str())];
                        Answer::new("206 Partial Content", &headers, &blob[from..])
                    }
                    Some(_) => Answer::ok(&blob),
                }
            }
        });
        let test = TestStore::new();
        let loaded = pull(&test, &format!("{}/app:v1", server.address)).unwrap();
        assert_eq!(loaded.image.id, id);
        assert_eq!(server.count(&path), 2);
    }
}

/// A registry that wants a token, and the service that gives it.
fn token_server(token: &'static str, realm: Option<&'static str>) -> Server {
    let image = image();
    let address = Arc::new(Mutex::new(String::new()));
    let own = Arc::clone(&address);
    let server = Server::start(move |r| {
        if r.path.starts_with("/token?") {
            return Answer::ok(format!(r#"{{"token":{token}}}"#).as_bytes());
        }
        if r.authorization.as_deref() == Some("Bearer good") {
            return honest(&image, r);
        }
        let realm = realm
            .map_or_else(|| format!("http://{}/token", own.lock().unwrap()), ToOwned::to_owned);
        let challenge = format!(r#"Bearer realm="{realm}",service="test",scope="x""#);
        Answer::new("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"")
    });
    address.lock().unwrap().clone_from(&server.address);
    server
}

#[test]
fn a_token_is_fetched_once_with_the_login_and_used_for_all() {
    let server = token_server(r#""good""#, None);
    let test = TestStore::new();
    let credentials =
        Credentials::Basic { user: "user".to_owned(), password: Secret::new("secret") };
    let options = PullOptions { credentials, ..PullOptions::default() };
    let name = format!("{}/team/app:v1", server.address);
    pull_with(&test, &name, &options, Arc::new(Silent)).unwrap();
    let requests = server.requests.lock().unwrap();
    let tokens: Vec<_> = requests.iter().filter(|r| r.path.starts_with("/token?")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].path, "/token?service=test&scope=repository%3Ateam%2Fapp%3Apull");
    // "user:secret"
    assert_eq!(tokens[0].authorization.as_deref(), Some("Basic dXNlcjpzZWNyZXQ="));
    let leaked = requests.iter().any(|r| {
        !r.path.starts_with("/token?")
            && r.authorization.as_ref().is_some_and(|a| a.starts_with("Basic"))
    });
    assert!(!leaked, "the password went to the registry as well");
}

#[test]
fn hostile_tokens_and_token_services_are_refused() {
    for (token, realm, reason) in [
        (r#""a\nb""#, None, "forbidden characters"),
        (r#""""#, None, "it sent no token"),
        ("17", None, "its token does not parse"),
        (r#""bad""#, None, "401 Unauthorized"),
        (r#""x""#, Some("ftp://127.0.0.1/token"), "not behind TLS"),
        (r#""x""#, Some("http://203.0.113.1/token"), "not behind TLS"),
        (r#""x""#, Some("::"), "no URL"),
    ] {
        let server = token_server(token, realm);
        let test = TestStore::new();
        let error = pull(&test, &format!("{}/app:v1", server.address)).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        test.assert_empty();
    }
}

#[test]
fn a_redirect_to_another_host_drops_the_login() {
    let image = image();
    let blobs = image.blobs.clone();
    let other = Server::start(move |r| {
        let last = r.path.rsplit('/').next().unwrap();
        let found = blobs.iter().find(|blob| Digest::of(blob).to_string() == last);
        found.map_or_else(Answer::not_found, |blob| Answer::ok(blob))
    });
    let elsewhere = other.address.clone();
    let server = Server::start(move |r| {
        if r.authorization.is_none() {
            return Answer::new("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=x")], b"");
        }
        if r.path.contains("/blobs/") {
            let to = format!("http://{elsewhere}{}", r.path);
            return Answer::new("307 Temporary Redirect", &[("Location", &to)], b"");
        }
        honest(&image, r)
    });
    let credentials =
        Credentials::Basic { user: "user".to_owned(), password: Secret::new("secret") };
    let options = PullOptions { credentials, ..PullOptions::default() };
    let test = TestStore::new();
    let name = format!("{}/app:v1", server.address);
    pull_with(&test, &name, &options, Arc::new(Silent)).unwrap();
    let requests = other.requests.lock().unwrap();
    assert!(!requests.is_empty() && requests.iter().all(|r| r.authorization.is_none()));
}

#[test]
fn a_pull_that_is_dropped_leaves_nothing() {
    let image = image();
    let blob = image.blobs[2].clone();
    let path = format!("/blobs/{}", Digest::of(&blob));
    let server = Server::start({
        let path = path.clone();
        move |r| {
            if r.path.ends_with(&path) {
                return Answer::ok(&blob).cut(5, Then::Hang);
            }
            honest(&image, r)
        }
    });
    let test = TestStore::new();
    let name: Reference = format!("{}/app:v1", server.address).parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = PullOptions::default();
        let pull = test.store.pull(&name, &options, Arc::new(Silent));
        let asked = async {
            while server.count(&path) == 0 {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            pulled = pull => panic!("the pull should have been waiting: {pulled:?}"),
            () = asked => {}
        }
    });
    // Ends the writing threads, which hear that their channel is gone.
    drop(runtime);
    test.assert_empty();
}

#[test]
fn a_layer_that_rotted_is_pulled_again() {
    let image = image();
    let blob = image.blobs[0].clone();
    let server = serve(image);
    let test = TestStore::new();
    let name = format!("{}/app:v1", server.address);
    let loaded = pull(&test, &name).unwrap();
    let path = test.store.root().join("blobs/sha256").join(Digest::of(&blob).hex());
    fs::remove_file(test.store.rootfs_path(&loaded.image.chain_id)).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![0; blob.len()]).unwrap();
    let options = PullOptions { policy: PullPolicy::Always, ..PullOptions::default() };
    pull_with(&test, &name, &options, Arc::new(Silent)).unwrap();
    let mut stored = Vec::new();
    fs::File::open(&path).unwrap().read_to_end(&mut stored).unwrap();
    assert_eq!(stored, blob);
}
