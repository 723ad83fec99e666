//! A node's disk: what it holds survives the node, as far as it was synced.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_storage::check_agreement;
use quorate_storage::log::{LogStore, MemoryLog};
use quorate_storage::node_dir::NodeDir;
use quorate_storage::state::{MemoryState, StateStore};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) log: MemoryLog,
    pub(crate) state: MemoryState,
}

impl Disk {
    pub(crate) fn empty() -> Self {
        Self {
            log: MemoryLog::new_manual(),
            state: MemoryState::new(),
        }
    }

    /// What a process finds that is started after a crash: all that was synced, and of the rest some of the
    /// first, as the dice say.
    pub(crate) fn after_crash(&self, dice: &mut ChaCha8Rng) -> Self {
        let kept = |all: usize, dice: &mut ChaCha8Rng| match dice.random_bool(0.5) {
            true => 0,
            false => dice.random_range(0..=all),
        };
        let log_kept = kept(self.log.waiting(), dice);
        let state_kept = kept(self.state.unsynced(), dice);
        Self {
            log: self.log.crash_keeping(log_kept),
            state: self.state.crash_keeping(state_kept),
        }
    }

    /// The checks that a process makes before it starts (see `quorate_storage::check_agreement`).
    pub(crate) fn check(&self, dir: &NodeDir) -> Result<(), String> {
        let applied = self.state.applied().map_err(|error| error.to_string())?.last;
        check_agreement(dir, &self.log.state(), applied, self.state.installed()).map_err(|error| error.to_string())
    }
}

/// How long a disk takes to sync, which faults change.
#[derive(Debug)]
pub(crate) struct Speed {
    sync_ms_max: AtomicU64,
}

/// Of a disk that is well.
pub(crate) const SYNC_MS_MAX: u64 = 3;

impl Default for Speed {
    fn default() -> Self {
        Self {
            sync_ms_max: AtomicU64::new(SYNC_MS_MAX),
        }
    }
}

impl Speed {
    pub(crate) fn set(&self, sync_ms_max: u64) {
        self.sync_ms_max.store(sync_ms_max, Ordering::Relaxed);
    }
}

/// Syncs for as long as the node runs.
pub(crate) async fn keep_syncing(log: MemoryLog, speed: Arc<Speed>, mut dice: ChaCha8Rng) {
    loop {
        let max = speed.sync_ms_max.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(dice.random_range(1..=max))).await;
        if log.waiting() > 0 {
            log.flush();
        }
    }
}

/// What else a node keeps, each synced at once.
#[derive(Default)]
pub(crate) struct Identity {
    pub(crate) cluster_id: Mutex<Option<String>>,
}

/// Where a node keeps the files of snapshots.
pub(crate) fn snapshot_dir(dir: &NodeDir) -> PathBuf {
    dir.tmp_dir().join("snapshot")
}
