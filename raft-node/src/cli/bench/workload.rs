//! What most workloads have in common: rooms are made, a plan is carried out in them, and what came of it is
//! printed.

use std::sync::Arc;

use quorate_bench::quorate::{Http, Stage, StreamReport};
use quorate_bench::{Live, Plan, Report, Target, run};
use serde::Serialize;

use super::flags::Common;
use super::progress::Progress;
use super::setting::{Printed, Setting, conclude};
use super::streams::delivered;
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::Output;

/// A workload as its flags are, and how it differs from the others.
pub(super) trait Workload: Serialize {
    /// As on the command line.
    const NAME: &'static str;
    /// What it counts.
    const UNITS: &'static str;
    type Outcome: Outcome;

    fn common(&self) -> &Common;

    /// Refuses flags that do not fit each other.
    fn check(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Requests a second where the line says neither that nor how many clients there are.
    fn rate(&self) -> Option<f64> {
        None
    }

    /// Messages that each room is given before.
    fn messages(&self) -> u64 {
        0
    }

    async fn work(&self, scene: Scene) -> Result<Self::Outcome, Failure>;
}

/// What came of a plan.
pub(super) trait Outcome: Serialize {
    fn report(&self) -> &Report;

    /// What stands below the report, a line each.
    fn remarks(&self) -> Vec<String>;
}

impl Outcome for Report {
    fn report(&self) -> &Report {
        self
    }

    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Outcome for StreamReport {
    fn report(&self) -> &Report {
        &self.sends
    }

    fn remarks(&self) -> Vec<String> {
        delivered(&self.deliveries)
    }
}

/// Where a workload does its work.
pub(super) struct Scene {
    pub(super) plan: Plan,
    pub(super) http: Arc<Http>,
    pub(super) stage: Arc<Stage>,
    pub(super) live: Arc<Live>,
}

impl Scene {
    /// Carries out the plan.
    pub(super) async fn drive(self, target: impl Target) -> Result<Report, Failure> {
        Ok(run(Arc::new(target), self.plan, self.live).await)
    }
}

/// From the flags to what is printed.
pub(super) async fn perform<W: Workload>(workload: W, global: &Global, output: &Output) -> Result<(), Failure> {
    let Common { load, rooms, aim } = workload.common();
    workload.check()?;
    let rate = workload.rate().filter(|_| load.clients.is_none());
    let plan = load.plan(rate, global.answer_within())?;
    let setting = Setting::new(aim, plan.load.clients(), global).await?;
    let stage = setting.stage(rooms, workload.messages()).await?;
    let work = async |live| {
        let scene = Scene {
            plan,
            http: setting.http.clone(),
            stage: stage.clone(),
            live,
        };
        workload.work(scene).await
    };
    let outcome = shown(plan, W::UNITS, work).await?;
    let printed = Printed {
        workload: W::NAME,
        settings: setting.settings(&workload),
        report: &outcome,
        left: setting.leave(&stage, rooms.cleanup).await?,
    };
    conclude(&printed, outcome.report(), W::UNITS, outcome.remarks(), output)
}

/// Shows what goes on while a plan is carried out.
pub(super) async fn shown<T>(plan: Plan, units: &'static str, work: impl AsyncFnOnce(Arc<Live>) -> T) -> T {
    let live = Arc::new(Live::default());
    let _progress = Progress::new(live.clone(), units, Some(plan.warm_up + plan.duration));
    work(live).await
}
