// SPDX-License-Identifier: Apache-2.0
//! Long work: bars where standard error is a terminal, lines elsewhere.

use std::collections::{HashMap, HashSet};
use std::io::{IsTerminal, Write};
use std::time::Duration;

use hc_api::{ImageProgress, ImageRef};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{harmless, print_note};
use crate::client::Lines;
use crate::failure::{Failure, Result};

/// The most steps that are shown; an image has some 130 layers at most.
const MAX_STEPS: usize = 512;
/// How often bars and spinners are drawn.
const TICK: Duration = Duration::from_millis(120);

/// Shows progress until the work has ended, and gives the images that came in.
pub(crate) async fn follow(mut lines: Lines, quiet: bool) -> Result<Vec<ImageRef>> {
    let mut display = Display::new(quiet);
    loop {
        match lines.next::<ImageProgress>().await? {
            Some(ImageProgress::Step { what, done_bytes, total_bytes }) => {
                display.step(&harmless(&what), done_bytes, total_bytes);
            }
            Some(ImageProgress::Done { images }) => return Ok(images),
            Some(ImageProgress::Failed(body)) => return Err(body.into()),
            None => {
                return Err(Failure::system(
                    "lost the connection to the daemon",
                    "it broke off in the middle of the work",
                ));
            }
        }
    }
}

/// Shows that something is being done, of which nobody knows how far it is, until the value is
/// dropped.
#[must_use]
pub(crate) struct Waiting(Option<ProgressBar>);

impl Waiting {
    pub(crate) fn new(what: &'static str, quiet: bool) -> Waiting {
        if quiet {
            return Waiting(None);
        }
        if !std::io::stderr().is_terminal() {
            print_note(what);
            return Waiting(None);
        }
        let style = ProgressStyle::with_template("{msg} {spinner} {elapsed}");
        let bar = ProgressBar::no_length()
            .with_style(style.expect("the template is a constant"))
            .with_message(what);
        bar.enable_steady_tick(TICK);
        Waiting(Some(bar))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

enum Display {
    Quiet,
    /// Says each step once.
    Lines {
        said: HashSet<String>,
    },
    Bars {
        all: MultiProgress,
        bars: HashMap<String, ProgressBar>,
    },
}

impl Display {
    fn new(quiet: bool) -> Display {
        if quiet {
            Display::Quiet
        } else if std::io::stderr().is_terminal() {
            Display::Bars { all: MultiProgress::new(), bars: HashMap::new() }
        } else {
            Display::Lines { said: HashSet::new() }
        }
    }

    fn step(&mut self, what: &str, done: u64, total: Option<u64>) {
        match self {
            Display::Quiet => {}
            Display::Lines { said } => {
                if said.len() < MAX_STEPS && said.insert(what.to_owned()) {
                    // Standard error that nobody reads must not stop the work.
                    let _ = writeln!(std::io::stderr(), "{what}");
                }
            }
            Display::Bars { all, bars } => {
                if bars.len() >= MAX_STEPS && !bars.contains_key(what) {
                    return;
                }
                let bar =
                    bars.entry(what.to_owned()).or_insert_with(|| all.add(new_bar(what, total)));
                if let Some(total) = total {
                    bar.set_length(total);
                }
                bar.set_position(done);
            }
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Display::Bars { all, .. } = self {
            // What comes next is the answer; the bars have said what they had to say.
            let _ = all.clear();
        }
    }
}

fn new_bar(what: &str, total: Option<u64>) -> ProgressBar {
    let (bar, style) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg:40!} {bar:24} {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12}",
        ),
        None => (ProgressBar::no_length(), "{msg:40!} {spinner} {bytes:>10}"),
    };
    bar.enable_steady_tick(TICK);
    let style = ProgressStyle::with_template(style).expect("the template is a constant");
    bar.with_style(style).with_message(what.to_owned())
}
