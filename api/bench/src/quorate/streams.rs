//! `streams`: messages, and how long they take to reach those who read along.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use serde::Serialize;

use super::http::Http;
use super::sends::{Door, Placed, Senders};
use super::stage::Stage;
pub use super::subscriber::Deliveries;
use super::subscriber::{Clock, Subscribers};
use crate::live::Live;
use crate::plan::Plan;
use crate::report::Report;
use crate::run::run;
use crate::target::{Call, Done, Fault, Target, Unheld};

/// Messages whose text says when they were sent.
#[derive(Debug)]
pub(crate) struct TimedSends {
    senders: Senders,
    clock: Clock,
    /// By room: the last seq that was acknowledged.
    acknowledged: Vec<AtomicU64>,
}

impl TimedSends {
    pub(crate) fn new(http: Arc<Http>, stage: Arc<Stage>, clock: Clock) -> Self {
        Self {
            acknowledged: (0..stage.rooms()).map(|_| AtomicU64::new(0)).collect(),
            senders: Senders::new(Door::Http(http), stage, false, false),
            clock,
        }
    }

    pub(crate) async fn send(&self, call: Call) -> Result<Placed, Fault> {
        let placed = self.senders.send_as(call, self.clock.now()).await?;
        self.acknowledged[placed.room()].fetch_max(placed.seq(), Ordering::Relaxed);
        Ok(placed)
    }

    pub(crate) async fn read_back(&self, placed: &Placed) -> Result<(), Unheld> {
        self.senders.read_back(placed).await
    }

    pub(crate) fn acknowledged(&self) -> &[AtomicU64] {
        &self.acknowledged
    }
}

impl Target for TimedSends {
    type Receipt = Placed;

    fn kinds(&self) -> &'static [&'static str] {
        &["send"]
    }

    async fn perform(&self, call: Call) -> Result<Done<Placed>, Fault> {
        self.send(call).await.map(|placed| Done::one(Some(placed)))
    }

    async fn read_back(&self, placed: &Placed) -> Result<(), Unheld> {
        TimedSends::read_back(self, placed).await
    }
}

/// What was sent, and what was delivered of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StreamReport {
    #[serde(flatten)]
    pub sends: Report,
    pub deliveries: Deliveries,
}

/// The workload: so many streams are open while messages are sent by the plan.
#[derive(Debug)]
pub struct Streams {
    pub http: Arc<Http>,
    pub stage: Arc<Stage>,
    pub subscribers: usize,
}

impl Streams {
    /// # Errors
    /// If the streams cannot all be opened.
    pub async fn run(self, plan: Plan, live: Arc<Live>) -> Result<StreamReport> {
        let clock = Clock::new();
        let subscribers = Subscribers::open(self.http.clone(), &self.stage, self.subscribers, clock).await?;
        let sends = Arc::new(TimedSends::new(self.http, self.stage, clock));
        subscribers.measure(plan.warm_up, plan.duration);
        let mut report = run(sends.clone(), plan, live).await;
        let deliveries = subscribers.finish(sends.acknowledged()).await;
        missing(&mut report, &deliveries);
        Ok(StreamReport {
            sends: report,
            deliveries,
        })
    }
}

/// What was acknowledged and not delivered is a lie as any other.
pub(crate) fn missing(report: &mut Report, deliveries: &Deliveries) {
    if deliveries.missing > 0 {
        let told = format!("{} deliveries of acknowledged messages are missing", deliveries.missing);
        report.read_back.add_lies(deliveries.missing, vec![told]);
    }
}
