//! The recent end of the log in memory, so that replication and apply do not read it back from disk.

use std::collections::VecDeque;

use super::{LogId, Record};

/// How many bytes a read may still return. The first record always fits: a reader that got nothing
/// could not go on.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    any: bool,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            left: bytes_max,
            any: false,
        }
    }

    /// Whether a record of this cost may be returned too; if not, the read ends here.
    pub(super) fn take(&mut self, cost_bytes: usize) -> bool {
        let fits = !self.any || cost_bytes <= self.left;
        if fits {
            self.any = true;
            self.left = self.left.saturating_sub(cost_bytes);
        }
        fits
    }
}

/// Consecutive records, ending with the last one of the log.
///
/// Bound: `bytes_max`, beyond which the oldest are dropped; those that are not yet on disk are kept
/// whatever they take, because they are nowhere else (the writer's queue bounds them).
#[derive(Debug)]
pub(super) struct Cache {
    records: VecDeque<Record>,
    bytes: usize,
    bytes_max: usize,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            records: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first index that is here; none if nothing is.
    pub(super) fn first(&self) -> Option<u64> {
        self.records.front().map(|record| record.id.index)
    }

    /// Index and cost of each record.
    pub(super) fn costs(&self) -> impl Iterator<Item = (u64, usize)> {
        self.records.iter().map(|record| (record.id.index, record.cost_bytes()))
    }

    pub(super) fn push(&mut self, record: Record) {
        let follows = self
            .records
            .back()
            .is_none_or(|last| last.id.index + 1 == record.id.index);
        assert!(follows, "the cache has no holes");
        self.bytes += record.cost_bytes();
        self.records.push_back(record);
    }

    /// Drops the records from index `from` on.
    pub(super) fn truncate(&mut self, from: u64) {
        while self.records.back().is_some_and(|last| last.id.index >= from) {
            self.bytes -= self.records.pop_back().map_or(0, |record| record.cost_bytes());
        }
    }

    /// Drops the records below index `first`.
    pub(super) fn purge(&mut self, first: u64) {
        while self.first().is_some_and(|index| index < first) {
            self.pop_front();
        }
    }

    /// Drops the oldest until the bound is kept, but none above `durable`.
    pub(super) fn evict(&mut self, durable: Option<u64>) {
        while self.bytes > self.bytes_max && self.first() <= durable && !self.records.is_empty() {
            self.pop_front();
        }
    }

    pub(super) fn id_at(&self, index: u64) -> Option<LogId> {
        let at = index.checked_sub(self.first()?)?;
        self.records.get(usize::try_from(at).ok()?).map(|record| record.id)
    }

    /// Appends to `out` what is here of `from <= index < to`, as far as the budget goes.
    pub(super) fn read(&self, from: u64, to: u64, budget: &mut Budget, out: &mut Vec<Record>) {
        let Some(first) = self.first() else { return };
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let wanted = self.records.iter().skip(skip).take_while(|record| record.id.index < to);
        out.extend(wanted.take_while(|record| budget.take(record.cost_bytes())).cloned());
    }

    fn pop_front(&mut self) {
        self.bytes -= self.records.pop_front().map_or(0, |record| record.cost_bytes());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Records 5..=14 of 100 bytes each (cost 164).
    fn cache(bytes_max: usize) -> Cache {
        let mut cache = Cache::new(bytes_max);
        for index in 5..15 {
            let id = LogId {
                term: 1,
                leader: 1,
                index,
            };
            cache.push(Record {
                id,
                payload: Bytes::from(vec![0; 100]),
            });
        }
        cache
    }

    fn indexes(cache: &Cache, from: u64, to: u64, bytes_max: usize) -> Vec<u64> {
        let mut out = Vec::new();
        cache.read(from, to, &mut Budget::new(bytes_max), &mut out);
        out.iter().map(|record| record.id.index).collect()
    }

    #[test]
    fn a_read_keeps_its_bounds_but_never_gives_nothing() {
        let cache = cache(usize::MAX);
        assert_eq!(indexes(&cache, 7, 10, usize::MAX), [7, 8, 9]);
        assert_eq!(indexes(&cache, 13, 99, usize::MAX), [13, 14]);
        assert_eq!(indexes(&cache, 7, 10, 2 * 164), [7, 8]);
        assert_eq!(indexes(&cache, 7, 10, 2 * 164 - 1), [7]);
        assert_eq!(indexes(&cache, 7, 10, 0), [7]);
        assert_eq!(indexes(&cache, 15, 99, usize::MAX), [0; 0]);
    }

    #[test]
    fn eviction_spares_what_is_not_durable() {
        let mut cache = cache(300);
        cache.evict(None);
        assert_eq!(cache.first(), Some(5));
        cache.evict(Some(9));
        assert_eq!((cache.first(), cache.bytes()), (Some(10), 5 * 164));
        cache.evict(Some(14));
        assert_eq!((cache.first(), cache.bytes()), (Some(14), 164));
    }

    #[test]
    fn both_ends_can_be_cut() {
        let mut cache = cache(usize::MAX);
        cache.truncate(12);
        cache.purge(8);
        assert_eq!(indexes(&cache, 0, 99, usize::MAX), [8, 9, 10, 11]);
        assert_eq!(cache.bytes(), 4 * 164);
        assert_eq!(cache.id_at(11).map(|id| id.index), Some(11));
        assert_eq!((cache.id_at(7), cache.id_at(12)), (None, None));
        cache.truncate(0);
        assert_eq!((cache.first(), cache.bytes()), (None, 0));
    }
}
