// SPDX-License-Identifier: Apache-2.0
//! Bodies that are sent as they come.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;

/// A body of whatever comes through `receiver`, until the sender is dropped.
pub(crate) fn lines(receiver: mpsc::Receiver<Bytes>) -> Body {
    Body::from_stream(stream::unfold(receiver, |mut receiver| async move {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(bytes), receiver))
    }))
}

/// A value as a line of JSON.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Bytes {
    // Our types hold nothing that JSON cannot.
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}
