//! The Raft log and the vote: what a node has promised, on disk before it says so.
//!
//! [`LogStore`] is the contract; [`RocksLog`] keeps it on a disk, [`MemoryLog`] is its twin for
//! fast tests and for the simulation, and forgets in a crash what was not flushed.
//!
//! The rules, which both keep:
//! - All changes go through one queue and reach the disk in the order in which they were made, as
//!   a prefix: after a crash the log is what it was after some change, with nothing in between missing.
//! - A change is readable when its call returns, and promised when its `done` is called.
//! - `done`s are called in order, each at most once, after the synced write.
//! - After one failed write nothing succeeds any more; it is never tried again.
//! - The log has no holes: entries follow each other, beginning after what was purged.

mod cache;
#[cfg(test)]
mod damage;
mod mark;
mod memory;
mod options;
mod queue;
mod record;
mod retained;
mod rocks;
mod store;
#[cfg(test)]
pub(crate) mod suite;
mod writer;

use std::io;
use std::time::Duration;

use bincode::{Decode, Encode};
use bytes::Bytes;
use tokio::sync::watch;

pub use memory::MemoryLog;
pub use options::{LogOptions, LogStats, OnSync};
pub use rocks::RocksLog;

/// Where an entry stands in the log and which leader wrote it (Raft, section 5.3). Of two logs the
/// one with the greater last id is the more complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct LogId {
    pub term: u64,
    pub leader: u64,
    pub index: u64,
}

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.term, self.leader, self.index)
    }
}

/// For whom this node has voted in which term; `committed` once that leader is known to be elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Vote {
    pub term: u64,
    pub leader: u64,
    pub committed: bool,
}

impl Vote {
    /// A later vote is greater; votes only grow.
    fn rank(&self) -> (u64, u64, bool) {
        (self.term, self.leader, self.committed)
    }
}

/// One entry. The payload is opaque here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub id: LogId,
    pub payload: Bytes,
}

impl Record {
    /// What a record counts for in bounds and budgets: its payload and about as much as its id,
    /// key and bookkeeping take, so that empty entries are not free.
    pub fn cost_bytes(&self) -> usize {
        self.payload.len() + 64
    }
}

/// What is readable now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogState {
    /// Entries up to this one are gone.
    pub purged: Option<LogId>,
    /// The last entry, or `purged` if there is none.
    pub last: Option<LogId>,
    /// What was last given to [`LogStore::save_committed`].
    pub committed: Option<LogId>,
    pub vote: Option<Vote>,
}

/// Told how a change ended. Runs on the thread that writes the log: it must be short and must not
/// wait for anything.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// See the module's text for the rules.
pub trait LogStore: Clone + Send + Sync + 'static {
    fn state(&self) -> LogState;

    /// Adds entries that follow the last one (any index may be the first of an empty log). Entries
    /// that do not follow are refused through `done` (`InvalidInput`) and change nothing.
    fn append(&self, records: Vec<Record>, done: Done);

    /// Remembers a vote. It must not be acted upon before `done`.
    fn save_vote(&self, vote: Vote, done: Done);

    /// Remembers what is known to be committed. Not synced: it travels with a later change, and
    /// never before the entries it names.
    fn save_committed(&self, committed: Option<LogId>);

    /// Deletes the entries with an index above `last`; all of them for none.
    fn truncate_after(&self, last: Option<u64>, done: Done);

    /// Deletes the entries with an index up to `upto.index`, which may lie beyond the last one.
    fn purge(&self, upto: LogId, done: Done);

    /// The readable entries with `from <= index < to`, in order. It stops before
    /// `bytes_max` would be exceeded (see [`Record::cost_bytes`]), but gives at least one where there
    /// is one. An entry that should be there and is missing or damaged is an error (`InvalidData`).
    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Record>>;

    /// For purging by size: the smallest index known such that the entries after it weigh at most
    /// `bytes` (see [`Record::cost_bytes`]); none if all of them do. The store may know this only
    /// coarsely and name an index that is about a MiB too high.
    fn index_to_keep_bytes(&self, bytes: u64) -> Option<u64>;

    /// For purging by age: the largest index known to have been appended longer ago than `age`.
    /// Entries of before a restart count from the restart.
    fn index_older_than(&self, age: Duration) -> Option<u64>;

    /// The last log id known to be durable. It goes back when the log is truncated.
    fn flushed(&self) -> watch::Receiver<Option<LogId>>;
}
