//! Compactions that keep out of the way.
//!
//! A compaction takes a core for seconds, and the nodes of a cluster hold the same rows, so they tend to compact at the
//! same time. Under load it rests for most of the time, so that whoever answers requests finds a core free, and the
//! work is spread over the time in which its rows were written, or read. RocksDB's own bound, of bytes a second, is either too low
//! for a burst or too high to matter; but it shows each row that it compacts to a filter. This one keeps them all, and
//! takes its time. (Rows that are deleted, or written anew since, it does not see: they are dropped without a rest.)

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

/// What RocksDB calls it in its files of options.
const NAME: &CStr = c"quorate.pace";

/// So many tables of the youngest level make RocksDB compact them.
pub(super) const COMPACT_FROM: u64 = 8;
/// Parts of rest to one part of work, while there are fewer tables than that: the further a compaction falls behind what is
/// written, the less it rests, and it finds its own balance. From the last on it does not rest: RocksDB slows writes down soon.
const RESTS: [(u64, u32); 4] = [(11, 7), (14, 3), (17, 2), (20, 1)];
/// RocksDB's two bounds: from the one on it slows writes down, at the other it stops them.
pub(super) const SLOW_DOWN_FROM: u64 = 28;
pub(super) const STOP_AT: u64 = 44;

/// Nothing read or written for so long: nobody is in a hurry, so a compaction need not wait.
const QUIET: Duration = Duration::from_millis(100);
/// The shortest piece of work between two rests: long against a switch of threads, short against an fsync and a round
/// trip, which is what a request waits for anyway.
const WORK: Duration = Duration::from_millis(1);
/// The longest rest: a piece of work is much longer than [`WORK`] only when the thread stood still, and need not be made up for.
const REST_MAX: Duration = Duration::from_millis(20);
/// Looking at the clock for every row would take longer than some rows do. So much of rows and bytes takes some tenths of a
/// millisecond.
const ROWS_BETWEEN_LOOKS: usize = 128;
const BYTES_BETWEEN_LOOKS: usize = 64 << 10;

/// How much the state is asked for, as those who read and write tell.
#[derive(Debug)]
pub(super) struct Load {
    began: Instant,
    /// Since `began`, of the last read or write.
    last_use_us: AtomicU64,
    /// Tables of the youngest level at some use of the last [`QUIET`].
    young_tables: AtomicU64,
    counted_us: AtomicU64,
    /// Those who wait for a compaction now.
    waiters: AtomicUsize,
}

impl Load {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            // As if nobody had come for long.
            last_use_us: AtomicU64::new(0),
            young_tables: AtomicU64::new(0),
            counted_us: AtomicU64::new(0),
            waiters: AtomicUsize::new(0),
        })
    }

    /// Until it is dropped somebody waits for the space that compactions free, and none of them rests.
    pub(super) fn hurry(&self) -> Hurry<'_> {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        Hurry(self)
    }

    /// Something is read, or was written. Counting the tables takes a lock of RocksDB's, so it is done now and then.
    pub(super) fn used(&self, young_tables: impl FnOnce() -> u64) {
        let now_us = self.us_at(Instant::now());
        self.last_use_us.store(now_us, Ordering::Relaxed);
        let counted_us = self.counted_us.load(Ordering::Relaxed);
        if now_us.saturating_sub(counted_us) >= QUIET.as_micros() as u64 {
            self.counted_us.store(now_us, Ordering::Relaxed);
            self.young_tables.store(young_tables(), Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    pub(super) fn is_in_use(&self) -> bool {
        self.last_use_us.load(Ordering::Relaxed) > 0
    }

    /// Parts of rest to one part of work.
    fn rest(&self, now: Instant) -> u32 {
        let quiet_us = self.us_at(now).saturating_sub(self.last_use_us.load(Ordering::Relaxed));
        if quiet_us > QUIET.as_micros() as u64 || self.waiters.load(Ordering::Relaxed) > 0 {
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

/// See [`Load::hurry`].
pub(super) struct Hurry<'a>(&'a Load);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes a [`Paced`] for each compaction.
pub(super) struct Pace(pub(super) Arc<Load>);

impl CompactionFilterFactory for Pace {
    type Filter = Paced;

    fn create(&mut self, _: CompactionFilterContext) -> Paced {
        Paced {
            load: self.0.clone(),
            rows: 0,
            bytes: 0,
            worked_since: Instant::now(),
        }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

/// One compaction.
pub(super) struct Paced {
    load: Arc<Load>,
    /// Since the last look at the clock.
    rows: usize,
    bytes: usize,
    worked_since: Instant,
}

impl Paced {
    /// After some rows: how long to rest now.
    fn due(&self, now: Instant) -> Option<Duration> {
        let worked = now.duration_since(self.worked_since);
        (worked >= WORK).then(|| (worked * self.load.rest(now)).min(REST_MAX))
    }
}

impl CompactionFilter for Paced {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> Decision {
        self.rows += 1;
        self.bytes += key.len() + value.len();
        if self.rows >= ROWS_BETWEEN_LOOKS || self.bytes >= BYTES_BETWEEN_LOOKS {
            (self.rows, self.bytes) = (0, 0);
            if let Some(rest) = self.due(Instant::now()) {
                std::thread::sleep(rest);
                self.worked_since = Instant::now();
            }
        }
        Decision::Keep
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In use at this moment, when there were so many tables.
    fn load(young_tables: u64) -> (Arc<Load>, Instant) {
        let load = Load::new();
        load.young_tables.store(young_tables, Ordering::Relaxed);
        let now = load.began + Duration::from_secs(5);
        load.last_use_us.store(load.us_at(now), Ordering::Relaxed);
        (load, now)
    }

    fn paced(load: &Arc<Load>, worked_since: Instant) -> Paced {
        let mut paced = Pace(load.clone()).create(CompactionFilterContext {
            is_full_compaction: false,
            is_manual_compaction: false,
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
    fn when_nobody_comes_it_does_not_rest() {
        let (load, now) = load(COMPACT_FROM);
        assert_eq!(load.rest(now + QUIET), 7);
        assert_eq!(load.rest(now + QUIET + Duration::from_millis(1)), 0);
        assert_eq!(Load::new().rest(now), 0, "nor before the first one");
    }

    #[test]
    fn it_rests_in_proportion_to_its_work_and_not_for_long() {
        let (load, now) = load(COMPACT_FROM);
        let rest_after = |work: Duration| paced(&load, now - work).due(now);
        assert_eq!(rest_after(WORK - Duration::from_micros(1)), None);
        assert_eq!(rest_after(WORK), Some(7 * WORK));
        assert_eq!(rest_after(2 * WORK), Some(14 * WORK));
        assert_eq!(rest_after(Duration::from_secs(2)), Some(REST_MAX));
    }

    #[test]
    fn while_somebody_waits_for_it_it_does_not_rest() {
        let (load, now) = load(COMPACT_FROM);
        let (one, other) = (load.hurry(), load.hurry());
        assert_eq!(load.rest(now), 0);
        drop(one);
        assert_eq!(load.rest(now), 0);
        drop(other);
        assert_eq!(load.rest(now), 7);
    }

    #[test]
    fn large_rows_and_many_rows_make_it_look_at_the_clock() {
        let (load, _) = load(COMPACT_FROM);
        load.last_use_us.store(u64::MAX, Ordering::Relaxed);
        for (rows, value) in [(ROWS_BETWEEN_LOOKS, &[][..]), (1, &[0; BYTES_BETWEEN_LOOKS])] {
            let mut paced = paced(
                &load,
                Instant::now().checked_sub(WORK).expect("the machine runs for longer"),
            );
            let before = paced.worked_since;
            for row in 1..=rows {
                assert_eq!(paced.worked_since, before, "row {row}");
                assert!(matches!(paced.filter(1, &[], value), Decision::Keep));
            }
            assert!(paced.worked_since >= before + 8 * WORK, "it has rested");
        }
    }

    #[test]
    fn tables_are_counted_now_and_then() {
        let load = Load::new();
        load.counted_us.store(load.us_at(Instant::now()), Ordering::Relaxed);
        load.used(|| unreachable!("counted a moment ago"));
        load.counted_us.store(0, Ordering::Relaxed);
        let long_ago = load
            .began
            .checked_sub(2 * QUIET)
            .expect("the machine runs for longer than that");
        let load = Load {
            began: long_ago,
            ..Arc::into_inner(load).unwrap()
        };
        load.used(|| 9);
        assert_eq!(load.young_tables.load(Ordering::Relaxed), 9);
    }
}
