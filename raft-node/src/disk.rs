//! Disks that fill up, and disks that hang.
//!
//! A node whose disk is full can do nothing but end: it cannot even vote. So writes are refused before that,
//! with room left for what still goes on: votes, deletions, snapshots, and the entries that are on their
//! way. A disk that hangs is worse than one that fails: everything looks alive, and no write is answered.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_state_machine::Envelope;
use quorate_storage::state::StateStore;
use tokio::time::Instant;

use crate::node::NodeCore;
use crate::survey::Survey;

/// At the highest rate that a node writes (some 200 MB/s) this is 100 MB: less than the least mark.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Writes come back when a quarter more than the mark is free, so that they do not flicker.
const ENOUGH_QUARTERS: u64 = 5;
/// While the disk is nearly full, a snapshot is taken and deleted data is compacted this often.
const MAKE_ROOM_EVERY: Duration = Duration::from_secs(5);
/// How often the age of the oldest write on its way is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// Whether writes are to be refused for want of space.
#[derive(Debug, Default)]
pub struct DiskGuard {
    own: AtomicBool,
    /// Bytes free above the mark, when it was last looked.
    spare: AtomicU64,
    /// As the leader sees them: so many voters' disks are low that no majority could take more.
    majority: AtomicBool,
}

impl DiskGuard {
    pub fn is_low(&self) -> bool {
        self.own.load(Ordering::Relaxed)
    }

    /// Whether so many bytes can be written and the mark is still kept.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        bytes <= self.spare.load(Ordering::Relaxed)
    }

    fn refuses_growth(&self) -> bool {
        self.is_low() || self.majority.load(Ordering::Relaxed)
    }

    /// Asked by the leader before it proposes an encoded envelope.
    pub fn refuses(&self, command: &[u8]) -> bool {
        // What cannot be decoded is refused by apply, in its own words.
        self.refuses_growth() && Envelope::decode(command).is_ok_and(|envelope| !envelope.command.makes_room())
    }

    /// As the leader: takes what the members have said.
    pub(crate) fn see_others(&self, voters: &BTreeSet<u64>, survey: &Survey) {
        // Silence is no word about a disk: a majority that is silent stops writes by itself.
        let is_low = |id: &&u64| matches!(survey.get(id), Some(Some(answer)) if answer.disk_low);
        let low = voters.iter().filter(is_low).count();
        self.set_majority(voters.len() - low <= voters.len() / 2);
    }

    /// As who does not lead.
    pub(crate) fn forget_others(&self) {
        self.set_majority(false);
    }

    fn set_majority(&self, low: bool) {
        if self.majority.swap(low, Ordering::Relaxed) != low {
            tracing::warn!(low, "whether too many voters' disks are nearly full has changed");
        }
    }
}

fn low(was_low: bool, free: u64, min: u64) -> bool {
    let enough = if was_low {
        min.saturating_mul(ENOUGH_QUARTERS) / 4
    } else {
        min
    };
    free < enough
}

pub type FreeBytes = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;
/// How long the oldest write of the log has been on its way.
pub type OldestUnsynced = Arc<dyn Fn() -> Option<Duration> + Send + Sync>;

/// Keeps the guard at what this node's disk says. `min` is the low-water mark in bytes.
pub async fn watch_space<S: StateStore>(core: Arc<NodeCore<S>>, free_bytes: FreeBytes, min: u64) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut made_room = None::<Instant>;
    loop {
        ticks.tick().await;
        match free_bytes() {
            Ok(free) => {
                core.disk.spare.store(free.saturating_sub(min), Ordering::Relaxed);
                let was_low = core.disk.is_low();
                let is_low = low(was_low, free, min);
                core.disk.own.store(is_low, Ordering::Relaxed);
                if is_low && !was_low {
                    tracing::warn!(
                        free,
                        min,
                        "the disk is nearly full: writes are refused until there is room again"
                    );
                }
                // Again and again: what is deleted meanwhile gives its space back only then.
                if is_low && made_room.is_none_or(|at| at.elapsed() >= MAKE_ROOM_EVERY) {
                    made_room = Some(Instant::now());
                    core.compaction.make_room();
                }
                if was_low && !is_low {
                    tracing::info!(free, "there is room on the disk again");
                }
            }
            Err(error) => tracing::warn!(%error, "failed to ask how much of the disk is free"),
        }
    }
}

/// Notices a disk that hangs. A leader hands over, since nothing that it takes is ever answered; if it
/// cannot, the process ends.
pub async fn watch_hangs<S: StateStore>(core: Arc<NodeCore<S>>, oldest: OldestUnsynced, election_max: Duration) {
    let mut hung_since = None::<Instant>;
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let hangs = oldest().is_some_and(|age| age > election_max);
        if !hangs {
            hung_since = None;
            continue;
        }
        let since = *hung_since.get_or_insert_with(|| {
            tracing::warn!("the disk hangs: a write of the log has not come back within the election time-out");
            Instant::now()
        });
        if !core.leads() {
            continue;
        }
        if since.elapsed() > election_max * 4 {
            (core.on_fatal)("the disk hangs, and nobody has taken leadership over".to_owned());
            return;
        }
        core.hand_over().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_has_a_margin() {
        assert!(!low(false, 100, 100));
        assert!(low(false, 99, 100));
        assert!(low(true, 124, 100));
        assert!(!low(true, 125, 100));
    }
}
