// SPDX-License-Identifier: Apache-2.0
//! A registry that says what a test makes it say, byte for byte.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as the handler sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
}

/// What to do with the connection after the bytes are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Close,
    /// Keep it open and silent until the server goes.
    Hang,
}

/// A raw answer.
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
}

impl Answer {
    pub(crate) fn new(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut bytes = format!("HTTP/1.1 {status}\r\nConnection: close\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
        Answer { bytes, then: Then::Close }
    }

    pub(crate) fn ok(body: &[u8]) -> Answer {
        Answer::new("200 OK", &[], body)
    }

    pub(crate) fn not_found() -> Answer {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        Answer::new("404 Not Found", &[], body)
    }

    /// Only the first `len` bytes, then what `then` says.
    pub(crate) fn cut(mut self, len: usize, then: Then) -> Answer {
        self.bytes.truncate(self.bytes.len() - len);
        self.then = then;
        self
    }
}

/// The server; its thread ends with the test's process.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        let handler = Arc::new(handler);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming().flatten() {
                let Some(request) = read_request(&stream) else { continue };
                log.lock().unwrap().push(request.clone());
                let answer = handler(&request);
                // The client may have seen enough.
                let _ = (&stream).write_all(&answer.bytes);
                if answer.then == Then::Hang {
                    held.push(stream);
                }
            }
        });
        Server { address, requests }
    }

    /// How often a path that ends so was asked for.
    pub(crate) fn count(&self, suffix: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|r| r.path.ends_with(suffix)).count()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut request = Request { path: first.split(' ').nth(1)?.to_owned(), ..Request::default() };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorization = Some(value.to_owned()),
            "range" => request.range = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(request)
}
