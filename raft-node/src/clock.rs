//! The two clocks that a leader stamps on an entry.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use quorate_state_machine::EntryMeta;
use quorate_state_machine::planted::{Bug, is_planted};
use tokio::time::Instant;

/// Milliseconds since 1970, for showing. It may jump.
pub type Wall = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The clock of a node, for who proposes and for who looks for what has expired.
///
/// `elapsed_ms` goes on from what was applied when a leadership began, by this process's monotonic time.
/// Time without a leader does not count, and a wall clock that jumps expires nothing.
#[derive(Clone)]
pub struct Clock {
    /// The leadership that is or was last. Held for a comparison, never across an await.
    current: Arc<Mutex<Option<Leadership>>>,
    wall: Wall,
}

#[derive(Debug, Clone, Copy)]
struct Leadership {
    term: u64,
    elapsed_at_start_ms: u64,
    start: Instant,
}

impl Leadership {
    fn begin(term: u64, applied_ms: u64) -> Self {
        Self {
            term,
            elapsed_at_start_ms: applied_ms,
            start: Instant::now(),
        }
    }

    fn since_start_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn elapsed_ms(&self) -> u64 {
        self.elapsed_at_start_ms.saturating_add(self.since_start_ms())
    }
}

impl Clock {
    pub fn new(wall: Wall) -> Self {
        Self {
            current: Arc::default(),
            wall,
        }
    }

    /// A new term goes on from where the applied state stands, `applied_ms`.
    fn leadership(&self, term: u64, applied_ms: u64) -> Leadership {
        let mut current = self.current.lock().expect("nothing panics while it holds the lock");
        // What was still to be applied when the term began may have been stamped later.
        let goes_on = current.filter(|of| of.term == term && of.elapsed_ms() >= applied_ms);
        let leadership = goes_on.unwrap_or_else(|| Leadership::begin(term, applied_ms));
        *current = Some(leadership);
        leadership
    }

    /// The replicated clock, as this node's leadership of the term has it.
    pub fn elapsed_ms(&self, term: u64, applied_ms: u64) -> u64 {
        self.leadership(term, applied_ms).elapsed_ms()
    }

    /// What to write on an entry now.
    pub fn stamp(&self, term: u64, applied_ms: u64) -> EntryMeta {
        let leadership = self.leadership(term, applied_ms);
        EntryMeta {
            elapsed_ms: leadership.elapsed_ms(),
            wall_ms: match is_planted(Bug::TokenResetOnRestart) {
                true => leadership.since_start_ms(),
                false => (self.wall)(),
            },
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

/// By this machine's clock; 0 for a clock before 1970.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
