// SPDX-License-Identifier: Apache-2.0
//! What a caller gets from a guest that keeps to the protocol.

use std::collections::VecDeque;
use std::time::Instant;

use hc_guest::{Error, Kind};
use hc_proto::MuxEvent;
use hc_proto::limits::STREAM_WINDOW;
use hc_proto::message::{Answer, Call, Event, Failure, FailureKind, FromGuest, Reply};
use hc_spec::Exit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fake::pair;
use crate::{PATIENCE, container, launch};

#[tokio::test]
async fn a_call_gets_its_answer() {
    let (host, _events, mut guest) = pair().await;
    let serve = async {
        let request = guest.next_request().await.unwrap();
        assert_eq!(request.call, Call::Shutdown);
        guest.reply(request.id);
        guest.next().await
    };
    let call = async {
        let answer = host.call(Call::Shutdown).await;
        drop(host);
        answer.unwrap()
    };
    let (answer, end) = tokio::join!(call, serve);
    assert_eq!((answer, end), (Answer::Done, None));
}

#[tokio::test]
async fn answers_find_their_calls_in_any_order() {
    let (host, _events, mut guest) = pair().await;
    let serve = async {
        let first = guest.next_request().await.unwrap();
        let second = guest.next_request().await.unwrap();
        let rows = Answer::Processes(Vec::new());
        guest.send(&FromGuest::Reply(Reply { id: second.id, result: Ok(rows) }));
        guest.reply(first.id);
        guest.next().await
    };
    let calls = async {
        let container = container();
        let (first, second) =
            tokio::join!(host.call(Call::Shutdown), host.call(Call::Processes { container }));
        drop(host);
        (first.unwrap(), second.unwrap())
    };
    let (answers, _) = tokio::join!(calls, serve);
    assert_eq!(answers, (Answer::Done, Answer::Processes(Vec::new())));
}

#[tokio::test]
async fn a_refusal_is_told_in_printable_words() {
    let (host, _events, mut guest) = pair().await;
    let serve = async {
        let request = guest.next_request().await.unwrap();
        let failure = Failure {
            kind: FailureKind::ProgramNotFound,
            message: "no \u{1b}[31msuch\u{7} program\n".into(),
        };
        guest.send(&FromGuest::Reply(Reply { id: request.id, result: Err(failure) }));
        while guest.next().await.is_some() {}
    };
    let spawn = async {
        let error = host.spawn(launch(true, true, true)).await.unwrap_err();
        drop(host);
        error
    };
    let (error, ()) = tokio::join!(spawn, serve);
    assert_eq!(error.to_string(), "guest cannot run the program: no [31msuch program");
    assert_eq!(error.kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_process_reads_writes_and_exits() {
    let (host, mut events, mut guest) = pair().await;
    let serve = async {
        let spawn = guest.accept_spawn().await;
        let (stdin, stdout) = (spawn.stdin.unwrap(), spawn.stdout.unwrap());
        assert_eq!(spawn.stderr, None);
        loop {
            match guest.next().await.unwrap() {
                MuxEvent::Data { stream, bytes } if stream == stdin => {
                    guest.mux.consumed(stdin, bytes.len());
                    assert_eq!(guest.mux.send_data(stdout, &bytes), Ok(bytes.len()));
                }
                MuxEvent::Eof { stream } if stream == stdin => break,
                other => panic!("unexpected {other:?}"),
            }
        }
        guest.mux.send_eof(stdout);
        guest.tell(Event::ProcessExited { process: spawn.process, exit: Exit::Code(3) });
        while guest.next().await.is_some() {}
    };
    let talk = async {
        let mut process = host.spawn(launch(true, true, false)).await.unwrap();
        let mut stdin = process.stdin.take().unwrap();
        stdin.write_all(b"hello").await.unwrap();
        let mut stdout = process.stdout.take().unwrap();
        let mut echo = [0; 5];
        stdout.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"hello");
        drop(stdin);
        assert_eq!(stdout.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        let exited = Event::ProcessExited { process: process.id, exit: Exit::Code(3) };
        assert_eq!(events.next().await, Some(exited));
        drop((host, stdout, process));
        assert_eq!(events.next().await, None);
    };
    tokio::join!(serve, talk);
}

/// The guest writes to both streams for as long as they take anything, the host reads only one.
#[tokio::test]
async fn a_stream_that_is_not_read_stops_its_writer_and_no_other() {
    let (host, _events, mut guest) = pair().await;
    let window = usize::try_from(STREAM_WINDOW).unwrap();
    let total = 4 * window;
    let serve = async {
        let spawn = guest.accept_spawn().await;
        let (out, err) = (spawn.stdout.unwrap(), spawn.stderr.unwrap());
        let mut sent = [0, 0];
        loop {
            for (sent, stream) in sent.iter_mut().zip([out, err]) {
                let want = vec![7; total - *sent];
                *sent += guest.mux.send_data(stream, &want).unwrap();
                if *sent == total {
                    guest.mux.send_eof(stream);
                }
            }
            if sent[1] == total || !guest.turn().await {
                break;
            }
            assert!(sent[0] <= window, "more than a window without a reader");
            while let Some(event) = guest.mux.next_event() {
                assert!(matches!(event, MuxEvent::Writable { .. }));
            }
        }
        while guest.next().await.is_some() {}
        sent
    };
    let read = async {
        let process = host.spawn(launch(false, true, true)).await.unwrap();
        let mut bytes = Vec::new();
        process.stderr.unwrap().read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes.len(), total);
        drop(host);
    };
    let (sent, ()) = tokio::join!(serve, read);
    assert_eq!(sent, [window, total]);
}

#[tokio::test]
async fn a_reader_that_goes_away_gives_the_stream_up() {
    let (host, _events, mut guest) = pair().await;
    let serve = async {
        let stdout = guest.accept_spawn().await.stdout.unwrap();
        assert_eq!(guest.next().await, Some(MuxEvent::Reset { stream: stdout }));
        assert!(guest.mux.send_data(stdout, b"late").is_err());
    };
    let leave = async {
        let process = host.spawn(launch(false, true, false)).await.unwrap();
        drop(process.stdout);
    };
    tokio::join!(serve, leave);
}

#[tokio::test]
async fn a_guest_that_gives_a_stream_up_fails_its_writer() {
    let (host, _events, mut guest) = pair().await;
    let serve = async {
        let stdin = guest.accept_spawn().await.stdin.unwrap();
        guest.mux.reset(stdin);
        while guest.next().await.is_some() {}
    };
    let write = async {
        let process = host.spawn(launch(true, false, false)).await.unwrap();
        let mut stdin = process.stdin.unwrap();
        let error = loop {
            if let Err(error) = stdin.write_all(&[0; 4096]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        drop(host);
    };
    tokio::join!(serve, write);
}

/// More calls than the control lane holds, before the guest reads the first.
#[tokio::test]
async fn calls_wait_for_room_on_the_control_lane() {
    let (host, _events, mut guest) = pair().await;
    let container = container();
    let calls: Vec<_> = (0..30_000)
        .map(|_| {
            let (host, container) = (host.clone(), container.clone());
            async move { host.call_within(Call::Stats { container }, PATIENCE).await }
        })
        .map(tokio::spawn)
        .collect();
    drop(host);
    let serve = tokio::spawn(async move {
        while let Some(request) = guest.next_request().await {
            guest.reply(request.id);
        }
    });
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), Answer::Done);
    }
    serve.await.unwrap();
}

#[tokio::test]
async fn a_call_that_takes_too_long_leaves_the_connection_usable() {
    let (host, _events, mut guest) = pair().await;
    let serve = async {
        let late = guest.next_request().await.unwrap();
        let next = guest.next_request().await.unwrap();
        guest.reply(late.id);
        guest.reply(next.id);
        while guest.next().await.is_some() {}
    };
    let calls = async {
        let limit = std::time::Duration::from_millis(20);
        let error = host.call_within(Call::Shutdown, limit).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        assert_eq!(host.call(Call::Shutdown).await.unwrap(), Answer::Done);
        drop(host);
    };
    tokio::join!(serve, calls);
}

/// Half a GiB in and out at once, each byte checked; prints the rate it saw.
#[tokio::test]
async fn bulk_arrives_whole_in_both_directions() {
    const TOTAL: usize = 512 << 20;
    let (host, _events, mut guest) = pair().await;
    let echo = tokio::spawn(async move {
        let spawn = guest.accept_spawn().await;
        let (stdin, stdout) = (spawn.stdin.unwrap(), spawn.stdout.unwrap());
        let mut held = VecDeque::new();
        let mut ended = false;
        while let Some(event) = guest.next().await {
            match event {
                MuxEvent::Data { bytes, .. } => held.push_back(bytes),
                MuxEvent::Eof { .. } => ended = true,
                _ => {}
            }
            // Only what is echoed counts as used up, so the way back slows the way in.
            while let Some(bytes) = held.pop_front() {
                let len = bytes.len();
                let left = guest.mux.send_owned(stdout, bytes).unwrap();
                guest.mux.consumed(stdin, len - left.len());
                if !left.is_empty() {
                    held.push_front(left);
                    break;
                }
            }
            if ended && held.is_empty() {
                guest.mux.send_eof(stdout);
            }
        }
    });
    let process = host.spawn(launch(true, true, false)).await.unwrap();
    let (mut stdin, mut stdout) = (process.stdin.unwrap(), process.stdout.unwrap());
    let start = Instant::now();
    let pattern: Vec<u8> = (0..=250).cycle().take(251 * 400).collect();
    let block = pattern.clone();
    let write = tokio::spawn(async move {
        let mut left = TOTAL;
        while left > 0 {
            let part = left.min(block.len());
            stdin.write_all(&block[..part]).await.unwrap();
            left -= part;
        }
    });
    let mut seen = 0;
    while let Some(chunk) = stdout.next_chunk().await.unwrap() {
        let phase = seen % 251;
        assert!(chunk == pattern[phase..phase + chunk.len()], "wrong bytes near {seen}");
        seen += chunk.len();
    }
    println!("{} KB/s in and out", TOTAL as u128 / start.elapsed().as_millis());
    assert_eq!(seen, TOTAL);
    write.await.unwrap();
    drop((host, stdout));
    echo.await.unwrap();
}
