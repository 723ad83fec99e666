//! Which ranges were deleted and may still take space.
//!
//! RocksDB deletes a range by writing that it is deleted; the rows go when a compaction meets both.
//! It sees to that by itself where much was deleted, and for the rest when the tables are a day old (see
//! `db_options`). What is remembered here lets [`super::StateStore::reclaim`] do it now, and only there.

/// Beyond it further ranges are not remembered: RocksDB gives their space back in its own time.
/// Some 100 bytes each.
const RANGES_MAX: usize = 10_000;

/// Ranges with less on disk than this are not worth a compaction of their own, which rewrites the
/// tables (some 64 MiB each) at their ends.
pub(super) const WORTHWHILE_BYTES: u64 = 1 << 20;

/// From (included) to (excluded).
pub(super) type KeyRange = (Vec<u8>, Vec<u8>);

#[derive(Debug, Default)]
pub(super) struct DeletedRanges {
    ranges: Vec<KeyRange>,
}

impl DeletedRanges {
    pub(super) fn extend(&mut self, ranges: impl IntoIterator<Item = KeyRange>) {
        let room = RANGES_MAX - self.ranges.len();
        self.ranges.extend(ranges.into_iter().take(room));
    }

    /// All of them, in key order, those that touch or overlap as one.
    pub(super) fn take(&mut self) -> Vec<KeyRange> {
        let mut ranges = std::mem::take(&mut self.ranges);
        ranges.sort();
        let mut merged: Vec<KeyRange> = Vec::new();
        for (from, to) in ranges {
            match merged.last_mut() {
                Some((_, last_to)) if *last_to >= from => {
                    if *last_to < to {
                        *last_to = to;
                    }
                }
                _ => merged.push((from, to)),
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: &str, to: &str) -> KeyRange {
        (from.into(), to.into())
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut deleted = DeletedRanges::default();
        deleted.extend([range("m", "p"), range("a", "c")]);
        deleted.extend([range("c", "d"), range("n", "o"), range("q", "r"), range("o", "pp")]);
        assert_eq!(deleted.take(), [range("a", "d"), range("m", "pp"), range("q", "r")]);
        assert_eq!(deleted.take(), []);
    }

    #[test]
    fn there_is_a_bound() {
        let mut deleted = DeletedRanges::default();
        for n in 0..RANGES_MAX + 5 {
            deleted.extend([range(&format!("{n:06}a"), &format!("{n:06}b"))]);
        }
        assert_eq!(deleted.take().len(), RANGES_MAX);
    }
}
