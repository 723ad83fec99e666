//! What the entries of the log weigh and since when they are there: for purging by size and by age.
//!
//! Not kept for each entry, but at marks, about a MiB or ten seconds apart. Between two marks
//! entries count as equally large, and as young as the later mark. What was there when the log was
//! opened counts from then, and its size is estimated as far as it was not read.

use std::collections::VecDeque;
use std::time::Duration;

/// Follows the simulated clock where there is one.
pub(super) use tokio::time::Instant;

/// A mark is made after so many bytes, or after so long, whichever comes first. So a purge by size
/// takes at most this (and one entry) more than it must.
const MARK_BYTES: u64 = 1 << 20;
const MARK_AGE: Duration = Duration::from_secs(10);

/// Enough for 4 GiB or for 11 hours at those distances. When they are full, every second one is
/// dropped: what is kept longer is known less finely.
const MARKS_MAX: usize = 4096;

/// A place between two entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// The entries below this index are meant.
    next: u64,
    /// What they weigh, counted from some beginning.
    bytes: u64,
    /// When the last of them had come.
    at: Instant,
}

#[derive(Debug)]
pub(super) struct Retained {
    start: Mark,
    /// Between the start and the end (both excluded), ascending.
    marks: VecDeque<Mark>,
    end: Mark,
}

impl Retained {
    /// Of a log whose entries will begin at `first`.
    pub(super) fn new(first: u64, now: Instant) -> Self {
        let mark = Mark {
            next: first,
            bytes: 0,
            at: now,
        };
        Self {
            start: mark,
            marks: VecDeque::new(),
            end: mark,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.end.bytes - self.start.bytes
    }

    /// Adds the entries from the end to `next` (excluded), which is above the end. An empty log may
    /// begin anywhere.
    pub(super) fn push(&mut self, first: u64, next: u64, bytes: u64, now: Instant) {
        assert!(first < next, "there is something to add");
        if self.start.next == self.end.next {
            self.start.next = first;
            self.start.at = now;
            self.end = self.start;
        }
        let last = self.marks.back().copied().unwrap_or(self.start);
        let far = self.end.bytes - last.bytes >= MARK_BYTES || now.saturating_duration_since(last.at) >= MARK_AGE;
        if far && self.end.next > last.next {
            self.marks.push_back(self.end);
            if self.marks.len() > MARKS_MAX {
                let mut keep = false;
                self.marks.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
        }
        self.end = Mark {
            next,
            bytes: self.end.bytes + bytes,
            at: now,
        };
    }

    /// Drops the entries from index `from` on. When the last of the others had come is no longer
    /// known, so they count as young as the dropped ones.
    pub(super) fn truncate(&mut self, from: u64) {
        let from = from.max(self.start.next);
        if from < self.end.next {
            self.end.bytes = self.bytes_below(from);
            self.end.next = from;
            while self.marks.back().is_some_and(|mark| mark.next >= from) {
                self.marks.pop_back();
            }
        }
    }

    /// Drops the entries below index `first`, which may lie beyond the end.
    pub(super) fn purge(&mut self, first: u64) {
        if first >= self.end.next {
            *self = Self::new(first, self.end.at);
        } else if first > self.start.next {
            self.start.bytes = self.bytes_below(first);
            self.start.next = first;
            while self.marks.front().is_some_and(|mark| mark.next <= first) {
                self.marks.pop_front();
            }
        }
    }

    /// See [`super::LogStore::index_to_keep_bytes`].
    pub(super) fn index_to_keep_bytes(&self, bytes: u64) -> Option<u64> {
        if self.bytes() <= bytes {
            return None;
        }
        let at = self.marks.partition_point(|mark| self.end.bytes - mark.bytes > bytes);
        Some(self.marks.get(at).unwrap_or(&self.end).next - 1)
    }

    /// See [`super::LogStore::index_older_than`].
    pub(super) fn index_older_than(&self, age: Duration, now: Instant) -> Option<u64> {
        let old = |mark: &Mark| now.saturating_duration_since(mark.at) > age;
        if self.start.next < self.end.next && old(&self.end) {
            return Some(self.end.next - 1);
        }
        let at = self.marks.partition_point(old);
        Some(self.marks.get(at.checked_sub(1)?)?.next - 1)
    }

    /// What the entries below `next` weigh, counted like the marks: in proportion between two of
    /// them.
    fn bytes_below(&self, next: u64) -> u64 {
        let at = self.marks.partition_point(|mark| mark.next <= next);
        let below = at.checked_sub(1).map_or(&self.start, |at| &self.marks[at]);
        let above = self.marks.get(at).unwrap_or(&self.end);
        let part = |whole: u64| u128::from(whole) * u128::from(next - below.next) / u128::from(above.next - below.next);
        let part = part(above.bytes - below.bytes);
        below.bytes + u64::try_from(part).expect("not more than the whole")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    /// Entries 1..=1000 of 100 KiB, one a second.
    fn filled() -> (Retained, Instant) {
        let begin = Instant::now();
        let mut retained = Retained::new(0, begin);
        (1..=1000).for_each(|n| retained.push(n, n + 1, 100 * KIB, after(begin, n)));
        (retained, begin)
    }

    #[test]
    fn what_is_kept_weighs_no_more_than_asked_and_hardly_less() {
        let (retained, _) = filled();
        assert_eq!(retained.bytes(), 1000 * 100 * KIB);
        for bytes in (0..retained.bytes()).step_by(33_333) {
            let index = retained.index_to_keep_bytes(bytes).unwrap();
            let kept = (1000 - index) * 100 * KIB;
            assert!(
                kept <= bytes && kept + MARK_BYTES + 200 * KIB > bytes,
                "{kept} of {bytes}"
            );
        }
        assert_eq!(retained.index_to_keep_bytes(0), Some(1000));
        assert_eq!(retained.index_to_keep_bytes(1000 * 100 * KIB), None);
    }

    #[test]
    fn what_is_old_is_as_old_as_asked_and_hardly_older() {
        let (retained, begin) = filled();
        let now = after(begin, 1100);
        for age in 100..1099 {
            let index = retained.index_older_than(Duration::from_secs(age), now);
            // Entry n has come at second n.
            let oldest = 1100 - age - 1;
            match index {
                None => assert!(oldest <= 11, "{age}"),
                Some(index) => assert!(index <= oldest && index + 11 >= oldest, "{index} for {age}"),
            }
        }
        assert_eq!(retained.index_older_than(Duration::from_secs(99), now), Some(1000));
        assert_eq!(retained.index_older_than(Duration::from_secs(1100), now), None);
    }

    /// After a pause the entries before it are not taken for as young as those after it.
    #[test]
    fn a_pause_does_not_make_entries_young() {
        let begin = Instant::now();
        let mut retained = Retained::new(0, begin);
        (0..5).for_each(|n| retained.push(n, n + 1, 1, begin));
        retained.push(5, 6, 1, after(begin, 3600));
        assert_eq!(
            retained.index_older_than(Duration::from_secs(60), after(begin, 3601)),
            Some(4)
        );
    }

    #[test]
    fn cuts_are_counted_in_proportion() {
        let (mut retained, begin) = filled();
        retained.purge(501);
        assert_eq!(retained.bytes(), 500 * 100 * KIB);
        retained.truncate(801);
        assert_eq!(retained.bytes(), 300 * 100 * KIB);
        assert_eq!(retained.index_to_keep_bytes(0), Some(800));
        let all = Duration::ZERO;
        assert_eq!(retained.index_older_than(all, after(begin, 2000)), Some(800));
        assert_eq!(
            retained.index_older_than(Duration::from_secs(1000), after(begin, 1400)),
            None
        );
        retained.push(801, 802, MIB, after(begin, 2000));
        assert_eq!(retained.bytes(), 300 * 100 * KIB + MIB);
        retained.truncate(0);
        assert_eq!(retained.bytes(), 0);
        assert_eq!(retained.index_to_keep_bytes(0), None);
        assert_eq!(retained.index_older_than(all, after(begin, 9999)), None);
        retained.push(501, 502, 7, after(begin, 2001));
        assert_eq!((retained.bytes(), retained.index_to_keep_bytes(6)), (7, Some(501)));
        retained.purge(5000);
        assert_eq!((retained.bytes(), retained.index_to_keep_bytes(0)), (0, None));
        retained.push(5000, 5001, 7, after(begin, 2002));
        assert_eq!((retained.bytes(), retained.index_to_keep_bytes(0)), (7, Some(5000)));
    }

    #[test]
    fn marks_are_bounded_and_stay_usable() {
        let begin = Instant::now();
        let mut retained = Retained::new(0, begin);
        let entries = 10 * MARKS_MAX as u64;
        (0..entries).for_each(|n| retained.push(n, n + 1, MIB, after(begin, n)));
        assert!(retained.marks.len() <= MARKS_MAX);
        assert_eq!(retained.bytes(), entries * MIB);
        for kept in [0, 10, 100, 1000, entries - 100] {
            let index = retained.index_to_keep_bytes(kept * MIB).unwrap();
            assert!(entries - 1 - index <= kept, "{index} for {kept}");
        }
        let index = retained.index_to_keep_bytes(100 * MIB).unwrap();
        assert!(index <= entries - 95, "the recent ones are known finely: {index}");
    }
}
