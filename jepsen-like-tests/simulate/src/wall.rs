//! Wall clocks of simulated nodes: each is off by something, and jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// 2026-01-01, when every simulation begins.
const BEGIN_MS: i64 = 1_767_225_600_000;

#[derive(Debug, Clone, Default)]
pub(crate) struct WallClock {
    off_ms: Arc<AtomicI64>,
}

impl WallClock {
    pub(crate) fn jump(&self, by_ms: i64) {
        self.off_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        let since_ms = turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_millis());
        let since_ms = i64::try_from(since_ms).unwrap_or(i64::MAX);
        u64::try_from(BEGIN_MS + since_ms + self.off_ms.load(Ordering::Relaxed)).unwrap_or(0)
    }
}
