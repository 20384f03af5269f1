// SPDX-License-Identifier: Apache-2.0
//! Framed bytes on their way to the line.
//!
//! Long bodies are shared with the stream that keeps them until they are acknowledged, so framing
//! copies nothing; everything short is gathered into runs, so a line of many small frames is still
//! one write.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use crate::frame::{END_MARK, Kind, header};

/// Bodies up to this length are copied: cheaper than one more slice in a vectored write.
const COPY_LEN: usize = 1024;

/// A run of small pieces starts with this capacity.
const RUN_CAPACITY: usize = 512;

#[derive(Debug)]
enum Piece {
    /// Headers, end marks and short bodies, one behind the other.
    Run(Vec<u8>),
    /// Part of a body that its stream still holds.
    Shared(Arc<Vec<u8>>, Range<usize>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Run(bytes) => bytes,
            Piece::Shared(bytes, range) => &bytes[range.clone()],
        }
    }
}

/// A queue of bytes in the order of the line.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that the line has already taken.
    taken: usize,
    len: usize,
}

impl Output {
    /// Bytes not yet taken by the line.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets everything, also a frame that the line has half taken.
    pub(crate) fn clear(&mut self) {
        *self = Output::default();
    }

    /// Adds bytes that are already framed.
    pub(crate) fn push_raw(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        if let Some(Piece::Run(run)) = self.pieces.back_mut() {
            run.extend_from_slice(bytes);
            return;
        }
        let mut run = Vec::with_capacity(RUN_CAPACITY.max(bytes.len()));
        run.extend_from_slice(bytes);
        self.pieces.push_back(Piece::Run(run));
    }

    /// Adds a frame with a short body.
    pub(crate) fn push_frame(&mut self, kind: Kind, stream: u32, body: &[u8]) {
        self.push_raw(&header(kind, stream, body.len()));
        self.push_raw(body);
        self.push_raw(&[END_MARK]);
    }

    /// Adds a frame whose body is a part of `bytes`.
    pub(crate) fn push_shared(
        &mut self,
        kind: Kind,
        stream: u32,
        bytes: &Arc<Vec<u8>>,
        range: Range<usize>,
    ) {
        if range.len() <= COPY_LEN {
            return self.push_frame(kind, stream, &bytes[range]);
        }
        self.push_raw(&header(kind, stream, range.len()));
        self.len += range.len();
        self.pieces.push_back(Piece::Shared(Arc::clone(bytes), range));
        self.push_raw(&[END_MARK]);
    }

    /// The next bytes in one slice; empty only if nothing is left.
    pub(crate) fn front(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| &piece.bytes()[self.taken..])
    }

    /// Fills `slices` from the front with the next bytes and says how many it filled.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.taken;
        let mut filled = 0;
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(&piece.bytes()[skip..]);
            skip = 0;
            filled += 1;
        }
        filled
    }

    /// Drops the next `n` bytes: the line took them. More than there are counts as all.
    pub(crate) fn advance(&mut self, n: usize) {
        let mut left = n.min(self.len);
        self.len -= left;
        while let Some(piece) = self.pieces.front() {
            let rest = piece.bytes().len() - self.taken;
            if left < rest {
                self.taken += left;
                return;
            }
            left -= rest;
            self.taken = 0;
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
