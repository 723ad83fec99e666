//! How hard, and for how long.

use std::time::Duration;

use anyhow::{Result, ensure};

/// Clients, or operations in flight: each is a task and, over HTTP/1.1, a connection.
pub const CLIENTS_MAX: usize = 20_000;
/// Operations a second. Beyond it the generator itself is what is measured.
pub const RATE_MAX: f64 = 1_000_000.0;
/// Of warm-up and measurement each. Histograms and counters would hold for longer; nobody would wait.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
/// Receipts that are kept for reading back.
pub const SAMPLE_MAX: usize = 1_000_000;

/// Who asks when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// So many clients, each with one operation at a time.
    Closed { clients: usize },
    /// So many operations a second are due, at equal distances. At most `in_flight` are under way: what is
    /// due beyond that starts late, its time counting from when it was due; what has not started by the end is
    /// counted and told.
    Open { per_second: f64, in_flight: usize },
}

impl Load {
    /// How many operations can be under way at once.
    pub fn clients(&self) -> usize {
        match *self {
            Load::Closed { clients } => clients,
            Load::Open { in_flight, .. } => in_flight,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    pub load: Load,
    /// Load as later, and nothing of it is counted.
    pub warm_up: Duration,
    pub duration: Duration,
    /// An operation without an answer for so long is dropped, and counted as `no_answer`.
    pub answer_within: Duration,
    /// So many of what is acknowledged are kept, each with the same chance, and read back.
    pub sample: usize,
}

impl Plan {
    /// # Errors
    /// For a plan that cannot be meant; the words are for whoever made it.
    pub fn check(&self) -> Result<()> {
        let clients = self.load.clients();
        ensure!(
            (1..=CLIENTS_MAX).contains(&clients),
            "clients, or operations in flight: from 1 to {CLIENTS_MAX}"
        );
        if let Load::Open { per_second, .. } = self.load {
            ensure!(
                per_second > 0.0 && per_second <= RATE_MAX,
                "the rate: more than 0, and at most {RATE_MAX} a second"
            );
        }
        ensure!(
            self.warm_up <= DURATION_MAX && !self.duration.is_zero() && self.duration <= DURATION_MAX,
            "the duration: from 1 ms to a day, and the warm-up at most a day"
        );
        ensure!(!self.answer_within.is_zero(), "the time for an answer is zero");
        ensure!(self.sample <= SAMPLE_MAX, "at most {SAMPLE_MAX} receipts are kept");
        Ok(())
    }
}
