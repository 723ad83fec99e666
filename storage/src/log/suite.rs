//! What every log store does, tried on both: scenarios, and random sequences that must leave the two
//! alike.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::error::{FatalHook, OpenError};

pub(super) fn id(term: u64, index: u64) -> LogId {
    LogId { term, leader: 1, index }
}

pub(super) fn record(term: u64, index: u64) -> Record {
    Record {
        id: id(term, index),
        payload: Bytes::from(format!("payload {term} {index}")),
    }
}

pub(super) fn records(term: u64, indexes: std::ops::Range<u64>) -> Vec<Record> {
    indexes.map(|index| record(term, index)).collect()
}

pub(super) fn vote(term: u64) -> Vote {
    Vote {
        term,
        leader: 1,
        committed: false,
    }
}

/// Makes a change and waits for its end.
pub(super) fn wait(change: impl FnOnce(Done)) -> io::Result<()> {
    let (to, from) = channel();
    change(Box::new(move |result| to.send(result).expect("the test listens")));
    from.recv().expect("each change is answered")
}

pub(super) fn append(log: &impl LogStore, records: Vec<Record>) -> io::Result<()> {
    wait(|done| log.append(records, done))
}

pub(super) fn all(log: &impl LogStore) -> Vec<LogId> {
    log.read(0, u64::MAX, usize::MAX)
        .unwrap()
        .iter()
        .map(|record| record.id)
        .collect()
}

pub(super) fn ids(term: u64, indexes: std::ops::Range<u64>) -> Vec<LogId> {
    indexes.map(|index| id(term, index)).collect()
}

pub(crate) fn no_failure() -> FatalHook {
    Arc::new(|reason| panic!("the disk has failed: {reason}"))
}

/// Copies files as they are, as a killed process leaves them: all of one moment. A database that is still
/// open removes files in the background, so a copy during which something changed is begun anew.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let before = files_below(from);
        let copied = try_copy_tree(from, to);
        if copied.is_ok() && before.is_ok() && files_below(from).ok() == before.ok() {
            return;
        }
        assert!(Instant::now() < deadline, "{} never rests: {copied:?}", from.display());
        fs::remove_dir_all(to).unwrap();
    }
}

fn try_copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => try_copy_tree(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

/// Paths and sizes.
fn files_below(dir: &Path) -> io::Result<BTreeMap<PathBuf, u64>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let data = entry.metadata()?;
        match data.is_dir() {
            true => files.extend(files_below(&entry.path())?),
            false => drop(files.insert(entry.path(), data.len())),
        }
    }
    Ok(files)
}

/// A cache of a few entries, so that most reads go to the disk.
pub(super) fn small() -> LogOptions {
    LogOptions {
        cache_bytes_max: 300,
        ..LogOptions::default()
    }
}

pub(super) fn open(dir: &Path) -> Result<RocksLog, OpenError> {
    RocksLog::open(&dir.join("log"), small(), no_failure())
}

// Scenarios for both.

fn an_empty_log_is_empty(log: impl LogStore) {
    assert_eq!(log.state(), LogState::default());
    assert_eq!(all(&log), []);
    assert_eq!(*log.flushed().borrow(), None);
}

fn entries_are_kept_in_order(log: impl LogStore) {
    append(&log, records(1, 0..3)).unwrap();
    append(&log, records(2, 3..20)).unwrap();
    assert_eq!(all(&log), [ids(1, 0..3), ids(2, 3..20)].concat());
    assert_eq!(log.state().last, Some(id(2, 19)));
    assert_eq!(*log.flushed().borrow(), Some(id(2, 19)));
    let some = log.read(2, 4, usize::MAX).unwrap();
    assert_eq!(some, [record(1, 2), record(2, 3)]);
}

fn a_budget_gives_less_but_never_nothing(log: impl LogStore) {
    append(&log, records(1, 0..20)).unwrap();
    let cost = record(1, 0).cost_bytes();
    assert_eq!(log.read(0, 20, 3 * cost).unwrap(), records(1, 0..3));
    assert_eq!(log.read(17, 20, 2 * cost + 2).unwrap(), records(1, 17..19));
    assert_eq!(log.read(5, 20, 0).unwrap(), records(1, 5..6));
    assert_eq!(log.read(20, 30, 0).unwrap(), []);
}

/// Openraft's first entry need not be 0 after a snapshot, nor in its own storage tests.
fn an_empty_log_may_begin_anywhere(log: impl LogStore) {
    append(&log, records(1, 7..9)).unwrap();
    assert_eq!(all(&log), ids(1, 7..9));
    wait(|done| log.truncate_after(None, done)).unwrap();
    append(&log, records(2, 3..4)).unwrap();
    assert_eq!(all(&log), ids(2, 3..4));
}

fn entries_that_do_not_follow_are_refused(log: impl LogStore) {
    append(&log, records(1, 0..3)).unwrap();
    for wrong in [records(1, 4..5), records(1, 2..3), vec![record(1, 3), record(1, 5)]] {
        assert_eq!(append(&log, wrong).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(all(&log), ids(1, 0..3));
    append(&log, vec![]).unwrap();
    append(&log, records(1, 3..4)).unwrap();
    assert_eq!(log.state().last, Some(id(1, 3)));
}

fn votes_and_committed_are_kept(log: impl LogStore) {
    wait(|done| log.save_vote(vote(5), done)).unwrap();
    append(&log, records(1, 0..3)).unwrap();
    log.save_committed(Some(id(1, 1)));
    assert_eq!(
        log.state(),
        LogState {
            purged: None,
            last: Some(id(1, 2)),
            committed: Some(id(1, 1)),
            vote: Some(vote(5)),
        }
    );
    log.save_committed(None);
    assert_eq!(log.state().committed, None);
}

fn a_truncation_takes_back_what_was_flushed(log: impl LogStore) {
    append(&log, records(1, 0..20)).unwrap();
    wait(|done| log.truncate_after(Some(25), done)).unwrap();
    wait(|done| log.truncate_after(Some(19), done)).unwrap();
    assert_eq!(log.state().last, Some(id(1, 19)));
    // Below the small cache: the last id must be looked up.
    let (to, from) = channel();
    log.truncate_after(
        Some(4),
        Box::new(move |result| to.send(result).expect("the test listens")),
    );
    assert_eq!(log.state().last, Some(id(1, 4)), "visible at once");
    assert_eq!(*log.flushed().borrow(), Some(id(1, 4)));
    from.recv().unwrap().unwrap();
    append(&log, records(2, 5..7)).unwrap();
    assert_eq!(all(&log), [ids(1, 0..5), ids(2, 5..7)].concat());
    wait(|done| log.truncate_after(None, done)).unwrap();
    assert_eq!((log.state().last, *log.flushed().borrow()), (None, None));
    assert_eq!(all(&log), []);
}

fn a_purge_leaves_its_mark(log: impl LogStore) {
    append(&log, records(1, 0..20)).unwrap();
    wait(|done| log.purge(id(1, 4), done)).unwrap();
    assert_eq!(all(&log), ids(1, 5..20));
    assert_eq!(
        (log.state().purged, log.state().last),
        (Some(id(1, 4)), Some(id(1, 19)))
    );
    wait(|done| log.purge(id(1, 2), done)).unwrap();
    assert_eq!(log.state().purged, Some(id(1, 4)), "a purge never goes back");
    wait(|done| log.truncate_after(None, done)).unwrap();
    assert_eq!(log.state().last, Some(id(1, 4)), "what was purged cannot be truncated");
    append(&log, records(2, 5..6)).unwrap();
    assert_eq!(all(&log), ids(2, 5..6));
}

/// After a snapshot was installed, the log goes on behind it.
fn a_purge_may_go_beyond_the_end(log: impl LogStore) {
    append(&log, records(1, 0..3)).unwrap();
    wait(|done| log.purge(id(4, 10), done)).unwrap();
    assert_eq!(
        (log.state().purged, log.state().last),
        (Some(id(4, 10)), Some(id(4, 10)))
    );
    assert_eq!(*log.flushed().borrow(), Some(id(4, 10)));
    assert_eq!(all(&log), []);
    assert!(append(&log, records(4, 3..4)).is_err());
    append(&log, records(4, 11..13)).unwrap();
    assert_eq!(all(&log), ids(4, 11..13));
}

/// Entries of 100 KiB.
fn large(term: u64, indexes: std::ops::Range<u64>) -> Vec<Record> {
    let payload = Bytes::from(vec![7; (100 << 10) - 64]);
    let entry = |index| Record {
        id: id(term, index),
        payload: payload.clone(),
    };
    indexes.map(entry).collect()
}

fn a_log_can_be_kept_to_a_size(log: impl LogStore) {
    const ENTRY_BYTES: u64 = 100 << 10;
    // As much as a store may know only coarsely.
    const SLACK: u64 = (1 << 20) + 2 * ENTRY_BYTES;
    assert_eq!(log.index_to_keep_bytes(0), None);
    (0..20).for_each(|n| append(&log, large(1, 5 * n..5 * n + 5)).unwrap());
    for bytes in (0..100 * ENTRY_BYTES).step_by(777_777) {
        let index = log.index_to_keep_bytes(bytes).unwrap();
        let kept = (99 - index) * ENTRY_BYTES;
        assert!(kept <= bytes && kept + SLACK > bytes, "{kept} of {bytes}");
    }
    assert_eq!(log.index_to_keep_bytes(0), Some(99));
    assert_eq!(log.index_to_keep_bytes(100 * ENTRY_BYTES), None);
    let index = log.index_to_keep_bytes(50 * ENTRY_BYTES).unwrap();
    wait(|done| log.purge(id(1, index), done)).unwrap();
    assert_eq!(log.index_to_keep_bytes(50 * ENTRY_BYTES + SLACK / 2), None);
    wait(|done| log.truncate_after(Some(79), done)).unwrap();
    assert_eq!(log.index_to_keep_bytes(0), Some(79));
    assert_eq!(log.index_to_keep_bytes(30 * ENTRY_BYTES + SLACK / 2), None);
    append(&log, large(2, 80..100)).unwrap();
    assert_eq!(log.index_to_keep_bytes(0), Some(99));
    wait(|done| log.purge(id(2, 200), done)).unwrap();
    assert_eq!(log.index_to_keep_bytes(0), None);
    append(&log, large(2, 201..202)).unwrap();
    assert_eq!(log.index_to_keep_bytes(0), Some(201));
}

fn a_log_can_be_kept_to_an_age(log: impl LogStore) {
    assert_eq!(log.index_older_than(Duration::ZERO), None);
    append(&log, records(1, 0..5)).unwrap();
    assert_eq!(log.index_older_than(Duration::from_secs(3600)), None);
    // True as soon as the clock has moved.
    while log.index_older_than(Duration::ZERO) != Some(4) {
        std::thread::yield_now();
    }
    wait(|done| log.purge(id(1, 9), done)).unwrap();
    assert_eq!(log.index_older_than(Duration::ZERO), None);
}

fn answers_come_in_order(log: impl LogStore) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let done = |name: u64| -> Done {
        let told = told.clone();
        Box::new(move |result| told.lock().unwrap().push((name, result.is_ok())))
    };
    for index in 0..300 {
        match index % 50 {
            49 => log.truncate_after(Some(u64::MAX), done(index)),
            30 => log.save_vote(vote(index), done(index)),
            _ => log.append(vec![], done(index)),
        }
    }
    wait(|done| log.save_vote(vote(1000), done)).unwrap();
    assert_eq!(
        *told.lock().unwrap(),
        (0..300).map(|name| (name, true)).collect::<Vec<_>>()
    );
}

macro_rules! on_both {
    ($($scenario:ident),* $(,)?) => {
        mod rocks_log {
            $(#[test] fn $scenario() {
                let dir = tempfile::tempdir().unwrap();
                super::$scenario(super::open(dir.path()).unwrap());
            })*
        }
        mod memory_log {
            $(#[test] fn $scenario() {
                super::$scenario(super::MemoryLog::new());
            })*
        }
    };
}

on_both!(
    an_empty_log_is_empty,
    entries_are_kept_in_order,
    a_budget_gives_less_but_never_nothing,
    an_empty_log_may_begin_anywhere,
    entries_that_do_not_follow_are_refused,
    votes_and_committed_are_kept,
    a_truncation_takes_back_what_was_flushed,
    a_purge_leaves_its_mark,
    a_purge_may_go_beyond_the_end,
    a_log_can_be_kept_to_a_size,
    a_log_can_be_kept_to_an_age,
    answers_come_in_order,
);

// The twins, held against each other.

#[derive(Debug, Clone)]
enum Step {
    /// A number of entries of a payload size, by a leader of a term not below the last.
    Append {
        entries: u64,
        payload_bytes: usize,
        term_up: bool,
    },
    /// How many of the last entries go.
    Truncate(u64),
    /// How far above the purged ones (and perhaps beyond the end).
    Purge(u64),
    Vote,
    Commit,
    Read {
        from: u64,
        length: u64,
        bytes_max: usize,
    },
    /// Close and open; or open a copy of the files as they are, as after kill -9.
    Reopen {
        cleanly: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6u64, 0..200usize, any::<bool>())
            .prop_map(|(entries, payload_bytes, term_up)| Step::Append { entries, payload_bytes, term_up }),
        2 => (0..8u64).prop_map(Step::Truncate),
        2 => (0..8u64).prop_map(Step::Purge),
        1 => Just(Step::Vote),
        1 => Just(Step::Commit),
        4 => (0..40u64, 0..20u64, 0..1000usize)
            .prop_map(|(from, length, bytes_max)| Step::Read { from, length, bytes_max }),
        1 => any::<bool>().prop_map(|cleanly| Step::Reopen { cleanly }),
    ]
}

struct Twins {
    dir: tempfile::TempDir,
    opened: u64,
    rocks: RocksLog,
    memory: MemoryLog,
    term: u64,
}

impl Twins {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rocks = open(&dir.path().join("0")).unwrap();
        Twins {
            dir,
            opened: 0,
            rocks,
            memory: MemoryLog::new(),
            term: 1,
        }
    }

    fn play(&mut self, step: &Step) {
        let state = self.memory.state();
        let next = state.last.map_or(0, |last| last.index + 1);
        match *step {
            Step::Append {
                entries,
                payload_bytes,
                term_up,
            } => {
                self.term += u64::from(term_up);
                let payload = Bytes::from(vec![7; payload_bytes]);
                let entry = |index| Record {
                    id: id(self.term, index),
                    payload: payload.clone(),
                };
                let entries: Vec<Record> = (next..next + entries).map(entry).collect();
                append(&self.rocks, entries.clone()).unwrap();
                append(&self.memory, entries).unwrap();
            }
            Step::Truncate(count) => {
                // What is committed is never truncated (Raft, section 5.4), and neither store cares.
                let last = next.checked_sub(count + 1).max(state.committed.map(|id| id.index));
                wait(|done| self.rocks.truncate_after(last, done)).unwrap();
                wait(|done| self.memory.truncate_after(last, done)).unwrap();
            }
            Step::Purge(count) => {
                let index = state.purged.map_or(0, |purged| purged.index) + count;
                let at = self
                    .memory
                    .read(index, index + 1, 0)
                    .unwrap()
                    .first()
                    .map(|record| record.id);
                let upto = at.unwrap_or(id(self.term, index));
                wait(|done| self.rocks.purge(upto, done)).unwrap();
                wait(|done| self.memory.purge(upto, done)).unwrap();
            }
            Step::Vote => {
                self.term += 1;
                wait(|done| self.rocks.save_vote(vote(self.term), done)).unwrap();
                wait(|done| self.memory.save_vote(vote(self.term), done)).unwrap();
            }
            Step::Commit => {
                self.rocks.save_committed(state.last);
                self.memory.save_committed(state.last);
            }
            Step::Read {
                from,
                length,
                bytes_max,
            } => {
                let read = |log: &dyn Fn(u64, u64, usize) -> io::Result<Vec<Record>>| {
                    log(from, from + length, bytes_max).unwrap()
                };
                assert_eq!(
                    read(&|from, to, max| self.rocks.read(from, to, max)),
                    read(&|from, to, max| self.memory.read(from, to, max))
                );
            }
            Step::Reopen { cleanly } => self.reopen(cleanly),
        }
        assert_eq!(self.rocks.state(), self.memory.state());
        assert_eq!(*self.rocks.flushed().borrow(), *self.memory.flushed().borrow());
        let present = all(&self.memory);
        assert_eq!(all(&self.rocks), present);
        let stats = self.rocks.stats();
        assert_eq!(stats.first_index, present.first().map(|id| id.index));
        assert_eq!(stats.retained_entries, present.len() as u64);
    }

    fn reopen(&mut self, cleanly: bool) {
        // What travels unsynced is only certain to arrive with a later change.
        append(&self.rocks, vec![]).unwrap();
        wait(|done| self.rocks.save_vote(vote(self.term), done)).unwrap();
        wait(|done| self.memory.save_vote(vote(self.term), done)).unwrap();
        let old = self.dir.path().join(self.opened.to_string());
        if cleanly {
            self.rocks.close();
            assert!(append(&self.rocks, vec![]).is_err());
        }
        self.opened += 1;
        let new = self.dir.path().join(self.opened.to_string());
        copy_tree(&old, &new);
        self.rocks = open(&new).unwrap();
        fs::remove_dir_all(old).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_twins_stay_alike(steps in prop::collection::vec(step(), 1..40)) {
        let mut twins = Twins::new();
        steps.iter().for_each(|step| twins.play(step));
    }
}

// The memory twin's crash.

#[test]
fn a_crash_of_the_memory_log_forgets_what_was_not_flushed() {
    let told = Arc::new(Mutex::new(0));
    let count = || -> Done {
        let told = told.clone();
        Box::new(move |result| *told.lock().unwrap() += u32::from(result.is_ok()))
    };
    let log = MemoryLog::new_manual();
    log.append(records(1, 0..5), count());
    log.save_vote(vote(1), count());
    assert_eq!((*told.lock().unwrap(), *log.flushed().borrow()), (0, None));
    log.flush();
    assert_eq!((*told.lock().unwrap(), *log.flushed().borrow()), (2, Some(id(1, 4))));
    log.truncate_after(Some(2), count());
    assert_eq!(
        *log.flushed().borrow(),
        Some(id(1, 2)),
        "what is durable but cut does not count"
    );
    log.append(records(2, 3..9), count());
    log.save_vote(vote(2), count());
    log.save_committed(Some(id(2, 4)));
    assert_eq!(log.state().last, Some(id(2, 8)));
    let after = log.crash();
    assert_eq!(
        after.state(),
        LogState {
            last: Some(id(1, 4)),
            vote: Some(vote(1)),
            ..LogState::default()
        }
    );
    assert_eq!(*after.flushed().borrow(), Some(id(1, 4)));
    assert_eq!(*told.lock().unwrap(), 2, "nobody is told of what a crash took");
    log.append(records(2, 9..10), Box::new(|result| assert!(result.is_err())));
    after.append(records(3, 5..6), count());
    assert_eq!(*told.lock().unwrap(), 2, "a manual log stays manual");
}
