// SPDX-License-Identifier: Apache-2.0
//! `pull`, `load`, `import`, `images`, `rmi`, `tag`.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;

use hc_api::{
    ErrorKind, ImageRef, ImageSummary, ImportQuery, PullRequest, RemovedImage, TagRequest,
};
use hyper::Method;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Value, json};

use super::list::created_at;
use super::{Context, credentials, each};
use crate::args::{ImagesArgs, ImportArgs, LoadArgs, PullArgs, RmiArgs, TagArgs};
use crate::client::{Body, Client, Lines, Target, upload};
use crate::failure::{Failure, Result};
use crate::resolve::{host_platform_only, image_config};
use crate::show::{Format, human, print_line, progress};

const FIELDS: [&str; 7] =
    ["CreatedAt", "CreatedSince", "ID", "Repository", "RootfsSize", "Size", "Tag"];
const COLUMNS: [(&str, &str); 5] = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];
/// What Docker shows for an image without a name.
const NONE: &str = "<none>";

/// How the daemon is to name an image that goes, and whether by force.
#[derive(Serialize)]
struct RemoveImageQuery<'a> {
    name: &'a str,
    force: bool,
}

pub(crate) async fn pull(context: &Context, args: &PullArgs) -> Result<u8> {
    if args.all_tags {
        return Err(Failure::unsupported("--all-tags: pull one tag at a time"));
    }
    if let Some(platform) = &args.platform {
        host_platform_only(platform)?;
    }
    let client = context.client().await?;
    for image in pull_image(&client, &args.image, args.quiet).await? {
        print_line(image.names.first().unwrap_or(&image.id))?;
    }
    Ok(0)
}

/// Fetches an image with this user's credentials.
pub(super) async fn pull_image(
    client: &Client,
    reference: &str,
    quiet: bool,
) -> Result<Vec<ImageRef>> {
    let request = PullRequest {
        reference: reference.to_owned(),
        authorization: credentials::for_image(reference)?,
    };
    let target = Target::new(&["images", "pull"]);
    let pulled = async {
        let response = client.send(Method::POST, target, Body::json(&request)).await?;
        progress::follow(Lines::new(response), quiet).await
    };
    pulled.await.map_err(|failure| failure.context(format_args!("cannot pull {reference}")))
}

pub(crate) async fn load(context: &Context, args: &LoadArgs) -> Result<u8> {
    let source = source(args.input.as_deref().unwrap_or(Path::new("-")))?;
    let client = context.client().await?;
    let target = Target::new(&["images", "load"]);
    let response = client.send(Method::POST, target, upload(source)).await?;
    for image in progress::follow(Lines::new(response), args.quiet).await? {
        if image.names.is_empty() {
            print_line(&format!("Loaded image ID: {}", image.id))?;
        }
        for name in &image.names {
            print_line(&format!("Loaded image: {name}"))?;
        }
    }
    Ok(0)
}

pub(crate) async fn import(context: &Context, args: &ImportArgs) -> Result<u8> {
    if args.message.is_some() {
        return Err(Failure::unsupported("--message: images keep no commit messages"));
    }
    if let Some(platform) = &args.platform {
        host_platform_only(platform)?;
    }
    let config = image_config(&args.change)?;
    let query =
        ImportQuery { name: args.name.clone(), config: config.map(|config| config.to_string()) };
    let source = source(&args.file)?;
    let client = context.client().await?;
    let target = Target::new(&["images", "import"]).query(&query);
    let response = client.send(Method::POST, target, upload(source)).await?;
    for image in progress::follow(Lines::new(response), args.quiet).await? {
        print_line(&image.id)?;
    }
    Ok(0)
}

/// An archive to read; `-` is standard input, from which nobody types one.
fn source(path: &Path) -> Result<Box<dyn Read + Send>> {
    if path.as_os_str() != "-" {
        let file = File::open(path).map_err(|error| cannot_read(path, error))?;
        let folder = file.metadata().is_ok_and(|metadata| metadata.is_dir());
        if folder {
            return Err(cannot_read(path, "it is a folder, not an archive"));
        }
        return Ok(Box::new(file));
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::argument("refusing to read an archive from a terminal")
            .with_hint("name a file, or redirect standard input"));
    }
    Ok(Box::new(stdin))
}

fn cannot_read(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::system(format_args!("cannot read {}", path.display()), error)
}

pub(crate) async fn images(context: &Context, args: &ImagesArgs) -> Result<u8> {
    let format = Format::parse(args.format.as_deref(), args.quiet, &FIELDS)?;
    let client = context.client().await?;
    let mut list: Vec<ImageSummary> = client.get(Target::new(&["images"])).await?;
    list.sort_by_key(|image| std::cmp::Reverse(image.created));
    let now = Timestamp::now();
    let mut rows = Vec::new();
    for image in &list {
        let names: Vec<_> = image.names.iter().map(|name| split_name(name)).collect();
        let names = if names.is_empty() { vec![(NONE, NONE)] } else { names };
        let wanted = |(repository, tag): &(&str, &str)| {
            args.name.as_deref().is_none_or(|name| matches(name, repository, tag))
        };
        for name in names.into_iter().filter(wanted) {
            rows.push(row(image, name, args.no_trunc, now));
        }
    }
    if format == Format::Quiet {
        // An image with two names has one id.
        rows.dedup_by(|a, b| a["ID"] == b["ID"]);
    }
    format.print(&rows, &COLUMNS, "ID")?;
    Ok(0)
}

fn row(
    image: &ImageSummary,
    (repository, tag): (&str, &str),
    whole: bool,
    now: Timestamp,
) -> Value {
    let created = image.created;
    json!({
        "ID": if whole { image.id.as_str() } else { human::short_id(&image.id) },
        "Repository": repository,
        "Tag": tag,
        "CreatedSince": created.map_or("N/A".to_owned(), |created| human::ago(created, now)),
        "CreatedAt": created
            .map_or("N/A".to_owned(), |created| created_at(created, &TimeZone::system())),
        "Size": human::size(image.size_bytes),
        "RootfsSize": image.rootfs_bytes.map_or("N/A".to_owned(), human::size),
    })
}

/// `registry:5000/name:tag` apart, or with a digest in the tag's place.
fn split_name(name: &str) -> (&str, &str) {
    if let Some((repository, _)) = name.split_once('@') {
        return (repository, NONE);
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, NONE),
    }
}

/// Whether a name that was typed means this one; what Docker leaves out may be left out.
fn matches(typed: &str, repository: &str, tag: &str) -> bool {
    let (wanted, wanted_tag) = split_name(typed);
    let same = |full: &str| full == wanted;
    let repository = same(repository)
        || repository.strip_prefix("docker.io/").is_some_and(same)
        || repository.strip_prefix("docker.io/library/").is_some_and(same);
    repository && (wanted_tag == NONE || wanted_tag == tag)
}

pub(crate) async fn remove(context: &Context, args: &RmiArgs) -> Result<u8> {
    let client = context.client().await?;
    each(&args.images, async |name| {
        let query = RemoveImageQuery { name, force: args.force };
        let removed: Result<RemovedImage> =
            client.delete(Target::new(&["images"]).query(&query)).await;
        let removed = match removed {
            Err(failure) if args.force && failure.kind() == ErrorKind::NotFound => return Ok(()),
            removed => {
                removed.map_err(|f| f.context(format_args!("cannot remove image {name}")))?
            }
        };
        for name in &removed.untagged {
            print_line(&format!("Untagged: {name}"))?;
        }
        for id in &removed.deleted {
            print_line(&format!("Deleted: {id}"))?;
        }
        Ok(())
    })
    .await
}

pub(crate) async fn tag(context: &Context, args: &TagArgs) -> Result<u8> {
    let client = context.client().await?;
    let request = TagRequest { source: args.source.clone(), target: args.target.clone() };
    client.send(Method::POST, Target::new(&["images", "tag"]), Body::json(&request)).await?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_before_the_tag() {
        assert_eq!(split_name("a"), ("a", NONE));
        assert_eq!(split_name("a:1"), ("a", "1"));
        assert_eq!(split_name("h:5000/a"), ("h:5000/a", NONE));
        assert_eq!(split_name("h:5000/a:1"), ("h:5000/a", "1"));
        assert_eq!(split_name("a@sha256:00"), ("a", NONE));
    }

    #[test]
    fn a_typed_name_means_what_docker_takes_it_for() {
        let full = "docker.io/library/busybox";
        assert!(matches("busybox", full, "1"));
        assert!(matches("library/busybox:1", full, "1"));
        assert!(matches("docker.io/library/busybox", full, "1"));
        assert!(!matches("busybox:2", full, "1"));
        assert!(!matches("box", full, "1"));
    }
}
