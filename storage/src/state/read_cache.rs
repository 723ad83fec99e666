//! Rows that readers ask for again and again, in memory: the callers, the rooms, their tails, the memberships, the last
//! messages. The tables have them too, but between two compactions a lookup asks the filter of each young table, often of
//! a dozen.
//!
//! Readers have snapshots of different moments, and RocksDB numbers them. A row that was read at one moment is what a reader of
//! another one would find as well if nobody has changed it up to the later of the two; so the cache need not be told what a
//! row is now, only, and before it is changed, that it will be. That is noted for a hash of the key:
//! two keys of one hash cost each other a lookup now and then, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use quorate_state_machine::Change;

/// Of all rows together. Beyond it those go that were not asked for again.
const BYTES_MAX: u64 = 8 << 20;
/// So many rows of rooms, members and short messages fit.
const ROWS_EXPECTED: usize = 25_000;
/// A row's places in the map and in the allocator, beside its key and value.
const OVERHEAD_BYTES: usize = 160;
/// Larger rows are not kept: few are, and many readers of one large message hardly notice a lookup.
const ROW_BYTES_MAX: usize = 2048;
/// Hashes of keys, half a MiB. A row that does not change is looked up again once another one of its hash has changed: that is one
/// change in so many.
const HASHES: usize = 1 << 16;

pub(super) struct ReadCache {
    rows: Cache<Box<[u8]>, Row, Weigh>,
    /// By the hash of a key: no snapshot before this number has the last change.
    changed: Box<[AtomicU64]>,
    /// The same for deleted ranges, of whatever keys: after one, each row is looked up once more. They are of users and rooms that are deleted,
    /// and of redacted messages that were edited before.
    range_deleted: AtomicU64,
}

#[derive(Clone)]
struct Row {
    /// The number of the snapshot that it was read from.
    read_at: u64,
    value: Option<Arc<[u8]>>,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Box<[u8]>, Row> for Weigh {
    fn weight(&self, key: &Box<[u8]>, row: &Row) -> u64 {
        (key.len() + row.value.as_ref().map_or(0, |value| value.len()) + OVERHEAD_BYTES) as u64
    }
}

impl ReadCache {
    pub(super) fn new() -> Self {
        Self {
            rows: Cache::with_weighter(ROWS_EXPECTED, BYTES_MAX, Weigh),
            changed: (0..HASHES).map(|_| AtomicU64::new(0)).collect(),
            range_deleted: AtomicU64::new(0),
        }
    }

    /// To be called before the changes are written, by the only one who writes: the first snapshot that will have them
    /// has this number or a later one, and those without them have earlier ones.
    pub(super) fn will_change(&self, changes: &[Change], from: u64) {
        for change in changes {
            let changed = match change {
                Change::Put { key, .. } | Change::Delete { key } => self.changed(key),
                Change::DeleteRange { .. } => &self.range_deleted,
            };
            changed.store(from, Ordering::Release);
        }
    }

    /// As a reader sees it whose snapshot has this number.
    pub(super) fn at(&self, snapshot: u64) -> ReadCacheAt<'_> {
        ReadCacheAt { cache: self, snapshot }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.rows.weight()
    }

    fn changed(&self, key: &[u8]) -> &AtomicU64 {
        &self.changed[crc32c::crc32c(key) as usize % HASHES]
    }
}

pub(super) struct ReadCacheAt<'a> {
    cache: &'a ReadCache,
    snapshot: u64,
}

impl ReadCacheAt<'_> {
    /// The row, or that there is none, if that is known.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Arc<[u8]>>> {
        // The row first: all changes up to the snapshot of whoever kept it were noted before.
        let row = self.cache.rows.get(key)?;
        self.is_unchanged(key, row.read_at).then_some(row.value)
    }

    /// What was found in the snapshot.
    pub(super) fn keep(&self, key: &[u8], value: Option<&[u8]>) {
        // What has changed since is of no use to later readers, and would push out what they have kept.
        let bytes = key.len() + value.map_or(0, <[u8]>::len);
        if bytes <= ROW_BYTES_MAX && self.is_unchanged(key, self.snapshot) {
            let row = Row {
                read_at: self.snapshot,
                value: value.map(Arc::from),
            };
            self.cache.rows.insert(key.into(), row);
        }
    }

    /// Whether the row is the same in both snapshots.
    fn is_unchanged(&self, key: &[u8], read_at: u64) -> bool {
        let changed = self.cache.changed(key).load(Ordering::Acquire);
        let range_deleted = self.cache.range_deleted.load(Ordering::Acquire);
        changed.max(range_deleted) <= read_at.min(self.snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &[u8]) -> Vec<Change> {
        vec![Change::Put {
            key: key.to_vec(),
            value: Vec::new(),
        }]
    }

    fn value(found: Option<Option<Arc<[u8]>>>) -> Option<Option<Vec<u8>>> {
        found.map(|value| value.map(|value| value.to_vec()))
    }

    #[test]
    fn a_row_is_what_any_snapshot_finds_between_two_changes() {
        let cache = ReadCache::new();
        cache.will_change(&put(b"a"), 5);
        cache.at(7).keep(b"a", Some(b"1"));
        for snapshot in [5, 6, 7, 9] {
            assert_eq!(
                value(cache.at(snapshot).get(b"a")),
                Some(Some(b"1".to_vec())),
                "{snapshot}"
            );
        }
        assert_eq!(cache.at(4).get(b"a"), None, "it was another one then");
        cache.will_change(&put(b"b"), 10);
        assert_eq!(value(cache.at(10).get(b"a")), Some(Some(b"1".to_vec())), "another row");
        cache.will_change(&put(b"a"), 11);
        for snapshot in [7, 10, 11, 12] {
            assert_eq!(cache.at(snapshot).get(b"a"), None, "{snapshot}");
        }
    }

    #[test]
    fn that_there_is_none_is_known_too() {
        let cache = ReadCache::new();
        cache.at(3).keep(b"a", None);
        assert_eq!(cache.at(4).get(b"a"), Some(None));
        cache.will_change(&put(b"a"), 5);
        assert_eq!(cache.at(5).get(b"a"), None);
    }

    /// Who has read before the change may come to keep it after it.
    #[test]
    fn what_a_late_reader_brings_is_not_taken_for_new() {
        let cache = ReadCache::new();
        cache.will_change(&put(b"a"), 5);
        cache.at(4).keep(b"a", Some(b"old"));
        assert_eq!(cache.at(5).get(b"a"), None);
        cache.at(5).keep(b"a", Some(b"new"));
        cache.at(4).keep(b"a", Some(b"old"));
        assert_eq!(value(cache.at(6).get(b"a")), Some(Some(b"new".to_vec())));
    }

    #[test]
    fn a_deleted_range_may_be_of_any_row() {
        let cache = ReadCache::new();
        cache.at(1).keep(b"a", Some(b"1"));
        let range = Change::DeleteRange {
            from: b"x".to_vec(),
            to: b"y".to_vec(),
        };
        cache.will_change(&[range], 2);
        assert_eq!(cache.at(2).get(b"a"), None);
    }

    #[test]
    fn it_has_a_bound_and_large_rows_stay_out() {
        let cache = ReadCache::new();
        cache.at(1).keep(b"large", Some(&[0; ROW_BYTES_MAX]));
        assert_eq!(cache.at(1).get(b"large"), None);
        for n in 0..10_000_u32 {
            cache.at(1).keep(&n.to_be_bytes(), Some(&[0; ROW_BYTES_MAX - 4]));
        }
        assert!(
            (BYTES_MAX / 2..=BYTES_MAX).contains(&cache.bytes()),
            "{}",
            cache.bytes()
        );
    }
}
