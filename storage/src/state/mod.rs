//! The applied state: what the log's entries have made of each other, up to `last`.
//!
//! [`StateStore`] is the contract; [`RocksState`] keeps it on a disk, [`MemoryState`] is its twin.
//! A write is atomic but not synced: the Raft log is what makes the state durable, and after a crash the
//! state is what it was after some write, which says of itself how far that was ([`Applied`]).

mod applied;
mod deleted;
mod hash;
mod memory;
mod options;
mod pace;
mod pointer;
mod read_cache;
mod rocks;
mod rocks_options;
mod stall;
#[cfg(test)]
mod suite;

use std::path::Path;

use bincode::{Decode, Encode};
use quorate_state_machine::{Change, Fatal, View};

pub use hash::HashLater;
pub use memory::MemoryState;
pub use options::{BLOCK_CACHE_BYTES, StateOptions, StateStats};
pub use rocks::RocksState;

use crate::log::LogId;

/// How far the log has been applied; written with the changes it speaks of, in one batch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Applied {
    pub last: Option<LogId>,
    /// Opaque here.
    pub membership: Vec<u8>,
}

/// Every key of the state machine begins with its space, four bytes, and spaces count from 1: what
/// lies in space 0 is the store's own. Views do not show it, the hash skips it, changes to it are
/// refused.
const OWN_SPACE: [u8; 4] = [0, 0, 0, 0];

/// The smallest key that a view shows.
const USER_KEYS_FROM: &[u8] = &[0, 0, 0, 1];

pub trait StateStore: Clone + Send + Sync + 'static {
    /// Runs `f` over one consistent snapshot. It may take its time (writes go on), but must not
    /// call back into this store.
    fn read<R>(&self, f: impl FnOnce(&dyn View) -> R) -> R;

    /// The same for rows that are seldom asked for again, or that the caller remembers himself: such a read does not
    /// push out what readers come back for.
    fn read_once<R>(&self, f: impl FnOnce(&dyn View) -> R) -> R {
        self.read(f)
    }

    fn applied(&self) -> Result<Applied, Fatal>;

    /// The end of the last installed snapshot. A state above the log's end is explained by this
    /// or by nothing but a log that was lost.
    fn installed(&self) -> Option<LogId>;

    /// All changes, in order, with `applied`: all or nothing. Not durable: a crash may take the last writes away.
    fn write(&self, changes: Vec<Change>, applied: &Applied) -> Result<(), Fatal>;

    /// Makes all earlier writes durable. Takes some tenths of a second, and longer where flushes and compactions are behind:
    /// call it from a thread that may block.
    fn sync(&self) -> Result<(), Fatal>;

    /// What was applied up to here survives a crash, and perhaps more. Takes no time.
    fn durable(&self) -> Option<LogId>;

    /// Makes all earlier writes durable, and a durable, complete copy in `dir`, which must not exist and must be on the same file
    /// system; tells what it contains. Writes go on meanwhile, so that this may be later than what
    /// was applied when it began. Slow: call it off the apply path, from a thread that may block.
    fn checkpoint(&self, dir: &Path) -> Result<Applied, Fatal>;

    /// Replaces the state by the checkpoint in `dir`, durably and at once; `dir` is used up. Reads
    /// that have begun finish on the old state. After an error the old state is still there.
    fn install(&self, dir: &Path) -> Result<Applied, Fatal>;

    /// Equal for equal keys and values, whatever made them and however they lie on disk.
    fn state_hash(&self) -> Result<u128, Fatal> {
        self.hash_later()()
    }

    /// Takes a snapshot now, which is cheap, and hashes it when it is called, from whichever thread;
    /// writes and installations go on meanwhile. Keeps what it will hash, deleted rows and a replaced
    /// state too, until it is called or dropped.
    fn hash_later(&self) -> HashLater;

    /// Gives the space of deleted ranges back now rather than in the store's own time. Slow: call it
    /// from a thread that may block, now and then; writes go on.
    fn reclaim(&self) -> Result<(), Fatal>;
}

/// Changes must stay away from the store's own keys: a wrong one would destroy what the store says
/// of itself.
fn refuse_reserved(changes: &[Change]) -> Result<(), Fatal> {
    let key = |change: &Change| match change {
        Change::Put { key, .. } | Change::Delete { key } | Change::DeleteRange { from: key, .. } => key.clone(),
    };
    match changes.iter().map(key).find(|key| key.as_slice() < USER_KEYS_FROM) {
        Some(key) => Err(Fatal::Corrupt(format!("a change to the reserved key {key:02x?}"))),
        None => Ok(()),
    }
}
