// SPDX-License-Identifier: Apache-2.0
//! `top` and `stats`: what runs in containers, and what it uses.

use std::io::IsTerminal;
use std::time::Duration;

use hc_api::{ContainerSummary, ErrorKind, ListQuery, StatsQuery, StatsSample, Top, TopRow};
use hyper::Method;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Context;
use crate::args::{StatsArgs, TopArgs};
use crate::client::{Body, Client, Lines, Target};
use crate::failure::{FAILED, Failure, Result};
use crate::show::{Format, Table, human, print, print_failure};

/// How often the live table is drawn; samples come once a second.
const REDRAW: Duration = Duration::from_secs(1);
/// Puts the cursor at the top left and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

const FIELDS: [&str; 9] =
    ["BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs"];
const COLUMNS: [(&str, &str); 8] = [
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

pub(crate) async fn top(context: &Context, args: &TopArgs) -> Result<u8> {
    let client = context.client().await?;
    let top: Top = client.get(Target::new(&["containers", &args.container, "top"])).await?;
    let mut table = Table::new(&["UID", "PID", "PPID", "STATE", "STIME", "TIME", "RSS", "CMD"]);
    for row in &top.processes {
        table.row(process(row, &TimeZone::system()));
    }
    print(&table.render())?;
    Ok(0)
}

fn process(row: &TopRow, zone: &TimeZone) -> [String; 8] {
    let seconds = row.cpu_millis / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    [
        row.uid.to_string(),
        row.pid.to_string(),
        row.ppid.to_string(),
        row.state.to_string(),
        row.started.to_zoned_datetime(zone.clone()).strftime("%H:%M").to_string(),
        format!("{hours:02}:{minutes:02}:{seconds:02}"),
        human::memory(row.rss_bytes),
        row.command.clone(),
    ]
}

pub(crate) async fn stats(context: &Context, args: &StatsArgs) -> Result<u8> {
    let format = Format::parse(args.format.as_deref(), false, &FIELDS)?;
    let client = context.client().await?;
    let mut names = args.containers.clone();
    if names.is_empty() {
        let list: Vec<ContainerSummary> =
            client.get(Target::new(&["containers"]).query(&ListQuery::default())).await?;
        names = list.into_iter().map(|container| container.id).collect();
    }
    let (sender, receiver) = mpsc::channel(64);
    for (index, name) in names.iter().enumerate() {
        let (client, name, sender) = (client.clone(), name.clone(), sender.clone());
        tokio::spawn(async move { watch(&client, &name, index, &sender).await });
    }
    drop(sender);
    let board = Board {
        args,
        format,
        samples: names.iter().map(|_| Samples::default()).collect(),
        status: 0,
    };
    board.run(receiver).await
}

/// What a watcher says about a container.
enum News {
    Sample(StatsSample),
    Failed(Failure),
    Ended,
}

/// Reads a container's samples until it ends or nobody wants more.
async fn watch(client: &Client, name: &str, index: usize, sender: &mpsc::Sender<(usize, News)>) {
    let target = Target::new(&["containers", name, "stats"]).query(&StatsQuery { stream: true });
    let news = match client.send(Method::GET, target, Body::empty()).await {
        Err(failure) => News::Failed(failure.context(format_args!("cannot watch {name}"))),
        Ok(response) => {
            let mut lines = Lines::new(response);
            loop {
                match lines.next().await {
                    Ok(Some(sample)) => {
                        if sender.send((index, News::Sample(sample))).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break News::Ended,
                    Err(failure) => break News::Failed(failure),
                }
            }
        }
    };
    // Nobody listens once the table has been drawn for the last time.
    let _ = sender.send((index, news)).await;
}

/// The last two samples: use over time needs both.
#[derive(Default)]
struct Samples {
    last: Option<StatsSample>,
    row: Option<Value>,
    done: bool,
}

/// The table of all containers.
struct Board<'a> {
    args: &'a StatsArgs,
    format: Format,
    samples: Vec<Samples>,
    status: u8,
}

impl Board<'_> {
    async fn run(mut self, mut receiver: mpsc::Receiver<(usize, News)>) -> Result<u8> {
        let live = !self.args.no_stream;
        let mut redraw = tokio::time::interval(REDRAW);
        loop {
            tokio::select! {
                news = receiver.recv() => match news {
                    Some((index, news)) => self.take(index, news),
                    None => break,
                },
                _ = redraw.tick(), if live => self.draw(live)?,
            }
            if !live && self.samples.iter().all(|samples| samples.done || samples.row.is_some()) {
                break;
            }
        }
        self.draw(false)?;
        Ok(self.status)
    }

    fn take(&mut self, index: usize, news: News) {
        let samples = &mut self.samples[index];
        match news {
            News::Sample(sample) => {
                if let Some(last) = samples.last.replace(sample.clone()) {
                    samples.row = Some(row(&last, &sample, self.args.no_trunc));
                }
            }
            News::Ended => {
                samples.done = true;
                // What has ended uses nothing; in a single table its only sample still counts.
                samples.row = match samples.last.take() {
                    Some(last) if self.args.no_stream => {
                        Some(row(&last, &last, self.args.no_trunc))
                    }
                    _ => None,
                };
            }
            News::Failed(failure) => {
                samples.done = true;
                samples.row = None;
                if failure.kind() != ErrorKind::NotFound
                    || self.args.no_stream
                    || samples.last.is_none()
                {
                    print_failure(&failure);
                    self.status = FAILED;
                }
            }
        }
    }

    fn draw(&self, live: bool) -> Result<()> {
        let rows: Vec<_> = self.samples.iter().filter_map(|samples| samples.row.clone()).collect();
        // A heading over nothing helps neither who waits nor who got an error.
        if rows.is_empty() && (live || self.status != 0) {
            return Ok(());
        }
        if live && self.format == Format::Table && std::io::stdout().is_terminal() {
            print(CLEAR)?;
        }
        self.format.print(&rows, &COLUMNS, "ID")
    }
}

fn row(before: &StatsSample, now: &StatsSample, whole: bool) -> Value {
    let pair = |a, b| format!("{} / {}", human::size(a), human::size(b));
    let id = if whole { now.id.as_str() } else { human::short_id(&now.id) };
    let elapsed = now.time.duration_since(before.time).as_micros();
    json!({
        "ID": id,
        "Container": id,
        "Name": now.name,
        "CPUPerc": percent(now.cpu_usec.saturating_sub(before.cpu_usec).into(), elapsed),
        "MemUsage": format!(
            "{} / {}",
            human::memory(now.memory_bytes),
            human::memory(now.memory_limit_bytes)
        ),
        "MemPerc": percent(now.memory_bytes.into(), now.memory_limit_bytes.into()),
        "NetIO": pair(now.network_rx_bytes, now.network_tx_bytes),
        "BlockIO": pair(now.block_read_bytes, now.block_write_bytes),
        "PIDs": now.pids,
    })
}

/// A share with two decimals; of nothing, none.
fn percent(part: i128, whole: i128) -> String {
    if whole <= 0 {
        return "0.00%".to_owned();
    }
    let hundredths = part.max(0) * 10_000 / whole;
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn use_is_what_happened_between_two_samples() {
        let sample = |time: &str, cpu_usec| StatsSample {
            id: "ab".repeat(32),
            name: "web".into(),
            time: time.parse().unwrap(),
            cpu_usec,
            vcpus: 2,
            memory_bytes: 64 << 20,
            memory_limit_bytes: 512 << 20,
            pids: 3,
            block_read_bytes: 1_500_000,
            block_write_bytes: 0,
            network_rx_bytes: 1000,
            network_tx_bytes: 20,
        };
        let (before, now) =
            (sample("2024-05-01T12:00:00Z", 100_000), sample("2024-05-01T12:00:02Z", 600_000));
        expect![[r#"{"BlockIO":"1.5MB / 0B","CPUPerc":"25.00%","Container":"abababababab","ID":"abababababab","MemPerc":"12.50%","MemUsage":"64MiB / 512MiB","Name":"web","NetIO":"1kB / 20B","PIDs":3}"#]]
        .assert_eq(&row(&before, &now, false).to_string());
        assert_eq!(row(&now, &now, false)["CPUPerc"], "0.00%");
        assert!(COLUMNS.iter().all(|(_, field)| FIELDS.contains(field)));
    }

    #[test]
    fn processes_show_their_time_as_ps_does() {
        let row = TopRow {
            pid: 7,
            ppid: 1,
            uid: 0,
            state: 'S',
            cpu_millis: 3_723_999,
            started: "2024-05-01T12:34:56Z".parse().unwrap(),
            rss_bytes: 2 << 20,
            command: "sh -c x".into(),
        };
        assert_eq!(process(&row, &TimeZone::UTC).join(" "), "0 7 1 S 12:34 01:02:03 2MiB sh -c x");
    }
}
