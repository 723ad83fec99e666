//! The log's database: how RocksDB is set up for it, and what is read from it.
//!
//! RocksDB's own log is recovered up to the first damage (`PointInTime`) and its files are not
//! recycled, because old bytes behind a torn tail could be taken for new ones. What that cuts is
//! checked against the mark (see [`super::mark`]). Both column families are flushed together, so that no
//! old file of RocksDB's log is kept alive by the few values in `meta`. These have a family of their own
//! because a value that changes all the time, between entries that only grow, would make the tables
//! of entries overlap: they would be merged again and again instead of moved down as they are.

use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache as BlockCache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, IteratorMode, LogLevel, Options, Range, ReadOptions,
};

use super::cache::{Budget, Cache};
use super::queue::Recovered;
use super::record::{self, Meta};
use super::{LogId, LogOptions, LogState, Record};
use crate::error::OpenError;
use crate::framing;
use crate::small_file;

const META: &str = "meta";

/// Entries are read from memory; this is for a follower that is far behind and for restarts.
const BLOCK_CACHE_BYTES: usize = 8 << 20;

/// One that is filled, one that is flushed, and two for a disk that is behind: beyond that RocksDB lets
/// writers wait.
const MEMTABLES_MAX: i32 = 4;

/// How finely the entries that are not read at the start are weighed.
const ESTIMATED_RUNS: u64 = 64;

/// The database with what is needed to find a group's values in it.
pub(super) struct Store {
    pub(super) db: DB,
    pub(super) dir: PathBuf,
    pub(super) group: u32,
}

impl Store {
    pub(super) fn open(dir: &Path, options: &LogOptions) -> Result<Store, OpenError> {
        let (mut db_options, records, meta) = db_options(options);
        // Tables of the log are hardly ever read: their pages would only push out those of the state.
        db_options.set_use_direct_io_for_flush_and_compaction(small_file::takes_direct_io(dir));
        let families = [
            ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, records),
            ColumnFamilyDescriptor::new(META, meta),
        ];
        framing::check(dir)?;
        let db = DB::open_cf_descriptors(&db_options, dir, families).map_err(|error| OpenError::rocks(dir, error))?;
        Ok(Store {
            db,
            dir: dir.to_owned(),
            group: options.group,
        })
    }

    pub(super) fn meta(&self) -> &ColumnFamily {
        self.db.cf_handle(META).expect("opened with this family")
    }

    /// Reads what is there, checks it, and fills the cache from the log's end.
    pub(super) fn recover(&self, cache_bytes_max: usize) -> Result<Recovered, OpenError> {
        let corrupt = |reason: String| OpenError::corrupt(format!("the log in {}", self.dir.display()), reason);
        let get = |meta: Meta| {
            let key = record::meta_key(self.group, meta);
            let value = self
                .db
                .get_cf(self.meta(), key)
                .map_err(|error| OpenError::rocks(&self.dir, error))?;
            Ok::<_, OpenError>(value.map(|value| (key, value)))
        };
        let log_id = |meta: Meta| {
            get(meta)?
                .map(|(key, value)| record::decode_log_id(&key, &value).map_err(corrupt))
                .transpose()
        };
        let vote = get(Meta::Vote)?
            .map(|(key, value)| record::decode_vote(&key, &value).map_err(corrupt))
            .transpose()?;
        let (purged, committed) = (log_id(Meta::Purged)?, log_id(Meta::Committed)?);

        let first_possible = purged.map_or(0, |purged| purged.index + 1);
        let first = self.first_index(first_possible).map_err(corrupt)?;
        let mut newest_first: Vec<Record> = Vec::new();
        let mut bytes = 0;
        let from_end = self
            .db
            .iterator_opt(IteratorMode::End, self.records_between(first_possible, u64::MAX));
        for item in from_end {
            let (key, value) = item.map_err(|error| corrupt(error.to_string()))?;
            let record = record::decode_record(&key, &value).map_err(corrupt)?;
            if let Some(above) = newest_first.last()
                && above.id.index != record.id.index + 1
            {
                return Err(corrupt(format!(
                    "entries between {} and {} are missing",
                    record.id, above.id
                )));
            }
            bytes += record.cost_bytes();
            if bytes > cache_bytes_max && !newest_first.is_empty() {
                break;
            }
            newest_first.push(record);
        }
        if let (Some(first), Some(purged)) = (first, purged)
            && first != first_possible
        {
            return Err(corrupt(format!(
                "entries between {purged} and index {first} are missing"
            )));
        }
        let last = newest_first.first().map(|record| record.id).or(purged);
        let mut cache = Cache::new(cache_bytes_max);
        newest_first.into_iter().rev().for_each(|record| cache.push(record));
        let first = first.unwrap_or(first_possible);
        let next = last.map_or(first, |last| last.index + 1);
        let uncached = self.estimate(first, cache.first().unwrap_or(next));
        Ok(Recovered {
            state: LogState {
                purged,
                last,
                committed,
                vote,
            },
            first,
            next,
            cache,
            uncached,
        })
    }

    /// What the entries `first <= index < next` may weigh, by their tables, in some runs of equal
    /// length: the index after each run, and its bytes.
    fn estimate(&self, first: u64, next: u64) -> Vec<(u64, u64)> {
        let step = (next - first).div_ceil(ESTIMATED_RUNS).max(1);
        let begins = (first..next).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        begins
            .map(|from| {
                let to = (from + step).min(next);
                let keys = (record::record_key(self.group, from), record::record_key(self.group, to));
                let bytes = self.db.get_approximate_sizes(&[Range::new(&keys.0, &keys.1)])[0];
                (to, bytes)
            })
            .collect()
    }

    /// The error says what is wrong.
    fn first_index(&self, from: u64) -> Result<Option<u64>, String> {
        let mut entries = self
            .db
            .iterator_opt(IteratorMode::Start, self.records_between(from, u64::MAX));
        match entries.next() {
            None => Ok(None),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok((key, _))) => record::record_index(&key).map(Some),
        }
    }

    /// The id of an entry that should be there.
    pub(super) fn id_at(&self, index: u64) -> io::Result<LogId> {
        let key = record::record_key(self.group, index);
        let value = self.db.get(key).map_err(|error| self.damaged(error))?;
        let value = value.ok_or_else(|| self.damaged(format!("entry {index} is missing")))?;
        Ok(record::decode_record(&key, &value)
            .map_err(|error| self.damaged(error))?
            .id)
    }

    /// The entries `from <= index < to`, all of which should be there, as far as the budget goes.
    pub(super) fn read(&self, from: u64, to: u64, budget: &mut Budget) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut expected = from;
        for item in self
            .db
            .iterator_opt(IteratorMode::Start, self.records_between(from, to))
        {
            let (key, value) = item.map_err(|error| self.damaged(error))?;
            let record = record::decode_record(&key, &value).map_err(|error| self.damaged(error))?;
            if record.id.index != expected {
                return Err(self.damaged(format!("entries {expected} to {} are missing", record.id.index - 1)));
            }
            if !budget.take(record.cost_bytes()) {
                return Ok(records);
            }
            expected += 1;
            records.push(record);
        }
        if expected < to {
            return Err(self.damaged(format!("entries {expected} to {} are missing", to - 1)));
        }
        Ok(records)
    }

    fn damaged(&self, reason: impl std::fmt::Display) -> io::Error {
        let dir = self.dir.display();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the log in {dir} is damaged: {reason}"),
        )
    }

    /// `from <= index < to`; `u64::MAX` means all.
    fn records_between(&self, from: u64, to: u64) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(record::record_key(self.group, from));
        match to {
            u64::MAX => options.set_iterate_upper_bound(record::records_end(self.group)),
            to => options.set_iterate_upper_bound(record::record_key(self.group, to)),
        }
        options.set_verify_checksums(true);
        // One pass over old entries should not push out anything.
        options.fill_cache(false);
        options
    }
}

/// Of the database, of the entries, of the single values.
fn db_options(options: &LogOptions) -> (Options, Options, Options) {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    db.set_recycle_log_file_num(0);
    // Without this a whole file of RocksDB's log could be missing between two others, and with it a
    // truncation: the log would go on with entries that were replaced.
    db.set_track_and_verify_wals_in_manifest(true);
    db.set_atomic_flush(true);
    db.set_paranoid_checks(true);
    db.set_max_background_jobs(2);
    // Where tables go through the page cache: written back steadily, so that no sync queues behind a whole one.
    db.set_bytes_per_sync(1 << 20);
    // Old files are hardly read: do not keep a table reader of each in memory.
    db.set_max_open_files(256);
    db.set_log_level(LogLevel::Warn);
    db.set_keep_log_file_num(2);
    db.set_max_log_file_size(1 << 20);
    db.set_stats_dump_period_sec(0);

    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&BlockCache::new_lru_cache(BLOCK_CACHE_BYTES));
    tables.set_cache_index_and_filter_blocks(true);
    // Entries are short-lived and read in long runs: larger blocks, no filter, no compression.
    tables.set_block_size(64 << 10);
    let mut records = Options::default();
    records.set_block_based_table_factory(&tables);
    records.set_compression_type(DBCompressionType::None);
    records.set_write_buffer_size(options.write_buffer_bytes);
    records.set_max_write_buffer_number(MEMTABLES_MAX);
    records.set_target_file_size_base(options.write_buffer_bytes as u64);

    let mut meta = Options::default();
    meta.set_block_based_table_factory(&tables);
    meta.set_compression_type(DBCompressionType::None);
    meta.set_write_buffer_size(1 << 20);
    (db, records, meta)
}

#[cfg(test)]
mod tests {
    use super::super::suite::record;
    use super::*;

    /// All of it was synced, so this can only be a disk that has lost a file.
    #[test]
    fn a_file_of_rocksdb_s_log_that_is_missing_in_the_middle_is_noticed() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("log");
        let options = LogOptions {
            write_buffer_bytes: 64 << 10,
            ..LogOptions::default()
        };
        // Several of its files are still needed, because no memtable is flushed alone.
        let (mut db_options, mut records, meta) = db_options(&options);
        db_options.set_atomic_flush(false);
        records.set_min_write_buffer_number_to_merge(4);
        let families = [
            ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, records),
            ColumnFamilyDescriptor::new(META, meta),
        ];
        let db = DB::open_cf_descriptors(&db_options, &dir, families).unwrap();
        let mut synced = rocksdb::WriteOptions::default();
        synced.set_sync(true);
        for index in 0..100 {
            let mut record = record(1, index);
            record.payload = vec![7; 1500].into();
            let key = record::record_key(0, index);
            let mut value = Vec::new();
            record::encode_record(&key, &record, &mut value);
            db.put_opt(key, value, &synced).unwrap();
        }
        drop(db);
        let mut logs: Vec<PathBuf> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .filter(|path| std::fs::metadata(path).unwrap().len() > 0)
            .collect();
        logs.sort();
        assert!(logs.len() > 1, "{logs:?}");
        std::fs::remove_file(&logs[0]).unwrap();
        let error = Store::open(&dir, &options).err().expect("refused");
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("/log is damaged"), "{error}");
    }
}
