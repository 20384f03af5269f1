// SPDX-License-Identifier: Apache-2.0
//! `run` and `exec`: streams, exit codes, and what is left behind.

use std::io::Read;
use std::process::Stdio;

use hc_api::stream::{ExitFrame, Frame};
use hc_api::{CreateContainer, ErrorBody, ErrorKind};

use crate::daemon::{Conversation, Daemon, ID};
use crate::program::{eventually, feed, finish, hyper, run, status, wait};

#[test]
fn outputs_are_kept_apart_and_the_exit_code_is_the_programs() {
    let daemon = Daemon::new(async |mut program: Conversation| {
        program.send(Frame::Started).await;
        program.send(Frame::Stdout(b"out\n".to_vec())).await;
        program.send(Frame::Stderr(b"err\n".to_vec())).await;
        program.send(Frame::Stdout(b"no newline".to_vec())).await;
        program.exit(42).await;
    });
    run(&mut hyper(&daemon, ["run", "img", "sh"])).check(42, "out\nno newline", "err\n");
    assert_eq!(
        daemon.requests(),
        ["POST /v1/containers".to_owned(), format!("POST /v1/containers/{ID}/start?stdin=false")]
    );
    assert_eq!(daemon.connections(), 2, "none is opened only to look");
}

#[test]
fn the_request_is_what_the_arguments_say() {
    let daemon = Daemon::idle();
    run(&mut hyper(&daemon, ["run", "-i", "--name", "web", "-e", "A=b", "img", "sh", "-c", "x"]))
        .check(0, "", "");
    let request: CreateContainer =
        serde_json::from_str(&daemon.body("POST /v1/containers")).unwrap();
    assert_eq!(
        request,
        CreateContainer {
            name: Some("web".into()),
            image: "img".into(),
            command: ["sh", "-c", "x"].map(str::to_owned).to_vec(),
            env: vec!["A=b".into()],
            open_stdin: true,
            ..CreateContainer::default()
        }
    );
}

#[test]
fn a_program_that_cannot_be_started_ends_with_126_or_127() {
    for status in [126, 127] {
        let daemon = Daemon::new(move |mut program: Conversation| async move {
            let error = ErrorBody {
                exit_status: Some(status),
                ..ErrorBody::new(ErrorKind::InvalidArgument, "cannot run nope: no such file")
            };
            program.send(Frame::Error(error)).await;
        });
        run(&mut hyper(&daemon, ["run", "img", "nope"])).check(
            status.into(),
            "",
            "error: cannot run nope: no such file\n",
        );
    }
    let daemon = Daemon::new(async |mut program: Conversation| {
        let error = "cannot run nope: no such file".into();
        let exit = ExitFrame { error, ..ExitFrame::of(127) };
        program.send(Frame::Exit(exit)).await;
    });
    run(&mut hyper(&daemon, ["exec", "web", "nope"])).check(
        127,
        "",
        "error: cannot run nope: no such file\n",
    );
}

#[test]
fn our_own_failures_end_with_125() {
    let daemon = Daemon::idle();
    let taken = ErrorBody::new(ErrorKind::Exists, "the name web is taken").with_hint("rm it");
    daemon.refuse("POST /v1/containers", &taken);
    run(&mut hyper(&daemon, ["run", "--name", "web", "img"])).check(
        125,
        "",
        "error: the name web is taken\nhint: rm it\n",
    );
    run(&mut hyper(&daemon, ["run", "-v", "/a:/b", "img"])).check(
        125,
        "",
        "error: --volume: volumes are not supported yet\n",
    );
    let missing = ErrorBody::new(ErrorKind::NotFound, "no such container: web");
    daemon.refuse("POST /v1/containers/web/exec", &missing);
    run(&mut hyper(&daemon, ["exec", "web", "sh"])).check(
        125,
        "",
        "error: no such container: web\n",
    );
}

#[test]
fn a_daemon_that_is_not_there_is_an_error_with_a_hint() {
    let daemon = Daemon::idle();
    let mut command = hyper(&daemon, ["ps"]);
    command.env("HYPER_SOCKET", daemon.folder().join("none"));
    let done = run(&mut command);
    assert_eq!(done.status, 1);
    assert!(done.stderr.starts_with("error: cannot reach the daemon at "), "{}", done.stderr);
    assert!(done.stderr.contains("\nhint: is it running?"), "{}", done.stderr);
}

#[test]
fn detached_it_prints_the_id_alone() {
    let daemon = Daemon::idle();
    run(&mut hyper(&daemon, ["run", "-d", "img"])).check(0, &format!("{ID}\n"), "");
    assert!(daemon.was_asked(&format!("POST /v1/containers/{ID}/start")));
}

#[test]
fn with_rm_it_ends_once_the_container_is_gone() {
    let daemon = Daemon::new(async |mut program: Conversation| {
        program.send(Frame::Started).await;
        program.exit(3).await;
        program.asked(&format!("POST /v1/containers/{ID}/wait?condition=removed")).await;
        program.remove();
    });
    run(&mut hyper(&daemon, ["run", "--rm", "img"])).check(3, "", "");
    assert!(daemon.body("POST /v1/containers").contains(r#""auto_remove":true"#));
}

#[test]
fn with_rm_a_failed_start_leaves_no_container() {
    let daemon = Daemon::idle();
    let start = format!("POST /v1/containers/{ID}/start?stdin=false");
    daemon.refuse(&start, &ErrorBody::new(ErrorKind::Exhausted, "no memory for the VM"));
    run(&mut hyper(&daemon, ["run", "--rm", "img"])).check(
        125,
        "",
        "error: no memory for the VM\n",
    );
    assert!(daemon.was_asked(&format!("DELETE /v1/containers/{ID}?force=true")));
}

#[test]
fn the_id_is_written_into_a_new_file_only() {
    let daemon = Daemon::idle();
    let file = daemon.folder().join("cid");
    let args = ["run", "--cidfile", file.to_str().unwrap(), "img"];
    run(&mut hyper(&daemon, args)).check(0, "", "");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), ID);
    let done = run(&mut hyper(&daemon, args));
    assert_eq!(done.status, 125);
    assert!(done.stderr.contains("File exists"), "{}", done.stderr);
}

/// The program copies its input to both outputs.
async fn echo(mut program: Conversation) {
    program.send(Frame::Started).await;
    loop {
        match program.next().await {
            Some(Frame::Stdin(bytes)) => program.send(Frame::Stdout(bytes)).await,
            Some(Frame::StdinEnd) => break program.exit(0).await,
            Some(_) => {}
            None => break,
        }
    }
}

/// Bytes without a pattern that a lost or doubled piece could hide in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

#[test]
fn what_goes_in_comes_out_byte_for_byte() {
    let daemon = Daemon::new(echo);
    let input = noise(40 << 20);
    let mut child =
        hyper(&daemon, ["run", "-i", "img", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    feed(&mut child, input.clone());
    let output = wait(child);
    assert_eq!(status(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len(), input.len());
    assert!(output.stdout == input);
}

#[test]
fn the_end_of_input_is_passed_on_while_output_goes_on() {
    let daemon = Daemon::new(async |mut program: Conversation| {
        program.send(Frame::Started).await;
        let input = program.all_input().await;
        program.send(Frame::Stdout(format!("{} bytes", input.len()).into())).await;
        program.exit(0).await;
    });
    let mut child =
        hyper(&daemon, ["exec", "-i", "web", "wc"]).stdin(Stdio::piped()).spawn().unwrap();
    feed(&mut child, vec![0; 100_000]);
    finish(child).check(0, "100000 bytes", "");
}

#[test]
fn without_interactive_no_input_is_read() {
    let daemon = Daemon::new(async |mut program: Conversation| {
        program.send(Frame::Started).await;
        program.exit(0).await;
        assert!(program.next().await.is_none(), "no frame was sent");
    });
    let mut child = hyper(&daemon, ["run", "img"]).stdin(Stdio::piped()).spawn().unwrap();
    feed(&mut child, b"not for you".to_vec());
    finish(child).check(0, "", "");
}

#[test]
fn output_that_nobody_reads_kills_the_container_quietly() {
    let daemon = Daemon::new(async |mut program: Conversation| {
        program.send(Frame::Started).await;
        loop {
            tokio::select! {
                biased;
                signal = program.state.next_signal() => break assert_eq!(signal, "SIGKILL"),
                () = std::future::ready(()) => {}
            }
            program.send(Frame::Stdout(b"y\n".repeat(1000))).await;
        }
        program.exit(137).await;
    });
    let mut child = hyper(&daemon, ["run", "--rm", "img", "yes"]).spawn().unwrap();
    let mut start = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    // The reader is gone from here on.
    finish(child).check(141, "", "");
    assert!(daemon.was_asked(&format!("POST /v1/containers/{ID}/kill?signal=SIGKILL")));
    assert!(daemon.was_asked(&format!("DELETE /v1/containers/{ID}?force=true")));
}

#[test]
fn a_lost_daemon_is_told_and_the_container_is_left_alone() {
    let daemon = Daemon::new(async |mut program: Conversation| {
        program.send(Frame::Started).await;
        program.send(Frame::Stdout(b"before".to_vec())).await;
    });
    run(&mut hyper(&daemon, ["run", "--rm", "img"])).check(
        125,
        "before",
        &format!(
            "error: lost the connection to {ID}: the daemon closed it\n\
             hint: it may still run; try: hyper attach {ID}\n"
        ),
    );
    assert!(!daemon.requests().iter().any(|line| line.starts_with("DELETE")));
}

#[test]
fn a_slow_reader_does_not_keep_signals_back() {
    let daemon = Daemon::new(async |mut program: Conversation| {
        program.send(Frame::Started).await;
        let state = program.state.clone();
        let flood = async {
            loop {
                program.send(Frame::Stdout(vec![b'x'; 60_000])).await;
            }
        };
        tokio::select! {
            () = flood => {}
            signal = state.next_signal() => assert_eq!(signal, "SIGTERM"),
        }
    });
    let child = hyper(&daemon, ["run", "img"]).spawn().unwrap();
    eventually("the program runs", || daemon.requests().len() == 2);
    // Nobody reads its output, and the signal gets through none the less.
    crate::program::signal(child.id(), rustix::process::Signal::TERM);
    eventually("the signal is passed on", || {
        daemon.was_asked(&format!("POST /v1/containers/{ID}/kill?signal=SIGTERM"))
    });
    let done = finish(child);
    assert_eq!(done.status, 125, "the connection broke: {}", done.stderr);
}

#[test]
fn only_the_named_streams_are_connected() {
    let daemon = Daemon::new(async |mut program: Conversation| {
        program.send(Frame::Started).await;
        program.send(Frame::Stdout(b"out".to_vec())).await;
        program.send(Frame::Stderr(b"err".to_vec())).await;
        program.exit(0).await;
    });
    run(&mut hyper(&daemon, ["run", "-a", "stderr", "img"])).check(0, "", "err");
}
