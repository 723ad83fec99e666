//! Compactions that keep out of the way.
//!
//! A compaction takes a core for seconds, and the nodes of a cluster hold the same rows, so they tend to compact at the
//! same time. Under load it rests for most of the time, so that whoever answers requests finds a core free, and the
//! work is spread over the time in which its rows were written. RocksDB's own bound, of bytes a second, is either too low
//! for a burst or too high to matter; but it shows each row that it compacts to a filter. This one keeps them all, and
//! takes its time.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

/// So many tables of the youngest level make RocksDB compact them.
pub(super) const COMPACT_FROM: u64 = 8;
/// Parts of rest to one part of work, while there are fewer tables than that: the further a compaction falls behind what is
/// written, the less it rests, and it finds its own balance. From the last on it does not rest: RocksDB slows writes down soon.
const RESTS: [(u64, u32); 4] = [(11, 7), (14, 3), (17, 2), (20, 1)];
/// RocksDB's two bounds: from the one on it slows writes down, at the other it stops them.
pub(super) const SLOW_DOWN_FROM: u64 = 28;
pub(super) const STOP_AT: u64 = 44;

/// Nothing written for so long: nobody is in a hurry, so a compaction need not wait.
const QUIET: Duration = Duration::from_millis(100);
/// The shortest piece of work between two rests: long against a switch of threads, short against an fsync and a round
/// trip, which is what a request waits for anyway.
const WORK: Duration = Duration::from_millis(1);
/// The longest rest: a piece of work is longer than [`WORK`] when the thread stood still, and need not be made up for.
const REST_MAX: Duration = Duration::from_millis(10);
/// Looking at the clock for every row would take longer than some rows do.
const ROWS_BETWEEN_LOOKS: u32 = 128;

/// How much is written, as those who write tell.
#[derive(Debug)]
pub(super) struct Load {
    began: Instant,
    /// Since `began`, of the last write.
    last_write_us: AtomicU64,
    /// Tables of the youngest level at some write of the last [`QUIET`].
    young_tables: AtomicU64,
    counted_us: AtomicU64,
}

impl Load {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            // As if nothing had been written for long.
            last_write_us: AtomicU64::new(0),
            young_tables: AtomicU64::new(0),
            counted_us: AtomicU64::new(0),
        })
    }

    /// Something was written. Counting the tables takes a lock of RocksDB's, so it is done now and then.
    pub(super) fn written(&self, young_tables: impl FnOnce() -> u64) {
        let now_us = self.us_at(Instant::now());
        self.last_write_us.store(now_us, Ordering::Relaxed);
        let counted_us = self.counted_us.load(Ordering::Relaxed);
        if now_us.saturating_sub(counted_us) >= QUIET.as_micros() as u64 {
            self.counted_us.store(now_us, Ordering::Relaxed);
            self.young_tables.store(young_tables(), Ordering::Relaxed);
        }
    }

    /// Parts of rest to one part of work.
    fn rest(&self, now: Instant) -> u32 {
        let quiet_us = self
            .us_at(now)
            .saturating_sub(self.last_write_us.load(Ordering::Relaxed));
        if quiet_us > QUIET.as_micros() as u64 {
            return 0;
        }
        let young_tables = self.young_tables.load(Ordering::Relaxed);
        let rest = RESTS.iter().find(|(fewer_than, _)| young_tables < *fewer_than);
        rest.map_or(0, |(_, rest)| *rest)
    }

    fn us_at(&self, now: Instant) -> u64 {
        now.duration_since(self.began).as_micros() as u64
    }
}

/// Makes a [`Paced`] for each compaction.
pub(super) struct Pace(pub(super) Arc<Load>);

impl CompactionFilterFactory for Pace {
    type Filter = Paced;

    fn create(&mut self, context: CompactionFilterContext) -> Paced {
        Paced {
            load: self.0.clone(),
            // Somebody waits for the space that it frees.
            urgent: context.is_manual_compaction,
            rows: 0,
            worked_since: Instant::now(),
        }
    }

    fn name(&self) -> &CStr {
        c"quorate.pace"
    }
}

/// One compaction.
pub(super) struct Paced {
    load: Arc<Load>,
    urgent: bool,
    /// Since the last look at the clock.
    rows: u32,
    worked_since: Instant,
}

impl Paced {
    /// After some rows: how long to rest now.
    fn due(&self, now: Instant) -> Option<Duration> {
        let worked = now.duration_since(self.worked_since);
        (worked >= WORK && !self.urgent).then(|| (worked * self.load.rest(now)).min(REST_MAX))
    }
}

impl CompactionFilter for Paced {
    fn filter(&mut self, _level: u32, _key: &[u8], _value: &[u8]) -> Decision {
        self.rows += 1;
        if self.rows >= ROWS_BETWEEN_LOOKS {
            self.rows = 0;
            if let Some(rest) = self.due(Instant::now()) {
                std::thread::sleep(rest);
                self.worked_since = Instant::now();
            }
        }
        Decision::Keep
    }

    fn name(&self) -> &CStr {
        c"quorate.pace"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written to at this moment, when there were so many tables.
    fn load(young_tables: u64) -> (Arc<Load>, Instant) {
        let load = Load::new();
        load.young_tables.store(young_tables, Ordering::Relaxed);
        let now = load.began + Duration::from_secs(5);
        load.last_write_us.store(load.us_at(now), Ordering::Relaxed);
        (load, now)
    }

    fn paced(load: &Arc<Load>, worked_since: Instant, is_manual_compaction: bool) -> Paced {
        let mut paced = Pace(load.clone()).create(CompactionFilterContext {
            is_full_compaction: false,
            is_manual_compaction,
        });
        paced.worked_since = worked_since;
        paced
    }

    #[test]
    fn the_further_it_falls_behind_the_less_it_rests_and_not_at_all_before_writes_are_slowed_down() {
        let rests: Vec<u32> = (0..SLOW_DOWN_FROM)
            .map(|tables| {
                let (load, now) = load(tables);
                load.rest(now)
            })
            .collect();
        assert!(rests.is_sorted_by(|before, after| before >= after), "{rests:?}");
        assert_eq!(rests[usize::try_from(COMPACT_FROM).unwrap()], 7);
        assert_eq!(rests.last(), Some(&0));
    }

    #[test]
    fn when_nothing_is_written_it_does_not_rest() {
        let (load, now) = load(COMPACT_FROM);
        assert_eq!(load.rest(now + QUIET), 7);
        assert_eq!(load.rest(now + QUIET + Duration::from_millis(1)), 0);
        assert_eq!(Load::new().rest(now), 0, "nor before the first write");
    }

    #[test]
    fn it_rests_in_proportion_to_its_work_and_not_for_long() {
        let (load, now) = load(COMPACT_FROM);
        let rest_after = |work: Duration| paced(&load, now - work, false).due(now);
        assert_eq!(rest_after(WORK - Duration::from_micros(1)), None);
        assert_eq!(rest_after(WORK), Some(7 * WORK));
        assert_eq!(rest_after(Duration::from_secs(2)), Some(REST_MAX));
    }

    #[test]
    fn what_somebody_waits_for_does_not_rest() {
        let (load, now) = load(COMPACT_FROM);
        assert_eq!(paced(&load, now - 2 * WORK, true).due(now), None);
    }

    #[test]
    fn tables_are_counted_now_and_then() {
        let load = Load::new();
        load.counted_us.store(load.us_at(Instant::now()), Ordering::Relaxed);
        load.written(|| unreachable!("counted a moment ago"));
        load.counted_us.store(0, Ordering::Relaxed);
        let long_ago = load
            .began
            .checked_sub(2 * QUIET)
            .expect("the machine runs for longer than that");
        let load = Load {
            began: long_ago,
            ..Arc::into_inner(load).unwrap()
        };
        load.written(|| 9);
        assert_eq!(load.young_tables.load(Ordering::Relaxed), 9);
    }
}
