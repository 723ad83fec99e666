//! Committed entries become state: one batch for each call of apply, then the answers, then the
//! watchers. The rules themselves are in `quorate-state-machine`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use quorate_state_machine::apply::Response;
use quorate_state_machine::planted::{Bug, dedup_rows, is_planted};
use quorate_state_machine::{
    Envelope, Epoch, Fatal, Outcome, Overlay, PackedEntry, Revision, RowCache, SpaceId, View, apply, query,
};
use quorate_storage::state::{Applied, StateStore};
use quorate_storage::{FatalHook, aside_if, log};
use tokio::sync::watch;

use crate::membership::MembershipRecord;
use crate::metrics::ApplyMetrics;
use crate::snapshots::{Snapshot, SnapshotFiles, SnapshotMeta, Snapshots};
use crate::state_hashes::StateHashes;
use crate::tasks::run_blocking;
use crate::types::{Entry, EntryPayload, LogId, StoredMembership, TypeConfig, to_raft_log_id, to_stored_log_id};
use crate::versions::Supported;
use crate::watchers::Watchers;

/// Entries of one write to the state. An apply call may bring thousands when a node catches up; the
/// changes of one write lie in memory until it is done.
const BATCH_ENTRIES_MAX: usize = 256;
/// The same bound by bytes of commands.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// So many bytes of commands, or more, are applied aside: some hundred sends, which take half a millisecond. (What takes long
/// whatever its size says so itself.)
const ASIDE_FROM_BYTES: usize = 32 << 10;

/// A committed entry, and whoever waits for what comes of it.
type Committed = (Entry, Option<ApplyResponder<TypeConfig>>);

/// What this node has applied, as readers and the proposer see it. Published after it is readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedNow {
    /// Raft log index; none before the first entry.
    pub log_id: Option<log::LogId>,
    pub epoch: Epoch,
    pub revision: Revision,
    pub elapsed_ms: u64,
    /// When `elapsed_ms` became what it is, by this node's clock.
    pub since: tokio::time::Instant,
    /// The cluster version.
    pub version: u32,
    /// On the replicated clock: nothing expires before.
    pub next_expiry_ms: Option<u64>,
}

impl AppliedNow {
    pub fn index(&self) -> u64 {
        self.log_id.map_or(0, |id| id.index)
    }

    /// The replicated clock as this node reckons it now.
    pub fn reckoned_ms(&self) -> u64 {
        let since_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.elapsed_ms.saturating_add(since_ms)
    }
}

/// Nodes that have left the cluster, by id, with their store ids.
pub type Removed = Arc<BTreeMap<u64, u128>>;

pub struct Machine<S> {
    state: S,
    snapshots: Snapshots<S>,
    hashes: StateHashes,
    /// The last log id that the local log has on disk: applied state never runs ahead of it.
    flushed: watch::Receiver<Option<log::LogId>>,
    last: Option<log::LogId>,
    membership: MembershipRecord,
    removed: watch::Sender<Removed>,
    applied: watch::Sender<AppliedNow>,
    /// The same as in `applied`, for whoever would else be woken for each entry.
    next_expiry: watch::Sender<Option<u64>>,
    watchers: Arc<Watchers>,
    /// Of the state as it was last written.
    cache: RowCache,
    metrics: ApplyMetrics,
    versions: Supported,
    on_fatal: FatalHook,
}

impl<S: StateStore> Machine<S> {
    /// Reads where the state stands. A state of a cluster version that this build does not support is an error.
    pub fn open(
        state: S,
        snapshots: Snapshots<S>,
        flushed: watch::Receiver<Option<log::LogId>>,
        watchers: Arc<Watchers>,
        metrics: ApplyMetrics,
        versions: Supported,
        on_fatal: FatalHook,
    ) -> io::Result<Self> {
        let Applied { last, membership } = state.applied().map_err(io::Error::other)?;
        let now = state.read(|view| standing(view, last)).map_err(io::Error::other)?;
        // Before all else: what another version has written may not be readable.
        versions.check(now.version).map_err(io::Error::other)?;
        let membership = MembershipRecord::decode(&membership)?;
        Ok(Self {
            state,
            snapshots,
            hashes: StateHashes::default(),
            flushed,
            last,
            removed: watch::Sender::new(Arc::new(membership.removed.clone())),
            membership,
            applied: watch::Sender::new(now),
            next_expiry: watch::Sender::new(now.next_expiry_ms),
            watchers,
            cache: RowCache::default(),
            metrics,
            versions,
            on_fatal,
        })
    }

    pub fn applied_now(&self) -> watch::Receiver<AppliedNow> {
        self.applied.subscribe()
    }

    /// On the replicated clock: nothing expires before. What `applied_now` shows is at least as new.
    pub fn next_expiry(&self) -> watch::Receiver<Option<u64>> {
        self.next_expiry.subscribe()
    }

    pub fn removed(&self) -> watch::Receiver<Removed> {
        self.removed.subscribe()
    }

    pub fn hashes(&self) -> StateHashes {
        self.hashes.clone()
    }

    fn publish(&self, now: AppliedNow) {
        self.applied.send_modify(|shown| {
            // What changes nothing does not move the clock either: it has run on since.
            let since = if now.elapsed_ms == shown.elapsed_ms {
                shown.since
            } else {
                now.since
            };
            *shown = AppliedNow { since, ..now };
        });
        self.next_expiry.send_if_modified(|shown| {
            let before = std::mem::replace(shown, now.next_expiry_ms);
            before != now.next_expiry_ms
        });
    }

    fn publish_removed(&self) {
        self.removed.send_if_modified(|shown| {
            let news = **shown != self.membership.removed;
            if news {
                *shown = Arc::new(self.membership.removed.clone());
            }
            news
        });
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

    async fn apply_batch(&mut self, batch: Vec<Committed>, bytes: usize) -> io::Result<()> {
        let Some(last) = batch.last().map(|(entry, _)| to_stored_log_id(entry.log_id)) else {
            return Ok(());
        };
        self.wait_flushed(last).await?;
        let start = Instant::now();
        let (outcomes, now) = aside_if(bytes >= ASIDE_FROM_BYTES, || self.write_batch(&batch, last))?;
        self.metrics
            .observe(batch.len(), outcomes.iter().map(Vec::len).sum(), start.elapsed());

        self.publish_removed();
        self.publish(now);
        let mut changed = Vec::new();
        for ((_, responder), outcomes) in batch.into_iter().zip(outcomes) {
            changed.extend(
                outcomes
                    .iter()
                    .flat_map(|outcome| outcome.topics().map(|topic| (topic, outcome.revision.0))),
            );
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
        }
        self.watchers.notify(changed);
        Ok(())
    }

    /// Applies the entries in one write to the state. What came of each, and where the state stands now.
    fn write_batch(&mut self, batch: &[Committed], last: log::LogId) -> io::Result<(Vec<Vec<Outcome>>, AppliedNow)> {
        for (entry, _) in batch {
            if let EntryPayload::Membership(membership) = &entry.payload {
                self.membership
                    .advance(StoredMembership::new(Some(entry.log_id), membership.clone()));
            }
        }
        let cache = std::mem::take(&mut self.cache);
        let (outcomes, (changes, cache), now) = self.state.read_once(|view| {
            let mut overlay = Overlay::with_cache(view, cache);
            let mut outcomes = Vec::with_capacity(batch.len());
            for (entry, _) in batch {
                outcomes.push(match &entry.payload {
                    EntryPayload::Normal(payload) => self.apply_packed(&mut overlay, &payload.0)?,
                    EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
                });
            }
            let now = standing(&overlay, Some(last)).map_err(io::Error::other)?;
            io::Result::Ok((outcomes, overlay.into_changes_and_cache(), now))
        })?;
        let applied = Applied {
            last: Some(last),
            membership: self.membership.encode(),
        };
        self.state.write(changes, &applied).map_err(io::Error::other)?;
        self.cache = cache;
        self.last = Some(last);
        Ok((outcomes, now))
    }

    fn apply_packed<V: View>(&self, overlay: &mut Overlay<V>, bytes: &[u8]) -> io::Result<Vec<Outcome>> {
        let entry = PackedEntry::decode(bytes).map_err(io::Error::other)?;
        let apply_one = |command: &[u8]| {
            let envelope = Envelope::decode(command).map_err(io::Error::other)?;
            let may_take_long = envelope.command.may_take_long();
            let outcome = aside_if(may_take_long, || apply(overlay, entry.meta, envelope)).map_err(io::Error::other)?;
            // At once: what follows in the log may be nothing that this build could read.
            if let Ok(Response::VersionRaised { version }) = outcome.response {
                self.check_version(version)?;
            }
            Ok(outcome)
        };
        entry.commands.into_iter().map(apply_one).collect()
    }

    /// A node that cannot follow its cluster to a version ends, and leaves its state as it was.
    fn check_version(&self, version: u32) -> io::Result<()> {
        self.versions.check(version).map_err(|unsupported| {
            (self.on_fatal)(unsupported.to_string());
            io::Error::other(unsupported)
        })
    }
}

/// Where the state stands after `last`.
fn standing<V: View + ?Sized>(view: &V, last: Option<log::LogId>) -> Result<AppliedNow, Fatal> {
    let query::Standing {
        epoch,
        revision,
        elapsed_ms,
        version,
        next_expiry_ms,
    } = query::standing(view, SpaceId::MAIN)?;
    Ok(AppliedNow {
        log_id: last,
        epoch,
        revision,
        elapsed_ms,
        since: tokio::time::Instant::now(),
        version,
        next_expiry_ms,
    })
}

/// An entry by which all nodes agree to hash their states.
fn is_hash_mark(entry: &Entry) -> io::Result<bool> {
    match &entry.payload {
        EntryPayload::Normal(payload) => Ok(PackedEntry::is_mark(&payload.0).map_err(io::Error::other)?),
        EntryPayload::Blank | EntryPayload::Membership(_) => Ok(false),
    }
}

impl<S: StateStore> RaftStateMachine<TypeConfig> for Machine<S> {
    type SnapshotData = SnapshotFiles;
    type SnapshotBuilder = Snapshots<S>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last.map(to_raft_log_id), self.membership.stored.clone()))
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
            let mark = is_hash_mark(&entry)?.then_some(entry.log_id.index);
            batch.push((entry, responder));
            if mark.is_some() || batch.len() >= BATCH_ENTRIES_MAX || batch_bytes >= BATCH_BYTES_MAX {
                self.apply_batch(std::mem::take(&mut batch), batch_bytes).await?;
                batch_bytes = 0;
            }
            if let Some(index) = mark {
                let revision = self.applied.borrow().revision.0;
                self.hashes.begin(&self.state, index, revision, self.on_fatal.clone());
            }
        }
        self.apply_batch(batch, batch_bytes).await
    }

    async fn get_snapshot_builder(&mut self) -> Snapshots<S> {
        self.snapshots.clone()
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, snapshot: SnapshotFiles) -> io::Result<()> {
        let state = self.state.clone();
        self.cache = RowCache::default();
        let applied = run_blocking(move || state.install(snapshot.path())).await?;
        if is_planted(Bug::DedupMissingFromSnapshot) {
            let rows = vec![dedup_rows(SpaceId::MAIN)];
            self.state.write(rows, &applied).map_err(io::Error::other)?;
        }
        let now = self
            .state
            .read(|view| standing(view, applied.last))
            .map_err(io::Error::other)?;
        self.check_version(now.version)?;
        self.last = applied.last;
        self.membership = MembershipRecord::decode(&applied.membership)?;
        self.publish_removed();
        self.publish(now);
        self.snapshots.replaced(applied.last);
        self.watchers.notify_all(now.revision.0);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.snapshots.current().await
    }
}
