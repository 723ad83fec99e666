//! What a crash, compactions and checkpoints leave of the state.

use std::time::{Duration, Instant};

use super::super::suite::{applied, no_failure, put};
use super::*;
use crate::log::suite::copy_tree;

fn row(number: u64) -> Change {
    put(&format!("row {number}"), &"x".repeat(1500))
}

fn open(dir: &Path) -> Result<RocksState, OpenError> {
    RocksState::open(dir, StateOptions::default(), no_failure())
}

/// What a process leaves that is killed: the files as they are, and nothing of what is in its memory.
fn killed(dir: &Path) -> tempfile::TempDir {
    let left = tempfile::tempdir().unwrap();
    copy_tree(dir, left.path());
    left
}

#[test]
fn a_crash_leaves_what_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path()).unwrap();
    assert_eq!(
        open(killed(dir.path()).path()).unwrap().applied().unwrap(),
        Applied::default()
    );
    (1..=5).for_each(|number| state.write(vec![row(number)], &applied(number)).unwrap());
    state.sync().unwrap();
    let hash = state.state_hash().unwrap();
    state.write(vec![row(6)], &applied(6)).unwrap();
    let files = killed(dir.path());
    let left = open(files.path()).unwrap();
    assert_eq!(
        (left.applied().unwrap(), left.state_hash().unwrap()),
        (applied(5), hash)
    );
}

/// Memtables that were full are tables, without anybody having asked for it, and nothing is missing in between.
#[test]
fn a_crash_leaves_what_the_state_was_after_some_write() {
    const ROWS: u64 = 400;
    let small = StateOptions {
        write_buffer_bytes: 64 << 10,
        ..StateOptions::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let state = RocksState::open(dir.path(), small, no_failure()).unwrap();
    let mut found = Vec::new();
    for number in 1..=ROWS {
        state.write(vec![row(number)], &applied(number)).unwrap();
        if number % 40 != 0 {
            continue;
        }
        let files = killed(dir.path());
        let left = open(files.path()).unwrap();
        let last = left.applied().unwrap().last.map_or(0, |last| last.index);
        assert!(last <= number);
        let rows = left.read(|view| view.scan(b"row", b"rox", false, 999).unwrap());
        assert_eq!(rows.len() as u64, last);
        assert!((1..=last).all(|number| rows.iter().any(|(key, _)| *key == format!("row {number}").into_bytes())));
        found.push(last);
    }
    assert!(found.last() > Some(&0), "nothing ever became a table: {found:?}");
}

/// Else each row would be written twice, and a crash could leave more than one thinks.
#[test]
fn rocksdb_keeps_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path()).unwrap();
    (1..=100).for_each(|number| state.write(vec![row(number)], &applied(number)).unwrap());
    let logs = std::fs::read_dir(Pointer::FIRST.dir(dir.path())).unwrap();
    let logs = logs
        .map(|entry| entry.unwrap())
        .filter(|file| file.path().extension().is_some_and(|found| found == "log"));
    let lengths: Vec<u64> = logs.map(|file| file.metadata().unwrap().len()).collect();
    assert!(
        !lengths.is_empty() && lengths.iter().all(|length| *length == 0),
        "{lengths:?}"
    );
}

#[test]
fn whoever_reads_or_writes_makes_compactions_rest() {
    let in_use = |state: &RocksState| state.shared.load.is_in_use();
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path()).unwrap();
    assert!(!in_use(&state));
    state.write(vec![row(1)], &applied(1)).unwrap();
    assert!(in_use(&state));
    drop(state);
    let state = open(dir.path()).unwrap();
    assert!(!in_use(&state));
    state.read(|view| view.get(b"row 1").unwrap());
    assert!(in_use(&state));
}

/// RocksDB shows each row to the filter that paces a compaction, and would drop what that does not keep.
#[test]
fn paced_compactions_keep_every_row() {
    const ROWS: u64 = 4_000;
    let dir = tempfile::tempdir().unwrap();
    let small = StateOptions {
        write_buffer_bytes: 64 << 10,
        ..StateOptions::default()
    };
    let state = RocksState::open(dir.path(), small, no_failure()).unwrap();
    for number in 1..=ROWS {
        state.write(vec![row(number)], &applied(number)).unwrap();
    }
    let current = state.current();
    let deadline = Instant::now() + Duration::from_secs(60);
    let below_the_youngest = || {
        let levels = current.db.property_value("rocksdb.levelstats").unwrap().unwrap();
        let level_1 = levels
            .lines()
            .find(|line| line.trim_start().starts_with("1 "))
            .unwrap()
            .to_owned();
        level_1.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    while below_the_youngest() == 0 {
        assert!(
            Instant::now() < deadline,
            "six megabytes of tables were never compacted"
        );
        std::thread::yield_now();
    }
    state.read(|view| {
        for number in 1..=ROWS {
            let Change::Put { key, value } = row(number) else {
                unreachable!()
            };
            assert_eq!(view.get(&key).unwrap(), Some(value), "row {number}");
        }
    });
    let generation_dir = Pointer::FIRST.dir(dir.path());
    let files = std::fs::read_dir(&generation_dir).unwrap().map(|entry| entry.unwrap());
    let options = files.filter(|file| file.file_name().to_string_lossy().starts_with("OPTIONS-"));
    let options: String = options
        .map(|file| std::fs::read_to_string(file.path()).unwrap())
        .collect();
    assert!(options.contains("quorate.pace"), "{options}");
    assert!(options.contains("periodic_compaction_seconds=0"), "{options}");
}

/// Apply remembers what it needs itself, and would push out what readers come back for.
#[test]
fn readers_rows_are_remembered_and_those_of_apply_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path()).unwrap();
    (1..=9).for_each(|number| state.write(vec![row(number)], &applied(number)).unwrap());
    let remembered = || state.current().read_cache.bytes();
    let look = |view: &dyn View| (1..=9).for_each(|number| drop(view.get(format!("row {number}").as_bytes()).unwrap()));
    state.read_once(look);
    assert_eq!(remembered(), 0);
    state.read(look);
    assert!(remembered() > 9 * 1500, "{}", remembered());
}

/// A checkpoint leaves out the bytes of tables that it shares with the state when it is made durable, and no others.
#[test]
fn only_tables_in_use_are_taken_for_durable() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str| std::fs::write(dir.path().join(name), "x").unwrap();
    let link = |from: &str, to: &str| std::fs::hard_link(dir.path().join(from), dir.path().join(to)).unwrap();
    make("1.sst");
    make("2.sst");
    link("2.sst", "3.sst");
    make("4.log");
    link("4.log", "5.log");
    let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap());
    let mut durable: Vec<_> = files
        .filter(|file| is_table_in_use(file).unwrap())
        .map(|file| file.file_name().into_string().unwrap())
        .collect();
    durable.sort();
    assert_eq!(durable, ["2.sst", "3.sst"]);
}

/// Whatever lies in memory and whatever does not: a reader finds the same, once and in order.
#[test]
fn rows_in_memory_and_on_the_disk_are_read_as_one() {
    const ROWS: u64 = 3_000;
    let key = |number: u64| format!("row {number:06}");
    let value = |number: u64, pass: usize| format!("{pass} of {number} {}", "x".repeat(300));
    let dir = tempfile::tempdir().unwrap();
    let mut expected = std::collections::BTreeMap::new();
    {
        let small = StateOptions {
            write_buffer_bytes: 64 << 10,
            ..StateOptions::default()
        };
        let state = RocksState::open(dir.path(), small, no_failure()).unwrap();
        // Neighbours in different tables, some of them written again, deleted, or deleted with all around them.
        for (pass, step) in [1, 3, 2, 5].into_iter().enumerate() {
            for number in (0..ROWS).step_by(step) {
                state
                    .write(vec![put(&key(number), &value(number, pass))], &applied(1))
                    .unwrap();
                expected.insert(key(number), value(number, pass));
            }
            let gone = key(pass as u64 * 500 + 7);
            let (from, to) = (key(pass as u64 * 600 + 200), key(pass as u64 * 600 + 290));
            expected.remove(&gone);
            expected.retain(|key, _| !(&from..&to).contains(&key));
            let (key, from, to) = (gone.into_bytes(), from.into_bytes(), to.into_bytes());
            let changes = vec![Change::DeleteRange { from, to }, Change::Delete { key }];
            state.write(changes, &applied(1)).unwrap();
        }
        state.sync().unwrap();
    }
    let pairs = expected
        .iter()
        .map(|(key, value)| (key.clone().into_bytes(), value.clone().into_bytes()));
    let pairs: Vec<_> = pairs.collect();
    for warm in [0, 1, 7, 40, 400] {
        for reverse in [false, true] {
            // Nothing is in the cache of a state that was just opened but what is read here.
            let state = open(dir.path()).unwrap();
            state.read_once(|view| {
                for number in (0..warm).map(|number| number * 7919 % ROWS) {
                    let found = view.get(key(number).as_bytes()).unwrap();
                    assert_eq!(found.as_deref(), expected.get(&key(number)).map(String::as_bytes));
                    assert!(view.get(format!("{}x", key(number)).as_bytes()).unwrap().is_none());
                }
                let mut wanted: Vec<_> = pairs[100..2_000].to_vec();
                let (from, to) = (&pairs[100].0, &pairs[2_000].0);
                if reverse {
                    wanted.reverse();
                }
                assert!(view.scan(from, to, reverse, 777).unwrap() == wanted[..777]);
                assert!(view.scan(from, to, reverse, 9_999).unwrap() == wanted);
            });
        }
    }
}

/// On a runtime with one thread: what is in memory leaves that thread alone, and for the disk another one is made.
#[test]
fn only_what_touches_the_disk_is_read_aside() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path()).unwrap();
    (1..=99).for_each(|number| state.write(vec![row(number)], &applied(number)).unwrap());
    // Those that a runtime of one thread has made besides, for one reader.
    let threads = |state: &RocksState, reader: fn(&dyn View)| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let (state, metrics) = (state.clone(), runtime.metrics());
        let reading = runtime.spawn(async move {
            state.read_once(reader);
            metrics.num_blocking_threads()
        });
        runtime.block_on(reading).unwrap()
    };
    let get: fn(&dyn View) = |view| assert!(view.get(b"row 55").unwrap().is_some());
    let scan: fn(&dyn View) = |view| assert_eq!(view.scan(b"row", b"rox", false, 999).unwrap().len(), 99);
    assert_eq!(
        (threads(&state, get), threads(&state, scan)),
        (0, 0),
        "a memtable is memory"
    );
    state.sync().unwrap();
    drop(state);
    let state = open(dir.path()).unwrap();
    assert_eq!(
        threads(&state, get),
        1,
        "but for its first block, a table that was just opened is on the disk"
    );
    drop(state);
    let state = open(dir.path()).unwrap();
    assert_eq!(threads(&state, scan), 1);
    assert_eq!(
        (threads(&state, get), threads(&state, scan)),
        (0, 0),
        "its blocks are in the cache now"
    );
}
