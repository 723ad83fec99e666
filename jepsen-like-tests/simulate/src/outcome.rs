//! What came of a simulation.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub simulated: Duration,
    /// Leaders that were elected.
    pub elections: u64,
    /// Of them, those that began because the process of the leader before was taken for dead.
    pub failovers: u64,
    pub snapshots_installed: u64,
    /// Operations that were answered.
    pub operations: u64,
    /// By kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.simulated += other.simulated;
        self.elections += other.elections;
        self.failovers += other.failovers;
        self.snapshots_installed += other.snapshots_installed;
        self.operations += other.operations;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            simulated,
            elections,
            failovers,
            snapshots_installed,
            operations,
            faults,
        } = self;
        write!(
            f,
            "{} simulated seconds, {operations} operations, {elections} elections ({failovers} without a time-out), \
             {snapshots_installed} snapshots installed",
            simulated.as_secs()
        )?;
        faults
            .iter()
            .try_for_each(|(kind, count)| write!(f, ", {count} × {kind}"))
    }
}

#[derive(Debug, Clone)]
pub struct Outcome {
    pub seed: u64,
    pub counts: Counts,
    /// What was not allowed: the checker or invariant that found it, and what it found.
    pub violation: Option<(String, String)>,
    /// All that was seen, as text: the same for the same seed.
    pub trace: String,
}
