//! `quorate bench streams` and `mixed`: requests, with streams open beside them.

use quorate_bench::quorate::{self, Deliveries, StreamReport};
use serde::Serialize;

use super::flags::Common;
use super::reads::Held;
use super::setting::client_failure;
use super::workload::{Scene, Workload};
use crate::cli::exit::Failure;

/// Sends a second where the line says neither a rate nor clients: some that are delivered to many.
const STREAMS_RATE: f64 = 100.0;
/// What the first bytes of a message are for.
const TOLD_BY: &str = "for the time at which a message was sent";

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
    pub(super) common: Common,
}

impl Workload for Streams {
    const NAME: &'static str = "streams";
    const UNITS: &'static str = "messages";
    type Outcome = StreamReport;

    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self) -> Result<(), Failure> {
        self.common.rooms.check_bytes(TOLD_BY)
    }

    fn rate(&self) -> Option<f64> {
        Some(STREAMS_RATE)
    }

    async fn work(&self, scene: Scene) -> Result<StreamReport, Failure> {
        let streams = quorate::Streams {
            http: scene.http,
            stage: scene.stage,
            subscribers: self.subscribers as usize,
        };
        streams.run(scene.plan, scene.live).await.map_err(client_failure)
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
    held: Held,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) common: Common,
}

impl Workload for Mixed {
    const NAME: &'static str = "mixed";
    const UNITS: &'static str = "requests";
    type Outcome = StreamReport;

    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self) -> Result<(), Failure> {
        self.common.rooms.check_bytes(TOLD_BY)
    }

    fn messages(&self) -> u64 {
        self.held.messages
    }

    async fn work(&self, scene: Scene) -> Result<StreamReport, Failure> {
        let mixed = quorate::Mixed {
            http: scene.http,
            stage: scene.stage,
            subscribers: self.subscribers as usize,
            level: self.held.level.into(),
        };
        mixed.run(scene.plan, scene.live).await.map_err(client_failure)
    }
}

fn subscribers() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(0..=quorate_bench::plan::CLIENTS_MAX as u64)
}

/// In words, a line each.
pub(super) fn delivered(deliveries: &Deliveries) -> Vec<String> {
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
