// SPDX-License-Identifier: Apache-2.0
//! Answers that come as lines of JSON.

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Result};

/// The longest line in bytes; progress and samples have some hundred.
const MAX_LINE: usize = 1 << 20;

/// The lines of an answer, one by one.
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    ended: bool,
}

impl Lines {
    pub(crate) fn new(response: Response<Incoming>) -> Lines {
        Lines { body: response.into_body(), buffer: Vec::new(), ended: false }
    }

    /// The next line, or `None` after the last.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return parse(&line).map(Some);
            }
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                return if rest.is_empty() { Ok(None) } else { parse(&rest).map(Some) };
            }
            if self.buffer.len() > MAX_LINE {
                return Err(Failure::system("cannot understand the daemon", "endless line"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => {
                    return Err(Failure::system("lost the connection to the daemon", error));
                }
                None => self.ended = true,
            }
        }
    }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T> {
    serde_json::from_slice(line)
        .map_err(|error| Failure::system("cannot understand the daemon's answer", error))
}
