//! `quorate bench locks`.

use std::sync::Arc;
use std::time::Duration;

use quorate_bench::plan::CLIENTS_MAX;
use quorate_bench::{Load, Plan, quorate, run};
use serde::Serialize;

use super::flags::{Aim, Time, count, parse_time_or_none, seconds};
use super::setting::{Printed, Setting, conclude};
use super::workload::shown;
use crate::cli::exit::Failure;
use crate::cli::output::Output;
use crate::cli::{Global, parse_time};

/// Locks of one run.
const LOCKS_MAX: usize = 10_000;

const EXAMPLES: &str = "Examples:
  quorate bench locks --owners 16                        one lock, 15 wait
  quorate bench locks --owners 64 --locks 16 --hold 5ms

A hand-over is from when an owner begins to give the lock back until the next one has it; who finds
the lock free is counted as `acquire`. Two who hold one lock, or a token that does not grow, are an
error of the run. The locks leave nothing behind but their names and last tokens.";

#[derive(Debug, clap::Args, Serialize)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Locks {
    /// Owners, spread over the locks
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count(CLIENTS_MAX))]
    owners: u64,
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(LOCKS_MAX))]
    locks: u64,
    /// How long each holds it, at most 4s
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_time_or_none)]
    #[serde(serialize_with = "seconds")]
    hold: Duration,
    /// How long each is ready to wait for it
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    #[serde(serialize_with = "seconds")]
    wait: Duration,
    #[command(flatten)]
    #[serde(flatten)]
    time: Time,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) aim: Aim,
}

impl Locks {
    pub(super) async fn run(self, global: &Global, output: &Output) -> Result<(), Failure> {
        let owners = self.owners as usize;
        let plan = Plan {
            load: Load::Closed { clients: owners },
            warm_up: self.time.warm_up,
            duration: self.time.duration,
            // The wait is by agreement; the time for an answer comes on top of it.
            answer_within: global.answer_within() + self.wait + self.hold,
            sample: 0,
        };
        plan.check().map_err(|error| Failure::Usage(error.to_string()))?;
        let setting = Setting::new(&self.aim, owners, global).await?;
        let stage = setting.nothing();
        let http = setting.http.clone();
        let locks = quorate::Locks::new(http, &stage, self.locks as usize, owners, self.hold, self.wait);
        let locks = locks.map_err(|error| Failure::Usage(error.to_string()))?;
        let report = shown(plan, "locks", async |live| run(Arc::new(locks), plan, live).await).await;
        let printed = Printed {
            workload: "locks",
            settings: setting.settings(&self),
            report: &report,
            left: None,
        };
        conclude(&printed, &report, "locks", Vec::new(), output)
    }
}
