// SPDX-License-Identifier: Apache-2.0
//! `cp`: files between a container and this host, as tar.
//!
//! `endpoint` decides where things land, `pack` reads the host, `archive` and `extract` take what a
//! guest sends and keep it inside the folder it is meant for.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hc_api::{ArchiveQuery, ErrorKind, PATH_STAT_HEADER};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Response};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::Context;
use crate::args::CopyArgs;
use crate::client::{Body, Client, Target, body, upload};
use crate::failure::{CLOSED_PIPE, Failure, Result};
use crate::session::{Output, Shown};
use crate::show::{human, print_note};

mod archive;
mod endpoint;
mod extract;
mod pack;

use endpoint::{Ending, Endpoint, Found, in_container, land};

/// Pieces of an archive that wait to be extracted.
const QUEUE: usize = 8;

/// What the daemon says about a path in a container.
#[derive(Debug, Deserialize)]
struct PathStat {
    mode: u32,
    link_to_directory: bool,
}

impl PathStat {
    fn is_folder(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

pub(crate) async fn copy(context: &Context, args: &CopyArgs) -> Result<u8> {
    let (from, to) = (Endpoint::parse(&args.from)?, Endpoint::parse(&args.to)?);
    match (from, to) {
        (Endpoint::Container { container, path }, Endpoint::Host(target)) => {
            let client = context.client().await?;
            download(&client, args, &container, &path, &target).await
        }
        (Endpoint::Container { container, path }, Endpoint::Stream) => {
            if io::stdout().is_terminal() {
                return Err(Failure::argument("refusing to write an archive to a terminal")
                    .with_hint("name a folder, or redirect standard output"));
            }
            let client = context.client().await?;
            let clean = in_container(&path);
            let ending = Ending::of(&path);
            let response = fetch(&client, &container, &clean, args.follow_link || ending.folder);
            pass_on(response.await?).await
        }
        (Endpoint::Host(source), Endpoint::Container { container, path }) => {
            let client = context.client().await?;
            send(&client, args, &source, &container, &path).await
        }
        (Endpoint::Stream, Endpoint::Container { container, path }) => {
            if io::stdin().is_terminal() {
                return Err(Failure::argument("refusing to read an archive from a terminal")
                    .with_hint("name a file, or redirect standard input"));
            }
            let client = context.client().await?;
            let clean = in_container(&path);
            put(&client, args, &container, &clean, upload(io::stdin())).await?;
            Ok(0)
        }
        (Endpoint::Container { .. }, Endpoint::Container { .. }) => {
            Err(Failure::unsupported("copying from one container to another is not supported")
                .with_hint("use: hyper cp FROM - | hyper cp - TO"))
        }
        _ => Err(Failure::argument("neither side is in a container")
            .with_hint("write one of them as CONTAINER:PATH")),
    }
}

async fn download(
    client: &Client,
    args: &CopyArgs,
    container: &str,
    path: &str,
    target: &Path,
) -> Result<u8> {
    let clean = in_container(path);
    let ending = Ending::of(path);
    let follow = args.follow_link || ending.folder;
    let response = fetch(client, container, &clean, follow).await?;
    let stat = path_stat(&response)?;
    // The daemon may tell about the link or about where it leads; it sends what it leads to.
    let is_folder = stat.is_folder() || (follow && stat.link_to_directory);
    if ending.folder && !is_folder {
        return Err(Failure::argument(format!("{container}:{path} is not a folder")));
    }
    let source = if is_folder { Found::Folder } else { Found::File };
    let found = match std::fs::metadata(target) {
        Ok(metadata) if metadata.is_dir() => Found::Folder,
        Ok(_) => Found::File,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Nothing,
        Err(error) => return Err(cannot(target, error)),
    };
    let name = clean.file_name().map(ToOwned::to_owned);
    let target_ending = Ending::of(&target.to_string_lossy());
    let landing = land(source, ending, name, target, found, target_ending)
        .map_err(|why| cannot(target, why))?;
    let folder = extract::open_destination(&landing.folder)
        .map_err(|error| cannot(&landing.folder, error))?;
    let destination = extract::Destination { folder, name: landing.name, keep: args.archive };
    let (sender, receiver) = mpsc::channel(QUEUE);
    let extraction =
        tokio::task::spawn_blocking(move || extract::extract(Pieces::new(receiver), &destination));
    feed(response, sender).await;
    let summary = extraction
        .await
        .map_err(|error| Failure::system("cannot copy", error))?
        .map_err(|error| cannot(target, error))?;
    for skipped in &summary.skipped {
        print_note(&format!("skipped {skipped}"));
    }
    tell(args, &format!("copied {} to {}", human::size(summary.bytes), target.display()));
    Ok(0)
}

/// Hands the pieces of an answer to the thread that extracts them. Its own error, if the connection
/// breaks, reaches that thread as a failed read.
async fn feed(response: Response<Incoming>, sender: mpsc::Sender<io::Result<Bytes>>) {
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let piece = match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => Ok(data),
                Err(_) => continue,
            },
            Err(error) => Err(io::Error::other(error)),
        };
        if sender.send(piece).await.is_err() {
            return;
        }
    }
}

/// Pieces that come over a channel, as one stream.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Pieces {
    fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Pieces {
        Pieces { receiver, current: Bytes::new() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

/// Passes an archive on to standard output as it is.
async fn pass_on(response: Response<Incoming>) -> Result<u8> {
    let mut output = Output::new(Shown::ALL);
    let mut body = response.into_body();
    let closed = |_| Failure::silent(CLOSED_PIPE);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Failure::system("lost the connection to the daemon", e))?;
        if let Ok(data) = frame.into_data() {
            output.stdout(data.into()).await.map_err(closed)?;
            output.flush().await.map_err(closed)?;
        }
    }
    output.finish().await.map_err(closed)?;
    Ok(0)
}

async fn send(
    client: &Client,
    args: &CopyArgs,
    source: &Path,
    container: &str,
    path: &str,
) -> Result<u8> {
    let text = source.to_string_lossy();
    let ending = Ending::of(&text);
    let follow = args.follow_link || ending.folder;
    let metadata =
        if follow { std::fs::metadata(source) } else { std::fs::symlink_metadata(source) };
    let metadata = metadata.map_err(|error| cannot(source, error))?;
    if ending.folder && !metadata.is_dir() {
        return Err(cannot(source, "it is not a folder"));
    }
    let kind = if metadata.is_dir() { Found::Folder } else { Found::File };
    let clean = in_container(path);
    let found = look_up(client, container, &clean).await?;
    let landing = land(kind, ending, own_name(source), &clean, found, Ending::of(path))
        .map_err(|why| Failure::argument(format!("cannot copy to {container}:{path}: {why}")))?;
    let source =
        pack::Source { path: source.to_owned(), name: landing.name.map(PathBuf::from), follow };
    let archive = body::produce(move |sink| {
        pack::pack(&source, io::BufWriter::with_capacity(128 * 1024, sink))
    });
    put(client, args, container, &landing.folder, archive).await?;
    tell(args, &format!("copied {text} to {container}:{}", clean.display()));
    Ok(0)
}

/// What a source on this host is called, also where its path ends in dots.
fn own_name(path: &Path) -> Option<OsString> {
    let name = path.file_name().map(ToOwned::to_owned);
    name.or_else(|| path.canonicalize().ok()?.file_name().map(ToOwned::to_owned))
}

async fn put(
    client: &Client,
    args: &CopyArgs,
    container: &str,
    folder: &Path,
    archive: Body,
) -> Result<()> {
    let query = ArchiveQuery { path: utf8(folder)?, keep_owner: args.archive, ..<_>::default() };
    let target = Target::new(&["containers", container, "archive"]).query(&query);
    client.send(Method::PUT, target, archive).await?;
    Ok(())
}

async fn fetch(
    client: &Client,
    container: &str,
    path: &Path,
    follow: bool,
) -> Result<Response<Incoming>> {
    let query = ArchiveQuery { path: utf8(path)?, follow, ..ArchiveQuery::default() };
    let target = Target::new(&["containers", container, "archive"]).query(&query);
    client.send(Method::GET, target, Body::empty()).await
}

/// What is at a path in a container; a link to a folder counts as one.
async fn look_up(client: &Client, container: &str, path: &Path) -> Result<Found> {
    let query = ArchiveQuery { path: utf8(path)?, stat: true, ..ArchiveQuery::default() };
    let target = Target::new(&["containers", container, "archive"]).query(&query);
    match client.send(Method::GET, target, Body::empty()).await {
        Ok(response) => {
            let stat = path_stat(&response)?;
            Ok(if stat.is_folder() || stat.link_to_directory { Found::Folder } else { Found::File })
        }
        Err(failure) if failure.kind() == ErrorKind::NotFound => {
            // The path or the container: ask for what is always there.
            let _: hc_api::Container = client.get(Target::new(&["containers", container])).await?;
            Ok(Found::Nothing)
        }
        Err(failure) => Err(failure),
    }
}

fn path_stat(response: &Response<Incoming>) -> Result<PathStat> {
    let header = response.headers().get(PATH_STAT_HEADER);
    header.and_then(|value| serde_json::from_slice(value.as_bytes()).ok()).ok_or_else(|| {
        Failure::new(ErrorKind::Internal, "the daemon does not say what it sends")
            .with_hint("it may be of another version; compare: hyper version")
    })
}

fn utf8(path: &Path) -> Result<String> {
    String::from_utf8(path.as_os_str().as_bytes().to_vec()).map_err(|error| {
        let path = PathBuf::from(OsString::from_vec(error.into_bytes()));
        Failure::argument(format!("path {} is not UTF-8", path.display()))
    })
}

fn cannot(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::system(format_args!("cannot copy {}", path.display()), why)
}

/// Says what was done, on standard error because it is no data.
fn tell(args: &CopyArgs, text: &str) {
    if !args.quiet && io::stderr().is_terminal() {
        print_note(text);
    }
}
