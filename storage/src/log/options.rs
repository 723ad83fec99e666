//! What can be set about a log on disk, and what it counts.

use std::sync::Arc;
use std::time::Duration;

/// Called after each synced write, on the writer's thread, with how long it took and how many
/// entries it made durable: for a histogram.
pub type OnSync = Arc<dyn Fn(Duration, usize) + Send + Sync>;

#[derive(Clone)]
pub struct LogOptions {
    /// The Raft group whose log this is; part of every key.
    pub group: u32,
    /// Recent entries kept in memory for replication and apply. What is not yet durable is kept
    /// beyond this. 64 MiB is about two seconds of full load: what a follower that is not lost reads.
    pub cache_bytes_max: usize,
    /// Changes that wait for the disk, in bytes. Four times the largest append (16 MiB). openraft
    /// keeps fewer in flight; if it does not, `append` blocks its caller until the disk has caught up:
    /// a node whose disk is that far behind has nothing better to do than to stop leading.
    pub queue_bytes_max: usize,
    /// What one synced write may hold, so that an answer never waits for more than this.
    pub batch_bytes_max: usize,
    /// RocksDB's memtable, or up to a quarter less. Entries are read from the cache, so this only decides how often it is
    /// flushed. One or two of them take memory, four if the disk is behind.
    pub write_buffer_bytes: usize,
    pub on_sync: Option<OnSync>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            group: 0,
            cache_bytes_max: 64 << 20,
            queue_bytes_max: 64 << 20,
            batch_bytes_max: 16 << 20,
            write_buffer_bytes: 16 << 20,
            on_sync: None,
        }
    }
}

impl std::fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogOptions")
            .field("group", &self.group)
            .field("cache_bytes_max", &self.cache_bytes_max)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("batch_bytes_max", &self.batch_bytes_max)
            .field("write_buffer_bytes", &self.write_buffer_bytes)
            .finish_non_exhaustive()
    }
}

/// Counted since the log was opened, unless it says "now".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStats {
    /// Synced writes, and the nanoseconds they took together.
    pub syncs: u64,
    pub sync_nanos: u64,
    /// Changes (appends, votes, truncations, purges) and entries that were made durable.
    pub changes: u64,
    pub entries: u64,
    /// Bytes that wait for the disk now, those in the running write included.
    pub queued_bytes: u64,
    /// Bytes of recent entries in memory now.
    pub cache_bytes: u64,
    /// How long the oldest change that is not yet durable has been waiting: a leader for which this
    /// passes the election maximum has a disk that hangs.
    pub oldest_unsynced: Option<Duration>,
    /// How often `append` had to wait because the queue was full.
    pub queue_full: u64,
    /// The first entry that is there now; none if there is no entry.
    pub first_index: Option<u64>,
    /// Entries that are there now.
    pub retained_entries: u64,
    /// What they weigh (see [`super::Record::cost_bytes`]), waiting ones included. Cuts are counted to
    /// about a MiB; what was there at the start and was not read then is estimated from RocksDB's files.
    pub retained_bytes: u64,
    /// Bytes of the log's files.
    pub disk_bytes: u64,
}
