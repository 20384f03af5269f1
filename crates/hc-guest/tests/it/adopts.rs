// SPDX-License-Identifier: Apache-2.0
//! A host that goes on with the session of another, in a guest or a copy of it.

use hc_guest::{Error, Events, Guest, Predecessor, Process, ProcessIds};
use hc_proto::message::{Answer, Call, Event, FromGuest, Reply};
use hc_proto::{Direction, GuestMux, HostMux, Line, MuxEvent, Nonce, ProtocolError, SessionId};
use hc_spec::Exit;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::fake::FakeGuest;
use crate::{PATIENCE, container, launch};

/// What the host before knew: process 5 with three streams. Another has stream 4.
const BEFORE: Predecessor = Predecessor {
    session: SessionId(7),
    last_process: 6,
    process: ProcessIds { process: 5, stdin: Some(1), stdout: Some(2), stderr: Some(3) },
    // "read ", which was not acknowledged.
    stdout_read: 10,
    stderr_read: 0,
};

fn ended() -> Event {
    Event::ContainerExited { container: container(), exit: Exit::Code(3), oom_killed: false }
}

/// A guest in the middle of a session, as it comes out of a copy: the process has written something
/// that the host has acknowledged, something that it has read, and something else, and closed its standard error; an answer
/// and an event are under way.
fn copy() -> GuestMux {
    let mut host = HostMux::new(BEFORE.session);
    let mut guest = GuestMux::new();
    host.attach(Nonce(1), Line::Fresh);
    settle(&mut host, &mut guest);
    let directions = [Direction::ToGuest, Direction::ToHost, Direction::ToHost, Direction::ToHost];
    assert_eq!(directions.map(|direction| host.open(direction).unwrap()), [1, 2, 3, 4]);
    settle(&mut host, &mut guest);
    guest.send_data(2, b"seen ").unwrap();
    guest.send_eof(3);
    settle(&mut host, &mut guest);
    host.consumed(2, 5);
    host.flush_acks();
    settle(&mut host, &mut guest);
    guest.send_data(2, b"read unseen ").unwrap();
    for id in 1..=3 {
        guest.send_control(&FromGuest::Reply(Reply { id, result: Ok(Answer::Done) })).unwrap();
    }
    guest.send_control(&FromGuest::Event(ended())).unwrap();
    guest
}

fn settle(host: &mut HostMux, guest: &mut GuestMux) {
    while host.has_output() || guest.has_output() {
        let bytes = host.pending_output().to_vec();
        host.advance(bytes.len());
        guest.feed(&bytes).unwrap();
        let bytes = guest.pending_output().to_vec();
        guest.advance(bytes.len());
        host.feed(&bytes).unwrap();
        while host.next_event().is_some() || guest.next_event().is_some() {}
    }
}

/// Has a host take over a guest.
async fn adopt(
    mux: GuestMux,
    before: Predecessor,
) -> (Result<(Guest, Events, Process), Error>, FakeGuest) {
    let (host, line) = UnixStream::pair().unwrap();
    let mut guest = FakeGuest { line, mux };
    let adopted = Guest::adopt(host, before, PATIENCE);
    tokio::pin!(adopted);
    loop {
        tokio::select! {
            outcome = &mut adopted => return (outcome, guest),
            _ = guest.turn() => {}
        }
    }
}

#[tokio::test]
async fn each_copy_is_taken_over_by_a_host_of_its_own() {
    for word in ["one", "two"] {
        let (adopted, mut guest) = adopt(copy(), BEFORE).await;
        let (host, mut events, process) = adopted.unwrap();
        assert_eq!((host.session(), host.last_process()), (BEFORE.session, BEFORE.last_process));
        let ids = ProcessIds { stderr: None, ..BEFORE.process };
        assert_eq!(process.ids(), ids, "its standard error has ended");
        let Process { stdin, stdout, .. } = process;
        let (mut stdin, mut stdout) = (stdin.unwrap(), stdout.unwrap());

        let serve = async {
            let mut heard = Vec::new();
            while heard.len() < 2 {
                match guest.next().await.unwrap() {
                    MuxEvent::Data { stream: 1, bytes } => heard.push(bytes),
                    MuxEvent::Reset { stream: 4 } => heard.push(b"given up".to_vec()),
                    MuxEvent::Ready { .. } => {}
                    event => panic!("unexpected {event:?}"),
                }
            }
            heard.sort_unstable();
            guest.mux.send_data(2, word.as_bytes()).unwrap();
            guest.mux.send_eof(2);
            guest.flush().await;
            assert_eq!(heard, [b"given up", word.as_bytes()]);
            guest
        };
        let read = async {
            stdin.write_all(word.as_bytes()).await.unwrap();
            let mut output = Vec::new();
            while let Some(chunk) = stdout.next_chunk().await.unwrap() {
                output.extend(chunk);
            }
            assert_eq!(String::from_utf8(output).unwrap(), format!("unseen {word}"));
            assert_eq!(events.next().await, Some(ended()));
        };
        tokio::join!(serve, read);
    }
}

#[tokio::test]
async fn numbers_of_the_host_before_are_not_used_again() {
    let (adopted, mut guest) = adopt(copy(), BEFORE).await;
    let (host, _events, _process) = adopted.unwrap();
    let serve = async {
        let request = guest.next_request().await.unwrap();
        assert!(request.id > 3, "{request:?}");
        let rows = Answer::Processes(Vec::new());
        guest.send(&FromGuest::Reply(Reply { id: request.id, result: Ok(rows) }));
        guest.accept_spawn().await
    };
    let calls = async {
        // The answers to the calls of the host before are none to this one.
        let rows = host.call(Call::Processes { container: container() }).await.unwrap();
        assert_eq!(rows, Answer::Processes(Vec::new()));
        host.spawn(launch(false, true, false)).await.unwrap()
    };
    let (spawn, process) = tokio::join!(serve, calls);
    assert_eq!((spawn.process, spawn.stdout), (7, Some(5)));
    assert_eq!(process.id, 7);
    assert_eq!(host.last_process(), 7);
}

#[tokio::test]
async fn streams_that_run_the_other_way_are_not_taken() {
    let process = ProcessIds { process: 5, stdin: Some(2), stdout: Some(1), stderr: Some(9) };
    let (adopted, _guest) = adopt(copy(), Predecessor { process, ..BEFORE }).await;
    let (_host, _events, process) = adopted.unwrap();
    assert_eq!(process.ids(), ProcessIds { process: 5, stdin: None, stdout: None, stderr: None });
}

#[tokio::test]
async fn a_guest_without_the_session_is_not_taken_over() {
    let before = Predecessor { session: SessionId(8), ..BEFORE };
    let (adopted, _guest) = adopt(copy(), before).await;
    let error = adopted.unwrap_err();
    let lost = Error::Protocol { source: ProtocolError::SessionLost };
    assert_eq!(format!("{error:?}"), format!("{lost:?}"));
}
