//! What a run came to, for people and for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::plan::{Load, Plan};
use crate::read_back::ReadBack;
use crate::tally::Tally;
use crate::times::Percentiles;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// How many could be under way at once.
    pub clients: usize,
    pub seconds: f64,
    /// Ended within the measured time.
    pub operations: u64,
    pub operations_per_second: f64,
    /// What they count for, such as messages.
    pub units: u64,
    pub units_per_second: f64,
    /// Of each kind of operation: the times of those that began within the measured time.
    pub times: Vec<KindTimes>,
    /// Operations that failed, by the code of the API or of the connection.
    pub errors: BTreeMap<String, u64>,
    /// Absent in the closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_loop: Option<OpenLoop>,
    pub read_back: ReadBack,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KindTimes {
    pub kind: &'static str,
    #[serde(flatten)]
    pub percentiles: Percentiles,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OpenLoop {
    pub per_second_due: f64,
    /// Started more than 10 ms after they were due, because too many were under way or the machine was busy.
    /// Their times count from when they were due.
    pub late_starts: u64,
    /// Of the whole load: were due, and had not started when it ended. No percentile knows of them.
    pub not_started: u64,
}

impl Report {
    pub(crate) fn new<R>(
        kinds: &'static [&'static str],
        plan: &Plan,
        tally: &Tally<R>,
        open_loop: Option<OpenLoop>,
        read_back: ReadBack,
    ) -> Self {
        let seconds = plan.duration.as_secs_f64();
        let times = kinds.iter().zip(&tally.times).map(|(kind, times)| KindTimes {
            kind,
            percentiles: times.percentiles(),
        });
        Self {
            clients: plan.load.clients(),
            seconds,
            operations: tally.operations,
            operations_per_second: tally.operations as f64 / seconds,
            units: tally.units,
            units_per_second: tally.units as f64 / seconds,
            times: times.collect(),
            errors: tally.errors.iter().map(|(code, n)| (code.to_string(), *n)).collect(),
            open_loop,
            read_back,
        }
    }

    pub fn errors_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// A row for each kind of operation under [`HEADER`].
    pub fn rows(&self) -> Vec<Vec<String>> {
        let row = |times: &KindTimes| {
            let figures = &times.percentiles;
            let mut row = vec![times.kind.to_owned(), figures.count.to_string()];
            let per_second = match &self.times[..] {
                [_] => self.operations_per_second,
                _ => figures.count as f64 / self.seconds,
            };
            row.push(format!("{per_second:.0}"));
            let times = [
                figures.mean_ms,
                figures.p50_ms,
                figures.p90_ms,
                figures.p99_ms,
                figures.p99_9_ms,
                figures.max_ms,
            ];
            row.extend(times.map(|ms| format!("{ms:.2}")));
            row
        };
        self.times.iter().map(row).collect()
    }

    /// What stands below the table, a line each.
    pub fn remarks(&self, units: &str) -> Vec<String> {
        let mut lines = Vec::new();
        if self.units != self.operations {
            lines.push(format!("{units}: {} ({:.0}/s)", self.units, self.units_per_second));
        }
        lines.push(match self.errors.is_empty() {
            true => "errors: none".to_owned(),
            false => {
                let codes: Vec<String> = self.errors.iter().map(|(code, n)| format!("{code} {n}")).collect();
                format!("errors: {}", codes.join(", "))
            }
        });
        if let Some(open) = &self.open_loop {
            lines.push(format!(
                "open loop: {} a second were due; {} started late, {} not at all",
                open.per_second_due, open.late_starts, open.not_started
            ));
        }
        let back = &self.read_back;
        if back.asked > 0 || back.lies > 0 {
            lines.push(format!(
                "read back: {} of {} held, {} wrong, {} could not be read",
                back.held, back.asked, back.lies, back.unread
            ));
        }
        lines.extend(back.told.iter().map(|what| format!("  {what}")));
        lines
    }
}

/// Of [`Report::rows`].
pub const HEADER: [&str; 9] = ["", "count", "per s", "mean ms", "p50", "p90", "p99", "p99.9", "max"];

/// For settings: the loop of a plan in words.
pub fn describe(load: &Load) -> String {
    match load {
        Load::Closed { clients } => format!("closed loop, {clients} clients"),
        Load::Open { per_second, in_flight } => {
            format!("open loop, {per_second} a second, at most {in_flight} in flight")
        }
    }
}
