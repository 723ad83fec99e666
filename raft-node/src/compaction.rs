//! Keeping the log within bounds: a snapshot of the state, then the log that it covers goes.
//!
//! Never openraft's own timing (see docs/adr): a purge comes after a snapshot that is on disk, after the
//! state is synced, and stays below what this node has applied.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use quorate_storage::log::LogStore;
use quorate_storage::state::StateStore;
use rand::{Rng, RngExt};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::node::NodeCore;
use crate::runtime::Dice;
use crate::snapshots::Snapshots;
use crate::tasks::run_blocking;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two that nobody asked for: each costs a flush.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// What stays when room is needed or a snapshot was asked for: enough for a follower that is a moment
/// behind.
const KEEP_BYTES_MIN: u64 = 16 << 20;
/// The newest entries stay in any case: a purge must stay below what the core is about to apply
/// (openraft's issue 2116).
const KEEP_ENTRIES_MIN: u64 = 64;
/// A snapshot that the core has not taken over by then is looked for again at the next turn.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// How much of the log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// Above it, or up to an eighth earlier, a snapshot is taken and the log cut to half of it.
    pub bytes_max: u64,
    /// Entries older than this go.
    pub age_max: Duration,
}

/// Who wants a snapshot out of turn.
#[derive(Debug, Default)]
pub struct Compaction {
    asked: AtomicBool,
    room_needed: AtomicBool,
    wake: Notify,
}

impl Compaction {
    /// An operator asks.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// The disk is nearly full.
    pub fn make_room(&self) {
        self.room_needed.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }
}

/// Runs for as long as the node does.
pub async fn keep_log_bounded<S: StateStore, L: LogStore>(
    core: Arc<NodeCore<S>>,
    log: L,
    snapshots: Snapshots<S>,
    bounds: LogBounds,
) {
    let mut last = None::<Instant>;
    let mut aged = Instant::now();
    // Drawn when it matters: a die that nobody looks at would only shift all others of a simulation.
    let mut too_much = None::<u64>;
    loop {
        tokio::select! {
            () = core.compaction.wake.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let asked = core.compaction.asked.swap(false, Ordering::Relaxed);
        let room_needed = core.compaction.room_needed.swap(false, Ordering::Relaxed);
        let paused = last.is_some_and(|last| last.elapsed() < PAUSE_MIN);
        // A receiver needs the log from its snapshot on, unless it takes for ever.
        let far_too_long = log.index_to_keep_bytes(bounds.bytes_max.saturating_mul(2)).is_some();
        let sending = core.pool.transfers.sending() > 0 && !far_too_long;
        let too_long = !paused && !sending && log.index_to_keep_bytes(earliest(bounds.bytes_max)).is_some() && {
            let too_much = *too_much.get_or_insert_with(|| earlier(bounds.bytes_max, &mut Dice));
            log.index_to_keep_bytes(too_much).is_some()
        };
        // By age not at each tick, or each second would make a snapshot for a second's worth of entries.
        let look_at_age = aged.elapsed() >= bounds.age_max / 8;
        let too_old = look_at_age && !sending && log.index_older_than(bounds.age_max).is_some();
        if look_at_age {
            aged = Instant::now();
        }
        if !(asked || room_needed || too_long || too_old) {
            continue;
        }
        last = Some(Instant::now());
        too_much = None;
        let keep_bytes = match asked || room_needed {
            true => KEEP_BYTES_MIN.min(bounds.bytes_max / 2),
            false => bounds.bytes_max / 2,
        };
        let (by_bytes, by_age) = (
            log.index_to_keep_bytes(keep_bytes),
            log.index_older_than(bounds.age_max),
        );
        if room_needed {
            // Before the snapshot, which would hold on to the files that this is to get rid of.
            let state = core.state.clone();
            if let Err(error) = run_blocking(move || state.reclaim()).await {
                tracing::warn!(%error, "failed to give space back");
            }
        }
        if let Err(error) = compact(&core, &snapshots, by_bytes.max(by_age)).await {
            tracing::warn!(%error, "no snapshot was taken: the log stays as it is");
        }
    }
}

fn earliest(bytes_max: u64) -> u64 {
    bytes_max - bytes_max / 8
}

/// Up to an eighth less. The nodes of a cluster have the same log, so with one bound all of them would take a snapshot at the same
/// moment: so they seldom do.
fn earlier(bytes_max: u64, dice: &mut impl Rng) -> u64 {
    dice.random_range(earliest(bytes_max)..=bytes_max)
}

async fn compact<S: StateStore>(
    core: &NodeCore<S>,
    snapshots: &Snapshots<S>,
    purge_upto: Option<u64>,
) -> io::Result<()> {
    let began = Instant::now();
    // It makes the state durable as well, which is what the purged entries were kept for.
    snapshots.prepare().await?;
    let applied = core.applied.borrow().index();
    let mut metrics = core.raft.metrics();
    let before = metrics.borrow_watched().snapshot;
    core.raft.trigger().snapshot().await.map_err(io::Error::other)?;
    let taken = async {
        loop {
            let snapshot = metrics.borrow_and_update().snapshot;
            if snapshot != before || snapshot.is_some_and(|id| id.index >= applied) {
                return snapshot;
            }
            if metrics.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let snapshot = timeout(SNAPSHOT_TIMEOUT, taken).await.map_err(io::Error::other)?;
    let covered = snapshot.map_or(0, |id| id.index);
    let purge_upto = purge_upto.map(|upto| upto.min(covered.saturating_sub(KEEP_ENTRIES_MIN)));
    tracing::info!(
        covered,
        ?purge_upto,
        ms = began.elapsed().as_millis(),
        "took a snapshot"
    );
    if let Some(upto) = purge_upto.filter(|upto| *upto > 0) {
        core.raft.trigger().purge_log(upto).await.map_err(io::Error::other)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_comes_up_to_an_eighth_earlier_than_the_bound_and_never_later() {
        let drawn: Vec<u64> = (0..1000).map(|_| earlier(800, &mut Dice)).collect();
        assert!(drawn.iter().all(|bytes| (700..=800).contains(bytes)), "{drawn:?}");
        assert!(drawn.iter().any(|bytes| *bytes < 750) && drawn.iter().any(|bytes| *bytes > 750));
        assert_eq!(earlier(0, &mut Dice), 0);
    }
}
