// SPDX-License-Identifier: Apache-2.0
//! Makes the root file system of an image from its layers, once.
//!
//! One thread unpacks and hashes the layers in order, the other merges them: on two cores that
//! takes about as long as the slower of the two. A layer whose diff ID does not match fails the
//! build at its end, so a finished root file system is a checked one.
//!
//! Where the root file system is there already, because another image has the same chain of layers,
//! new layers are unpacked and hashed all the same: they claim to be that chain, and may lie.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::digest::Hasher;
use crate::disk::{DiskGuard, Ticker};
use crate::layout::{Lease, Sync};
use crate::limits::COPY_BUFFER;
use crate::unpack::{Bound, Unpacked, unwrap_io};
use crate::{Digest, Error, Event, Image, Layer, Progress, Result, Stage, Store};

/// Buffers between the threads: enough to even out their paces, few enough to stay in the cache.
const PIECES_AHEAD: usize = 8;

impl Store {
    /// The root file system of the image, built if it is not there yet. Waits if someone else is
    /// building one.
    pub fn ensure_rootfs(&self, image: &Image, progress: &dyn Progress) -> Result<PathBuf> {
        let path = self.layout.rootfs(&image.chain_id);
        if path.exists() {
            return Ok(path);
        }
        let operation = self.operation()?;
        // Layers may have changed on disk since they came in, so none counts as checked.
        self.build_rootfs(operation.lease(), image, &HashSet::new(), progress)?;
        Ok(path)
    }

    /// Checks the layers of an image that came in just now, and builds its root file system unless
    /// that is there. Blobs in `checked` were hashed in this very operation.
    pub(crate) fn check_and_build(
        &self,
        lease: &Lease,
        image: &Image,
        checked: &HashSet<Digest>,
        progress: &dyn Progress,
    ) -> Result<()> {
        if self.build_rootfs(lease, image, checked, progress)? {
            return Ok(());
        }
        let images = self.catalog()?.groups().map(|entry| self.load_image(&entry));
        // A damaged image proves nothing.
        let proven: HashSet<(Digest, Digest)> = images
            .filter_map(Result::ok)
            .flat_map(|image| image.layers)
            .map(|layer| (layer.digest, layer.diff_id))
            .collect();
        let guard = self.layout.disk_guard(&self.limits)?;
        let mut work = Work::new(self, image, checked, &guard, progress);
        work.layers.retain(|layer| !proven.contains(&(layer.digest, layer.diff_id)));
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(PIECES_AHEAD);
            scope.spawn(|| work.send_layers(sender));
            receiver.iter().find_map(|piece| match piece {
                Piece::Failed(error) => Some(Err(error)),
                Piece::Bytes(_) | Piece::EndOfLayer => None,
            })
        })
        .unwrap_or(Ok(()))
    }

    /// Builds the root file system; false if it was there already.
    fn build_rootfs(
        &self,
        lease: &Lease,
        image: &Image,
        checked: &HashSet<Digest>,
        progress: &dyn Progress,
    ) -> Result<bool> {
        let path = self.layout.rootfs(&image.chain_id);
        let _lock = self.layout.lock_rootfs(lease)?;
        if path.exists() {
            return Ok(false);
        }
        let guard = self.layout.disk_guard(&self.limits)?;
        let temp = self.layout.temp(lease)?;
        let room = guard.check()?;
        let mut limits = hc_rootfs::Limits {
            max_layer_bytes: self.limits.unpacked_bytes,
            ..hc_rootfs::Limits::default()
        };
        limits.max_image_bytes = limits.max_image_bytes.min(room);
        let options = hc_rootfs::Options { limits, ..hc_rootfs::Options::default() };
        let work = Work::new(self, image, checked, &guard, progress);
        work.report(Stage::Build, 0);
        let merged = std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(PIECES_AHEAD);
            scope.spawn(|| work.send_layers(sender));
            merge(&temp.file, options, image.layers.len(), &receiver)
        });
        merged.map_err(|error| self.explain(&work.item, room, error))?;
        temp.persist(&path, Sync::Now)?;
        work.report(Stage::Done, work.total);
        Ok(true)
    }

    /// Turns the builder's error into ours where the cause is ours.
    fn explain(&self, image: &str, room: u64, error: hc_rootfs::Error) -> Error {
        match error {
            // The disk's limit, which we handed over as if it were the image's.
            hc_rootfs::Error::Limit { limit, .. } if limit == room => Error::DiskFull {
                path: self.layout.root().to_owned(),
                detail: format!("the root file system needs more than {} MiB", room >> 20),
            },
            hc_rootfs::Error::Read { layer, source } => match source.downcast::<Error>() {
                Ok(ours) => ours,
                Err(source) => Error::Rootfs {
                    image: image.to_owned(),
                    source: hc_rootfs::Error::Read { layer, source },
                },
            },
            hc_rootfs::Error::Write { source } => {
                Error::store("write a root file system in", self.layout.root(), source)
            }
            source => Error::Rootfs { image: image.to_owned(), source },
        }
    }
}

fn merge(
    out: &File,
    options: hc_rootfs::Options,
    layers: usize,
    pieces: &Receiver<Piece>,
) -> Result<(), hc_rootfs::Error> {
    let mut builder = hc_rootfs::Builder::new(out, options)?;
    for _ in 0..layers {
        builder =
            builder.add_layer(LayerReader { pieces, current: Vec::new(), at: 0, ended: false })?;
    }
    builder.finish()?;
    Ok(())
}

/// What goes from the unpacking thread to the merging one.
enum Piece {
    Bytes(Vec<u8>),
    EndOfLayer,
    Failed(Error),
}

/// One layer, unpacked and checked by the other thread.
struct LayerReader<'a> {
    pieces: &'a Receiver<Piece>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for LayerReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            if self.ended {
                return Ok(0);
            }
            match self.pieces.recv() {
                Ok(Piece::Bytes(bytes)) => {
                    self.current = bytes;
                    self.at = 0;
                }
                Ok(Piece::EndOfLayer) => self.ended = true,
                Ok(Piece::Failed(error)) => return Err(io::Error::other(error)),
                Err(_) => return Err(io::Error::other("the unpacking thread is gone")),
            }
        }
        let n = buf.len().min(self.current.len() - self.at);
        buf[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// The part of the unpacking thread.
struct Work<'a> {
    store: &'a Store,
    layers: Vec<Layer>,
    checked: &'a HashSet<Digest>,
    guard: &'a DiskGuard,
    progress: &'a dyn Progress,
    item: String,
    total: u64,
}

/// The merging thread has failed and hears no more.
struct Deaf;

impl<'a> Work<'a> {
    fn new(
        store: &'a Store,
        image: &Image,
        checked: &'a HashSet<Digest>,
        guard: &'a DiskGuard,
        progress: &'a dyn Progress,
    ) -> Self {
        let total = image.layers.iter().map(|layer| layer.size).sum();
        let (layers, item) = (image.layers.clone(), image.id.short());
        Work { store, layers, checked, guard, progress, item, total }
    }

    fn send_layers(&self, pieces: SyncSender<Piece>) {
        let mut before = 0;
        for layer in &self.layers {
            let piece = match self.send_layer(layer, before, &pieces) {
                Ok(Ok(())) => Piece::EndOfLayer,
                Ok(Err(Deaf)) => return,
                Err(error) => Piece::Failed(error),
            };
            if pieces.send(piece).is_err() {
                return;
            }
            before += layer.size;
        }
    }

    /// Sends one layer whole, or says why it is not to be used.
    fn send_layer(
        &self,
        layer: &Layer,
        before: u64,
        pieces: &SyncSender<Piece>,
    ) -> Result<Result<(), Deaf>> {
        let what = format!("layer {}", layer.digest.short());
        let path = self.store.layout.blob(&layer.digest);
        let file = File::open(&path).map_err(|e| Error::store("open", &path, e))?;
        let limits = &self.store.limits;
        let mut reader = Unpacked::new(file, Bound::new(&what, limits.unpacked_bytes, limits))?;
        let packed = reader.packed();
        // A plain layer was hashed as it came in, and that hash is the diff ID.
        let known = layer.digest == layer.diff_id && self.checked.contains(&layer.digest);
        let mut hasher = (!known).then(Hasher::default);
        let mut ticker = Ticker::default();
        loop {
            let mut piece = vec![0; COPY_BUFFER];
            let n = fill(&mut reader, &mut piece).map_err(|e| unwrap_io(e, &what))?;
            if n == 0 {
                break;
            }
            piece.truncate(n);
            if let Some(hasher) = &mut hasher {
                hasher.update(&piece);
            }
            if ticker.tick(n as u64) {
                self.guard.check()?;
                self.look_around(before + packed.load(std::sync::atomic::Ordering::Relaxed))?;
            }
            if pieces.send(Piece::Bytes(piece)).is_err() {
                return Ok(Err(Deaf));
            }
        }
        let actual = hasher.map_or(layer.diff_id, Hasher::finish);
        if actual != layer.diff_id {
            let what = format!("{what}, unpacked,");
            return Err(Error::WrongDigest { what, expected: layer.diff_id, actual });
        }
        Ok(Ok(()))
    }

    fn look_around(&self, done: u64) -> Result<()> {
        if self.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        self.report(Stage::Build, done);
        Ok(())
    }

    fn report(&self, stage: Stage, done: u64) {
        self.progress.report(Event { stage, item: &self.item, done, total: Some(self.total) });
    }
}

/// Reads until `buf` is full or the stream ends.
fn fill(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < buf.len() {
        match reader.read(&mut buf[at..]) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}
