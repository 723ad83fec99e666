//! `quorate bench streams` and `mixed`: requests, with streams open beside them.

use std::sync::Arc;

use quorate_bench::quorate::{self, Deliveries, StreamReport};
use quorate_bench::{Live, Plan};
use serde::Serialize;

use super::flags::{Aim, Load, Rooms};
use super::progress::Progress;
use super::reads::Held;
use super::setting::{Printed, Setting, client_failure, conclude};
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::Output;

/// Sends a second where the line says neither a rate nor clients: some that are delivered to many.
const STREAMS_RATE: f64 = 100.0;

const STREAMS_EXAMPLES: &str = "Examples:
  quorate bench streams --subscribers 2000 --rooms 20 --rate 50
  quorate bench streams --subscribers 100 --rooms 1 --clients 16      closed loop: as fast as it goes

Each subscriber reads one room. A delivery's time is from when the message was sent until it has come; a
message that was acknowledged and did not come to everybody is an error of the run.";

#[derive(Debug, clap::Args, Serialize)]
#[command(after_help = STREAMS_EXAMPLES)]
pub(crate) struct Streams {
    /// Streams that are open, spread over rooms and nodes
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = subscribers())]
    subscribers: u64,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) rooms: Rooms,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) aim: Aim,
}

impl Streams {
    pub(super) async fn run(self, global: &Global, output: &Output) -> Result<(), Failure> {
        check_bytes(&self.rooms)?;
        let rate = self.load.clients.is_none().then_some(STREAMS_RATE);
        let plan = self.load.plan(rate, global.answer_within())?;
        let setting = Setting::new(&self.aim, plan.load.clients(), global).await?;
        let stage = setting.stage(&self.rooms, 0).await?;
        let streams = quorate::Streams {
            http: setting.http.clone(),
            stage: stage.clone(),
            subscribers: self.subscribers as usize,
        };
        let live = Arc::new(Live::default());
        let report = watched(plan, &live, "messages", streams.run(plan, live.clone())).await?;
        let printed = Printed {
            workload: "streams",
            settings: setting.settings(&self),
            report: &report,
            left: setting.leave(&stage, self.rooms.cleanup).await?,
        };
        let delivered = in_words(&report.deliveries);
        conclude(&printed, &report.sends, "messages", delivered, output)
    }
}

const MIXED_EXAMPLES: &str = "Examples:
  quorate bench mixed --clients 64
  quorate bench mixed --rate 5000 --subscribers 1000 --duration 1m

The proportions are those that Zulip publishes of its servers' requests: of 888, 440 ask for news of a
room (GET /events there), 413 look at a room (presence, uploads and opening there, which are not built
here), 30 read the newest page, and 5 send. Streams are open beside them.
https://zulip.readthedocs.io/en/stable/subsystems/performance.html";

#[derive(Debug, clap::Args, Serialize)]
#[command(after_help = MIXED_EXAMPLES)]
pub(crate) struct Mixed {
    /// Streams that are open meanwhile, spread over rooms and nodes
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = subscribers())]
    subscribers: u64,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) rooms: Rooms,
    #[command(flatten)]
    #[serde(flatten)]
    held: Held,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) aim: Aim,
}

impl Mixed {
    pub(super) async fn run(self, global: &Global, output: &Output) -> Result<(), Failure> {
        check_bytes(&self.rooms)?;
        let plan = self.load.plan(None, global.answer_within())?;
        let setting = Setting::new(&self.aim, plan.load.clients(), global).await?;
        let stage = setting.stage(&self.rooms, self.held.messages).await?;
        let mixed = quorate::Mixed {
            http: setting.http.clone(),
            stage: stage.clone(),
            subscribers: self.subscribers as usize,
            level: self.held.level.into(),
        };
        let live = Arc::new(Live::default());
        let report = watched(plan, &live, "requests", mixed.run(plan, live.clone())).await?;
        let printed = Printed {
            workload: "mixed",
            settings: setting.settings(&self),
            report: &report,
            left: setting.leave(&stage, self.rooms.cleanup).await?,
        };
        let delivered = in_words(&report.deliveries);
        conclude(&printed, &report.sends, "requests", delivered, output)
    }
}

async fn watched(
    plan: Plan,
    live: &Arc<Live>,
    units: &'static str,
    work: impl Future<Output = anyhow::Result<StreamReport>>,
) -> Result<StreamReport, Failure> {
    let _progress = Progress::new(live.clone(), units, Some(plan.warm_up + plan.duration));
    work.await.map_err(client_failure)
}

/// A message says in its first 16 bytes when it was sent.
fn check_bytes(rooms: &Rooms) -> Result<(), Failure> {
    match rooms.message_bytes < 16 {
        true => Err(Failure::Usage(
            "--message-bytes: at least 16 here, for the time at which a message was sent".into(),
        )),
        false => Ok(()),
    }
}

fn subscribers() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(0..=quorate_bench::plan::CLIENTS_MAX as u64)
}

fn in_words(deliveries: &Deliveries) -> Vec<String> {
    let times = &deliveries.times;
    let mut lines = vec![
        format!(
            "deliveries to {} streams: {} ({:.0}/s), {} missing",
            deliveries.subscribers, deliveries.delivered, deliveries.delivered_per_second, deliveries.missing
        ),
        format!(
            "  ms from send: mean {:.2}, p50 {:.2}, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}",
            times.mean_ms, times.p50_ms, times.p90_ms, times.p99_ms, times.p99_9_ms, times.max_ms
        ),
    ];
    if !deliveries.interruptions.is_empty() {
        let codes = deliveries.interruptions.iter().map(|(code, n)| format!("{code} {n}"));
        lines.push(format!(
            "  streams that ended and were resumed: {}",
            codes.collect::<Vec<_>>().join(", ")
        ));
    }
    lines
}
