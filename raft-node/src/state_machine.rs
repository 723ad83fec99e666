//! Committed entries become state: one batch for each call of apply, then the answers, then the
//! watchers. The rules themselves are in `quorate-state-machine`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use quorate_state_machine::{
    Envelope, Epoch, Fatal, Outcome, Overlay, PackedEntry, Revision, SpaceId, View, apply, query,
};
use quorate_storage::log;
use quorate_storage::state::{Applied, StateStore};
use tokio::sync::watch;

use crate::membership::{decode_stored, encode_stored};
use crate::metrics::ApplyMetrics;
use crate::types::{Entry, EntryPayload, LogId, StoredMembership, TypeConfig, to_raft_log_id, to_stored_log_id};
use crate::watchers::Watchers;

/// Entries of one write to the state. An apply call may bring thousands when a node catches up; the
/// changes of one write lie in memory until it is done.
const BATCH_ENTRIES_MAX: usize = 256;
/// The same bound by bytes of commands.
const BATCH_BYTES_MAX: usize = 16 << 20;

pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, PathBuf>;

/// What this node has applied, as readers and the proposer see it. Published after it is readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppliedNow {
    /// Raft log index; none before the first entry.
    pub log_id: Option<log::LogId>,
    pub epoch: Epoch,
    pub revision: Revision,
    pub elapsed_ms: u64,
}

impl AppliedNow {
    pub fn index(&self) -> u64 {
        self.log_id.map_or(0, |id| id.index)
    }
}

pub struct Machine<S> {
    state: S,
    /// Where checkpoints for snapshots are made.
    snapshot_dir: PathBuf,
    /// The last log id that the local log has on disk: applied state never runs ahead of it.
    flushed: watch::Receiver<Option<log::LogId>>,
    last: Option<log::LogId>,
    membership: StoredMembership,
    applied: watch::Sender<AppliedNow>,
    watchers: Arc<Watchers>,
    metrics: ApplyMetrics,
    newest: Newest,
}

impl<S: StateStore> Machine<S> {
    /// Reads where the state stands. Leftovers of unfinished snapshots are removed.
    pub fn open(
        state: S,
        snapshot_dir: &Path,
        flushed: watch::Receiver<Option<log::LogId>>,
        watchers: Arc<Watchers>,
        metrics: ApplyMetrics,
    ) -> io::Result<Self> {
        if snapshot_dir.exists() {
            std::fs::remove_dir_all(snapshot_dir)?;
        }
        let Applied { last, membership } = state.applied().map_err(io::Error::other)?;
        let now = state.read(|view| standing(view, last)).map_err(io::Error::other)?;
        Ok(Self {
            state,
            snapshot_dir: snapshot_dir.to_owned(),
            flushed,
            last,
            membership: decode_stored(&membership)?,
            applied: watch::Sender::new(now),
            watchers,
            metrics,
            newest: Newest::default(),
        })
    }

    pub fn applied_now(&self) -> watch::Receiver<AppliedNow> {
        self.applied.subscribe()
    }

    /// Waits until the local log is on disk up to `upto` (a state that is ahead of its own
    /// log after a crash cannot be explained). Committed entries are never
    /// truncated, so the flushed id only grows past them.
    async fn wait_flushed(&mut self, upto: log::LogId) -> io::Result<()> {
        self.flushed
            .wait_for(|flushed| flushed.is_some_and(|flushed| flushed >= upto))
            .await
            .map(|_| ())
            .map_err(|_| io::Error::other("the log has stopped"))
    }

    async fn apply_batch(&mut self, batch: Vec<(Entry, Option<ApplyResponder<TypeConfig>>)>) -> io::Result<()> {
        let Some(last) = batch.last().map(|(entry, _)| to_stored_log_id(entry.log_id)) else {
            return Ok(());
        };
        self.wait_flushed(last).await?;
        let start = Instant::now();

        for (entry, _) in &batch {
            if let EntryPayload::Membership(membership) = &entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
        }
        let (outcomes, changes, now) = self
            .state
            .read(|view| {
                let mut overlay = Overlay::new(view);
                let mut outcomes = Vec::with_capacity(batch.len());
                for (entry, _) in &batch {
                    outcomes.push(match &entry.payload {
                        EntryPayload::Normal(payload) => apply_packed(&mut overlay, &payload.0)?,
                        EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
                    });
                }
                let now = standing(&overlay, Some(last))?;
                Ok((outcomes, overlay.into_changes(), now))
            })
            .map_err(|error: Fatal| io::Error::other(error))?;
        let applied = Applied {
            last: Some(last),
            membership: encode_stored(&self.membership),
        };
        self.state.write(changes, &applied).map_err(io::Error::other)?;
        self.last = Some(last);
        self.metrics
            .observe(batch.len(), outcomes.iter().map(Vec::len).sum(), start.elapsed());

        self.applied.send_replace(now);
        let mut rooms_changed = Vec::new();
        for ((_, responder), outcomes) in batch.into_iter().zip(outcomes) {
            rooms_changed.extend(
                outcomes
                    .iter()
                    .flat_map(|outcome| outcome.events.iter().map(|event| (event.room, event.rev.0))),
            );
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
        }
        self.watchers.notify(rooms_changed);
        Ok(())
    }
}

/// Where the state stands after `last`.
fn standing<V: View + ?Sized>(view: &V, last: Option<log::LogId>) -> Result<AppliedNow, Fatal> {
    let query::Standing {
        epoch,
        revision,
        elapsed_ms,
    } = query::standing(view, SpaceId::MAIN)?;
    Ok(AppliedNow {
        log_id: last,
        epoch,
        revision,
        elapsed_ms,
    })
}

fn apply_packed<V: View>(overlay: &mut Overlay<V>, bytes: &[u8]) -> Result<Vec<Outcome>, Fatal> {
    let entry = PackedEntry::decode(bytes)?;
    entry
        .commands
        .iter()
        .map(|command| apply(overlay, entry.meta, Envelope::decode(command)?))
        .collect()
}

impl<S: StateStore> RaftStateMachine<TypeConfig> for Machine<S> {
    type SnapshotData = PathBuf;
    type SnapshotBuilder = SnapshotBuilder<S>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last.map(to_raft_log_id), self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            if let EntryPayload::Normal(payload) = &entry.payload {
                batch_bytes += payload.0.len();
            }
            batch.push((entry, responder));
            if batch.len() >= BATCH_ENTRIES_MAX || batch_bytes >= BATCH_BYTES_MAX {
                self.apply_batch(std::mem::take(&mut batch)).await?;
                batch_bytes = 0;
            }
        }
        self.apply_batch(batch).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<S> {
        SnapshotBuilder {
            state: self.state.clone(),
            dir: self.snapshot_dir.clone(),
            newest: self.newest.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: PathBuf) -> io::Result<()> {
        let applied = self.state.install(&snapshot).map_err(io::Error::other)?;
        self.last = applied.last;
        self.membership = decode_stored(&applied.membership)?;
        let now = self
            .state
            .read(|view| standing(view, applied.last))
            .map_err(io::Error::other)?;
        self.applied.send_replace(now);
        *self.newest.lock().expect("no panic while the lock is held") = Some((meta.clone(), snapshot));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let newest = self.newest.lock().expect("no panic while the lock is held").clone();
        Ok(newest.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Makes a checkpoint beside the apply path. The log is kept whole in this version, so nobody needs
/// a snapshot to catch up; streaming them to other nodes comes with membership changes.
pub struct SnapshotBuilder<S> {
    state: S,
    dir: PathBuf,
    newest: Newest,
}

/// The newest snapshot on this node. Held for a copy only, never across an await.
type Newest = Arc<Mutex<Option<(SnapshotMeta, PathBuf)>>>;

impl<S: StateStore> RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder<S> {
    type SnapshotData = PathBuf;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir)?;
        }
        std::fs::create_dir_all(&self.dir)?;
        let path = self.dir.join("checkpoint");
        // What the checkpoint holds is read from the finished checkpoint, never asked before.
        let Applied { last, membership } = self.state.checkpoint(&path).map_err(io::Error::other)?;
        let meta = SnapshotMeta {
            last_log_id: last.map(to_raft_log_id),
            last_membership: decode_stored(&membership)?,
        };
        *self.newest.lock().expect("no panic while the lock is held") = Some((meta.clone(), path.clone()));
        Ok(Snapshot { meta, snapshot: path })
    }
}
