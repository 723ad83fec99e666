//! How RocksDB is set for the state: what is kept in memory, how tables lie on disk, and when they are compacted.
//!
//! Tables from the second level on, which hold nearly all of the data, are compressed with zstd; the
//! younger ones are rewritten too often for that.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, LogLevel, Options, ReadOptions};

use super::StateOptions;
use super::pace::{self, Load, Pace};
use crate::small_file;

pub(super) fn read_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options
}

/// Of a database somewhere below `state_dir`.
pub(super) fn db_options(options: &StateOptions, block_cache: &Cache, load: &Arc<Load>, state_dir: &Path) -> Options {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(block_cache);
    // Indexes and filters count towards the cache; those of the youngest level stay in it.
    tables.set_cache_index_and_filter_blocks(true);
    tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // 10 bits a key: one in a hundred lookups of a missing key reads a block in vain. Most lookups of
    // apply (is this name taken, was this key used) are for missing keys.
    tables.set_bloom_filter(10.0, false);
    // In pieces: the cache is divided into shards of less than a MiB, and the filter or index of a table of a
    // few hundred thousand keys is larger. Whole, it would be read from its file for each lookup.
    tables.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    tables.set_partition_filters(true);
    tables.set_metadata_block_size(16 << 10);
    tables.set_pin_top_level_index_and_filter(true);
    // A page of history lies in one or two blocks, and zstd has something to work with.
    tables.set_block_size(16 << 10);

    let mut db = base_options();
    db.create_if_missing(true);
    db.set_block_based_table_factory(&tables);
    db.set_write_buffer_size(options.write_buffer_bytes);
    // Copying each table into fresh pages of the page cache took more of the processor than making it. Most of a table is not
    // asked for again while it lasts; what is comes into the page cache when it is read.
    db.set_use_direct_io_for_flush_and_compaction(small_file::takes_direct_io(state_dir));
    // One that is filled, one that is flushed, two for a disk that is behind.
    db.set_max_write_buffer_number(4);
    db.set_max_background_jobs(options.background_jobs);
    let files = |number: u64| i32::try_from(number).expect("a small number");
    db.set_level_zero_file_num_compaction_trigger(files(pace::COMPACT_FROM));
    db.set_level_zero_slowdown_writes_trigger(files(pace::SLOW_DOWN_FROM));
    db.set_level_zero_stop_writes_trigger(files(pace::STOP_AT));
    db.set_compaction_filter_factory(Pace(load.clone()));
    db.set_max_open_files(512);
    // Deleted ranges count as size where compactions are chosen, so that the deletion of some hundred
    // MiB gives its space back soon. Less could stay for ever in a store that is hardly written: so all
    // that is a day old and not yet on the last level moves down, and takes the deleted along.
    db.set_ttl(24 * 3600);
    // As a filter may drop what is old, RocksDB would show it all rows once a month: ours drops none.
    db.set_periodic_compaction_seconds(0);
    db
}

/// For a copy that is opened once, to see what it contains.
pub(super) fn copy_options() -> Options {
    let mut db = base_options();
    db.create_if_missing(false);
    db.set_max_open_files(16);
    db
}

/// RocksDB's default. The first holds 256 MiB, each other one ten times as much: far more than a node's disk.
const LEVELS: i32 = 7;

/// The youngest levels are written several times before their rows move on, and compressing takes most of
/// a compaction. They hold some 500 MiB, and more while compactions are behind; the rest is written once or twice.
fn compression_of_levels() -> [DBCompressionType; LEVELS as usize] {
    const YOUNG: usize = 2;
    std::array::from_fn(|level| match level < YOUNG {
        true => DBCompressionType::None,
        false => DBCompressionType::Zstd,
    })
}

/// What concerns how data lies on disk is the same for all.
fn base_options() -> Options {
    let mut db = Options::default();
    db.set_paranoid_checks(true);
    db.set_num_levels(LEVELS);
    // Each level has its own place and size from the beginning. RocksDB's other way begins with the last level alone, so that
    // until it has grown to `max_bytes_for_level_base` each compaction would write all of it anew, compressed; of
    // texts that compress well that is a gigabyte again and again.
    db.set_level_compaction_dynamic_level_bytes(false);
    db.set_compression_per_level(&compression_of_levels());
    // Level 1 of zstd: its default, 3, takes a good deal longer for a few bytes less. The other numbers are RocksDB's defaults.
    db.set_compression_options(-14, 1, 0, 0);
    // Where tables go through the page cache: written back steadily, so that the log's syncs do not queue behind a large flush.
    db.set_bytes_per_sync(1 << 20);
    db.set_log_level(LogLevel::Warn);
    db.set_keep_log_file_num(2);
    db.set_max_log_file_size(1 << 20);
    db.set_stats_dump_period_sec(0);
    db
}
