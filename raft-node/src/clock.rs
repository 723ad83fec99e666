//! The two clocks that a leader stamps on an entry.

use std::time::{SystemTime, UNIX_EPOCH};

use quorate_state_machine::EntryMeta;
use tokio::time::Instant;

/// `elapsed_ms` goes on from what was applied when this leadership began, by this process's
/// monotonic time. Time without a leader does not count, and a wall clock that jumps expires nothing.
#[derive(Debug, Clone, Copy)]
pub struct LeaderClock {
    elapsed_at_start_ms: u64,
    start: Instant,
}

impl LeaderClock {
    pub fn start(applied_elapsed_ms: u64) -> Self {
        Self {
            elapsed_at_start_ms: applied_elapsed_ms,
            start: Instant::now(),
        }
    }

    pub fn stamp(&self) -> EntryMeta {
        let since_start_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        EntryMeta {
            elapsed_ms: self.elapsed_at_start_ms.saturating_add(since_start_ms),
            wall_ms: wall_ms(),
        }
    }
}

/// Milliseconds since 1970 by this machine's clock; 0 for a clock before that.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
