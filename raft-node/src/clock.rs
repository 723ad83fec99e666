//! The two clocks that a leader stamps on an entry.

use std::sync::{Arc, Mutex};
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

/// The clock of this node's leadership, for who proposes and for who looks for what has expired.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// With the term in which this node leads. Held for a comparison, never across an await.
    current: Arc<Mutex<Option<(u64, LeaderClock)>>>,
}

impl Clock {
    /// A new term goes on from what was applied before it.
    pub fn of_term(&self, term: u64, applied_ms: u64) -> LeaderClock {
        let mut current = self.current.lock().expect("nothing panics while it holds the lock");
        match *current {
            // What was still to be applied when the term began may have been stamped later.
            Some((of_term, clock)) if of_term == term && clock.stamp().elapsed_ms >= applied_ms => clock,
            _ => {
                let clock = LeaderClock::start(applied_ms);
                *current = Some((term, clock));
                clock
            }
        }
    }
}

/// Milliseconds since 1970 by this machine's clock; 0 for a clock before that.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
