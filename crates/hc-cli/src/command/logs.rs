// SPDX-License-Identifier: Apache-2.0
//! `logs`.

use hc_api::LogsQuery;
use hc_api::stream::{Decoder, Frame};
use http_body_util::BodyExt;
use hyper::Method;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Context;
use crate::args::LogsArgs;
use crate::client::{Body, Target};
use crate::failure::{CLOSED_PIPE, Failure, Result};
use crate::resolve::{since, tail};
use crate::session::{Closed, Output, Shown};

pub(crate) async fn logs(context: &Context, args: &LogsArgs) -> Result<u8> {
    let now = Timestamp::now();
    let time = |option, text: &Option<String>| {
        text.as_deref().map(|text| since(option, text, now, &TimeZone::system())).transpose()
    };
    let query = LogsQuery {
        follow: args.follow,
        tail: tail(&args.tail)?,
        since: time("since", &args.since)?,
        until: time("until", &args.until)?,
    };
    let client = context.client().await?;
    let target = Target::new(&["containers", &args.container, "logs"]).query(&query);
    let mut body = client.send(Method::GET, target, Body::empty()).await?.into_body();
    let mut output = Output::new(Shown::ALL);
    let mut printer = Printer { timestamps: args.timestamps, ..Printer::default() };
    let mut decoder = Decoder::default();
    while let Some(piece) = body.frame().await {
        let piece = piece.map_err(|e| Failure::system("lost the connection to the daemon", e))?;
        let Some(data) = piece.data_ref() else { continue };
        decoder.feed(data);
        loop {
            let frame = decoder.next_frame();
            let frame = frame.map_err(|e| Failure::system("cannot understand the daemon", e))?;
            let Some(frame) = frame else { break };
            printer.print(frame, &mut output).await?;
        }
        output.flush().await.map_err(closed)?;
    }
    output.finish().await.map_err(closed)?;
    Ok(0)
}

/// Puts times in front of lines, each stream on its own.
#[derive(Default)]
struct Printer {
    timestamps: bool,
    time: String,
    stdout: Lines,
    stderr: Lines,
}

impl Printer {
    async fn print(&mut self, frame: Frame, output: &mut Output) -> Result<()> {
        match frame {
            Frame::Time(nanos) if self.timestamps => self.time = rfc3339(nanos),
            Frame::Stdout(bytes) => {
                let bytes =
                    if self.timestamps { self.stdout.stamp(&bytes, &self.time) } else { bytes };
                output.stdout(bytes).await.map_err(closed)?;
            }
            Frame::Stderr(bytes) => {
                let bytes =
                    if self.timestamps { self.stderr.stamp(&bytes, &self.time) } else { bytes };
                output.stderr(bytes).await.map_err(closed)?;
            }
            Frame::Error(body) => return Err(body.into()),
            _ => {}
        }
        Ok(())
    }
}

/// Where in a line a stream is.
#[derive(Default)]
struct Lines {
    within: bool,
}

impl Lines {
    fn stamp(&mut self, bytes: &[u8], time: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + time.len() + 1);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !self.within {
                out.extend_from_slice(time.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(line);
            self.within = !line.ends_with(b"\n");
        }
        out
    }
}

/// With nine digits of a second always, so that times line up and sort.
fn rfc3339(nanos: i64) -> String {
    match Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(time) => format!("{time:.9}"),
        // No i64 of nanoseconds is outside of what a timestamp holds.
        Err(_) => String::new(),
    }
}

fn closed(_: Closed) -> Failure {
    Failure::silent(CLOSED_PIPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_gets_the_time_of_its_beginning() {
        let mut lines = Lines::default();
        let mut out = lines.stamp(b"a\nb", "1");
        out.extend(lines.stamp(b"c\nd\n", "2"));
        out.extend(lines.stamp(b"", "3"));
        out.extend(lines.stamp(b"\n", "4"));
        assert_eq!(String::from_utf8(out).unwrap(), "1 a\n1 bc\n2 d\n4 \n");
    }

    #[test]
    fn times_have_nine_digits() {
        assert_eq!(rfc3339(1_714_564_800_500_000_000), "2024-05-01T12:00:00.500000000Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert!(!rfc3339(i64::MIN).is_empty() && !rfc3339(i64::MAX).is_empty());
    }
}
