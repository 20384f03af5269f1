// SPDX-License-Identifier: Apache-2.0
//! Pulls images from registries.
//!
//! Bytes come in by tasks and go through a bounded channel to a thread that hashes and writes, the
//! same code that archives pass through. A broken connection is taken up again where it broke.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::credentials::Credentials;
use crate::load::{Candidate, LoadedImage};
use crate::manifest::{Descriptor, Document, Manifest};
use crate::registry::{BlobStream, Registry};
use crate::store::{Inserter, Operation};
use crate::{Digest, Error, Event, ImageConfig, Progress, Reference, Result, Stage, Store};

/// Layers that come at the same time. More helps little and wakes the rate limits of registries.
const PARALLEL: usize = 3;
/// How often a layer's connection may break before we give up.
const ATTEMPTS: u32 = 4;
/// Pause before the second attempt, twice that before the third, and so on: a registry that
/// restarts is back within it.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Bytes that must come within [`PullOptions::patience`], or the connection counts as stalled: a
/// server that drips would hold us for ever.
const LEAST_PROGRESS: u64 = 16 << 10;
/// Pieces of a layer, of some 16 KiB each, that wait to be written.
const PIECES_AHEAD: usize = 32;

/// When to ask the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always; only what is not here is transferred.
    Always,
    /// If no image of the name is here.
    #[default]
    Missing,
    /// Never; the image is here or it is an error.
    Never,
}

/// How to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// When to ask the registry at all.
    pub policy: PullPolicy,
    /// Who we are to it.
    pub credentials: Credentials,
    /// Registries, as `host` or `host:port`, that are spoken to without TLS. Those on this host
    /// always are.
    pub insecure_registries: Vec<String>,
    /// How long a connection may take to come up.
    pub connect_timeout: Duration,
    /// How long an answer may take, and a transfer may stand still.
    pub patience: Duration,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            policy: PullPolicy::default(),
            credentials: Credentials::default(),
            insecure_registries: Vec::new(),
            // Two lost SYNs and their repetition.
            connect_timeout: Duration::from_secs(10),
            // Registries that fetch a layer from elsewhere first can be silent for half a minute.
            patience: Duration::from_mins(1),
        }
    }
}

impl Store {
    /// Pulls an image, by tag or digest, as `options.policy` says.
    ///
    /// Needs a Tokio runtime with time and I/O. Dropping the future stops the pull.
    pub async fn pull(
        &self,
        name: &Reference,
        options: &PullOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<LoadedImage> {
        if options.policy != PullPolicy::Always {
            let (store, text) = (self.clone(), name.to_string());
            match blocking(move || store.resolve(&text)).await {
                Ok(image) => return Ok(LoadedImage { image, names: vec![name.clone()] }),
                Err(Error::NoSuchImage { .. }) if options.policy == PullPolicy::Missing => {}
                Err(error) => return Err(error),
            }
        }
        let registry = Registry::new(name, options)?;
        progress.report(Event {
            stage: Stage::Resolve,
            item: &name.familiar(),
            done: 0,
            total: None,
        });
        let (descriptor, bytes, manifest) = self.fetch_manifest(&registry, name).await?;

        let store = self.clone();
        let operation = Arc::new(blocking(move || store.operation()).await?);
        let pull =
            Pull { store: self.clone(), registry, operation, progress, patience: options.patience };
        let checked = pull.fetch_blobs(&bytes, &manifest).await?;
        let Pull { store, operation, progress, .. } = pull;
        let names = vec![name.clone()];
        blocking(move || {
            let candidate = Candidate { manifest: descriptor, names };
            let admitted =
                store.admit(operation.lease(), vec![candidate], &checked, progress.as_ref());
            Ok(admitted?.remove(0))
        })
        .await
    }

    /// The manifest for our machine, checked against the digests that led to it.
    async fn fetch_manifest(
        &self,
        registry: &Registry,
        name: &Reference,
    ) -> Result<(Descriptor, Vec<u8>, Manifest)> {
        let limit = self.limits.manifest_bytes;
        let version = match (name.digest(), name.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let mut bytes = registry.manifest(&version, limit).await?;
        let mut digest = check_digest("manifest", &bytes, name.digest())?;
        let mut document = Document::parse(&bytes, &self.limits)?;
        if let Document::Index(index) = &document {
            let entry = index.pick()?;
            if entry.size > limit {
                return Err(Error::too_large("manifest", limit));
            }
            bytes = registry.manifest(&entry.digest.to_string(), limit).await?;
            digest = check_digest("manifest", &bytes, Some(&entry.digest))?;
            document = Document::parse(&bytes, &self.limits)?;
        }
        let Document::Manifest(manifest) = document else {
            return Err(Error::malformed("index", "it leads to another index"));
        };
        let media_type = manifest.media_type.clone();
        let media_type = media_type.unwrap_or_else(|| crate::manifest::OCI_MANIFEST.to_owned());
        Ok((Descriptor::new(media_type, digest, bytes.len() as u64), bytes, manifest))
    }
}

fn check_digest(what: &str, bytes: &[u8], expected: Option<&Digest>) -> Result<Digest> {
    let actual = Digest::of(bytes);
    match expected {
        Some(expected) if *expected != actual => {
            Err(Error::WrongDigest { what: what.to_owned(), expected: *expected, actual })
        }
        _ => Ok(actual),
    }
}

/// One pull under way.
struct Pull {
    store: Store,
    registry: Registry,
    operation: Arc<Operation>,
    progress: Arc<dyn Progress>,
    patience: Duration,
}

impl Pull {
    /// Brings every blob into the store; says which were hashed on the way.
    async fn fetch_blobs(&self, bytes: &[u8], manifest: &Manifest) -> Result<HashSet<Digest>> {
        let (store, operation, content) =
            (self.store.clone(), Arc::clone(&self.operation), bytes.to_vec());
        blocking(move || store.layout.put_blob(operation.lease(), &content)).await?;

        // The configuration first: it is small and may rule the image out.
        self.fetch_blob(&manifest.config).await?;
        let (store, id) = (self.store.clone(), manifest.config.digest);
        let config = blocking(move || {
            let limit = store.limits.config_bytes;
            let bytes = store.layout.read_blob(&id, "image configuration", limit)?;
            ImageConfig::parse(&bytes.unwrap_or_default(), &store.limits)
        })
        .await?;
        config.check_platform()?;

        let mut seen = HashSet::new();
        let layers: Vec<&Descriptor> =
            manifest.layers.iter().filter(|layer| seen.insert(layer.digest)).collect();
        let chain_id = Digest::chain(&config.diff_ids);
        if self.store.layout.rootfs(&chain_id).exists()
            && layers.iter().all(|layer| self.store.layout.has_blob(&layer.digest, layer.size))
        {
            for layer in layers {
                self.report(Stage::Present, layer, layer.size);
            }
            return Ok(HashSet::new());
        }
        // Made beforehand: a closure inside the stream would keep this future from being `Send`.
        let fetches: Vec<_> = layers.into_iter().map(|layer| self.fetch_blob(layer)).collect();
        futures_util::stream::iter(fetches).buffer_unordered(PARALLEL).try_collect().await
    }

    fn report(&self, stage: Stage, blob: &Descriptor, done: u64) {
        let item = blob.digest.short();
        self.progress.report(Event { stage, item: &item, done, total: Some(blob.size) });
    }

    /// Brings one blob into the store, unless it is there and sound.
    async fn fetch_blob(&self, blob: &Descriptor) -> Result<Digest> {
        if self.is_present(blob).await? {
            self.report(Stage::Present, blob, blob.size);
            return Ok(blob.digest);
        }
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        let writer = {
            let (store, operation, progress) =
                (self.store.clone(), Arc::clone(&self.operation), Arc::clone(&self.progress));
            let (item, size) = (blob.digest.short(), blob.size);
            blocking(move || {
                let inserter = Inserter::new(&store, operation.lease(), progress.as_ref())?;
                inserter.check_room(size)?;
                let reader =
                    ChannelReader { pieces: receiver, current: Bytes::new(), ended: false };
                inserter.with_stage(Stage::Download).insert(reader, &item, Some(size))
            })
        };
        // Either may fail first and take the other with it. A writer whose channel was cut says
        // that it was cancelled, which only hides why.
        let (actual, _) = match tokio::join!(self.download(blob, sender), writer) {
            (Err(error), Err(Error::Cancelled) | Ok(_)) | (_, Err(error)) => return Err(error),
            (Ok(()), Ok(written)) => written,
        };
        if actual != blob.digest {
            let what = format!("layer {}", blob.digest.short());
            return Err(Error::WrongDigest { what, expected: blob.digest, actual });
        }
        self.report(Stage::Done, blob, blob.size);
        Ok(actual)
    }

    async fn is_present(&self, blob: &Descriptor) -> Result<bool> {
        let (store, digest, size) = (self.store.clone(), blob.digest, blob.size);
        blocking(move || store.layout.is_sound(&digest, size)).await
    }

    /// Sends the blob into the channel, taking the connection up again when it breaks.
    async fn download(&self, blob: &Descriptor, pieces: mpsc::Sender<Message>) -> Result<()> {
        let what = format!("layer {}", blob.digest.short());
        let mut done = 0;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let stream = self.registry.blob(&blob.digest, done).await;
            let error = match stream {
                Ok(stream) => match self.transfer(blob, stream, &mut done, &pieces).await {
                    // A writer that is gone has its own reason.
                    Ok(End::WriterGone) => return Ok(()),
                    Ok(End::OfStream) if done == blob.size => {
                        let _ = pieces.send(Message::End).await;
                        return Ok(());
                    }
                    Ok(End::OfStream) => Error::malformed(
                        what.clone(),
                        format!("it ends after {done} of {} bytes", blob.size),
                    ),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let transient = matches!(error, Error::Transport { .. } | Error::Malformed { .. });
            if !transient || attempt == ATTEMPTS || self.progress.is_cancelled() {
                return Err(error);
            }
            tracing::debug!(layer = %blob.digest, done, error = %error, "connection broke");
            tokio::time::sleep(RETRY_DELAY * attempt).await;
        }
    }

    async fn transfer(
        &self,
        blob: &Descriptor,
        stream: BlobStream,
        done: &mut u64,
        pieces: &mpsc::Sender<Message>,
    ) -> Result<End> {
        let what = format!("layer {}", blob.digest.short());
        let BlobStream { mut response, offset } = stream;
        // A registry that cannot start in the middle sends again what we have.
        let mut skip = *done - offset;
        let mut pace = Pace::new(self.patience);
        loop {
            let next = tokio::time::timeout_at(pace.deadline, response.chunk()).await;
            let piece = match next {
                Err(_) => return Err(self.registry.timed_out(&what)),
                Ok(Err(source)) => return Err(self.registry.transport(&what, source)),
                Ok(Ok(None)) => return Ok(End::OfStream),
                Ok(Ok(Some(piece))) => piece,
            };
            if self.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            pace.moved(piece.len() as u64);
            let known = skip.min(piece.len() as u64);
            skip -= known;
            let piece = piece.slice(usize::try_from(known).expect("it is at most a length")..);
            *done += piece.len() as u64;
            if *done > blob.size {
                return Err(Error::too_large(what, blob.size));
            }
            let handed_over = Instant::now();
            if pieces.send(Message::Piece(piece)).await.is_err() {
                return Ok(End::WriterGone);
            }
            pace.forgive(handed_over.elapsed());
        }
    }
}

/// How a transfer ended, if not by an error.
enum End {
    OfStream,
    WriterGone,
}

/// Sees to it that a transfer moves.
struct Pace {
    patience: Duration,
    deadline: Instant,
    bytes: u64,
}

impl Pace {
    fn new(patience: Duration) -> Pace {
        Pace { patience, deadline: Instant::now() + patience, bytes: 0 }
    }

    fn moved(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes >= LEAST_PROGRESS {
            *self = Pace::new(self.patience);
        }
    }

    /// Time spent waiting for our own disk is not the registry's.
    fn forgive(&mut self, time: Duration) {
        self.deadline += time;
    }
}

/// What goes from the network to the writing thread.
enum Message {
    Piece(Bytes),
    End,
}

/// The writing thread's end of a channel.
struct ChannelReader {
    pieces: mpsc::Receiver<Message>,
    current: Bytes,
    ended: bool,
}

impl Read for ChannelReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Message::Piece(piece)) => self.current = piece,
                Some(Message::End) => self.ended = true,
                None => return Err(io::Error::other(Error::Cancelled)),
            }
        }
        let n = buf.len().min(self.current.len());
        buf[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

/// Runs work that blocks on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down.
        Err(_) => Err(Error::Cancelled),
    }
}
