// SPDX-License-Identifier: Apache-2.0
//! What a caller gets from a guest that floods, raves, or says nothing.

use std::time::Duration;

use hc_guest::{Error, Events, Guest, Kind, MAX_UNTAKEN_EVENTS};
use hc_proto::ProtocolError;
use hc_proto::message::{Call, Event};
use hc_spec::Exit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::fake::{FakeGuest, pair};
use crate::{PATIENCE, launch};

#[tokio::test]
async fn a_lost_line_fails_everything_that_waits_for_it() {
    let (host, mut events, mut guest) = pair().await;
    let serve = async {
        guest.accept_spawn().await;
        assert_eq!(guest.next_request().await.unwrap().call, Call::Shutdown);
        drop(guest);
    };
    let wait = async {
        let mut process = host.spawn(launch(true, true, false)).await.unwrap();
        let mut stdout = process.stdout.take().unwrap();
        let mut end = Vec::new();
        let (call, read) = tokio::join!(host.call(Call::Shutdown), stdout.read_to_end(&mut end));
        assert!(matches!(call, Err(Error::Closed)), "{call:?}");
        assert_eq!(read.unwrap_err().to_string(), "guest closed the line");
        let write = process.stdin.take().unwrap().write_all(b"late").await;
        assert_eq!(write.unwrap_err().to_string(), "guest closed the line");
    };
    tokio::join!(serve, wait);
    assert_eq!(events.next().await, None);
    assert!(matches!(host.ended().await, Error::Closed));
    assert!(matches!(host.call(Call::Shutdown).await, Err(Error::Closed)));
    assert!(matches!(host.spawn(launch(true, true, true)).await, Err(Error::Closed)));
}

#[tokio::test]
async fn garbage_ends_the_connection_with_its_reason() {
    let (host, _events, mut guest) = pair().await;
    guest.line.write_all(&[0xff; 64]).await.unwrap();
    let error = host.call(Call::Shutdown).await.unwrap_err();
    let expected = ProtocolError::FrameTooLong { len: 0xff_ff_ff };
    assert!(matches!(&error, Error::Protocol { source } if *source == expected), "{error:?}");
    assert_eq!(error.kind(), Kind::Internal);
}

#[tokio::test]
async fn a_message_that_does_not_parse_ends_the_connection() {
    let (host, _events, mut guest) = pair().await;
    guest.mux.send_control(&["no", "such", "message"]).unwrap();
    tokio::join!(async { while guest.next().await.is_some() {} }, async {
        let error = host.ended().await;
        drop(host);
        assert!(
            matches!(error, Error::Protocol { source: ProtocolError::BadMessage { .. } }),
            "{error:?}"
        );
    });
}

/// A line that takes everything and says what `say` gives it.
async fn connect_to(say: Vec<u8>, deadline: Duration) -> Result<(Guest, Events), Error> {
    let (host, mut guest) = UnixStream::pair().unwrap();
    let rave = async {
        // The host hangs up in the middle of it, as it should.
        let _ = guest.write_all(&say).await;
        let mut sink = [0; 4096];
        while guest.read(&mut sink).await.is_ok_and(|n| n > 0) {}
    };
    tokio::join!(Guest::connect(host, deadline), rave).0
}

#[tokio::test]
async fn silence_is_an_error_after_the_deadline() {
    let deadline = Duration::from_millis(30);
    let error = connect_to(Vec::new(), deadline).await.unwrap_err();
    assert!(matches!(error, Error::Silent { waited } if waited == deadline), "{error:?}");
    assert_eq!(error.kind(), Kind::Timeout);
}

#[tokio::test]
async fn a_flood_in_place_of_a_welcome_is_an_error_before_the_deadline() {
    let error = connect_to(vec![0xAA; 8 << 20], PATIENCE).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { source: ProtocolError::NoWelcome }), "{error:?}");
}

#[tokio::test]
async fn a_line_that_ends_before_the_welcome_is_an_error() {
    let (host, guest) = UnixStream::pair().unwrap();
    drop(guest);
    let error = Guest::connect(host, PATIENCE).await.unwrap_err();
    assert!(matches!(error, Error::Closed | Error::Line { .. }), "{error:?}");
}

#[tokio::test]
async fn events_that_nobody_takes_end_the_connection() {
    let (host, mut events, mut guest) = pair().await;
    let flood = async {
        let event = Event::ProcessExited { process: 1, exit: Exit::Code(0) };
        for _ in 0..=MAX_UNTAKEN_EVENTS {
            guest.tell(event.clone());
        }
        while guest.next().await.is_some() {}
    };
    let wait = async {
        let error = host.ended().await;
        drop(host);
        assert!(matches!(error, Error::Flooded), "{error:?}");
    };
    tokio::join!(flood, wait);
    for _ in 0..MAX_UNTAKEN_EVENTS {
        assert!(events.next().await.is_some());
    }
    assert_eq!(events.next().await, None);
}

/// More bytes on a stream than its window: only a guest that does not keep count sends them.
#[tokio::test]
async fn a_window_that_is_not_kept_ends_the_connection() {
    let (host, _events, mut guest) = pair().await;
    let flood = async {
        let stdout = guest.accept_spawn().await.stdout.unwrap();
        let FakeGuest { line, .. } = &mut guest;
        let mut frame = vec![0x20, 0, 0x40, 0];
        frame.extend_from_slice(&stdout.to_le_bytes());
        frame.extend_from_slice(&[b'x'; 0x4000]);
        frame.push(0xA5);
        while line.write_all(&frame).await.is_ok() {}
    };
    let hold = async {
        let process = host.spawn(launch(false, true, false)).await.unwrap();
        let error = host.ended().await;
        drop((host, process));
        assert!(
            matches!(error, Error::Protocol { source: ProtocolError::WindowExceeded { .. } }),
            "{error:?}"
        );
    };
    tokio::join!(flood, hold);
}
