//! storage's log as openraft wants it. No decision is taken here: what is durable when is decided by
//! `quorate_storage::log`, and openraft is told no earlier.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use quorate_storage::log::{self, Done, LogStore};
use quorate_storage::state::StateStore;
use tokio::sync::oneshot;

use crate::membership::{to_entry, to_record};
use crate::tasks::run_blocking;
use crate::types::{Entry, LogId, TypeConfig, Vote, to_raft_log_id, to_raft_vote, to_stored_log_id, to_stored_vote};

/// One append carries at most this much, so that a follower far behind is fed in pieces that fsync
/// and travel within the append time-out.
const READ_BYTES_MAX: usize = 2 << 20;

/// Makes durable what the entries up to this one, which are about to go, have become.
pub type SyncState = Arc<dyn Fn(log::LogId) -> io::Result<()> + Send + Sync>;

/// That of this state: it is synced only if it may lack something of them after a crash.
pub fn sync_upto<S: StateStore>(state: S) -> SyncState {
    Arc::new(move |upto| match state.durable() < Some(upto) {
        true => state.sync().map_err(io::Error::other),
        false => Ok(()),
    })
}

#[derive(Clone)]
pub struct RaftLog<L> {
    log: L,
    sync_state: SyncState,
}

impl<L: LogStore> RaftLog<L> {
    pub fn new(log: L, sync_state: SyncState) -> Self {
        Self { log, sync_state }
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        self.log.read(from, to, bytes_max)?.into_iter().map(to_entry).collect()
    }
}

/// Runs a call of the log that reports through a callback, and waits for it.
async fn wait(start: impl FnOnce(Done)) -> io::Result<()> {
    let (tx, rx) = oneshot::channel();
    start(Box::new(move |result| {
        // The core may be gone already; then nobody asks.
        let _ = tx.send(result);
    }));
    rx.await
        .unwrap_or_else(|_| Err(io::Error::other("the log has stopped")))
}

impl<L: LogStore> RaftLogReader<TypeConfig> for RaftLog<L> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        // In one read, so that a truncation cannot come between two pieces of two histories.
        self.read(from, to, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log.state().vote.map(to_raft_vote))
    }
}

impl<L: LogStore> RaftLogStorage<TypeConfig> for RaftLog<L> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.log.state();
        Ok(LogState {
            last_purged_log_id: state.purged.map(to_raft_log_id),
            last_log_id: state.last.map(to_raft_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = to_stored_vote(*vote);
        wait(|done| self.log.save_vote(vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.save_committed(committed.map(to_stored_log_id));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.state().committed.map(to_raft_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let records = entries.into_iter().map(|entry| to_record(&entry)).collect();
        self.log
            .append(records, Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        // Visible at once and ordered before every later append: openraft need not wait for the disk.
        self.log.truncate_after(last_log_id.map(|id| id.index), ignore());
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        // Whoever wants the purge, it never comes before the state is on disk: after a crash nothing else
        // could make it again. Almost always nothing is left to sync (see `compaction`): openraft's core waits here.
        let upto = to_stored_log_id(log_id);
        let sync_state = self.sync_state.clone();
        run_blocking(move || sync_state(upto)).await?;
        self.log.purge(upto, ignore());
        Ok(())
    }
}

/// For work whose failure ends the process through the log's own fatal hook.
fn ignore() -> Done {
    Box::new(|_| {})
}

#[cfg(test)]
mod tests {
    use quorate_storage::log::MemoryLog;
    use quorate_storage::state::{Applied, MemoryState};

    use super::*;

    fn id(index: u64) -> log::LogId {
        log::LogId {
            term: 1,
            leader: 1,
            index,
        }
    }

    fn applied(index: u64) -> Applied {
        Applied {
            last: Some(id(index)),
            membership: Vec::new(),
        }
    }

    /// A log of the entries 0 to 9, and a state that has applied them, durably up to entry 4.
    fn half_durable() -> (MemoryLog, MemoryState) {
        let (log, state) = (MemoryLog::new(), MemoryState::new());
        let record = |index| log::Record {
            id: id(index),
            payload: Vec::new().into(),
        };
        log.append((0..10).map(record).collect(), ignore());
        for index in 0..10 {
            state.write(Vec::new(), &applied(index)).unwrap();
            if index == 4 {
                state.sync().unwrap();
            }
        }
        (log, state)
    }

    #[tokio::test]
    async fn entries_go_only_when_what_became_of_them_is_durable() {
        for (upto, durable) in [(3, 4), (4, 4), (5, 9), (9, 9)] {
            let (log, state) = half_durable();
            let mut raft_log = RaftLog::new(log.clone(), sync_upto(state.clone()));
            raft_log.purge(to_raft_log_id(id(upto))).await.unwrap();
            assert_eq!(state.durable(), Some(id(durable)), "purged up to {upto}");
            assert_eq!(log.state().purged, Some(id(upto)));
        }
    }

    #[tokio::test]
    async fn entries_stay_when_it_cannot_be_made_durable() {
        let (log, _) = half_durable();
        let mut raft_log = RaftLog::new(log.clone(), Arc::new(|_| Err(io::Error::other("EIO"))));
        raft_log.purge(to_raft_log_id(id(3))).await.unwrap_err();
        assert_eq!(log.state().purged, None);
    }
}
