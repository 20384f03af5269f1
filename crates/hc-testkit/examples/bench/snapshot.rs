// SPDX-License-Identifier: Apache-2.0
//! Copies of a pod that runs: what they cost it, and how fast others go on from them.

use std::io::Read as _;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use hc_testkit::{Host, compile, until_ended};
use serde_json::Value;

use crate::memory::Memory;
use crate::rounds;
use crate::table::{figure, group, median, millis, time};

/// The most rounds: each takes seconds.
const ROUNDS: usize = 10;
const CLONES: usize = 20;
const TICK: &str = include_str!("tick.c");

pub(crate) fn measure(host: &Host) {
    group("snapshot: of a pod of 256 MiB that runs");
    let dir = tempfile::tempdir().unwrap();
    let tick = compile(dir.path(), "tick", TICK);
    host.hyper(["run", "-d", "-m", "192m", "--name", "origin", "busybox", "sleep", "1000"]).ok();
    host.hyper(["cp", "--quiet", tick.to_str().unwrap(), "origin:/tick"]).ok();
    let mut stream =
        host.command(["exec", "origin", "/tick"]).stdout(Stdio::piped()).spawn().unwrap();
    let ticks = Ticks::of(stream.stdout.take().unwrap());
    let (mut held, mut gaps, mut whole, mut first) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds().min(ROUNDS) {
        ticks.longest();
        whole.push(time(|| {
            host.hyper(["snapshot", "create", "origin", "copy"]).ok();
        }));
        gaps.push(ticks.longest());
        held.push(told(host));
        first.push(time(|| {
            host.hyper(["run", "-d", "--snapshot", "copy", "--name", "clone"]).ok();
            host.hyper(["exec", "clone", "true"]).ok();
        }));
        host.hyper(["rm", "--force", "clone"]).ok();
        host.hyper(["snapshot", "rm", "copy"]).ok();
    }
    figure("stands still, as it is told", &millis(median(held)), "at most 100 ms");
    figure("stands still, as its output shows", &millis(median(gaps)), "");
    figure("hyper snapshot create", &millis(median(whole)), "at most 1000 ms");
    figure("clone, to its first answer", &millis(median(first)), "at most 350 ms");
    host.hyper(["exec", "origin", "killall", "tick"]).ok();
    stream.wait().unwrap();
    many(host);
    host.hyper(["rm", "--force", "origin"]).ok();
}

/// How long the pod stood still, as the snapshot's record says.
fn told(host: &Host) -> Duration {
    let row = host.hyper(["snapshot", "ls", "--format", "json"]).ok();
    let row: Value = serde_json::from_str(&row).unwrap();
    Duration::from_micros(row["HeldMicros"].as_u64().unwrap())
}

fn many(host: &Host) {
    group("snapshot: 20 clones of one pod at once; PSS of each");
    let names: Vec<_> = (0..CLONES).map(|number| format!("clone-{number}")).collect();
    let start = |name: &String| -> Child {
        host.command(["clone", "--name", name, "origin"]).stdout(Stdio::null()).spawn().unwrap()
    };
    let took = time(|| {
        for mut clone in names.iter().map(start).collect::<Vec<_>>() {
            assert_eq!(until_ended(&mut clone), 0);
        }
    });
    let answered = time(|| {
        for name in &names {
            host.hyper(["exec", name, "true"]).ok();
        }
    });
    figure("until all run", &millis(took), "");
    figure("until each has answered, one by one", &millis(took + answered), "");
    Memory::of(host, &names).each(CLONES).print("");
    host.hyper(["rm", "--force"].into_iter().chain(names.iter().map(String::as_str))).ok();
}

/// When output came.
struct Ticks(mpsc::Receiver<Instant>);

impl Ticks {
    fn of(mut output: ChildStdout) -> Ticks {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while output.read(&mut bytes).is_ok_and(|count| count > 0) {
                if sender.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        Ticks(receiver)
    }

    /// The longest silence since this was last asked; waits for output first.
    fn longest(&self) -> Duration {
        let mut last = self.0.recv().unwrap();
        let mut longest = Duration::ZERO;
        // The one that is next may come after whatever was measured.
        let next = self.0.recv().unwrap();
        for at in [next].into_iter().chain(self.0.try_iter()) {
            longest = longest.max(at - last);
            last = at;
        }
        longest
    }
}
