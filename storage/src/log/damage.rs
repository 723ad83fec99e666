//! What only a log on a disk can meet: being closed, damaged, cut, and opened twice.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::suite::{all, append, copy_tree, id, ids, no_failure, open, record, records, small, vote, wait};
use super::{LogOptions, LogState, LogStore, OnSync, Record, RocksLog};
use crate::error::OpenError;

/// Files of the log's directory whose names end so.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

fn wal(dir: &Path) -> PathBuf {
    let mut with_data = files(dir, "log")
        .into_iter()
        .filter(|path| fs::metadata(path).unwrap().len() > 0);
    with_data.next_back().expect("RocksDB has a log with data")
}

fn flip_bit(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, bytes: u64) {
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(bytes)
        .unwrap();
}

/// A closed log with entries 0..20, each written alone, and a vote in term 3.
fn closed_log() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    wait(|done| log.save_vote(vote(3), done)).unwrap();
    (0..20).for_each(|index| append(&log, vec![record(3, index)]).unwrap());
    dir
}

fn assert_lost(dir: &Path) {
    // Looking again does not make it better.
    for _ in 0..2 {
        match open(dir).err() {
            Some(error @ OpenError::LostAcknowledgedData { .. }) => {
                let text = error.to_string();
                assert!(text.contains("log id 3-1-19 and vote 3-1 was on disk"), "{text}");
                assert!(text.contains("must not vote"), "{text}");
            }
            Some(other) => panic!("refused for another reason: {other}"),
            None => panic!("not refused"),
        }
    }
}

#[test]
fn what_was_flushed_is_there_after_a_restart() {
    let dir = closed_log();
    let log = open(dir.path()).unwrap();
    assert_eq!(
        log.state(),
        LogState {
            last: Some(id(3, 19)),
            vote: Some(vote(3)),
            ..LogState::default()
        }
    );
    assert_eq!(log.read(0, 99, usize::MAX).unwrap(), records(3, 0..20));
    assert_eq!(*log.flushed().borrow(), Some(id(3, 19)));
}

#[test]
fn committed_is_written_at_the_latest_when_the_log_is_closed() {
    let dir = closed_log();
    let log = open(dir.path()).unwrap();
    log.save_committed(Some(id(3, 7)));
    drop(log);
    assert_eq!(open(dir.path()).unwrap().state().committed, Some(id(3, 7)));
}

#[test]
fn a_missing_rocksdb_log_is_a_loss() {
    let dir = closed_log();
    fs::remove_file(wal(dir.path())).unwrap();
    assert_lost(dir.path());
}

#[test]
fn a_missing_directory_is_a_loss() {
    let dir = closed_log();
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    assert_lost(dir.path());
}

/// What is left must not be cleaned away: it may be all that a person can still read.
#[test]
fn a_missing_current_file_is_a_loss_that_is_not_made_worse() {
    let dir = closed_log();
    let current = dir.path().join("log/CURRENT");
    let named = fs::read(&current).unwrap();
    fs::remove_file(&current).unwrap();
    assert_lost(dir.path());
    fs::write(&current, named).unwrap();
    assert_eq!(all(&open(dir.path()).unwrap()), ids(3, 0..20));
}

#[test]
fn a_rocksdb_log_cut_anywhere_below_the_mark_is_a_loss() {
    for tenths in [0, 3, 9] {
        let dir = closed_log();
        let wal = wal(dir.path());
        cut(&wal, fs::metadata(&wal).unwrap().len() * tenths / 10);
        assert_lost(dir.path());
    }
}

#[test]
fn a_flipped_bit_below_the_mark_is_a_loss() {
    for tenths in [1, 5, 9] {
        let dir = closed_log();
        let wal = wal(dir.path());
        flip_bit(&wal, fs::metadata(&wal).unwrap().len() as usize * tenths / 10);
        assert_lost(dir.path());
    }
}

#[test]
fn a_lost_vote_is_a_loss() {
    let dir = closed_log();
    // The vote is written last, and cut off with the last bytes.
    let log = open(dir.path()).unwrap();
    wait(|done| log.save_vote(vote(4), done)).unwrap();
    drop(log);
    let wal = wal(dir.path());
    cut(&wal, fs::metadata(&wal).unwrap().len() - 1);
    let error = open(dir.path()).err().expect("refused").to_string();
    assert!(
        error.contains("and vote 4-1 was on disk") && error.contains("and vote 3-1 is found"),
        "{error}"
    );
}

/// A torn tail: what was written, but never confirmed, ends somewhere.
#[test]
fn damage_above_the_mark_is_cut() {
    for (name, damage) in [
        (
            "cut",
            (|wal| cut(wal, fs::metadata(wal).unwrap().len() - 1)) as fn(&Path),
        ),
        ("bit", |wal| {
            flip_bit(wal, fs::metadata(wal).unwrap().len() as usize - 3)
        }),
        ("garbage", |wal| {
            let mut bytes = fs::read(wal).unwrap();
            bytes.extend_from_slice(&[0xa5; 1000]);
            fs::write(wal, bytes).unwrap();
        }),
    ] {
        let dir = closed_log();
        let mark = fs::read(dir.path().join("log.mark")).unwrap();
        let log = open(dir.path()).unwrap();
        append(&log, records(3, 20..22)).unwrap();
        append(&log, records(3, 22..24)).unwrap();
        drop(log);
        fs::write(dir.path().join("log.mark"), mark).unwrap();
        damage(&wal(dir.path()));
        let log = open(dir.path()).unwrap();
        let end = if name == "garbage" { 24 } else { 22 };
        assert_eq!(all(&log), ids(3, 0..end), "{name}");
        append(&log, records(4, end..end + 2)).unwrap();
        drop(log);
        let log = open(dir.path()).unwrap();
        assert_eq!(all(&log), [ids(3, 0..end), ids(4, end..end + 2)].concat(), "{name}");
    }
}

#[test]
fn a_truncation_lowers_the_mark_legitimately() {
    let dir = closed_log();
    let log = open(dir.path()).unwrap();
    wait(|done| log.truncate_after(Some(4), done)).unwrap();
    drop(log);
    assert_eq!(open(dir.path()).unwrap().state().last, Some(id(3, 4)));
}

/// The mark is lowered first: dying between the two must not look like a loss.
#[test]
fn a_crash_between_mark_and_truncation_is_no_loss() {
    let dir = closed_log();
    let whole = tempfile::tempdir().unwrap();
    copy_tree(dir.path(), whole.path());
    let log = open(dir.path()).unwrap();
    wait(|done| log.truncate_after(Some(4), done)).unwrap();
    drop(log);
    fs::copy(dir.path().join("log.mark"), whole.path().join("log.mark")).unwrap();
    assert_eq!(open(whole.path()).unwrap().state().last, Some(id(3, 19)));
}

#[test]
fn a_log_without_a_mark_gets_one() {
    let dir = closed_log();
    fs::remove_file(dir.path().join("log.mark")).unwrap();
    assert_eq!(open(dir.path()).unwrap().state().last, Some(id(3, 19)));
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    assert_lost(dir.path());
}

#[test]
fn a_damaged_mark_is_refused() {
    let dir = closed_log();
    fs::write(dir.path().join("log.mark"), [7; 8192]).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Corrupt { .. })));
}

/// Opening a log writes it into tables; what is damaged there is noticed when it is read.
#[test]
fn a_flipped_bit_in_a_table_is_never_a_wrong_answer() {
    let dir = closed_log();
    drop(open(dir.path()).unwrap());
    let good = tempfile::tempdir().unwrap();
    copy_tree(dir.path(), good.path());
    let tables = files(dir.path(), "sst");
    assert!(!tables.is_empty());
    for table in tables {
        let size = fs::metadata(&table).unwrap().len() as usize;
        for at in (0..size).step_by(size / 12) {
            flip_bit(&table, at);
            if let Ok(log) = open(dir.path()) {
                match log.read(0, 99, usize::MAX) {
                    Ok(read) => assert_eq!(read, records(3, 0..20), "{} at {at}", table.display()),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}"),
                }
            }
            fs::remove_dir_all(dir.path().join("log")).unwrap();
            copy_tree(good.path(), dir.path());
        }
    }
}

#[test]
fn two_openers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    let error = open(dir.path()).err().expect("refused");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    drop(log);
    open(dir.path()).unwrap();
}

#[test]
fn groups_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let group = |group| LogOptions { group, ..small() };
    let log = RocksLog::open(&dir.path().join("log"), group(1), no_failure()).unwrap();
    append(&log, records(1, 0..5)).unwrap();
    drop(log);
    fs::remove_file(dir.path().join("log.mark")).unwrap();
    let log = RocksLog::open(&dir.path().join("log"), group(0), no_failure()).unwrap();
    assert_eq!(all(&log), []);
    append(&log, records(2, 0..9)).unwrap();
    wait(|done| log.truncate_after(None, done)).unwrap();
    wait(|done| log.purge(id(2, 7), done)).unwrap();
    drop(log);
    fs::remove_file(dir.path().join("log.mark")).unwrap();
    let log = RocksLog::open(&dir.path().join("log"), group(1), no_failure()).unwrap();
    assert_eq!(all(&log), ids(1, 0..5));
}

#[test]
fn many_appends_share_few_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let synced = Arc::new(Mutex::new(0));
    let on_sync: OnSync = {
        let synced = synced.clone();
        Arc::new(move |_, entries| *synced.lock().unwrap() += entries)
    };
    let options = LogOptions {
        on_sync: Some(on_sync),
        ..LogOptions::default()
    };
    let log = RocksLog::open(&dir.path().join("log"), options, no_failure()).unwrap();
    (0..2000).for_each(|index| log.append(vec![record(1, index)], Box::new(|result| assert!(result.is_ok()))));
    log.close();
    let stats = log.stats();
    assert_eq!((stats.entries, *synced.lock().unwrap()), (2000, 2000));
    assert!(stats.syncs < 1000, "{} syncs for 2000 entries", stats.syncs);
    assert!(stats.disk_bytes > 2000 * 30 && stats.sync_nanos > 0);
}

/// What is not read at the start is estimated, well enough to purge by.
#[test]
fn a_log_knows_after_a_restart_what_it_weighs() {
    let dir = tempfile::tempdir().unwrap();
    let options = |cache_bytes_max| LogOptions {
        write_buffer_bytes: 1 << 20,
        cache_bytes_max,
        ..LogOptions::default()
    };
    let open =
        |cache_bytes_max| RocksLog::open(&dir.path().join("log"), options(cache_bytes_max), no_failure()).unwrap();
    let log = open(0);
    // The first half is small entries, the second large ones: 2 MiB and 20 MiB.
    let entry = |index: u64| Record {
        id: id(1, index),
        payload: Bytes::from(vec![7; if index < 500 { 4 << 10 } else { 40 << 10 }]),
    };
    (0..20).for_each(|n| append(&log, (50 * n..50 * n + 50).map(entry).collect()).unwrap());
    let exact = log.stats().retained_bytes;
    assert_eq!(exact, 500 * ((44 << 10) + 2 * 64));
    drop(log);
    for cache_bytes_max in [0, 4 << 20, 64 << 20] {
        let log = open(cache_bytes_max);
        let stats = log.stats();
        assert_eq!((stats.first_index, stats.retained_entries), (Some(0), 1000));
        let off = stats.retained_bytes.abs_diff(exact);
        assert!(off < exact / 20, "{} instead of {exact}", stats.retained_bytes);
        assert_eq!(log.index_older_than(Duration::from_secs(3600)), None);
        let index = log.index_to_keep_bytes(10 << 20).unwrap();
        let kept = (999 - index) * ((40 << 10) + 64);
        assert!(((8 << 20)..=(10 << 20) + (1 << 19)).contains(&kept), "{kept}");
    }
}

/// Purged space comes back, also when it lay in many files.
#[test]
fn a_purged_log_takes_little_space() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        write_buffer_bytes: 256 << 10,
        cache_bytes_max: 0,
        ..LogOptions::default()
    };
    let log = RocksLog::open(&dir.path().join("log"), options, no_failure()).unwrap();
    let payload = Bytes::from(vec![7; 8 << 10]);
    for first in (0..1000).step_by(50) {
        let entry = |index| Record {
            id: id(1, index),
            payload: payload.clone(),
        };
        append(&log, (first..first + 50).map(entry).collect()).unwrap();
    }
    assert!(log.stats().disk_bytes >= 1000 * (8 << 10));
    wait(|done| log.purge(id(1, 989), done)).unwrap();
    assert_eq!(all(&log), ids(1, 990..1000));
    // RocksDB removes files in the background. What stays are a few that it has just written.
    let deadline = Instant::now() + Duration::from_secs(20);
    while log.stats().disk_bytes > 4_000_000 {
        assert!(Instant::now() < deadline, "{} bytes are left", log.stats().disk_bytes);
        std::thread::sleep(Duration::from_millis(1));
    }
    log.close();
    drop(log);
    let log = open(dir.path()).unwrap();
    assert_eq!(all(&log), ids(1, 990..1000));
    append(&log, records(1, 1000..1001)).unwrap();
}
