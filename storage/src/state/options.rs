//! What can be set about a state on disk, and what it counts.

/// The default of [`StateOptions::block_cache_bytes`].
pub const BLOCK_CACHE_BYTES: usize = 48 << 20;

/// The defaults are for a node that shares a small machine: together with the log's they stay below
/// the 300 MB that a node with a million messages may take.
#[derive(Debug, Clone)]
pub struct StateOptions {
    /// Uncompressed blocks kept in memory, filters and indexes among them, so that this bounds what
    /// reading takes. Enough for the recent pages of the busy rooms; the rest is in the kernel's cache.
    pub block_cache_bytes: usize,
    /// RocksDB's memtable, or up to a quarter less; one or two of them take memory, four if the disk is behind. Smaller ones mean more
    /// compaction, larger ones a longer recovery after a crash: what is in them only is applied again from the Raft log.
    pub write_buffer_bytes: usize,
    /// Flushes and compactions at a time: with two cores, more would take them from the writers.
    pub background_jobs: i32,
}

impl Default for StateOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: BLOCK_CACHE_BYTES,
            write_buffer_bytes: 28 << 20,
            background_jobs: 2,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateStats {
    /// Bytes of the state's files.
    pub disk_bytes: u64,
    /// RocksDB's estimate.
    pub keys: u64,
    /// Bytes in memory that were not yet flushed to a table.
    pub memtable_bytes: u64,
    pub block_cache_bytes: u64,
    /// Batches written since the state was opened.
    pub writes: u64,
}
