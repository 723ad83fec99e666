//! Snapshots of this node: a checkpoint of the state, with what the log had made of it by then.
//!
//! A checkpoint shares its files with the state by hard links, so that taking one costs a flush, and
//! keeping it costs only what the state rewrites meanwhile. One is kept, for nodes that need more of the
//! log than there still is; the next one takes its place.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use openraft::storage::RaftSnapshotBuilder;
use quorate_storage::log;
use quorate_storage::state::{Applied, StateStore};
use quorate_storage::transfer::SnapshotDir;

use crate::membership::MembershipRecord;
use crate::tasks::run_blocking;
use crate::types::{LogId, TypeConfig, to_raft_log_id};

pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot's files go when the last one who reads them is done.
pub type SnapshotFiles = Arc<SnapshotDir>;
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotFiles>;

pub struct Snapshots<S> {
    state: S,
    shared: Arc<Shared>,
}

impl<S: Clone> Clone for Snapshots<S> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            shared: self.shared.clone(),
        }
    }
}

struct Shared {
    dir: PathBuf,
    taken: AtomicU64,
    /// Held for a copy only, never across an await.
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    newest: Option<Snapshot>,
    /// Taken, and not yet asked for by the core.
    prepared: Option<Snapshot>,
    /// Where the state ended that was last installed by this process.
    installed: Option<LogId>,
}

impl<S: StateStore> Snapshots<S> {
    /// Leftovers of an earlier process in `dir` are removed: the core has a new snapshot made at the start
    /// if its log needs one.
    pub fn open(state: S, dir: &Path) -> io::Result<Self> {
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
        let shared = Shared {
            dir: dir.to_owned(),
            taken: AtomicU64::new(0),
            kept: Mutex::default(),
        };
        Ok(Self {
            state,
            shared: Arc::new(shared),
        })
    }

    /// Takes a snapshot that the core will find when it asks for one. A failure here (a full disk) leaves
    /// everything as it was, while one that the core meets ends the node.
    pub async fn prepare(&self) -> io::Result<()> {
        let snapshot = self.take().await?;
        let mut kept = self.kept();
        let before = match snapshot.meta.last_log_id >= kept.installed {
            true => kept.prepared.replace(snapshot),
            false => Some(snapshot),
        };
        drop(kept);
        drop(before);
        Ok(())
    }

    /// The state was replaced by one that ends at `installed`: what was taken before is of no use, and the
    /// log that follows it is gone. A new one is taken when somebody wants it.
    pub fn replaced(&self, installed: Option<log::LogId>) {
        let mut kept = self.kept();
        let before = std::mem::take(&mut *kept);
        kept.installed = installed.map(to_raft_log_id);
        drop(kept);
        // Outside the lock: the last owner of the files removes them.
        drop(before);
    }

    /// The newest snapshot; after an installation, one that is taken now.
    pub async fn current(&self) -> io::Result<Option<Snapshot>> {
        let (newest, installed) = {
            let kept = self.kept();
            (kept.newest.as_ref().map(copy), kept.installed)
        };
        match newest {
            None if installed.is_some() => {
                let snapshot = self.take().await?;
                self.keep(&snapshot);
                Ok(Some(snapshot))
            }
            newest => Ok(newest),
        }
    }

    fn keep(&self, snapshot: &Snapshot) {
        let mut kept = self.kept();
        // One that was begun before an installation and done after it is of the old state.
        if snapshot.meta.last_log_id < kept.installed {
            return;
        }
        let before = kept.newest.replace(copy(snapshot));
        drop(kept);
        drop(before);
    }

    async fn take(&self) -> io::Result<Snapshot> {
        let (state, shared) = (self.state.clone(), self.shared.clone());
        run_blocking(move || {
            std::fs::create_dir_all(&shared.dir)?;
            let number = shared.taken.fetch_add(1, Ordering::Relaxed);
            let path = shared.dir.join(format!("checkpoint-{number}"));
            // What the checkpoint holds is read from the finished checkpoint, never asked before.
            let Applied { last, membership } = state.checkpoint(&path).map_err(io::Error::other)?;
            let files = Arc::new(SnapshotDir::adopt(path));
            let meta = SnapshotMeta {
                last_log_id: last.map(to_raft_log_id),
                last_membership: MembershipRecord::decode(&membership)?.stored,
            };
            io::Result::Ok(Snapshot { meta, snapshot: files })
        })
        .await
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.shared.kept.lock().expect("no panic while the lock is held")
    }
}

fn copy(snapshot: &Snapshot) -> Snapshot {
    Snapshot {
        meta: snapshot.meta.clone(),
        snapshot: snapshot.snapshot.clone(),
    }
}

impl<S: StateStore> RaftSnapshotBuilder<TypeConfig> for Snapshots<S> {
    type SnapshotData = SnapshotFiles;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let prepared = self.kept().prepared.take();
        let snapshot = match prepared {
            Some(snapshot) => snapshot,
            None => self.take().await?,
        };
        self.keep(&snapshot);
        Ok(snapshot)
    }
}
