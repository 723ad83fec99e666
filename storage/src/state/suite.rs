//! What every state store does, tried on both: scenarios, and random sequences that must leave the
//! two alike. Then what only a disk can do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::error::OpenError;
pub(super) use crate::log::suite::no_failure;

fn id(index: u64) -> LogId {
    LogId {
        term: 1,
        leader: 1,
        index,
    }
}

pub(super) fn applied(index: u64) -> Applied {
    Applied {
        last: Some(id(index)),
        membership: vec![index as u8; 3],
    }
}

pub(super) fn put(key: &str, value: &str) -> Change {
    Change::Put {
        key: key.into(),
        value: value.into(),
    }
}

fn delete(key: &str) -> Change {
    Change::Delete { key: key.into() }
}

fn delete_range(from: &str, to: &str) -> Change {
    Change::DeleteRange {
        from: from.into(),
        to: to.into(),
    }
}

fn get(state: &impl StateStore, key: &str) -> Option<String> {
    state
        .read(|view| view.get(key.as_bytes()).unwrap())
        .map(|value| String::from_utf8(value).unwrap())
}

/// The keys that a scan gives, as one text.
fn scan(state: &impl StateStore, from: &str, to: &str, reverse: bool, limit: usize) -> String {
    let pairs = state.read(|view| view.scan(from.as_bytes(), to.as_bytes(), reverse, limit).unwrap());
    pairs
        .iter()
        .map(|(key, _)| String::from_utf8(key.clone()).unwrap())
        .collect::<Vec<_>>()
        .join(" ")
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn rows(state: &impl StateStore) -> Rows {
    state.read(|view| view.scan(&[], &[0xff], false, usize::MAX).unwrap())
}

fn open(dir: &Path) -> Result<RocksState, OpenError> {
    RocksState::open(&dir.join("state"), StateOptions::default(), no_failure())
}

// Scenarios for both. `tmp` is a place for checkpoints.

fn a_new_state_is_empty(state: impl StateStore, _tmp: &Path) {
    assert_eq!(
        (state.applied().unwrap(), state.installed()),
        (Applied::default(), None)
    );
    assert_eq!(rows(&state), []);
}

fn changes_happen_in_order_with_what_was_applied(state: impl StateStore, _tmp: &Path) {
    let changes = vec![
        put("a", "1"),
        put("b", "1"),
        put("c", "1"),
        delete_range("a", "c"),
        put("b", "2"),
        delete("c"),
        put("d", ""),
    ];
    state.write(changes, &applied(7)).unwrap();
    assert_eq!(scan(&state, "a", "z", false, 9), "b d");
    assert_eq!(
        (
            get(&state, "b").as_deref(),
            get(&state, "a"),
            get(&state, "d").as_deref()
        ),
        (Some("2"), None, Some(""))
    );
    assert_eq!(state.applied().unwrap(), applied(7));
    state
        .write(
            vec![delete_range("d", "a"), delete_range("d", "d"), delete("none")],
            &applied(8),
        )
        .unwrap();
    assert_eq!(
        scan(&state, "a", "z", false, 9),
        "b d",
        "an empty range deletes nothing"
    );
    assert_eq!(state.applied().unwrap(), applied(8));
}

fn scans_keep_their_bounds(state: impl StateStore, _tmp: &Path) {
    state
        .write("a b c d e".split(' ').map(|key| put(key, key)).collect(), &applied(1))
        .unwrap();
    assert_eq!(scan(&state, "b", "d", false, 9), "b c");
    assert_eq!(scan(&state, "b", "d", true, 9), "c b");
    assert_eq!(scan(&state, "", "z", true, 2), "e d");
    assert_eq!(scan(&state, "b", "zz", false, 2), "b c");
    assert_eq!(scan(&state, "bb", "bz", false, 9), "");
    assert_eq!(scan(&state, "d", "b", false, 9), "");
    assert_eq!(scan(&state, "a", "z", false, 0), "");
}

fn values_are_shown_where_they_lie(state: impl StateStore, _tmp: &Path) {
    state
        .write("a b c d e".split(' ').map(|key| put(key, key)).collect(), &applied(1))
        .unwrap();
    let damaged = || Fatal::Corrupt("on purpose".to_owned());
    let look = |key: &str, is_damaged: bool| {
        let mut shown = None;
        let looked = state.read(|view| {
            view.look(key.as_bytes(), &mut |value| {
                shown = Some(value.to_vec());
                if is_damaged { Err(damaged()) } else { Ok(()) }
            })
        });
        (looked.map_err(|error| error.to_string()), shown)
    };
    let shown = Some(b"b".to_vec());
    assert_eq!(look("b", false), (Ok(true), shown.clone()));
    assert_eq!(look("bb", false), (Ok(false), None));
    assert_eq!(look("\0\0\0\0a", false), (Ok(false), None), "the store's own");
    assert_eq!(look("b", true), (Err(damaged().to_string()), shown));

    // An error ends the visit, and nothing more is shown.
    for (reverse, expected) in [(false, "a b"), (true, "e d")] {
        let mut shown = Vec::new();
        let visited = state.read(|view| {
            view.visit(b"a", b"z", reverse, 9, &mut |key, _| {
                shown.push(String::from_utf8(key.to_vec()).unwrap());
                if shown.len() == 2 { Err(damaged()) } else { Ok(()) }
            })
        });
        assert_eq!(visited.unwrap_err().to_string(), damaged().to_string());
        assert_eq!(shown.join(" "), expected);
    }
}

fn the_stores_own_keys_are_hidden_and_kept(state: impl StateStore, _tmp: &Path) {
    let first = "\0\0\0\u{1}";
    state.write(vec![put(first, "first")], &applied(1)).unwrap();
    assert_eq!(scan(&state, "", "\u{2}", false, 9), first);
    assert_eq!(scan(&state, "\0", "\u{2}", true, 9), first);
    assert_eq!(get(&state, "\0\0\0\0a"), None);
    for change in [
        put("\0\0\0\0a", "x"),
        put("", "x"),
        put("\0\0\0", "x"),
        delete("\0\0\0\0a"),
        delete_range("", "b"),
        delete_range("\0\0\0\0", "b"),
    ] {
        assert!(matches!(
            state.write(vec![put("k", "v"), change], &applied(2)),
            Err(Fatal::Corrupt(_))
        ));
    }
    assert_eq!((state.applied().unwrap(), get(&state, "k")), (applied(1), None));
}

fn the_hash_speaks_of_keys_and_values_only(state: impl StateStore, _tmp: &Path) {
    let empty = state.state_hash().unwrap();
    state.write(vec![], &applied(1)).unwrap();
    assert_eq!(
        state.state_hash().unwrap(),
        empty,
        "how far it was applied is not part of it"
    );
    state.write(vec![put("ab", "c"), put("x", "y")], &applied(2)).unwrap();
    let one = state.state_hash().unwrap();
    state.write(vec![delete("ab"), put("a", "bc")], &applied(3)).unwrap();
    let other = state.state_hash().unwrap();
    assert!(empty != one && one != other && other != empty);
    state
        .write(vec![delete("a"), put("ab", "z"), put("ab", "c")], &applied(4))
        .unwrap();
    assert_eq!(state.state_hash().unwrap(), one, "the way there is not part of it");
}

/// The hash is asked for between two entries and computed beside the applier.
fn a_later_hash_is_of_the_moment_when_it_was_asked_for(state: impl StateStore, tmp: &Path) {
    state.write(vec![put("a", "1"), put("b", "1")], &applied(1)).unwrap();
    let hash = state.state_hash().unwrap();
    let (first, second) = (state.hash_later(), state.hash_later());
    let dir = tmp.join("snapshot");
    state
        .write(vec![put("a", "2"), delete_range("b", "z"), put("c", "1")], &applied(2))
        .unwrap();
    state.checkpoint(&dir).unwrap();
    state.write(vec![delete("a")], &applied(3)).unwrap();
    assert_eq!(std::thread::spawn(first).join().unwrap().unwrap(), hash, "after writes");
    let third = state.hash_later();
    state.install(&dir).unwrap();
    state.write(vec![put("a", "4")], &applied(4)).unwrap();
    state.reclaim().unwrap();
    assert_eq!(second().unwrap(), hash, "after an installation");
    drop(third);
    assert_ne!(state.state_hash().unwrap(), hash);
}

/// Also when whoever would set it panics: others wait for it.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn a_read_sees_one_moment(state: impl StateStore, _tmp: &Path) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _done = SetOnDrop(&done);
            for n in 1..300 {
                let value = n.to_string();
                state
                    .write(vec![put("a", &value), put("b", &value)], &applied(n))
                    .unwrap();
            }
        });
        while !done.load(Ordering::Acquire) {
            let (a, b) = state.read(|view| (view.get(b"a").unwrap(), view.get(b"b").unwrap()));
            assert_eq!(a, b);
        }
    });
    assert_eq!(get(&state, "a").as_deref(), Some("299"));
}

/// Rows are found by their key and by their place, and by many at a time, while they change: each way finds the same, and
/// nothing older than what was written before.
fn a_row_is_the_same_however_it_is_read(state: impl StateStore, _tmp: &Path) {
    const ROWS: u64 = 7;
    const WRITES: u64 = 2000;
    let (written, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let check = || {
        let before = written.load(Ordering::Acquire);
        let read = |view: &dyn View| {
            let keys = (0..ROWS).map(|row| format!("row{row}").into_bytes());
            let by_key = keys.filter_map(|key| view.get(&key).unwrap().map(|value| (key, value)));
            let by_key: Vec<_> = by_key.collect();
            assert_eq!(by_key, view.scan(b"row", b"rox", false, 99).unwrap());
            by_key
        };
        let numbers = |rows: Vec<(Vec<u8>, Vec<u8>)>| -> Option<u64> {
            let number = |value: Vec<u8>| String::from_utf8(value).unwrap().parse().unwrap();
            rows.into_iter().map(|(_, value)| number(value)).max()
        };
        assert!(numbers(state.read(read)).unwrap_or(0) >= before, "{before}");
        assert!(numbers(state.read_once(read)).unwrap_or(0) >= before, "{before}");
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    check();
                }
            });
        }
        let _done = SetOnDrop(&done);
        for number in 1..=WRITES {
            let row = put(&format!("row{}", number * 3 % ROWS), &number.to_string());
            let changes = match number % 10 {
                0 => vec![delete_range("row2", "row5"), row],
                5 => vec![delete("row1"), row],
                _ => vec![row],
            };
            state.write(changes, &applied(number)).unwrap();
            written.store(number, Ordering::Release);
        }
    });
    check();
}

fn what_was_synced_or_installed_is_durable(state: impl StateStore, tmp: &Path) {
    assert_eq!(state.durable(), None);
    (1..=3).for_each(|number| state.write(vec![put("a", "1")], &applied(number)).unwrap());
    assert_eq!(state.durable(), None, "it is in memory");
    state.sync().unwrap();
    assert_eq!(state.durable(), Some(id(3)));
    state.write(vec![put("a", "2")], &applied(4)).unwrap();
    assert_eq!(state.durable(), Some(id(3)));
    let dir = tmp.join("checkpoint");
    state.checkpoint(&dir).unwrap();
    assert_eq!(state.durable(), Some(id(4)));
    state.write(vec![put("a", "3")], &applied(5)).unwrap();
    state.install(&dir).unwrap();
    assert_eq!(state.durable(), Some(id(4)));
}

fn a_checkpoint_can_be_installed(state: impl StateStore, tmp: &Path) {
    state.write(vec![put("a", "1"), put("b", "1")], &applied(5)).unwrap();
    let hash = state.state_hash().unwrap();
    let dir = tmp.join("snapshot");
    assert_eq!(state.checkpoint(&dir).unwrap(), applied(5));
    assert!(state.checkpoint(&dir).is_err(), "the directory exists");

    state.write(vec![put("a", "2"), delete("b")], &applied(6)).unwrap();
    assert_eq!(state.installed(), None);
    assert_eq!(state.install(&dir).unwrap(), applied(5));
    assert!(!dir.exists(), "it is used up");
    assert_eq!(
        (get(&state, "a").as_deref(), get(&state, "b").as_deref()),
        (Some("1"), Some("1"))
    );
    assert_eq!((state.applied().unwrap(), state.installed()), (applied(5), Some(id(5))));
    assert_eq!(state.state_hash().unwrap(), hash);

    state.write(vec![put("a", "3")], &applied(7)).unwrap();
    assert_eq!(get(&state, "a").as_deref(), Some("3"), "writes go to the new state");
    assert_eq!(state.checkpoint(&dir).unwrap(), applied(7));
    assert_eq!(state.install(&dir).unwrap(), applied(7), "and again");
    assert_eq!(state.installed(), Some(id(7)));
}

fn what_is_no_checkpoint_changes_nothing(state: impl StateStore, tmp: &Path) {
    state.write(vec![put("a", "1")], &applied(5)).unwrap();
    fs::create_dir(tmp.join("empty")).unwrap();
    assert!(state.install(&tmp.join("missing")).is_err());
    assert!(state.install(&tmp.join("empty")).is_err());
    assert_eq!(
        (get(&state, "a").as_deref(), state.applied().unwrap()),
        (Some("1"), applied(5))
    );
    state.write(vec![put("a", "2")], &applied(6)).unwrap();
    assert_eq!(get(&state, "a").as_deref(), Some("2"));
}

/// What the checkpoint says it contains must be what it contains, or entries are applied twice.
fn a_checkpoint_under_writes_is_one_moment(state: impl StateStore, tmp: &Path) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Acquire) {
                n += 1;
                state
                    .write(
                        vec![put("count", &n.to_string()), put(&format!("row{n}"), "x")],
                        &applied(n),
                    )
                    .unwrap();
            }
        });
        let _done = SetOnDrop(&done);
        (0..3)
            .map(|n| {
                let dir = tmp.join(n.to_string());
                let applied = state.checkpoint(&dir).unwrap();
                (dir, applied)
            })
            .collect::<Vec<(PathBuf, Applied)>>()
    })
    .into_iter()
    .for_each(|(dir, said)| {
        assert_eq!(state.install(&dir).unwrap(), said);
        let count = said.last.map_or(0, |last| last.index);
        assert_eq!(get(&state, "count"), (count > 0).then(|| count.to_string()));
        assert_eq!(rows(&state).len() as u64, if count > 0 { count + 1 } else { 0 });
    });
}

fn a_read_that_has_begun_finishes_on_the_old_state(state: impl StateStore, tmp: &Path) {
    state.write(vec![put("a", "old")], &applied(1)).unwrap();
    let dir = tmp.join("snapshot");
    state.checkpoint(&dir).unwrap();
    state.write(vec![put("a", "new")], &applied(2)).unwrap();
    let (began, reading) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            state.read(|view| {
                began.send(()).unwrap();
                for _ in 0..100 {
                    assert_eq!(view.get(b"a").unwrap().as_deref(), Some(&b"new"[..]));
                    std::thread::yield_now();
                }
            });
        });
        reading.recv().unwrap();
        state.install(&dir).unwrap();
    });
    assert_eq!(get(&state, "a").as_deref(), Some("old"));
}

macro_rules! on_both {
    ($($scenario:ident),* $(,)?) => {
        mod rocks_state {
            $(#[test] fn $scenario() {
                let dir = tempfile::tempdir().unwrap();
                let tmp = dir.path().join("tmp");
                std::fs::create_dir(&tmp).unwrap();
                super::$scenario(super::open(dir.path()).unwrap(), &tmp);
            })*
        }
        mod memory_state {
            $(#[test] fn $scenario() {
                let tmp = tempfile::tempdir().unwrap();
                super::$scenario(super::MemoryState::new(), tmp.path());
            })*
        }
    };
}

on_both!(
    a_new_state_is_empty,
    changes_happen_in_order_with_what_was_applied,
    scans_keep_their_bounds,
    values_are_shown_where_they_lie,
    the_stores_own_keys_are_hidden_and_kept,
    the_hash_speaks_of_keys_and_values_only,
    a_later_hash_is_of_the_moment_when_it_was_asked_for,
    a_read_sees_one_moment,
    a_row_is_the_same_however_it_is_read,
    what_was_synced_or_installed_is_durable,
    a_checkpoint_can_be_installed,
    what_is_no_checkpoint_changes_nothing,
    a_checkpoint_under_writes_is_one_moment,
    a_read_that_has_begun_finishes_on_the_old_state,
);

// The twins, held against each other.

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Change>),
    Sync,
    Checkpoint,
    /// The last checkpoint, if there is one.
    Install,
    Scan {
        from: Vec<u8>,
        to: Vec<u8>,
        reverse: bool,
        limit: usize,
    },
    Reopen,
}

/// Few keys, so that changes meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1..5u8, 1..4)
}

fn change() -> impl Strategy<Value = Change> {
    let value = prop::collection::vec(any::<u8>(), 0..8);
    prop_oneof![
        4 => (key(), value).prop_map(|(key, value)| Change::Put { key, value }),
        1 => key().prop_map(|key| Change::Delete { key }),
        1 => (key(), key()).prop_map(|(from, to)| Change::DeleteRange { from, to }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(change(), 0..8).prop_map(Step::Write),
        1 => Just(Step::Sync),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Install),
        4 => (prop::collection::vec(0..5u8, 0..4), key(), any::<bool>(), 0..10usize)
            .prop_map(|(from, to, reverse, limit)| Step::Scan { from, to, reverse, limit }),
        1 => Just(Step::Reopen),
    ]
}

struct Twins {
    dir: tempfile::TempDir,
    rocks: Option<RocksState>,
    memory: MemoryState,
    writes: u64,
    checkpoint: bool,
    /// Keys of all rows that there have been.
    keys: BTreeSet<Vec<u8>>,
}

impl Twins {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rocks = Some(open(dir.path()).unwrap());
        Twins {
            dir,
            rocks,
            memory: MemoryState::new(),
            writes: 0,
            checkpoint: false,
            keys: BTreeSet::new(),
        }
    }

    fn play(&mut self, step: Step) {
        let (of_rocks, of_memory) = (self.dir.path().join("rocks"), self.dir.path().join("memory"));
        let rocks = self.rocks.as_ref().unwrap();
        match step {
            Step::Write(changes) => {
                self.writes += 1;
                rocks.write(changes.clone(), &applied(self.writes)).unwrap();
                self.memory.write(changes, &applied(self.writes)).unwrap();
            }
            Step::Sync => {
                rocks.sync().unwrap();
                self.memory.sync().unwrap();
            }
            Step::Checkpoint => {
                small_remove(&of_rocks);
                small_remove(&of_memory);
                assert_eq!(
                    rocks.checkpoint(&of_rocks).unwrap(),
                    self.memory.checkpoint(&of_memory).unwrap()
                );
                self.checkpoint = true;
            }
            Step::Install if std::mem::take(&mut self.checkpoint) => {
                let installed = self.memory.install(&of_memory);
                assert_eq!(rocks.install(&of_rocks).is_ok(), installed.is_ok());
            }
            Step::Install => {}
            Step::Scan {
                from,
                to,
                reverse,
                limit,
            } => {
                let scan = |view: &dyn View| view.scan(&from, &to, reverse, limit).unwrap();
                assert_eq!(rocks.read(scan), self.memory.read(scan));
            }
            Step::Reopen => {
                drop(self.rocks.take());
                self.rocks = Some(open(self.dir.path()).unwrap());
                // A clean end loses nothing.
                self.memory.sync().unwrap();
                self.memory = self.memory.crash();
            }
        }
        let rocks = self.rocks.as_ref().unwrap();
        assert_eq!(rocks.applied().unwrap(), self.memory.applied().unwrap());
        assert_eq!(rocks.installed(), self.memory.installed());
        assert_eq!(rocks.state_hash().unwrap(), self.memory.state_hash().unwrap());
        let rows_now = rows(rocks);
        assert_eq!(rows_now, rows(&self.memory));
        // What was looked up after each step before may be remembered.
        self.keys.extend(rows_now.into_iter().map(|(key, _)| key));
        for key in &self.keys {
            let get = |view: &dyn View| view.get(key).unwrap();
            assert_eq!(rocks.read(get), self.memory.read(get), "{key:?}");
        }
    }
}

fn small_remove(dir: &Path) {
    if dir.exists() {
        fs::remove_dir_all(dir).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_twins_stay_alike(steps in prop::collection::vec(step(), 1..40)) {
        let mut twins = Twins::new();
        steps.into_iter().for_each(|step| twins.play(step));
    }
}

#[test]
fn a_crash_of_the_memory_state_forgets_what_was_not_synced() {
    let state = MemoryState::new();
    state.write(vec![put("a", "1")], &applied(1)).unwrap();
    state.sync().unwrap();
    state.write(vec![put("a", "2")], &applied(2)).unwrap();
    let after = state.crash();
    assert_eq!(
        (get(&after, "a").as_deref(), after.applied().unwrap()),
        (Some("1"), applied(1))
    );
}

// The disk.

fn generations(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("state")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| name.starts_with("gen-"));
    names.sort();
    names
}

#[test]
fn an_installed_state_survives_a_restart_and_replaces_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path()).unwrap();
    state.write(vec![put("a", "1")], &applied(5)).unwrap();
    state.checkpoint(&dir.path().join("snapshot")).unwrap();
    state.install(&dir.path().join("snapshot")).unwrap();
    assert_eq!(
        generations(dir.path()),
        ["gen-2"],
        "the old one goes with its last reader"
    );
    drop(state);
    let state = open(dir.path()).unwrap();
    assert_eq!((state.applied().unwrap(), state.installed()), (applied(5), Some(id(5))));
    assert_eq!(get(&state, "a").as_deref(), Some("1"));
}

/// A crash during an installation leaves the old state and a directory that nobody names.
#[test]
fn leftovers_of_an_installation_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path()).unwrap();
    state.write(vec![put("a", "1")], &applied(5)).unwrap();
    state.checkpoint(&dir.path().join("state/gen-2")).unwrap();
    fs::create_dir(dir.path().join("state/gen-7")).unwrap();
    fs::write(dir.path().join("state/POINTER.new"), "half").unwrap();
    state.write(vec![put("a", "2")], &applied(6)).unwrap();
    drop(state);
    let state = open(dir.path()).unwrap();
    assert_eq!(get(&state, "a").as_deref(), Some("2"));
    assert_eq!(generations(dir.path()), ["gen-1"]);
    assert!(!dir.path().join("state/POINTER.new").exists());
}

#[test]
fn leftovers_of_a_checkpoint_do_not_stop_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path()).unwrap();
    fs::create_dir(dir.path().join("snapshot.partial")).unwrap();
    fs::write(dir.path().join("snapshot.partial/CURRENT"), "half").unwrap();
    state.write(vec![put("a", "1")], &applied(5)).unwrap();
    assert_eq!(state.checkpoint(&dir.path().join("snapshot")).unwrap(), applied(5));
    assert!(!dir.path().join("snapshot.partial").exists());
}

#[test]
fn a_state_that_vanished_is_not_a_fresh_one() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    fs::remove_dir_all(dir.path().join("state/gen-1")).unwrap();
    let error = open(dir.path()).err().expect("refused");
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[test]
fn a_missing_pointer_is_noticed_once_a_snapshot_was_installed() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = Some(open(dir.path()).unwrap());
    for generation in ["gen-2", "gen-3"] {
        let state = state.take().unwrap_or_else(|| open(dir.path()).unwrap());
        state.checkpoint(&dir.path().join("snapshot")).unwrap();
        state.install(&dir.path().join("snapshot")).unwrap();
        drop(state);
        let pointer = fs::read(dir.path().join("state/POINTER")).unwrap();
        fs::remove_file(dir.path().join("state/POINTER")).unwrap();
        let error = open(dir.path()).err().expect("refused");
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        assert_eq!(generations(dir.path()), [generation], "nothing was made or removed");
        fs::write(dir.path().join("state/POINTER"), pointer).unwrap();
    }
}

#[test]
fn two_openers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path()).unwrap();
    let error = open(dir.path()).err().expect("refused");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    drop(state);
    open(dir.path()).unwrap();
}

#[test]
fn a_flipped_bit_is_never_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path()).unwrap();
    let changes = (0..200)
        .map(|n| put(&format!("key{n}"), &format!("value{n}")))
        .collect();
    state.write(changes, &applied(5)).unwrap();
    let good = rows(&state);
    drop(state);
    let tables: Vec<PathBuf> = fs::read_dir(dir.path().join("state/gen-1"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect();
    assert!(!tables.is_empty());
    for table in tables {
        let whole = fs::read(&table).unwrap();
        let mut refused = 0;
        for at in (0..whole.len()).step_by(whole.len() / 12) {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(&table, bad).unwrap();
            match open(dir.path()) {
                Err(_) => refused += 1,
                Ok(state) => match state.read(|view| view.scan(&[], &[0xff], false, usize::MAX)) {
                    Ok(read) => assert_eq!(read, good, "{} at {at}", table.display()),
                    Err(error) => {
                        assert!(matches!(error, Fatal::Corrupt(_)), "{error}");
                        refused += 1;
                    }
                },
            }
            fs::write(&table, &whole).unwrap();
        }
        assert!(refused > 0, "no flipped bit of {} was noticed", table.display());
    }
}

#[test]
fn the_state_counts_itself() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path()).unwrap();
    state.write(vec![put("a", "1")], &applied(1)).unwrap();
    let stats = state.stats();
    assert_eq!(stats.writes, 1);
    assert!(
        stats.disk_bytes > 0 && stats.memtable_bytes > 0 && stats.keys > 0,
        "{stats:?}"
    );
}

/// What is still to be hashed keeps its database; nothing does afterwards.
#[test]
fn a_replaced_state_stays_until_its_hash_is_taken_or_given_up() {
    for take in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let state = open(dir.path()).unwrap();
        state.write(vec![put("a", "1")], &applied(5)).unwrap();
        let hash = state.state_hash().unwrap();
        let later = state.hash_later();
        state.checkpoint(&dir.path().join("snapshot")).unwrap();
        state.install(&dir.path().join("snapshot")).unwrap();
        assert_eq!(generations(dir.path()), ["gen-1", "gen-2"]);
        match take {
            true => assert_eq!(later().unwrap(), hash),
            false => drop(later),
        }
        assert_eq!(generations(dir.path()), ["gen-2"]);
        let later = state.hash_later();
        drop(state);
        assert!(matches!(open(dir.path()), Err(OpenError::Locked { .. })));
        drop(later);
        open(dir.path()).unwrap();
    }
}

/// Rows of 1000 bytes that do not compress, 2000 in each of ten rooms: 2 MB a room.
fn fill_rooms(state: &RocksState) {
    for room in 0..10u64 {
        let row = |n: u64| Change::Put {
            key: format!("room{room}/{n:06}").into_bytes(),
            value: (0..125u64)
                .flat_map(|at| xxhash_rust::xxh3::xxh3_64_with_seed(&at.to_be_bytes(), room << 32 | n).to_be_bytes())
                .collect(),
        };
        for first in (0..2000).step_by(100) {
            let rows = (first..first + 100).map(row).collect();
            state.write(rows, &applied(room * 2000 + first + 1)).unwrap();
        }
    }
}

/// RocksDB removes files in the background.
fn wait_for_bytes_below(state: &RocksState, bytes: u64) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while state.stats().disk_bytes > bytes {
        assert!(
            std::time::Instant::now() < deadline,
            "{} bytes are left",
            state.stats().disk_bytes
        );
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn blocks_in_memory_have_the_bound_that_was_set() {
    let kept_of = |block_cache_bytes| {
        let dir = tempfile::tempdir().unwrap();
        let options = StateOptions {
            block_cache_bytes,
            write_buffer_bytes: 1 << 20,
            ..StateOptions::default()
        };
        let state = RocksState::open(&dir.path().join("state"), options, no_failure()).unwrap();
        fill_rooms(&state);
        state.sync().unwrap();
        let rows = state.read(|view| view.scan(b"room", b"rooz", false, usize::MAX).unwrap());
        assert_eq!(rows.len(), 20_000);
        state.stats().block_cache_bytes
    };
    // Tables that are open hold some blocks beyond it.
    let (small, large) = (kept_of(1 << 20), kept_of(16 << 20));
    assert!(small < 2 << 20, "{small}");
    assert!((4 << 20..18 << 20).contains(&large), "{large}");
}

#[test]
fn the_space_of_deleted_rooms_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = StateOptions {
        write_buffer_bytes: 1 << 20,
        ..StateOptions::default()
    };
    let state = RocksState::open(&dir.path().join("state"), options, no_failure()).unwrap();
    fill_rooms(&state);
    state.sync().unwrap();
    let kept = state.read(|view| view.scan(b"room8", b"room9", false, 9999).unwrap());
    assert!(state.stats().disk_bytes > 20_000_000, "{}", state.stats().disk_bytes);
    let rooms = [
        delete_range("room0", "room5"),
        delete_range("room5", "room8"),
        delete_range("room9", "roomx"),
    ];
    state.write(rooms.to_vec(), &applied(20_001)).unwrap();
    // A reader of before the deletion loses nothing, and takes the space with it when it ends.
    let before = state.hash_later();
    state.reclaim().unwrap();
    drop(before);
    wait_for_bytes_below(&state, 5_000_000);
    assert_eq!(
        state.read(|view| view.scan(b"room", b"rooz", false, 9999).unwrap()),
        kept
    );
    assert_eq!(state.applied().unwrap(), applied(20_001));
}
