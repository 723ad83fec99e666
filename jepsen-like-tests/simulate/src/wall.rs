//! Wall clocks of simulated nodes: each is off by something, and jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// 2026-01-01, when every simulation begins.
const BEGIN_MS: i64 = 1_767_225_600_000;
/// Off by at most this much in the beginning: what a machine may be off by whose time nobody has set.
const OFF_MS: std::ops::Range<i64> = -600_000..600_000;

#[derive(Debug, Clone)]
pub(crate) struct WallClock {
    off_ms: Arc<AtomicI64>,
}

impl WallClock {
    /// That of a node. Its dice are its own, so that no other is thrown differently for it.
    pub(crate) fn of(node: u64, seed: u64) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed.rotate_left(32) ^ node);
        Self {
            off_ms: Arc::new(AtomicI64::new(dice.random_range(OFF_MS))),
        }
    }

    pub(crate) fn jump(&self, by_ms: i64) {
        self.off_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        let since_ms = turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_millis());
        let since_ms = i64::try_from(since_ms).unwrap_or(i64::MAX);
        u64::try_from(BEGIN_MS + since_ms + self.off_ms.load(Ordering::Relaxed)).unwrap_or(0)
    }
}
