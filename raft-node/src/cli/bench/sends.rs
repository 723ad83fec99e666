//! `quorate bench send` and `batch`.

use std::sync::Arc;

use quorate_bench::quorate::{Batches, Sends};
use quorate_bench::{Live, Plan, Report, Target, run};
use serde::Serialize;

use super::flags::{Aim, Load, Rooms, count};
use super::progress::Progress;
use super::setting::{Printed, Setting, conclude};
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::Output;

const SEND_EXAMPLES: &str = "Examples:
  quorate bench send --clients 1
  quorate bench send --clients 256 --rooms 1000 --message-bytes 64 --cleanup
  quorate bench send --rate 3000 --duration 5m --nodes leader";

#[derive(Debug, clap::Args, Serialize)]
#[command(after_help = SEND_EXAMPLES)]
pub(crate) struct Send {
    /// With an idempotency key each, as the client library sends them
    #[arg(long)]
    keyed: bool,
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

impl Send {
    pub(super) async fn run(self, global: &Global, output: &Output) -> Result<(), Failure> {
        let plan = self.load.plan(None, global.answer_within())?;
        let setting = Setting::new(&self.aim, plan.load.clients(), global).await?;
        let stage = setting.stage(&self.rooms, 0).await?;
        let sends = Sends::new(setting.http.clone(), stage.clone(), self.keyed);
        let report = measure(sends, plan, "messages").await;
        let printed = Printed {
            workload: "send",
            settings: setting.settings(&self),
            report: &report,
            left: setting.leave(&stage, self.rooms.cleanup).await?,
        };
        conclude(&printed, &report, "messages", Vec::new(), output)
    }
}

const BATCH_EXAMPLES: &str = "Examples:
  quorate bench batch --size 100 --clients 8
  quorate bench batch --size 1000 --clients 4 --message-bytes 1024 --cleanup";

#[derive(Debug, clap::Args, Serialize)]
#[command(after_help = BATCH_EXAMPLES)]
pub(crate) struct Batch {
    /// Messages of a batch
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count(1000))]
    size: u64,
    /// With an idempotency key each, as the client library sends them
    #[arg(long)]
    keyed: bool,
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

impl Batch {
    pub(super) async fn run(self, global: &Global, output: &Output) -> Result<(), Failure> {
        let plan = self.load.plan(None, global.answer_within())?;
        let setting = Setting::new(&self.aim, plan.load.clients(), global).await?;
        let stage = setting.stage(&self.rooms, 0).await?;
        let batches = Batches::new(setting.http.clone(), stage.clone(), self.keyed, self.size);
        let report = measure(batches, plan, "messages").await;
        let printed = Printed {
            workload: "batch",
            settings: setting.settings(&self),
            report: &report,
            left: setting.leave(&stage, self.rooms.cleanup).await?,
        };
        conclude(&printed, &report, "messages", Vec::new(), output)
    }
}

/// Runs the plan, and shows meanwhile what goes on.
pub(super) async fn measure(target: impl Target, plan: Plan, units: &'static str) -> Report {
    let live = Arc::new(Live::default());
    let _progress = Progress::new(live.clone(), units, Some(plan.warm_up + plan.duration));
    run(Arc::new(target), plan, live).await
}
