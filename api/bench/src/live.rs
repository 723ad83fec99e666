//! What whoever waits for the end of a run is shown meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts everything, the warm-up too: it only says that something goes on.
#[derive(Debug, Default)]
pub struct Live {
    units: AtomicU64,
    failed: AtomicU64,
}

impl Live {
    pub(crate) fn done(&self, units: u64) {
        self.units.fetch_add(units, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// What was done until now.
    pub fn units(&self) -> u64 {
        self.units.load(Ordering::Relaxed)
    }

    pub fn errors(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}
