//! What a disk may leave of RocksDB's log, and what becomes of the state then; what compactions and checkpoints leave.

use std::time::{Duration, Instant};

use super::super::suite::{applied, no_failure, put};
use super::*;

/// Files of RocksDB's log that hold writes.
fn logs(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .filter(|path| std::fs::metadata(path).unwrap().len() > 0)
        .collect();
    logs.sort();
    logs
}

fn row(number: u64) -> Change {
    put(&format!("row {number}"), &"x".repeat(1500))
}

/// A closed state of 100 writes in several files of RocksDB's log, none of them in a table yet, as
/// a crash leaves it when the disk is behind.
fn with_several_logs(dir: &Path) -> Vec<PathBuf> {
    drop(RocksState::open(dir, StateOptions::default(), no_failure()).unwrap());
    let small = StateOptions {
        write_buffer_bytes: 64 << 10,
        ..StateOptions::default()
    };
    let mut options = db_options(&small, &Cache::new_lru_cache(1 << 20), &Load::new());
    options.set_min_write_buffer_number_to_merge(4);
    let generation_dir = Pointer::FIRST.dir(dir);
    let db = DB::open(&options, &generation_dir).unwrap();
    for number in 1..=100 {
        let mut batch = batch_of(&[row(number)], &applied(number));
        trail::mark(&mut batch, number);
        db.write(batch).unwrap();
    }
    drop(db);
    let logs = logs(&generation_dir);
    assert!(logs.len() > 1, "{logs:?}");
    logs
}

fn open(dir: &Path) -> Result<RocksState, OpenError> {
    RocksState::open(dir, StateOptions::default(), no_failure())
}

#[test]
fn several_logs_are_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    with_several_logs(dir.path());
    assert_eq!(open(dir.path()).unwrap().applied().unwrap(), applied(100));
}

/// The state would say that it has applied everything. What is in tables cannot be cut back.
#[test]
fn tables_with_a_hole_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let logs = with_several_logs(dir.path());
    std::fs::remove_file(&logs[0]).unwrap();
    // RocksDB alone sees nothing wrong, and writes what is left into tables.
    let options = db_options(&StateOptions::default(), &Cache::new_lru_cache(1 << 20), &Load::new());
    drop(DB::open(&options, Pointer::FIRST.dir(dir.path())).unwrap());
    for _ in 0..2 {
        let error = open(dir.path()).err().expect("refused").to_string();
        assert!(
            error.contains("/gen-1 is damaged") && error.contains("are missing"),
            "{error}"
        );
    }
}

/// Where the records of a file of RocksDB's log end. Blocks of 32 KiB hold fragments, each behind a header of
/// a checksum, a length and a type; 1 is a whole record, 4 the last of several fragments.
fn record_ends(log: &Path) -> Vec<u64> {
    let bytes = std::fs::read(log).unwrap();
    let (mut at, mut ends) = (0, Vec::new());
    while at + 7 <= bytes.len() {
        if (32 << 10) - at % (32 << 10) < 7 {
            at = at.next_multiple_of(32 << 10);
            continue;
        }
        let kind = bytes[at + 6];
        at += 7 + usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
        if matches!(kind, 1 | 4) {
            ends.push(at as u64);
        }
    }
    ends
}

fn cut(log: &Path, length: u64) {
    let file = std::fs::File::options().write(true).open(log).unwrap();
    file.set_len(length).unwrap();
}

/// Opens the state that has lost something of RocksDB's log, and checks that it is what it was after a write;
/// then that the rest can be applied again. Gives the write.
fn comes_back(dir: &Path) -> u64 {
    let whole = tempfile::tempdir().unwrap();
    with_several_logs(whole.path());
    let state = open(dir).unwrap();
    let last = state.applied().unwrap().last.map_or(0, |last| last.index);
    let mut rows: Vec<String> = (1..=last).map(|number| format!("row {number}")).collect();
    rows.sort();
    let found = state.read(|view| view.scan(b"row", b"rox", false, 999).unwrap());
    let found: Vec<String> = found
        .into_iter()
        .map(|(key, _)| String::from_utf8(key).unwrap())
        .collect();
    assert_eq!(found, rows);
    (last + 1..=100).for_each(|number| state.write(vec![row(number)], &applied(number)).unwrap());
    let hash = open(whole.path()).unwrap().state_hash().unwrap();
    assert_eq!(state.state_hash().unwrap(), hash);
    drop(state);
    let again = open(dir).unwrap();
    assert_eq!(again.applied().unwrap(), applied(100), "nothing is cut away again");
    assert_eq!(again.state_hash().unwrap(), hash);
    last
}

/// As a power cut may leave it: an earlier file of the log is short, or empty, and a later one has data.
#[test]
fn a_state_whose_log_has_a_hole_goes_back_to_before_the_hole() {
    let kept_of: [fn(usize) -> usize; 3] = [|_| 0, |_| 1, |records| records - 1];
    for damaged in [0, 1] {
        for kept_of in kept_of {
            let dir = tempfile::tempdir().unwrap();
            let logs = with_several_logs(dir.path());
            assert!(logs.len() > 2, "{logs:?}");
            // Where one file ends and the next begins is RocksDB's to say, and no two times the same.
            let before: usize = logs[..damaged].iter().map(|log| record_ends(log).len()).sum();
            let ends = record_ends(&logs[damaged]);
            let kept = kept_of(ends.len());
            let length = kept.checked_sub(1).map_or(0, |last| ends[last]);
            cut(&logs[damaged], length);
            assert_eq!(
                comes_back(dir.path()),
                (before + kept) as u64,
                "{damaged} cut to {length}"
            );
            let aside = Pointer::FIRST.dir(dir.path()).join("behind-a-hole");
            let aside = std::fs::read_dir(aside).unwrap().count();
            assert_eq!(aside, logs.len() - damaged - 1, "no more than must be");
        }
    }
}

#[test]
fn a_state_without_a_file_of_its_log_goes_back_to_before_it() {
    for (missing, last) in [(0, 0), (1, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let logs = with_several_logs(dir.path());
        let last: u64 = logs[..last].iter().map(|log| record_ends(log).len() as u64).sum();
        std::fs::remove_file(&logs[missing]).unwrap();
        assert_eq!(comes_back(dir.path()), last);
    }
}

/// A crash may come while the files are moved.
#[test]
fn a_hole_is_closed_in_several_attempts() {
    let dir = tempfile::tempdir().unwrap();
    let logs = with_several_logs(dir.path());
    cut(&logs[0], 0);
    let generation_dir = Pointer::FIRST.dir(dir.path());
    for name in ["behind-a-hole", "trial"] {
        std::fs::create_dir(generation_dir.join(name)).unwrap();
    }
    let newest = logs.last().unwrap();
    let aside = generation_dir.join("behind-a-hole").join(newest.file_name().unwrap());
    std::fs::rename(newest, aside).unwrap();
    std::fs::hard_link(
        &logs[0],
        generation_dir.join("trial").join(logs[0].file_name().unwrap()),
    )
    .unwrap();
    assert_eq!(comes_back(dir.path()), 0);
}

/// Each file is whole up to its end, but for the record in which it ends.
#[test]
fn a_log_that_ends_within_a_record_ends_the_state_there() {
    let lost_of: [fn(u64) -> u64; 4] = [|_| 1, |_| 100, |length| length / 2, |length| length];
    for lost_of in lost_of {
        let dir = tempfile::tempdir().unwrap();
        let log = &with_several_logs(dir.path())[0];
        let length = std::fs::metadata(log).unwrap().len();
        cut(log, length - lost_of(length));
        assert!(comes_back(dir.path()) < 100);
    }
}

#[test]
fn writes_are_numbered_on_across_restarts_and_installations() {
    let dir = tempfile::tempdir().unwrap();
    let (path, snapshot) = (dir.path().join("state"), dir.path().join("snapshot"));
    let last = |state: &RocksState| state.current().last_write.load(Ordering::Relaxed);
    let state = open(&path).unwrap();
    (1..=5).for_each(|n| state.write(vec![put("a", "1")], &applied(n)).unwrap());
    assert_eq!(last(&state), 5);
    state.checkpoint(&snapshot).unwrap();
    state.write(vec![put("a", "2")], &applied(6)).unwrap();
    drop(state);
    let state = open(&path).unwrap();
    assert_eq!(last(&state), 6);
    state.install(&snapshot).unwrap();
    assert_eq!(last(&state), 5);
    state.write(vec![put("a", "3")], &applied(6)).unwrap();
    drop(state);
    assert_eq!(last(&open(&path).unwrap()), 6);
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
    assert!(state.shared.load.has_been_written_to());
}

#[test]
fn memtables_are_uneven_and_never_larger_than_asked_for() {
    let mut dice = rand::rng();
    let drawn: Vec<usize> = (0..1000).map(|_| uneven(28 << 20, &mut dice)).collect();
    assert!(
        drawn.iter().all(|bytes| (21 << 20..=28 << 20).contains(bytes)),
        "{drawn:?}"
    );
    assert!(drawn.iter().any(|bytes| *bytes != drawn[0]));
    assert_eq!(uneven(0, &mut dice), 0);
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
